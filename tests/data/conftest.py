"""A tiny LVIS-layout data set of our own."""

import json

import numpy as np
import pytest
from PIL import Image

SIZES = [(48, 64), (64, 48), (40, 40), (64, 64)]


def annotation(number, image, category, box, segmentation=None):
    x, y, w, h = box
    polygon = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": list(box),
        "area": w * h,
        "segmentation": polygon if segmentation is None else segmentation,
    }


@pytest.fixture
def tiny(tmp_path):
    """(content, write): the json as a dict, and a function that writes it and gives (annotations, images)."""
    rng = np.random.default_rng(0)
    (tmp_path / "images" / "train2017").mkdir(parents=True)
    images = []
    for number, (height, width) in enumerate(SIZES, 1):
        name = f"train2017/{number:012d}.jpg"
        pixels = rng.integers(0, 256, (height // 8, width // 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
        Image.fromarray(pixels).save(tmp_path / "images" / name, quality=95)
        images.append(
            {
                "id": number,
                "height": height,
                "width": width,
                "coco_url": f"http://images.cocodataset.org/{name}",
                "neg_category_ids": [],
                "not_exhaustive_category_ids": [],
            }
        )
    frequencies = [(2, "r", 1), (7, "c", 2), (5, "f", 3)]  # not in id order
    categories = [
        {"id": i, "name": f"category {i}", "frequency": f, "image_count": n, "instance_count": n}
        for i, f, n in frequencies
    ]
    content = {
        "images": images,
        "categories": categories,
        "annotations": [
            annotation(1, 1, 7, [4.0, 6.0, 20.0, 16.0]),
            annotation(2, 1, 2, [30.0, 10.0, 10.0, 30.0]),
            annotation(3, 2, 5, [8.0, 8.0, 24.0, 32.0]),
            annotation(4, 4, 5, [0.0, 0.0, 64.0, 64.0]),
        ],
    }

    def write():
        path = tmp_path / "annotations.json"
        path.write_text(json.dumps(content))
        return path, tmp_path / "images"

    return content, write
