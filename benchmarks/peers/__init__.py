"""The PyTorch detectors that this one is measured against, each run by a Python that has them.

A peer script builds the detector, prints one JSON line with its versions, then runs one step for every line on its
standard input and answers with that step's seconds; at the end of the input it prints its peak memory. So a benchmark
takes its own steps and the peer's in turns, and both see the same machine.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


class Peer:
    """A running peer script; a context manager."""

    def __init__(self, script: str, python: str, arguments: list[str]):
        """Start it and wait until it is ready.

        Args:
          script: "mmdetection" or "torchvision".
          python: interpreter that has it installed.
          arguments: of the script.

        Raises:
          SystemExit: it did not start; its own error stands above.
        """
        command = [python, str(FOLDER / f"{script}_peer.py"), *arguments]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.versions = self._answer()

    def __enter__(self) -> "Peer":
        """Itself."""
        return self

    def __exit__(self, *_: Any) -> None:
        """End it, whatever happened."""
        self._process.kill()
        self._process.wait()

    def step(self) -> float:
        """Seconds of one more step."""
        assert self._process.stdin is not None
        self._process.stdin.write("step\n")
        self._process.stdin.flush()
        return self._answer()["seconds"]

    def finish(self) -> dict[str, Any]:
        """What it says at the end: "peak_gb" and facts of its last step."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise SystemExit(f"{self._process.args[1]} did not run under {self._process.args[0]}: see its error above")  # type: ignore[index]
