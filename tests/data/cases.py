"""Small inputs of the kinds that labelling tools and scripts write and that once went wrong, made here."""

import copy
import json

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

HW = 96, 128
BOXES = [(1, 1, [8, 22, 36, 25]), (1, 2, [60, 10, 30, 40]), (2, 3, [20, 50, 50, 30]), (2, 1, [80, 5, 40, 40])]
BOXES += [(3, 2, [5, 5, 60, 60]), (3, 3, [70, 40, 50, 50]), (4, 1, [30, 30, 40, 20]), (4, 2, [90, 60, 30, 30])]
COLOURS = {1: (220, 30, 30), 2: (30, 200, 30), 3: (40, 40, 220)}


def polygon(box):
    x, y, w, h = box
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def rle(box, hw=HW):
    """Compressed run lengths of a box's pixels."""
    raster = np.zeros(hw, np.uint8, order="F")
    x, y, w, h = box
    raster[y : y + h, x : x + w] = 1
    return {"size": list(hw), "counts": coco_mask.encode(raster)["counts"].decode()}


def runs(box):
    """Run lengths of a box's pixels as a list."""
    raster = np.zeros(HW, np.uint8)
    x, y, w, h = box
    raster[y : y + h, x : x + w] = 1
    ends = np.flatnonzero(np.diff(raster.T.ravel(), prepend=0)).tolist()
    return {"size": list(HW), "counts": np.diff([0, *ends, raster.size]).tolist()}


def base():
    """A valid json in the COCO layout."""
    images = [{"id": i, "file_name": f"s2_{i - 1:03d}.jpg", "height": HW[0], "width": HW[1]} for i in (1, 2, 3, 4)]
    annotations = [
        {"id": n, "image_id": i, "category_id": c, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
        | {"segmentation": polygon(box)}
        for n, (i, c, box) in enumerate(BOXES, 1)
    ]
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": i, "name": "abc"[i - 1]} for i in (1, 2, 3)],
    }


def results(content, *keys):
    """Perfect detections of a json, with boxes, masks or both."""
    kinds = {"bbox": lambda box: box, "segmentation": rle}
    return [
        {"image_id": a["image_id"], "category_id": a["category_id"], "score": 0.9}
        | {key: kinds[key](a["bbox"]) for key in keys}
        for a in content["annotations"]
    ]


def changed(**values):
    """The valid json, all of whose annotations have other values."""
    content = base()
    for annotation in content["annotations"]:
        annotation.update(copy.deepcopy(values))
    return content


def without(key):
    content = base()
    for annotation in content["annotations"]:
        del annotation[key]
    return content


def with_first(segmentation):
    """The valid json, the mask of whose first annotation is another."""
    content = base()
    content["annotations"][0]["segmentation"] = segmentation
    return content


