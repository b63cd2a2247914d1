"""An oracle of the LVIS layout: reads a json and insists on what every later step relies on."""

import collections
import json


def read_layout(path):
    """Images, annotations by image id, and categories of a file; AssertionError for whatever is wrong in it."""
    with open(path) as file:
        content = json.load(file)
    for kind in ("images", "categories", "annotations"):
        ids = [entry["id"] for entry in content[kind]]
        assert all(type(i) is int for i in ids) and len(set(ids)) == len(ids), kind
    for image in content["images"]:
        assert all(type(image[key]) is int and image[key] > 0 for key in ("height", "width")), image
    images, categories = ({entry["id"] for entry in content[kind]} for kind in ("images", "categories"))
    by_image = collections.defaultdict(list)
    for annotation in content["annotations"]:
        assert annotation["image_id"] in images and annotation["category_id"] in categories, annotation
        assert len(annotation["bbox"]) == 4 and all(isinstance(v, int | float) for v in annotation["bbox"]), annotation
        assert isinstance(annotation["area"], int | float) and annotation["area"] >= 0, annotation
        by_image[annotation["image_id"]].append(annotation)
    assert categories
    return content["images"], by_image, content["categories"]
