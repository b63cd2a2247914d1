"""One JSON line about a compiled step of a detector, alone or in turns with a PyTorch peer."""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax

from benchmarks.common import GROUND_TRUTHS, ceiling, machine, peak_rss_gb
from benchmarks.parts import profile
from benchmarks.peers import Peer
from c2am_jax.experiment import Experiment


def parse(doc: str | None, config: str) -> argparse.Namespace:
    """The arguments of `benchmarks.train_step` and `benchmarks.predict`."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--config", default=config)
    parser.add_argument("--size", type=int, nargs=2, default=(512, 512), metavar=("H", "W"))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--classes", type=int, help="instead of the config's")
    parser.add_argument(
        "--rois", type=int, help="sampled in training, or proposals in prediction, instead of the config's"
    )
    parser.add_argument("--dtype", choices=("float32", "bf16"), default="float32", help="of features and convolutions")
    parser.add_argument("--vs", choices=("torch",), help="take turns with MMDetection on a CPU, torchvision on a GPU")
    parser.add_argument("--peer_python", default="python3", help="interpreter that has the peer installed")
    parser.add_argument("--parts", metavar="DIR", help="profile three steps into DIR and print each part's share")
    options = parser.parse_args()
    options.size = tuple(options.size)
    if options.parts:  # compiled programs carry the names of the parts; older ones may be in the cache without
        jax.config.update("jax_compilation_cache_include_metadata_in_key", True)
    return options


def start_peer(options: argparse.Namespace, experiment: Experiment, task: str) -> Peer:
    """The PyTorch detector of the same kind, size and batch."""
    arguments = ["--task", task, "--size", *map(str, options.size), "--batch", str(options.batch)]
    arguments += ["--classes", str(experiment.model.num_classes), "--depth", str(experiment.model.backbone.depth)]
    arguments += ["--ground_truths", str(GROUND_TRUTHS)]
    if experiment.model.cascade.positive_ious:
        arguments.append("--cascade")
    if options.dtype == "bf16":
        arguments.append("--bf16")
    kind = "mmdetection" if jax.default_backend() == "cpu" else "torchvision"
    return Peer(kind, options.peer_python, arguments)


def measure(
    name: str, options: argparse.Namespace, experiment: Experiment, lowered: Any, step: Callable[[Any], dict[str, Any]]
) -> None:
    """Compile, run, print.

    Args:
      name: of the benchmark, "train_step" or "predict".
      options: from `parse`.
      experiment: what runs.
      lowered: the program.
      step: runs the compiled program once, waits for it, and returns facts of it for the line.
    """
    start = time.perf_counter()
    compiled = lowered.compile()
    compile_s = time.perf_counter() - start
    best = ceiling("bfloat16" if options.dtype == "bf16" else "float32")
    facts = step(compiled)
    own, theirs, other = [], [], {}

    def one_step() -> None:
        nonlocal facts
        began = time.perf_counter()
        facts = step(compiled)
        own.append(time.perf_counter() - began)

    if options.vs:
        with start_peer(options, experiment, "train" if name == "train_step" else "predict") as peer:
            for _ in range(options.steps):
                one_step()
                theirs.append(peer.step())
            other = {**peer.versions, **{f"peer_{key}": value for key, value in peer.finish().items()}}
    else:
        for _ in range(options.steps):
            one_step()
    median = statistics.median(own)
    flops = compiled.cost_analysis().get("flops", float("nan"))
    line: dict[str, Any] = {"benchmark": name, "config": options.config, "size": options.size, "batch": options.batch}
    line |= {"classes": experiment.model.num_classes, "dtype": options.dtype, **facts}
    line |= {
        "median_s": round(median, 3),
        "min_s": round(min(own), 3),
        "images_per_s": round(options.batch / median, 3),
    }
    line |= {"compile_s": round(compile_s, 1), "peak_rss_gb": peak_rss_gb()}
    memory = compiled.memory_analysis()
    line |= {"temporaries_gb": round(memory.temp_size_in_bytes / 2**30, 2)} if memory else {}
    line |= {"gflop": round(flops / 1e9, 1), "gflops": round(flops / median / 1e9, 1), **best}
    line |= {"share_of_matmul_rate": round(flops / median / 1e9 / best["matmul_gflops"], 3)}
    if theirs:
        ratios = [a / b for a, b in zip(own, theirs, strict=True)]
        line |= {"peer_median_s": round(statistics.median(theirs), 3), "peer_min_s": round(min(theirs), 3)}
        line |= {"ratio": round(statistics.median(ratios), 3), **other}
    print(json.dumps(line | machine()), flush=True)
    if options.parts:
        for part in profile(compiled.as_text(), lambda: step(compiled), options.parts):
            print(json.dumps({"benchmark": f"{name}_parts", **part}), flush=True)
