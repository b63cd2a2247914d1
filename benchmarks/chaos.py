"""Kill a training run at random moments, many times, and compare its losses with an undisturbed run.

    python -m benchmarks.chaos --kills 30 --steps 150 --folder /tmp/chaos
    python -m benchmarks.chaos --kills 30 --steps 150 --folder /tmp/chaos --workdir gs://BUCKET/chaos

With --workdir the runs are in a bucket; the folder then holds what is local: pictures to draw, the log, the compiled
steps. A server on this machine stands in for Cloud Storage with

    python tests/storage/gcs_server.py 9023 pods &
    STORAGE_EMULATOR_HOST=http://127.0.0.1:9023 python -m benchmarks.chaos ... --workdir gs://pods/chaos

Both runs train the same small detector on glyphs through train.py. The disturbed one is started again after every kill;
half of the kills are SIGTERM (save and leave with status 75), half SIGKILL, a third of them aimed at a save that is
going on. Prints one line per kill and one JSON line: the steps that were repeated, and whether all losses are equal.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from c2am_jax.errors import EXIT_STOPPED
from c2am_jax.files import as_path, is_remote
from c2am_jax.storage import Mirror
from c2am_jax.training.checkpoint import saved_steps

SMALL = {
    "model.backbone.width": 8,
    "model.fpn.channels": 16,
    "model.rpn.samples": 16,
    "model.rpn.pre_nms_train": 40,
    "model.rpn.post_nms_train": 20,
    "model.box_head.fc_channels": 16,
    "model.box_head.samples": 8,
    "model.mask_head.convs": 1,
    "model.mask_head.channels": 8,
    "train.batch_size": 2,
    "train.log_every": 1,
    "train.checkpoint_every": 7,
    "train.eval_every": 0,
}


def command(workdir: Path, steps: int, data: Path) -> list[str]:
    """A call of train.py."""
    overrides = SMALL | {"train.steps": steps, "data.dir": data}
    flags = [f"--config.{key}={value}" for key, value in overrides.items()]
    return [sys.executable, "train.py", "--config=configs/glyphs_c2am.py", f"--workdir={workdir}", *flags]


def losses(workdir: Path) -> dict[int, float]:
    """Loss of each step that is logged; of a workdir in a bucket those that are there."""
    try:
        text = (workdir / "metrics.jsonl").read_text()
    except FileNotFoundError:  # a run that resumes in a bucket removes it here, and takes the bucket's
        return {}
    found = {}
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue  # being written
        if "loss" in entry:  # no evaluation
            found[entry["step"]] = entry["loss"]
    return found


def growing(workdir: Path) -> Path:
    """Where ``metrics.jsonl`` grows: of a workdir in a bucket on this machine, from where it is sent at each save."""
    return Mirror.place(workdir) if is_remote(workdir) else workdir


def saving(workdir: Path) -> bool:
    """Whether a checkpoint is being written."""
    folder = workdir / "checkpoints"
    if is_remote(workdir):  # its name there is final from the first
        return sum(path.name.isdigit() for path in folder.glob("*")) > len(saved_steps(folder))
    return any("tmp" in path.name for path in folder.glob("*"))


def main() -> int:
    """The command; exit status 0 if the curves are equal."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", required=True, help="on this machine")
    parser.add_argument("--workdir", help="of both runs, such as gs://BUCKET/chaos; default: the folder")
    options = parser.parse_args()
    if is_remote(options.folder):
        parser.error(f"--folder {options.folder}: it is on this machine; --workdir takes a bucket")
    options.folder = Path(options.folder)
    options.folder.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(options.folder / "compiled")}
    log = (options.folder / "train.log").open("a")
    runs = as_path(options.workdir or options.folder)

    def launch(name):
        line = command(runs / name, options.steps, options.folder / "data")
        return subprocess.Popen(line, env=environment, stdout=log, stderr=log)

    begin = time.time()
    if launch("undisturbed").wait() != 0:
        print(f"the undisturbed run failed, see {options.folder / 'train.log'}")
        return 1
    print(f"undisturbed run: {time.time() - begin:.0f} s", flush=True)

    rng, workdir = random.Random(options.seed), runs / "disturbed"
    local = growing(workdir)
    kills, repeated, status = 0, 0, None
    while status != 0:
        before = max(losses(local), default=0)
        process = launch("disturbed")
        if kills < options.kills:
            kind = rng.choice([signal.SIGTERM, signal.SIGKILL])
            target, aim = rng.randrange(1, 12), rng.random() < 1 / 3
            while process.poll() is None:
                seen = max(losses(local), default=0)
                if seen >= before + target and (not aim or saving(workdir)):
                    break
                time.sleep(0.005 if aim else 0.1)
            time.sleep(rng.random() * 0.3)
            if process.poll() is None:
                process.send_signal(kind)
                kills += 1
        status = process.wait()
        reached = max(losses(local), default=0)
        if status == -signal.SIGKILL or status == EXIT_STOPPED:
            lost = reached - max(saved_steps(workdir / "checkpoints"), default=0)
            repeated += lost
            how = "SIGTERM" if status == EXIT_STOPPED else "SIGKILL"
            print(f"kill {kills}: {how} at step {reached}{', while saving' if aim else ''}, {lost} lost", flush=True)
        elif status != 0:
            print(f"unexpected exit status {status} at step {reached}, see {options.folder / 'train.log'}", flush=True)
            return 1
    expected, found = losses(runs / "undisturbed"), losses(workdir)
    line = {
        "benchmark": "chaos",
        "kills": kills,
        "steps": options.steps,
        "steps_repeated": repeated,
        "equal_losses": expected == found,
        "seconds": round(time.time() - begin),
    }
    print(json.dumps(line))
    return 0 if expected == found else 1


if __name__ == "__main__":
    sys.exit(main())
