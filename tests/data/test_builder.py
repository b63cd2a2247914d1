"""Preparation: what is kept, what is skipped and counted, and that records come back."""

import fcntl
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import annotation
from PIL import Image

from c2am_jax.browse.survey import survey
from c2am_jax.data import builder, prepared, shards
from c2am_jax.data.lvis import AnnotationError
from c2am_jax.data.records import parse_record
from c2am_jax.data.tensorflow_host import tf
from c2am_jax.errors import UserError


def prepare_tiny(tiny, tmp_path, name="tiny"):
    annotations, images = tiny[1]()
    report = builder.prepare(annotations, images, name, tmp_path / "data")
    return report, prepared.load(name, tmp_path / "data")


def stored_bytes(dataset, index):
    """The picture of a record as it is stored."""
    record = tf.train.Example.FromString(dataset.read(index))
    return record.features.feature["image"].bytes_list.value[0]


def test_records_hold_the_original_jpeg_and_the_instances(tiny, tmp_path):
    report, dataset = prepare_tiny(tiny, tmp_path)
    assert (report["images"], report["instances"], report["skipped"]) == (4, 4, {})
    np.testing.assert_array_equal(dataset.image_id, [1, 2, 3, 4])
    np.testing.assert_array_equal(dataset.image_hw, [(48, 64), (64, 48), (40, 40), (64, 64)])
    assert [dataset.labels_of(i).tolist() for i in range(4)] == [[2, 0], [1], [], [1]]
    jpeg = stored_bytes(dataset, 0)
    _, _, (boxes, _, masks) = parse_record(dataset.read(0))
    assert jpeg == (tmp_path / "images" / "train2017" / "000000000001.jpg").read_bytes()
    np.testing.assert_allclose(boxes[0], [4, 6, 24, 22])
    assert np.unpackbits(masks[0].numpy(), axis=-1).all()


def test_bad_images_and_annotations_are_skipped_counted_and_listed(tiny, tmp_path):
    content, _ = tiny
    folder = tmp_path / "images" / "train2017"
    (folder / "000000000002.jpg").write_bytes((folder / "000000000002.jpg").read_bytes()[:-200])
    (folder / "000000000003.jpg").unlink()
    content["images"][3]["width"] = 65
    content["annotations"][0]["bbox"] = [4.0, 6.0, 0.0, 16.0]
    content["annotations"][1]["segmentation"] = [[500.0, 500.0, 510.0, 500.0, 510.0, 510.0]]
    report, dataset = prepare_tiny(tiny, tmp_path)
    assert report["skipped"] == {
        "degenerate box": 1,
        "mask unusable": 1,
        "image file truncated or corrupt": 1,
        "image file missing": 1,
        "image of another size": 1,
    }
    listed = json.dumps(report["skipped_entries"])
    for named in ("image 2", "image 3", "image 4", "the json says", "annotation 1", "annotation 2"):
        assert named in listed
    np.testing.assert_array_equal(dataset.image_id, [1])
    assert len(dataset.labels_of(0)) == 0


def test_nothing_usable_is_an_error_that_names_an_image(tiny, tmp_path):
    annotations, images = tiny[1]()
    for file in (images / "train2017").iterdir():
        file.unlink()
    with pytest.raises(FileNotFoundError, match="not one of its images.*image 1"):
        builder.prepare(annotations, images, "tiny", tmp_path / "data")
    assert not prepared.is_prepared("tiny", tmp_path / "data")


def test_records_of_another_file_are_refused(tiny, tmp_path):
    content, write = tiny
    prepare_tiny(tiny, tmp_path)
    content["annotations"].pop()
    with pytest.raises(AnnotationError, match="was prepared from another file"):
        prepared.load("tiny", tmp_path / "data", annotations=write()[0])


def test_an_unfinished_preparation_does_not_open(tiny, tmp_path):
    prepare_tiny(tiny, tmp_path)
    (prepared.folder_of("tiny", tmp_path / "data") / "report.json").unlink()
    with pytest.raises(FileNotFoundError, match="no finished data set"):
        prepared.load("tiny", tmp_path / "data")


