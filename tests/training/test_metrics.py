"""metrics.jsonl and event files: means, evaluations, pictures, and each step once after a restart."""

import json
import math
import struct

import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto.event_pb2 import Event, SessionLog

from c2am_jax.training.metrics import MetricWriter, means


def events(workdir):
    """All events of a folder, in the order in which TensorBoard reads its files."""
    for path in sorted(workdir.glob("events.out.tfevents.*")):
        content, at = path.read_bytes(), 0
        while at < len(content):  # length, its checksum, the event, its checksum
            (length,) = struct.unpack_from("<Q", content, at)
            event = Event()
            event.ParseFromString(content[at + 12 : at + 12 + length])
            yield event
            at += 16 + length


def shown(workdir):
    """``{tag: [(step, value), ...]}`` as TensorBoard shows it: a start after the first drops what is behind it."""
    found, started = {}, False
    for event in events(workdir):
        if event.session_log.status == SessionLog.START:
            if started:
                found = {tag: [p for p in points if p[0] < event.step] for tag, points in found.items()}
            started = True
        for value in event.summary.value:
            content = value.image if value.HasField("image") else value.simple_value
            found.setdefault(value.tag, []).append((event.step, content))
    return found


def lines(workdir):
    def no_number(text):
        raise AssertionError(text)

    text = (workdir / "metrics.jsonl").read_text()
    return [json.loads(line, parse_constant=no_number) for line in text.splitlines()]


def test_means_leave_out_what_is_no_number():
    steps = [{"loss": np.float32(1), "margin": math.nan}, {"loss": 2.0, "margin": 3.0, "norm": math.inf}, {"loss": 6}]
    assert means(steps) == {"loss": 3.0, "margin": 3.0}
    value = np.float32(0.1)
    assert means([{"loss": value}]) == {"loss": float(value)}


@pytest.mark.parametrize("start", [0, 2])
def test_each_step_is_shown_once_after_a_kill(tmp_path, start):
    first = MetricWriter(tmp_path)
    for step in range(1, 6):
        first.write(step, {"loss": step})
    first.write_evaluation(5, {"bbox/AP": 0.5})
    first.close()  # killed after its last checkpoint at `start`
    again = MetricWriter(tmp_path, start_step=start)
    for step in range(start + 1, 5):
        again.write(step, {"loss": 10 * step})
    again.close()
    expected = [(s, s) for s in range(1, start + 1)] + [(s, 10 * s) for s in range(start + 1, 5)]
    assert [(line["step"], line["loss"]) for line in lines(tmp_path)] == expected
    assert len(list(tmp_path.glob("events.*"))) == 2
    assert {tag: points for tag, points in shown(tmp_path).items() if points} == {"loss": expected}


def test_an_evaluation_is_a_line_of_its_own_with_its_pictures(tmp_path):
    Image.new("RGB", (40, 30)).save(tmp_path / "pictures.jpg")
    metrics = {"bbox/AP": 0.25, "bbox/APr": -1.0, "segm/AP": 0.125}
    for start in (0, 3):  # the second start finds a finished run, and evaluates it again
        writer = MetricWriter(tmp_path, start_step=start)
        if not start:
            writer.write(3, {"loss": 1.0, "odd": math.nan})
        writer.write_evaluation(3, metrics, tmp_path / "pictures.jpg")
        writer.close()
    assert lines(tmp_path) == [{"step": 3, "loss": 1.0}, {"step": 3, "eval/bbox/AP": 0.25, "eval/segm/AP": 0.125}]
    seen = shown(tmp_path)
    assert {tag: len(points) for tag, points in seen.items()} == dict.fromkeys(
        ("loss", "eval/bbox/AP", "eval/segm/AP", "eval/pictures"), 1
    )
    step, picture = seen["eval/pictures"][0]
    assert step == 3 and (picture.width, picture.height) == (40, 30)
    assert picture.encoded_image_string == (tmp_path / "pictures.jpg").read_bytes()
