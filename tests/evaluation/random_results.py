"""Random annotations and results with every odd case of the protocol."""

import json

import numpy as np
from pycocotools import mask as coco_mask


def rle(box, hw=(60, 80)):
    mask = np.zeros(hw, np.uint8, order="F")
    x, y, w, h = (int(v) for v in box)
    mask[y : y + h, x : x + w] = 1
    found = coco_mask.encode(mask)
    return {"size": list(hw), "counts": found["counts"].decode("ascii")}


def random_set(folder, seed):
    """Empty images, unverified and incompletely annotated categories, ignored boxes, crowds, objects and masks of area
    0, masks that are none, more detections than count, ties at the cut too, an annotation id 0.
    """
    rng = np.random.default_rng(seed)
    classes, hw = 6, (60, 80)
    images, annotations, detections = [], [], []
    for image in range(1, 13):
        known = rng.permutation(classes)[: rng.integers(0, classes)] + 1
        present, negative = known[: len(known) // 2 + 1], known[len(known) // 2 + 1 :]
        incomplete = [int(c) for c in present if rng.random() < 0.3]
        names = {"neg_category_ids": negative.tolist(), "not_exhaustive_category_ids": incomplete}
        images.append({"id": image * 7, "file_name": "x", "height": hw[0], "width": hw[1], **names})
        for category in present:
            for _ in range(rng.integers(0, 5)):
                corner, size = rng.integers(0, 30, 2), rng.integers(3, 30, 2)
                box = [*map(int, corner), *map(int, size)]
                entry = {"image_id": image * 7, "category_id": int(category), "bbox": box, "segmentation": rle(box, hw)}
                ignored = {"ignore": 1} if rng.random() < 0.1 else {"iscrowd": 1} if rng.random() < 0.1 else {}
                area = 0 if rng.random() < 0.1 else box[2] * box[3]
                if rng.random() < 0.05:
                    entry["segmentation"] = []
                annotations.append({"id": len(annotations) + seed % 2, "area": area, **entry, **ignored})
                for _ in range(rng.integers(0, 4)):
                    near = np.maximum(np.array(box) + rng.integers(-3, 4, 4), [0, 0, 1, 1]).tolist()
                    label = int(category) if rng.random() < 0.8 else int(rng.integers(1, classes + 1))
                    near = [*near[:2], min(near[2], 80 - near[0]), min(near[3], 60 - near[1])]
                    if rng.random() < 0.1:
                        near[int(rng.integers(2, 4))] = 0
                    score = round(float(rng.random()), 1)  # many ties
                    detections.append({**entry, "category_id": label, "bbox": near, "score": score})
                    detections[-1]["segmentation"] = rle(near, hw)
    if annotations:
        for place in rng.integers(0, len(detections), 330):  # of one image: 30 and some more than count
            detections.append({**detections[place], "image_id": annotations[0]["image_id"]})
    categories = [
        {"id": i, "name": str(i), "frequency": f, "image_count": 1, "instance_count": 1}
        for i, f in enumerate("rrccff", 1)
    ]
    order = rng.permutation(len(detections))
    (folder / "gt.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    (folder / "dt.json").write_text(json.dumps([detections[i] for i in order]))
    return folder / "gt.json", folder / "dt.json"