def test_a_file_that_is_no_picture_is_skipped(tiny, tmp_path):
    (tmp_path / "images" / "train2017" / "000000000001.jpg").write_bytes(b"text")
    report, _ = prepare_tiny(tiny, tmp_path)
    assert report["skipped"] == {"image file not a picture": 1}


def test_a_cameras_picture_with_a_second_one_inside_is_a_jpeg(tiny, tmp_path):
    path = tmp_path / "images" / "train2017" / "000000000001.jpg"
    stream = io.BytesIO()
    picture = Image.open(path)
    picture.save(stream, "MPO", save_all=True, append_images=[picture])
    assert Image.open(io.BytesIO(stream.getvalue())).format == "MPO"
    path.write_bytes(stream.getvalue())
    report, dataset = prepare_tiny(tiny, tmp_path)
    assert report["skipped"] == {} and stored_bytes(dataset, 0) == stream.getvalue()


@pytest.mark.parametrize("told", [True, False])
def test_a_picture_of_100_megapixels_is_skipped_before_it_is_decoded(tiny, tmp_path, monkeypatch, told):
    stream = io.BytesIO()
    Image.new("L", (12_500, 8_000)).save(stream, "JPEG", quality=1)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    (tmp_path / "images" / "train2017" / "000000000001.jpg").write_bytes(stream.getvalue())
    if told:
        tiny[0]["images"][0].update(height=8_000, width=12_500)
        tiny[0]["images"][1:], tiny[0]["annotations"][2:] = [], []
        with pytest.raises(UserError, match="image 1: height 8000 and width 12500 are more than 50 megapixels"):
            prepare_tiny(tiny, tmp_path)
    else:
        from c2am_jax.data.jpeg import ImageFault
        from c2am_jax.data.pictures import stored

        with pytest.raises(ImageFault, match="height 8000 and width 12500"):
            stored(stream.getvalue(), (48, 64))


@pytest.mark.parametrize(
    "segmentation",
    [[[1.0, 2.0, "three", 4.0, 5.0, 6.0]], [1, 2, 3, 4, 5, 6], [None], {"size": [48, 64], "counts": [-3, 3075]}, "x"],
)
def test_segmentations_that_are_no_numbers_are_dropped_by_name(tiny, tmp_path, segmentation):
    tiny[0]["annotations"][0]["segmentation"] = segmentation
    report, dataset = prepare_tiny(tiny, tmp_path)
    assert report["skipped"] == {"mask unusable": 1} and len(dataset.labels_of(0)) == 1
    assert "annotation 1 of image 1" in report["skipped_entries"]["mask unusable"][0]


def test_images_without_annotations_are_kept_and_counted(tiny, tmp_path):
    report, dataset = prepare_tiny(tiny, tmp_path)
    assert report["images_without_annotations"] == 1 and len(dataset) == 4


def test_a_record_damaged_after_preparation_is_named_and_never_read_wrongly(tiny, tmp_path):
    _, dataset = prepare_tiny(tiny, tmp_path)
    records = [dataset.read(i) for i in range(4)]
    (shard,) = dataset.folder.glob("*array_record*")
    content, named = shard.read_bytes(), set()
    for at in range(200, len(content) // 20, 500):  # the rest of the small file is padding
        shard.write_bytes(content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :])
        damaged = prepared.load("tiny", tmp_path / "data")
        for i, record in enumerate(records):
            try:
                assert damaged.read(i) == record
            except prepared.UnreadableRecord as error:
                assert f"record {i} (image {i + 1})" in str(error)
                named.add(i)
    assert named


PREPARE_AND_DIE = """
import os, sys
from c2am_jax.data import builder, shards, prepared
annotations, images, data_dir, workers, at = sys.argv[1:]
shards.IMAGES_PER_SHARD = 3
check, seen = shards.stored, 0
def die(content, hw):
    global seen
    seen += 1
    if seen == int(at):
        os.kill(os.getpid(), 9)
    return check(content, hw)
shards.stored = die
if __name__ == "__main__":
    builder.prepare(annotations, images, "tiny", data_dir, workers=int(workers))
"""


def larger(tiny, images=20):
    """The tiny set several times over; (annotations, images)."""
    content, write = tiny
    rng = np.random.default_rng(4)
    content["images"] = [{**content["images"][i % 4], "id": 100 + i} for i in range(images)]
    content["annotations"] = [
        annotation(number, 100 + int(rng.integers(images)), int(rng.choice([2, 5, 7])), [4.0, 6.0, 20.5, 16.25])
        for number in range(5 * images)
    ]
    return write()


