"""A workdir has one owner: the run that trains there, by the claim ``owner.json``.

On one machine the kernel knows whether an owner lives, so a dead one's claim lapses at once, and a suspended one keeps
it. Of an owner elsewhere only the file is known: the owner renews it every `BEAT_S` seconds, and it lapses after
`LAPSE_S` seconds without. All hosts of one run are one owner: the first process claims for all.
"""

import contextlib
import dataclasses
import fcntl
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from c2am_jax.errors import UserError
from c2am_jax.files import replace_text

_LOG = logging.getLogger(__name__)
FILE = "owner.json"
BEAT_S, LAPSE_S = 15.0, 120.0  # file systems over a network show a change within a minute


@dataclasses.dataclass(frozen=True)
class Claim:
    """What ``owner.json`` says.

    Attributes:
      host: name of the machine.
      kernel: its boot and its process namespace; processes with equal ones see each other.
      process: number of the owner's process.
      started: when that process started, in the kernel's ticks; numbers are used again.
      since: when it claimed the workdir, in UTC.
      token: of this claim alone.
    """

    host: str
    kernel: str
    process: int
    started: str
    since: str
    token: str

    @classmethod
    def mine(cls) -> "Claim":
        """A new one of this process."""
        now = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        process = os.getpid()
        return cls(socket.gethostname(), _kernel(), process, _started(process), now, uuid.uuid4().hex)

    @property
    def text(self) -> str:
        """The owner in words."""
        return f"process {self.process} on {self.host}, since {self.since}"

    def alive(self) -> bool | None:
        """Whether the owner lives; None if it runs where this process can't see it."""
        if self.kernel != _kernel() or not self.started:
            return None
        return _started(self.process) == self.started


def refuse_living_owner(workdir: Path) -> None:
    """Raises UserError if a training is known to run in `workdir`: one of this machine."""
    owner = _read(workdir / FILE)
    if owner is not None and owner.alive():
        raise _refusal(workdir, owner)


def _read(file: Path) -> Claim | None:
    try:
        return Claim(**json.loads(file.read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        return Claim("an unknown host", "", 0, "", "an unknown time", "")


def _refusal(workdir: Path, owner: Claim) -> UserError:
    return UserError(
        f"{workdir}: another training runs there ({owner.text}): wait for it, stop it, or take another --workdir"
    )


class Ownership:
    """The claim of this run on a workdir; a context manager, in which it is renewed."""

    def __init__(self, workdir: Path):
        """Nothing is claimed yet."""
        self._workdir, self._file = workdir, workdir / FILE
        self._claim = Claim.mine()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True)
        self._lost: Claim | None = None

    def __enter__(self) -> "Ownership":
        """Claim the workdir for all processes of the run.

        Raises:
          UserError: another training runs there, or the folder can't be written; every process of the run raises.
        """
        problem: UserError | None = None
        if jax.process_index() == 0:
            try:
                self._workdir.mkdir(parents=True, exist_ok=True)
                self._take()
                self._thread.start()
            except UserError as error:
                problem = error
            except OSError as error:
                problem = UserError(
                    f"{self._workdir}: this workdir can't be written ({error.strerror or error}): free space or "
                    "permissions there, or take another --workdir"
                )
        if jax.process_count() > 1:
            refused = bool(multihost_utils.broadcast_one_to_all(np.array(problem is not None)))
            if refused and problem is None:
                problem = UserError(f"{self._workdir}: the first process of this run can't use it, see its output")
        if problem is not None:
            raise problem
        return self

    def __exit__(self, *error: object) -> None:
        """Give the workdir back."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join()
            with contextlib.suppress(OSError, ValueError):
                if _read(self._file) == self._claim:
                    self._file.unlink()

    def check(self) -> None:
        """Raises UserError if another run took the workdir meanwhile; for the first process, before it writes."""
        if self._thread.is_alive():
            self._look()
        if self._lost is not None:
            raise UserError(
                f"{self._workdir}: {self._lost.text}, trains here now, because this process gave no sign of life for "
                f"{LAPSE_S:.0f} s; nothing more is written, and that run goes on from the last checkpoint"
            )

    def _take(self) -> None:
        while True:
            with self._turn():
                owner = _read(self._file)
                if owner is None or owner.alive() is False:
                    if owner is not None:
                        _LOG.info("%s: its last owner is gone (%s)", self._workdir, owner.text)
                    return replace_text(self._file, json.dumps(dataclasses.asdict(self._claim), indent=1))
                if owner.alive():
                    raise _refusal(self._workdir, owner)
            if not self._lapses(owner):
                raise _refusal(self._workdir, owner)

    def _lapses(self, owner: Claim) -> bool:
        """Wait for a sign of life of an owner on another machine; without one the claim is deleted: True."""
        _LOG.info(
            "%s is claimed by %s: waiting up to %.0f s for a sign of life, in case it is dead",
            self._workdir,
            owner.text,
            LAPSE_S,
        )
        seen, until = self._renewed(), time.monotonic() + LAPSE_S
        while time.monotonic() < until:
            time.sleep(min(1.0, BEAT_S / 4))
            if self._renewed() != seen:
                return _read(self._file) != owner  # gone or of another now: look again
        with self._turn():
            if _read(self._file) == owner and self._renewed() == seen:
                self._file.unlink(missing_ok=True)
        return True

    def _renewed(self) -> float:
        try:
            return self._file.stat().st_mtime
        except FileNotFoundError:
            return 0.0

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """One process at a time, as far as the file system can say so."""
        with (self._workdir / f".{FILE}.lock").open("w") as lock:
            with contextlib.suppress(OSError):  # some file systems have no locks
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _look(self) -> None:
        there = _read(self._file)
        if there is None:
            replace_text(self._file, json.dumps(dataclasses.asdict(self._claim), indent=1))
        elif there != self._claim:
            self._lost = there

    def _renew(self) -> None:
        while self._lost is None and not self._closed.wait(BEAT_S):
            try:
                self._look()
                if self._lost is None:
                    os.utime(self._file)
            except OSError as error:
                _LOG.warning("%s: the claim on this workdir could not be renewed: %s", self._file, error)


def _kernel() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # no Linux
        return socket.gethostname()


def _started(process: int) -> str:
    """Start of a process in ticks since boot; "" if there is none or it has ended (a zombie)."""
    try:
        state, *fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return "" if state in "ZX" else fields[18]
    except OSError:
        return ""
