"""Valid files changed at random: preparation either works, counting what it leaves out, or says what is wrong."""

import copy
import json
import logging

import numpy as np
import pytest
from conftest import annotation
from layout import read_layout
from pycocotools import mask as coco_mask

from c2am_jax.data import builder, prepared
from c2am_jax.data.box_masks import usable_rle
from c2am_jax.errors import UserError
from c2am_jax.evaluation.lvis_ap import evaluate_file

ODD = [
    *(None, True, False, -1, 0, 1, 3, 0.5, -0.0, 1e308, -1e5, 2**31, 2**63, 10**400),
    *(float("nan"), float("inf"), -float("inf")),
    *("", "../../etc/passwd", "/etc/passwd", "\ud800", "a\0b", "x" * 5000, "PQ", "1", "r", ".", "a/../b"),
    *([], {}, [[]], [None], [[1, 2]], {"id": 1}, {"size": [48, 64], "counts": [3072]}, {"counts": "", "size": 1}),
]
MUTATIONS = 1000


def places(node, path=()):
    """Paths of all values of a json tree."""
    yield path
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in inner:
        yield from places(value, (*path, key))


def changed(content, rng):
    """Another content: a few values replaced, removed, repeated or exchanged."""
    content = copy.deepcopy(content)
    for _ in range(rng.integers(1, 4)):
        everywhere = [path for path in places(content) if path]
        *above, key = everywhere[rng.integers(len(everywhere))]
        node = content
        for step in above:
            node = node[step]
        what = rng.integers(5)
        if what == 0:
            del node[key]
        elif what == 1 and isinstance(node, list):
            node.append(copy.deepcopy(node[key]))
        elif what == 2 and isinstance(node[key], int | float) and abs(node[key]) < 1e300:
            node[key] = node[key] * float(rng.choice([-1, 1e-3, 1.5, 100, 1e6]))
        elif what == 3 and isinstance(node[key], int):
            node[key] = node[key] + int(rng.integers(-3, 4))
        else:
            node[key] = copy.deepcopy(ODD[rng.integers(len(ODD))])
    return content


def scored_as_100(path, copy, images, by_image, results):
    """Score perfect boxes and masks against the file and its prepared copy; whether all truths have a box to match."""
    hw = {image["id"]: (image["height"], image["width"]) for image in images}
    truths = [a for annotations in by_image.values() for a in annotations if a["area"] > 0 and not a.get("ignore")]
    boxes = [a for a in truths if min(a["bbox"][2:]) > 0 and max(map(abs, a["bbox"])) < 1e9]
    keys = {"score": 1.0}
    found = [{key: a[key] for key in ("image_id", "category_id", "bbox")} | keys for a in boxes]
    masks = []
    for entry in truths:
        rle = usable_rle(entry.get("segmentation"), hw[entry["image_id"]])
        text = rle["counts"].decode() if isinstance(rle["counts"], bytes) else rle["counts"]
        place = {key: entry[key] for key in ("image_id", "category_id")}
        masks.append(place | keys | {"segmentation": {"size": list(hw[entry["image_id"]]), "counts": text}})
    scored = {}
    for kind, entries in (("bbox", found), ("segm", masks)):
        results.write_text(json.dumps(entries))
        for file in (path, copy):
            scored[kind, file] = evaluate_file(file, results, kind).metrics()["AP"]
    whole = len(boxes) == len(truths)
    assert not whole or scored["bbox", copy] in (pytest.approx(1), -1), scored
    zero = any(a.get("id") in (0, False) for a in json.loads(path.read_text())["annotations"] if isinstance(a, dict))
    assert zero or scored["bbox", path] == scored["bbox", copy]  # the file itself needs no preparation
    assert zero or scored["segm", path] == scored["segm", copy]
    return whole


def test_a_thousand_damaged_files_never_crash(tiny, tmp_path, caplog):
    caplog.set_level(logging.ERROR)
    content, write = tiny
    circle = (np.add.outer((np.arange(48) - 20) ** 2, (np.arange(64) - 30) ** 2) < 150).astype(np.uint8)
    rle = coco_mask.encode(np.asfortranarray(circle))
    compressed = {"size": [48, 64], "counts": rle["counts"].decode()}
    content["annotations"] += [
        annotation(5, 1, 5, [18.0, 8.0, 24.0, 24.0], compressed),
        annotation(6, 3, 5, [0.0, 0.0, 10.0, 40.0], {"size": [40, 40], "counts": [0, 400, 1200]}),
        {**annotation(7, 3, 2, [5.0, 5.0, 10.0, 10.0]), "iscrowd": 1},
    ]
    content["info"] = {"version": "1"}
    path, images = write()
    rng = np.random.default_rng(20)
    outcomes, exact = {"prepared": 0, "refused": 0, "skipped": set()}, 0
    for number in range(MUTATIONS):
        text = json.dumps(changed(content, rng))
        if number % 5 == 0:
            at = rng.integers(len(text))
            text = text[:at] + str(rng.choice(list('{}[]",:0e-x\\'))) * rng.integers(0, 2) + text[at + 1 :]
        path.write_text(text)
        try:
            report = builder.prepare(path, images, "tiny", tmp_path / "data", workers=1)
        except UserError as error:
            outcomes["refused"] += 1
            assert str(path) in str(error) or "/tiny/" in str(error), error
            continue
        outcomes["prepared"] += 1
        outcomes["skipped"] |= set(report["skipped"])
        dataset = prepared.load("tiny", tmp_path / "data", annotations=path)
        images_kept, by_image, _ = read_layout(dataset.annotations_path)
        left_out = {r: n for r, n in report["skipped"].items() if r.startswith("image")}
        assert report["images"] + sum(left_out.values()) == report["in_the_file"]["images"]
        assert set(dataset.image_id.tolist()) <= {image["id"] for image in images_kept}
        assert len(dataset.label) <= sum(map(len, by_image.values()))
        exact += scored_as_100(path, dataset.annotations_path, images_kept, by_image, tmp_path / "found.json")
        if number % 20 == 0:
            dataset.read(len(dataset) - 1)
    assert exact > 0.8 * outcomes["prepared"], exact
    assert outcomes["prepared"] > 400 and outcomes["refused"] > 100
    assert len(outcomes["skipped"]) >= 12, outcomes  # most of the conditions of docs/data.md