def bytes_of(folder):
    """Of all files but the report, which may tell of other paths."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.suffix != ".npz"}


def test_a_killed_preparation_goes_on_and_gives_the_same_bytes(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "IMAGES_PER_SHARD", 3)
    annotations, images = larger(tiny)
    builder.prepare(annotations, images, "tiny", tmp_path / "whole")
    whole = prepared.folder_of("tiny", tmp_path / "whole")
    at = int(np.random.default_rng().integers(1, 21))  # another moment in every run; any must do
    arguments = [str(annotations), str(images), str(tmp_path / "data"), "1", str(at)]
    killed = subprocess.run([sys.executable, "-c", PREPARE_AND_DIE, *arguments], capture_output=True)
    assert killed.returncode == -9, killed.stderr.decode()
    folder = prepared.folder_of("tiny", tmp_path / "data")
    assert not prepared.is_prepared("tiny", tmp_path / "data")
    done = {path: os.stat(path).st_mtime_ns for path in folder.glob("*of-00007")}
    assert len(done) == sum(at > edge for edge in (2, 5, 8, 11, 14, 17)), at
    builder.prepare(annotations, images, "tiny", tmp_path / "data")
    assert all(os.stat(path).st_mtime_ns == time for path, time in done.items()), "a finished shard was made again"
    assert bytes_of(folder) == bytes_of(whole), f"killed at image {at}"
    assert not list(folder.glob("*partial")) and not (folder / "parts").exists()


def test_several_processes_give_the_bytes_of_one(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "IMAGES_PER_SHARD", 5)
    annotations, images = larger(tiny)
    reports = [builder.prepare(annotations, images, "tiny", tmp_path / str(n), workers=n) for n in (1, 2)]
    assert reports[0] == reports[1] and reports[0]["images"] == 20
    one, two = (bytes_of(prepared.folder_of("tiny", tmp_path / str(n))) for n in (1, 2))
    assert one == two and len([name for name in one if "array_record" in name]) == 4


def test_a_killed_worker_is_one_line_and_costs_only_its_shard(tiny, tmp_path):
    annotations, images = larger(tiny)
    arguments = [str(annotations), str(images), str(tmp_path / "data"), "2", "2"]
    (tmp_path / "script.py").write_text(PREPARE_AND_DIE)
    command = [sys.executable, str(tmp_path / "script.py"), *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": os.getcwd()})
    assert ended.returncode == 1 and "WorkerDied" in ended.stderr.splitlines()[-1]
    assert "with fewer --workers" in ended.stderr


def test_images_that_were_missing_are_looked_for_again(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "IMAGES_PER_SHARD", 2)
    annotations, images = tiny[1]()
    missing = images / "train2017" / "000000000002.jpg"
    content = missing.read_bytes()
    missing.unlink()
    monkeypatch.setattr(builder, "write_evaluation_json", lambda *_: 1 / 0)  # interrupted after the last shard
    with pytest.raises(ZeroDivisionError):
        builder.prepare(annotations, images, "tiny", tmp_path / "data")
    monkeypatch.undo()
    monkeypatch.setattr(shards, "IMAGES_PER_SHARD", 2)
    missing.write_bytes(content)
    report, dataset = prepare_tiny(tiny, tmp_path)
    assert report["skipped"] == {} and dataset.image_id.tolist() == [1, 2, 3, 4]


def test_an_interrupted_preparation_of_other_files_is_dropped(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(builder, "write_evaluation_json", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        prepare_tiny(tiny, tmp_path)
    assert prepared.folder_of("tiny", tmp_path / "data").is_dir()
    assert not prepared.is_prepared("tiny", tmp_path / "data")
    monkeypatch.undo()
    tiny[0]["annotations"].pop(0)
    report, dataset = prepare_tiny(tiny, tmp_path)
    assert report["instances"] == 3 and dataset.labels_of(0).tolist() == [0]


def test_what_another_process_finished_is_left_alone_unless_it_is_to_be_replaced(tiny, tmp_path):
    prepare_tiny(tiny, tmp_path)
    stamp = prepared.folder_of("tiny", tmp_path / "data") / "report.json"
    before = os.stat(stamp).st_mtime_ns
    builder.prepare(*tiny[1](), "tiny", tmp_path / "data", replace=False)
    assert os.stat(stamp).st_mtime_ns == before
    builder.prepare(*tiny[1](), "tiny", tmp_path / "data")
    assert os.stat(stamp).st_mtime_ns > before


def test_writers_of_one_data_set_take_turns(tmp_path):
    with builder.turns("tiny", tmp_path), builder.turns("other", tmp_path):
        (lock,) = tmp_path.glob("*tiny*")
        with open(lock) as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert not list(tmp_path.iterdir())


def test_names_that_are_no_folder_names_and_empty_files_are_refused(tiny, tmp_path):
    content, write = tiny
    for name in ("../up", "a/b", "", ".hidden"):
        with pytest.raises(UserError, match="no name of a data set"):
            builder.prepare(*write(), name, tmp_path / "data")
    content["images"], content["annotations"] = [], []
    with pytest.raises(UserError, match="'images' is empty"):
        builder.prepare(*write(), "tiny", tmp_path / "data")


def test_records_keep_the_order_of_the_index_over_several_shards(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "IMAGES_PER_SHARD", 2)
    (tmp_path / "images" / "train2017" / "000000000002.jpg").unlink()
    tiny[0]["images"].reverse()
    _, dataset = prepare_tiny(tiny, tmp_path)
    assert len(list(dataset.folder.glob("*array_record*"))) == 2
    read = [int(parse_record(dataset.read(i))[1]) for i in range(3)]
    np.testing.assert_array_equal(read, [4, 3, 1])
    np.testing.assert_array_equal(dataset.image_id, read)


def test_a_shard_without_one_usable_image_does_no_harm(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "IMAGES_PER_SHARD", 1)
    (tmp_path / "images" / "train2017" / "000000000002.jpg").unlink()
    _, dataset = prepare_tiny(tiny, tmp_path)
    read = [int(parse_record(dataset.read(i))[1]) for i in range(3)]
    assert read == [1, 3, 4] == dataset.image_id.tolist()


SLOW_WORKERS = """
import os, signal, sys, time
if __name__ == "__main__":  # a shell's background jobs start with SIGINT ignored
    signal.signal(signal.SIGINT, signal.default_int_handler)
