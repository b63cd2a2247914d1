"""A report of an evaluation of 1203 categories with every section full: seconds and bytes, printed as one JSON line.

    python -m benchmarks.report_page --source lvis.json --images DIR --counts lvis_v1_train_cat_info.json --folder OUT

The images of a LVIS json are repeated under new ids, and their annotations spread over all categories, so that each has
objects. Detections are ground truths shifted a little, under their own category, a neighbouring one or any other. Norms
of the classifier follow the published counts of training images. ``tests/report/browser.cjs OUT/report.html`` tells
what a browser says to the page.
"""

import argparse
import json
import random
import resource
import time
from pathlib import Path

import numpy as np

from benchmarks.evaluate_lvis import shifted
from c2am_jax.config import load_experiment
from c2am_jax.data import builder, prepared
from c2am_jax.data.box_masks import rasterise
from c2am_jax.evaluation.classifier_norms import weight_norm_table
from c2am_jax.evaluation.evaluate import Evaluated
from c2am_jax.evaluation.lvis_ap import evaluate_file
from c2am_jax.report.checkpoint_report import checkpoint_report

DETECTIONS = 100  # of an image
ROOT = Path(__file__).resolve().parents[1]


def write(source: Path, counts: Path, folder: Path, repeat: int) -> dict[str, Path]:
    """Annotations and both results files."""
    folder.mkdir(parents=True, exist_ok=True)
    content, rng = json.loads(source.read_text()), random.Random(0)
    published = {c["id"]: c for c in json.loads(counts.read_text())}
    categories = [
        {**c, **{k: published[c["id"]][k] for k in ("image_count", "instance_count")}} for c in content["categories"]
    ]
    ids = [c["id"] for c in categories]
    of_image: dict[int, list[dict]] = {}
    for annotation in content["annotations"]:
        of_image.setdefault(annotation["image_id"], []).append(annotation)
    images, annotations, boxes, masks = [], [], [], []
    rasters = {
        i["id"]: [rasterise(a["segmentation"], (i["height"], i["width"])) for a in of_image[i["id"]]]
        for i in content["images"]
        if i["id"] in of_image
    }
    for image in [i for _ in range(repeat) for i in content["images"] if i["id"] in rasters]:
        new = {**image, "id": len(images) + 1, "not_exhaustive_category_ids": []}
        own = [
            {
                **a,
                "id": len(annotations) + n,
                "image_id": new["id"],
                "category_id": ids[(len(annotations) + n) % len(ids)],
            }
            for n, a in enumerate(of_image[image["id"]], 1)
        ]
        new["neg_category_ids"] = rng.sample(ids, 40)
        images.append(new)
        annotations += own
        for _ in range(DETECTIONS):
            which = rng.randrange(len(own))
            draw, label = rng.random(), own[which]["category_id"]
            if draw > 0.5:
                label = ids[ids.index(label) - 1] if draw < 0.7 else rng.choice(new["neg_category_ids"])
            box, runs = shifted(rasters[image["id"]][which], own[which]["bbox"], rng)
            common = {"image_id": new["id"], "category_id": label, "score": round(rng.random() * (1.2 - draw) / 1.2, 5)}
            boxes.append({**common, "bbox": box})
            masks.append({**common, "segmentation": {"size": [new["height"], new["width"]], "counts": runs}})
    found = {
        "annotations": {"images": images, "annotations": annotations, "categories": categories},
        "bbox": boxes,
        "segm": masks,
    }
    for name, value in found.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    return {name: folder / f"{name}.json" for name in found}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--source", type=Path, required=True, help="a LVIS json")
    parser.add_argument("--images", type=Path, required=True, help="folder of its images")
    parser.add_argument("--counts", type=Path, required=True, help="the categories with their published counts")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--repeat", type=int, default=20)
    options = parser.parse_args()
    paths = write(options.source, options.counts, options.folder, options.repeat)
    builder.prepare(paths["annotations"], options.images, "report_page", options.folder)
    dataset = prepared.load("report_page", options.folder)
    start = time.time()
    scored = {
        kind: evaluate_file(dataset.annotations_path, paths[kind], kind, evidence=True) for kind in ("bbox", "segm")
    }
    line = {"benchmark": "report_page", "images": len(dataset), "categories": len(dataset.categories)}
    line |= {"detections": DETECTIONS * len(dataset), "score_s": round(time.time() - start, 1)}
    rng, classes = np.random.default_rng(0), len(dataset.categories)
    length = np.append(np.log1p(dataset.categories.image_count) * rng.uniform(0.8, 1.2, classes), 20.0)
    kernel = rng.normal(size=(1024, classes + 1))
    kernel *= length / np.linalg.norm(kernel, axis=0)
    norms = {"": weight_norm_table(np.linalg.norm(kernel, axis=0), dataset.categories)}
    start, page = time.time(), options.folder / "report.html"
    evaluated = Evaluated(dataset, 180_000, scored, {"": kernel}, norms, page.parent, dataset.categories)
    checkpoint_report(page, load_experiment("maskrcnn_r50_c2am"), evaluated)
    line |= {"report_s": round(time.time() - start, 1), "bytes": page.stat().st_size}
    line["peak_rss_gb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)
    print(json.dumps(line))


if __name__ == "__main__":
    main()
