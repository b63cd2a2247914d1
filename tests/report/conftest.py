"""A small evaluation with everything that can go wrong: hostile names, categories without objects, rules of LVIS."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

HOSTILE = '</script><script>alert(1)</script> & "quoted" <b>\''
HW = (64, 80)
NAMES = ("apple", "pear", HOSTILE, "plum", "never seen", "{{data}}")
GROUPS = "rrccff"


def rle(box, hw=HW):
    mask = np.zeros(hw, np.uint8, order="F")
    x, y, w, h = (int(v) for v in box)
    mask[y : y + h, x : x + w] = 1
    return {"size": list(hw), "counts": coco_mask.encode(mask)["counts"].decode()}


def detection(image, category, box, score):
    box = [float(v) for v in box]
    return {"image_id": image, "category_id": category, "score": score, "bbox": box, "segmentation": rle(box)}


@pytest.fixture(scope="session")
def evaluation(tmp_path_factory):
    """Files "annotations", "boxes", "masks" (both in one order), "nothing" and the folder "images"."""
    folder, rng = tmp_path_factory.mktemp("evaluation"), np.random.default_rng(0)
    (folder / "images").mkdir()
    images, annotations, detections = [], [], []
    for image in range(1, 13):
        name = f"{image:012d}.jpg"
        Image.fromarray(rng.integers(0, 255, (*HW, 3), np.uint8)).save(folder / "images" / name)
        known = rng.permutation([1, 2, 3, 4, 6])
        present, negative = known[:3].tolist(), known[3:].tolist()
        incomplete = present[:1] if image % 4 == 0 else []
        images.append(
            {
                "id": image,
                "file_name": name,
                "height": HW[0],
                "width": HW[1],
                "neg_category_ids": negative,
                "not_exhaustive_category_ids": incomplete,
            }
        )
        for category in present:
            for _ in range(int(rng.integers(1, 3))):
                box = [int(v) for v in (*rng.integers(0, 40, 2), *rng.integers(8, 20, 2))]
                common = {"image_id": image, "category_id": category}
                annotations.append(
                    {
                        **common,
                        "id": len(annotations) + 1,
                        "bbox": box,
                        "area": box[2] * box[3],
                        "segmentation": rle(box),
                    }
                )
                for _ in range(int(rng.integers(0, 3))):
                    label = category if rng.random() < 0.7 else int(rng.integers(1, 7))
                    moved = np.clip(np.array(box) + rng.integers(-3, 4, 4), [0, 0, 4, 4], [60, 44, 20, 20])
                    detections.append(detection(image, label, moved, round(float(rng.uniform(0.05, 1)), 3)))
        detections.append(detection(image, negative[0], [2, 2, 9, 9], 0.3))
    categories = [
        {"id": i, "name": name, "frequency": group, "image_count": 40 - i, "instance_count": 50 - i}
        for i, (name, group) in enumerate(zip(NAMES, GROUPS, strict=True), 1)
    ]
    content = {"images": images, "annotations": annotations, "categories": categories}
    found = {
        "annotations": content,
        "boxes": [{k: v for k, v in d.items() if k != "segmentation"} for d in detections],
        "masks": [{k: v for k, v in d.items() if k != "bbox"} for d in detections],
        "nothing": [],
    }
    for name, value in found.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    return {name: folder / f"{name}.json" for name in found} | {"images": folder / "images"}


@pytest.fixture(scope="session")
def hostile():
    """The name of a category that would run as a script, if it were not escaped."""
    return HOSTILE