from c2am_jax.data import builder, shards, prepared
annotations, images, data_dir = sys.argv[1:]
shards.IMAGES_PER_SHARD = 1
check = shards.stored
def slow(content, hw):
    os.write(1, b"%d\\n" % os.getpid())
    time.sleep(0.1)
    return check(content, hw)
shards.stored = slow
if __name__ == "__main__":
    from c2am_jax.data import prepare
    options = ["--annotations", annotations, "--images", images, "--name", "tiny", "--out", data_dir, "--workers", "2"]
    sys.exit(prepare.main(options))
"""


def alive(process):
    """Whether it runs; what nobody has waited for yet does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")")[-1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks /proc")
def test_killed_at_any_moment_all_processes_end_and_the_rest_is_made(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "IMAGES_PER_SHARD", 1)
    annotations, images = larger(tiny)
    builder.prepare(annotations, images, "tiny", tmp_path / "whole", workers=1)
    (tmp_path / "script.py").write_text(SLOW_WORKERS)
    command = [sys.executable, str(tmp_path / "script.py"), str(annotations), str(images), str(tmp_path / "data")]
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as process:
        workers = {int(process.stdout.readline()) for _ in range(4)}
        time.sleep(np.random.default_rng().uniform(0, 0.6))
        process.kill()
    deadline = time.monotonic() + 20
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, workers)), "processes that nobody waits for go on"
    folder = prepared.folder_of("tiny", tmp_path / "data")
    done = len(list(folder.glob("parts/000*.json")))
    assert 0 < done < 20 and not prepared.is_prepared("tiny", tmp_path / "data")
    builder.prepare(annotations, images, "tiny", tmp_path / "data", workers=1)
    assert bytes_of(folder) == bytes_of(prepared.folder_of("tiny", tmp_path / "whole"))


