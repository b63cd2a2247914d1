"""Images per second of the training input pipeline, printed as one JSON line.

    python -m benchmarks.input_pipeline --annotations A.json --images DIR [--vs "COMMAND"]

With the settings of the paper (six short sides, flip, masks, four padded shapes) it measures, in turns, so that other
work on the machine meets all of them alike:

* decode: nothing but decoding the same JPEGs in the same order, their bytes in memory, with as many threads: the host's
  upper bound (few images make full batches of a rare shape by repetition, so the order decides which come often);
* host: `train_batches`, from records on disk to batches ready for the device (uint8 pixels, boxes, packed masks);
* device: `preprocess` of such batches in the device's memory (resize, flip, normalise, pad, unpack masks), with
  each resizer ("matrices" only with --matrices: on a CPU it takes long);
* full: host, transfer and device together, one batch ahead of the device.

"images_per_s" is the median of the turns by the clock, "cpu_ms" the median of the processor time per image, which other
work on the machine moves less. On a CPU the device's share competes with the host's for the same cores.

--vs names the command of another loader that prints a JSON line with "images_per_s" (the reference's is run in
alternation with ours); ratios compare "host" and "full" with the median of its runs.
"""

import argparse
import collections
import itertools
import json
import os
import resource
import shlex
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax

from c2am_jax.data import builder, prepared
from c2am_jax.data.jpeg import decode_jpeg
from c2am_jax.data.pipeline import train_batches, train_steps
from c2am_jax.data.sampler import Sampler
from c2am_jax.data.settings import DataSettings
from c2am_jax.data.tensorflow_host import tf
from c2am_jax.ops.preprocess import RESIZERS, preprocess

DECODED_STEPS = 40  # whose files are held in memory
Turn = Callable[[int], int]  # works on so many images or a few more; returns how many


def decoder(dataset: prepared.PreparedDataset, order: list[int], workers: int, batch: int) -> Turn:
    """Bare decoding of images in the given order; what leaves the threads is each image's shape."""
    records = [tf.train.Example.FromString(dataset.read(i)) for i in range(len(dataset))]
    files = [record.features.feature["image"].bytes_list.value[0] for record in records]
    stream = tf.data.Dataset.from_tensor_slices([files[i] for i in order]).repeat()
    stream = stream.map(lambda content: tf.shape(decode_jpeg(content)), num_parallel_calls=workers)
    options = tf.data.Options()
    options.threading.private_threadpool_size = workers
    return _turns(iter(stream.batch(batch).prefetch(2).with_options(options)), batch)


def _turns(stream: Iterator[Any], batch: int) -> Turn:
    def turn(images: int) -> int:
        count = -(-images // batch)
        for _ in range(count):
            next(stream)
        return count * batch

    return turn


def device_turns(stream: Iterator[Any], batch: int, preprocessor: Callable) -> Turn:
    """Preprocessing of a few batches that lie in the device's memory."""
    batches = [(bucket, jax.device_put(content)) for bucket, content in (next(stream) for _ in range(8))]
    done = 0

    def turn(images: int) -> int:
        nonlocal done
        count = -(-images // batch)
        for _ in range(count):
            bucket, content = batches[done % len(batches)]
            jax.block_until_ready(preprocessor(content, bucket))
            done += 1
        return count * batch

    return turn


def full_turns(stream: Iterator[Any], batch: int, preprocessor: Callable) -> Turn:
    """Host and device, the device one batch behind."""
    waiting = collections.deque()

    def turn(images: int) -> int:
        count = -(-images // batch)
        for _ in range(count):
            bucket, content = next(stream)
            waiting.append(preprocessor(jax.device_put(content), bucket))
            if len(waiting) > 1:
                jax.block_until_ready(waiting.popleft())
        return count * batch

    return turn


def measure(turn: Turn, images: int) -> tuple[float, float]:
    """Images per second and processor milliseconds per image; what was made beforehand is used up first."""
    turn(images // 4)
    began, processor = time.perf_counter(), time.process_time()
    count = turn(images)
    seconds, processor = time.perf_counter() - began, time.process_time() - processor
    return count / seconds, 1e3 * processor / count


def other_loader(command: str) -> dict[str, Any]:
    """The last line that it prints."""
    run = subprocess.run(shlex.split(command), capture_output=True, text=True, check=True)
    return json.loads(run.stdout.strip().splitlines()[-1])


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--annotations", required=True)
    parser.add_argument("--images", required=True)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--workers", type=int, default=DataSettings.workers)
    parser.add_argument("--turn", type=int, default=320, metavar="IMAGES")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--matrices", action="store_true")
    parser.add_argument("--vs", default="", metavar="COMMAND")
    parser.add_argument("--vs-runs", type=int, default=3)
    options = parser.parse_args()
    settings = DataSettings(workers=options.workers)

    def preprocessor(resizer):
        def function(batch, bucket):
            return preprocess(batch, bucket, **settings.pixels, resizer=resizer)

        return jax.jit(function, static_argnums=1)

    with tempfile.TemporaryDirectory() as folder:
        builder.prepare(options.annotations, options.images, "benchmark", folder)
        dataset = prepared.load("benchmark", folder)
        steps = train_steps(dataset, Sampler(dataset, settings.sampler), settings, batch_size=options.batch, seed=0)
        order = [i for step in itertools.islice(steps, DECODED_STEPS) for i in step.index.tolist()]

        def stream():
            return train_batches(dataset, settings, batch_size=options.batch, seed=0)

        parts = {
            "decode": decoder(dataset, order, options.workers, options.batch),
            "host": _turns(stream(), options.batch),
            "device": device_turns(stream(), options.batch, preprocessor("auto")),
            "full": full_turns(stream(), options.batch, preprocessor("auto")),
        }
        if options.matrices:
            for name in RESIZERS:
                parts[f"device/{name}"] = device_turns(stream(), options.batch, preprocessor(name))
        for turn in parts.values():
            turn(8 * options.batch)  # compiles
        found, others = {name: [] for name in parts}, []
        for number in range(options.rounds):
            if options.vs and number * options.vs_runs // options.rounds == len(others):
                others.append(other_loader(options.vs))
            for name, turn in parts.items():
                found[name].append(measure(turn, options.turn))
    rate = {name: statistics.median(r for r, _ in turns) for name, turns in found.items()}
    cost = {name: statistics.median(c for _, c in turns) for name, turns in found.items()}
    line = {
        "benchmark": "input_pipeline",
        "annotations": os.path.basename(options.annotations),
        "images": len(dataset),
        "batch": options.batch,
        "workers": options.workers,
        "cpus": os.cpu_count(),
        "device": jax.devices()[0].device_kind,
        "images_per_s": {name: round(value, 1) for name, value in rate.items()},
        "best_images_per_s": {name: round(max(r for r, _ in turns), 1) for name, turns in found.items()},
        "cpu_ms": {name: round(value, 2) for name, value in cost.items()},
        "host_to_decode": round(rate["host"] / rate["decode"], 3),
        "host_to_decode_by_cpu": round(cost["decode"] / cost["host"], 3),
        "peak_rss_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "load": round(os.getloadavg()[0], 1),
    }
    if others:
        other = statistics.median(run["images_per_s"] for run in others)
        line["vs"] = {
            "images_per_s": [run["images_per_s"] for run in others],
            "host": round(rate["host"] / other, 1),
            "full": round(rate["full"] / other, 1),
        }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
