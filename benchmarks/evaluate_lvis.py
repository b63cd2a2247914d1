"""Time and memory of scoring a results file of LVIS's full size, printed as one JSON line.

    python -m benchmarks.evaluate_lvis --source lvis_val_100.json --images 19809 --folder /tmp/big

The images of a real LVIS json are repeated under new ids. Each gets 300 detections with masks: ground truths shifted a
little, under their own or another category that the image says something about or not. `--vs lvis` scores the first 400
images with the `lvis` package too and tells the ratio of times and the largest difference.
"""

import argparse
import json
import random
import resource
import time
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask

from c2am_jax.data.box_masks import checked_rle
from c2am_jax.evaluation.lvis_ap import evaluate_file
from c2am_jax.evaluation.official import official_metrics

DETECTIONS = 300


def shifted(mask: np.ndarray, box: list[float], rng: random.Random) -> tuple[list[float], str]:
    """Box and run lengths of a mask, both up to 6 pixels beside it."""
    dx, dy = rng.randint(-6, 6), rng.randint(-6, 6)
    counts = coco_mask.encode(np.asfortranarray(np.roll(mask, (dy, dx), (0, 1))))["counts"].decode("ascii")
    return [box[0] + dx, box[1] + dy, *box[2:]], counts


def detections_of(image: dict, annotations: list[dict], categories: list[int], rng: random.Random) -> list[tuple]:
    """(category, box, run lengths) of 300 detections."""
    height, width = image["height"], image["width"]
    masks = [coco_mask.decode(checked_rle(a["segmentation"], (height, width))) for a in annotations]
    known = image["neg_category_ids"] + [a["category_id"] for a in annotations]
    found = []
    for _ in range(DETECTIONS):
        which = rng.randrange(len(annotations))
        box, counts = shifted(masks[which], annotations[which]["bbox"], rng)
        draw = rng.random()
        label = annotations[which]["category_id"] if draw < 0.4 else rng.choice(known if draw < 0.7 else categories)
        found.append((label, box, counts))
    return found


def write(source: Path, images: int, folder: Path) -> dict[str, Path]:
    """Annotations and both results files."""
    folder.mkdir(parents=True, exist_ok=True)
    content, rng = json.loads(source.read_text()), random.Random(0)
    of_image: dict[int, list[dict]] = {}
    for annotation in content["annotations"]:
        of_image.setdefault(annotation["image_id"], []).append(annotation)
    base = [image for image in content["images"] if image["id"] in of_image]
    categories = [c["id"] for c in content["categories"]]
    found = {i["id"]: detections_of(i, of_image[i["id"]], categories, rng) for i in base}
    paths = {name: folder / f"{name}.json" for name in ("truths", "bbox", "segm")}
    files = {name: path.open("w") for name, path in paths.items()}
    files["truths"].write(json.dumps({"categories": content["categories"]})[:-1] + ', "images": [')
    for new in range(images):
        image = {**base[new % len(base)], "id": new + 1}
        files["truths"].write((", " if new else "") + json.dumps(image))
    files["truths"].write('], "annotations": [')
    number = 0
    for new in range(images):
        for annotation in of_image[base[new % len(base)]["id"]]:
            number += 1
            entry = json.dumps({**annotation, "id": number, "image_id": new + 1})
            files["truths"].write((", " if number > 1 else "") + entry)
    files["truths"].write("]}")
    for name in ("bbox", "segm"):
        files[name].write("[")
        for new in range(images):
            image = base[new % len(base)]
            size = [image["height"], image["width"]]
            for i, (label, box, counts) in enumerate(found[image["id"]]):
                entry = {"image_id": new + 1, "category_id": label, "score": round(rng.random(), 5)}
                entry |= {"bbox": box} if name == "bbox" else {"segmentation": {"size": size, "counts": counts}}
                files[name].write((",\n" if new or i else "") + json.dumps(entry))
        files[name].write("]")
    for file in files.values():
        file.close()
    return paths


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--source", type=Path, required=True, help="a LVIS json")
    parser.add_argument("--images", type=int, default=19809)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--vs", choices=["lvis"])
    options = parser.parse_args()
    images = 400 if options.vs else options.images
    paths = write(options.source, images, options.folder)
    line = {
        "benchmark": "evaluate_lvis",
        "images": images,
        "detections": images * DETECTIONS,
        "workers": options.workers,
    }
    for kind in ("bbox", "segm"):
        start = time.time()
        found = evaluate_file(paths["truths"], paths[kind], kind, workers=options.workers).metrics()
        line |= {f"{kind}_s": round(time.time() - start, 1), f"{kind}_gb": round(paths[kind].stat().st_size / 1e9, 2)}
        own, child = (resource.getrusage(w).ru_maxrss for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        line[f"{kind}_peak_rss_gb"] = round((own + options.workers * child) / 2**20, 2)  # as if all peaked at once
        line[f"{kind}_AP"] = round(found["AP"], 6)
        if options.vs:
            start = time.time()
            expected = official_metrics(paths["truths"], paths[kind], kind)
            line[f"{kind}_times_faster"] = round((time.time() - start) / line[f"{kind}_s"], 1)
            line[f"{kind}_largest_difference"] = float(max(abs(found[n] - v) for n, v in expected.items()))
    print(json.dumps(line))


if __name__ == "__main__":
    main()