def test_an_interrupt_from_the_keyboard_ends_all_processes_with_one_line(tiny, tmp_path):
    annotations, images = larger(tiny)
    (tmp_path / "script.py").write_text(SLOW_WORKERS)
    command = [sys.executable, str(tmp_path / "script.py"), str(annotations), str(images), str(tmp_path / "data")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "start_new_session": True}
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    with subprocess.Popen(command, env=environment, **pipes) as process:
        workers = {int(process.stdout.readline()) for _ in range(4)}
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert said.decode().splitlines()[-1].startswith("interrupted: run the same command again")
    assert b"Traceback" not in said and not any(map(alive, workers))


def test_some_of_the_images_are_read_as_in_the_whole(tiny, tmp_path):
    _, dataset = prepare_tiny(tiny, tmp_path)
    some = dataset.of_images({4, 2, 99})
    assert some.image_id.tolist() == [2, 4] and [some.labels_of(i).tolist() for i in (0, 1)] == [[1], [1]]
    assert [some.read(i) for i in (0, 1)] == [dataset.read(i) for i in (1, 3)]
    assert some.of_images({4}).read(0) == dataset.read(3) and len(some.of_images({1})) == 0


def test_boxes_that_look_like_corners_are_told(tiny, tmp_path):
    for entry in tiny[0]["annotations"]:
        x, y, w, h = entry["bbox"]
        entry["bbox"] = [x, y, x + w, y + h]
    tiny[0]["annotations"][3] = annotation(4, 4, 5, [20.0, 30.0, 40.0, 30.0]) | {"bbox": [20.0, 30.0, 60.0, 60.0]}
    report, _ = prepare_tiny(tiny, tmp_path)
    assert report["suspicious"] == ["4 of 4 boxes look like x1, y1, x2, y2: bbox has to be x, y, width, height"]
    assert survey(str(tmp_path / "annotations.json"), tmp_path / "images").counts()["corners"] == (4, 3)


def test_preparation_and_browse_count_the_same_boxes_and_only_those_that_are_cut_and_kept(tiny, tmp_path):
    """One that looks like corners, one that is kept and cut, and three beyond the border that are left out or not."""
    content, boxes = tiny[0], [(30, 10, 40, 40), (-9, 6, 29, 16), (200, 8, 24, 32), (-9, 8, 0.5, 32), (-9, 8, 33, 32)]
    content["annotations"] = [annotation(number, 1, 7, box) for number, box in enumerate(boxes, 1)]
    content["annotations"][0]["segmentation"] = [[30, 10, 40, 10, 40, 40, 30, 40]]
    content["annotations"][4]["segmentation"] = [[8, 8, 32, 40]]
    report, _ = prepare_tiny(tiny, tmp_path)
    assert report["suspicious"] == [
        "1 of 5 boxes looks like x1, y1, x2, y2: bbox has to be x, y, width, height",
        "1 of 5 boxes reaches outside its picture: it is cut off at its border",
    ]
    assert report["skipped"] == {"degenerate box": 2, "mask unusable": 1}
    found = survey(str(tmp_path / "annotations.json"), tmp_path / "images").counts()
    kinds = {key: found[key][0] for key in ("corners", "outside", "degenerate")}
    assert kinds == {"corners": 1, "outside": 1, "degenerate": 2}


def test_boxes_that_do_not_fit_their_masks_and_reach_outside_are_told(tiny, tmp_path):
    tiny[0]["annotations"][0]["bbox"] = [4.0, 6.0, 50.0, 40.0]
    tiny[0]["annotations"][1]["bbox"] = [30.0, 10.0, 10.0, 60.0]
    report, _ = prepare_tiny(tiny, tmp_path)
    assert report["noted_entries"]["box that does not fit its mask"] == ["annotation 1 of image 1"]
    assert report["suspicious"] == ["1 of 4 boxes reaches outside its picture: it is cut off at its border"]


def test_a_record_of_an_older_version_has_no_orientation_and_is_read(tiny, tmp_path):
    _, dataset = prepare_tiny(tiny, tmp_path)
    record = tf.train.Example.FromString(dataset.read(0))
    del record.features.feature["orientation"]
    pixels, image_id, _ = parse_record(record.SerializeToString())
    assert int(image_id) == 1 and (pixels.numpy() == parse_record(dataset.read(0))[0].numpy()).all()