def write_cases(folder):
    """Write all, each in a folder of its own."""

    def write(name, content):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))

    _pictures(folder / "base" / "images")
    perfect, both = results(base(), "bbox"), results(base(), "bbox", "segmentation")
    write("base/val.json", base())

    short, cut = base(), base()
    for annotation in short["annotations"]:
        annotation["segmentation"] = runs(annotation["bbox"])
    short["annotations"][0]["segmentation"]["counts"][-1] -= 1
    for annotation in cut["annotations"]:
        annotation["segmentation"] = {"size": list(HW), "counts": rle(annotation["bbox"])["counts"][:-1]}
    write("rle/truth_runs_short_by_one.json", short)
    write("rle/truth_string_cut.json", cut)
    masks = results(base(), "segmentation")
    write("rle/results_good.json", masks)
    text, large = copy.deepcopy(masks), copy.deepcopy(masks)
    for entry in text:
        entry["segmentation"]["counts"] = str(entry["segmentation"]["counts"].encode())
    for entry, annotation in zip(large, base()["annotations"], strict=True):
        entry["segmentation"] = {**rle(annotation["bbox"], (192, 256)), "size": list(HW)}
    write("rle/results_str_of_bytes.json", text)
    write("rle/results_of_larger_image.json", large)

    first = BOXES[0][2]
    write("polygons/empty.json", with_first([]))
    write("polygons/two_points.json", with_first([[8, 22, 44, 47]]))
    write("polygons/good_part_and_two_point_part.json", with_first([*polygon(first), [8, 22, 9, 22]]))
    missing = base()
    del missing["annotations"][0]["segmentation"]
    write("polygons/no_segmentation_key.json", missing)
    write("polygons/results.json", both)
    write("box_only/empty.json", changed(segmentation=[]))
    write("box_only/nokey.json", without("segmentation"))
    write("box_only/dt.json", perfect)
    write("area_missing/val.json", without("area"))
    write("area_missing/results.json", perfect)

    renumbered, new = base(), {1: 7, 2: 1, 3: 2}
    for category in renumbered["categories"]:
        category["id"] = new[category["id"]]
    for annotation in renumbered["annotations"]:
        annotation["category_id"] = new[annotation["category_id"]]
    write("categories_renumbered/val.json", renumbered)
    write("categories_renumbered/results_of_a_perfect_detector.json", perfect)

    large, larger = base(), base()
    for content, start in ((large, 2**53 - 1), (larger, 2**63)):
        for image in content["images"]:
            image["id"] += start
        for annotation in content["annotations"]:
            annotation["image_id"] += start
    write("large_ids/val.json", large)
    write("large_ids/results.json", results(large, "bbox"))
    write("large_ids/val_uint64.json", larger)

    same, zero, windows = base(), base(), base()
    same["images"][1]["file_name"] = same["images"][0]["file_name"]
    for annotation in zero["annotations"]:
        annotation["id"] -= 1
    for image in windows["images"]:
        image["file_name"] = "images\\" + image["file_name"]
    write("same_name/same.json", same)
    write("annotation_id_0/val.json", zero)
    write("annotation_id_0/results.json", perfect)
    write("backslash_names/val.json", windows)

    text_ids, sizes, named = base(), base(), copy.deepcopy(perfect)
    for image in text_ids["images"]:
        image["id"] = str(image["id"])
    for image in sizes["images"]:
        image |= {"height": float(HW[0]), "width": float(HW[1])}
    for entry in named:
        entry["image_id"] = str(entry["image_id"])
    write("odd_types/string_ids.json", text_ids)
    write("odd_types/float_sizes.json", sizes)
    write("odd_types/results_string_ids.json", named)
    write("all_crowd/train.json", changed(iscrowd=1, segmentation=runs(first)))
    _turned(folder / "exif")


def _pictures(folder):
    folder.mkdir(parents=True)
    for image in (1, 2, 3, 4):
        pixels = np.full((*HW, 3), 128, np.uint8)
        for _, category, (x, y, w, h) in (box for box in BOXES if box[0] == image):
            pixels[y : y + h, x : x + w] = COLOURS[category]
        Image.fromarray(pixels).save(folder / f"s2_{image - 1:03d}.jpg", quality=95)


def _turned(folder):
    """One upright scene, stored turned, with the orientation that undoes it."""
    (folder / "images").mkdir(parents=True)
    scene = np.full((*HW, 3), 128, np.uint8)
    scene[20:50, 10:50] = COLOURS[1]
    images, annotations = [], []
    for n, (orientation, turns) in enumerate(((1, 0), (3, 2), (6, 1)), 1):
        exif = Image.Exif()
        exif[0x0112] = orientation
        name = f"o{orientation}.jpg"
        Image.fromarray(np.ascontiguousarray(np.rot90(scene, turns))).save(folder / "images" / name, exif=exif)
        images.append({"id": n, "file_name": name, "height": HW[0], "width": HW[1]})
        box = [10, 20, 40, 30]
        annotations.append({"id": n, "image_id": n, "category_id": 1, "bbox": box, "area": 1200, "iscrowd": 0})
        annotations[-1]["segmentation"] = polygon(box)
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "a"}]}
    (folder / "train.json").write_text(json.dumps(content))
