"""Preparation at full LVIS size: memory of all processes together, annotations per second, and masks per core.

python benchmarks/prepare.py --source lvis_val_100.json --annotations 1270141 [--workers 2] [--kill-after SECONDS]

Real annotations are repeated under new ids, the JPEGs are plain ones of the right sizes. With --kill-after, a second
preparation is killed with all its processes, started again, and its shards are compared. Prints one JSON line.
"""

import argparse
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from c2am_jax.data.box_masks import box_mask, pack
from c2am_jax.data.lvis_scan import scan
from c2am_jax.data.shards import trainable_box


def repeated(content: dict[str, Any], count: int, folder: Path) -> tuple[Path, Path]:
    """A json of `count` annotations and its image files; (annotations, images)."""
    images_folder = folder / "images"
    images_folder.mkdir()
    own = {image["id"]: [] for image in content["images"]}
    for annotation in content["annotations"]:
        own[annotation["image_id"]].append(annotation)
    path = folder / "annotations.json"
    images, number = [], 0
    with open(path, "w") as file:
        file.write('{"annotations": [')
        while number < count:
            image = content["images"][len(images) % len(content["images"])]
            name = f"{image['height']}x{image['width']}.jpg"
            if not (images_folder / name).exists():
                grey = np.full((image["height"], image["width"], 3), 128, np.uint8)
                Image.fromarray(grey).save(images_folder / name, quality=50)
            images.append({**image, "id": len(images) + 1, "file_name": name})
            for annotation in own[image["id"]][: count - number]:
                number += 1
                separator = ", " if number > 1 else ""
                file.write(separator + json.dumps({**annotation, "id": number, "image_id": len(images)}))
        rest = json.dumps({"images": images, "categories": content["categories"]})
        file.write("], " + rest[1:])
    return path, images_folder


def masks_per_second(content: dict[str, Any]) -> float:
    """Annotations whose box-frame mask a core makes in a second of its time, from their text on: median of 5."""
    hw = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
    texts = [(json.dumps(annotation), hw[annotation["image_id"]]) for annotation in content["annotations"]]
    times = []
    for _ in range(5):
        start = time.process_time()
        for text, size in texts:
            annotation = json.loads(text)
            pack(box_mask(annotation["segmentation"], trainable_box(annotation["bbox"], size), size))
        times.append(time.process_time() - start)
    return len(texts) / float(np.median(times))


def _tree(pid: int) -> list[int]:
    """A process and all below it."""
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        below = [int(child) for thread in threads for child in (thread / "children").read_text().split()]
    except OSError:  # ended meanwhile
        return []
    return [pid, *(descendant for child in below for descendant in _tree(child))]


def _resident_mib(pid: int) -> float:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def prepare(annotations: Path, images: Path, out: Path, workers: int, kill_after: float = 0) -> dict[str, float]:
    """Run the command; seconds and peak memory, pages that processes share counted in each of them."""
    command = [sys.executable, "-m", "c2am_jax.data.prepare", "--name", "big", "--workers", str(workers)]
    command += ["--annotations", str(annotations), "--images", str(images), "--out", str(out)]
    start = time.perf_counter()
    peaks = {"peak_mib": 0.0, "peak_mib_of_one_process": 0.0}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        log: list[str] = []
        reader = threading.Thread(target=lambda: log.extend(process.stderr or ()), daemon=True)
        reader.start()
        while process.poll() is None:
            sizes = [_resident_mib(pid) for pid in _tree(process.pid)]
            peaks["peak_mib"] = max(peaks["peak_mib"], sum(sizes))
            peaks["peak_mib_of_one_process"] = max(peaks["peak_mib_of_one_process"], *sizes, 0.0)
            if kill_after and time.perf_counter() - start > kill_after:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.1)
        process.wait()
        reader.join()
        if process.returncode and not kill_after:
            raise SystemExit("".join(log))
    return {"seconds": time.perf_counter() - start, **peaks}


def digests(out: Path) -> dict[str, str]:
    """Of the shards."""
    found = {}
    for path in sorted(out.rglob("*array_record*")):
        with open(path, "rb") as file:
            found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, required=True, help="real json in the LVIS layout")
    parser.add_argument("--annotations", type=int, default=1_270_141)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--kill-after", type=float, default=0)
    parser.add_argument("--folder", type=Path, help="for some 5 GB of temporary files")
    options = parser.parse_args()
    content = json.loads(options.source.read_text())
    result: dict[str, Any] = {"benchmark": "prepare", "annotations": options.annotations, "workers": options.workers}
    result["masks_per_second_and_core"] = round(masks_per_second(content))
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        annotations, images = repeated(content, options.annotations, Path(folder))
        result["json_mib"] = round(annotations.stat().st_size / 2**20)
        start = time.perf_counter()
        result["images"] = len(scan(annotations).images)
        result["scan_seconds"] = round(time.perf_counter() - start, 1)
        measured = prepare(annotations, images, Path(folder) / "out", options.workers)
        result |= {key: round(value, 1) for key, value in measured.items()}
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        result["core_seconds"] = round(used.ru_utime + used.ru_stime, 1)
        result["annotations_per_core_second_all_in_all"] = round(options.annotations / result["core_seconds"])
        if options.kill_after:
            again = Path(folder) / "again"
            prepare(annotations, images, again, options.workers, options.kill_after)
            result["shards_when_killed"] = len(list(again.rglob("*array_record-?????-of-?????")))
            prepare(annotations, images, again, options.workers)
            result["same_shards_after_kill"] = digests(again) == digests(Path(folder) / "out")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
