"""A workdir has one owner: the run that trains there, by the claim ``owner.json``.

On one machine the kernel knows whether an owner lives, so a dead one's claim lapses at once, and a suspended one keeps
it. Of an owner elsewhere only the file is known: the owner renews it every `BEAT_S` seconds, and it lapses after
`LAPSE_S` seconds without. All hosts of one run are one owner: the first process claims for all. Two that claim at the
same time are told apart by a lock on a disk, and in a bucket by writes on a condition (if-generation-match).
"""

import contextlib
import dataclasses
import json
import logging
import os
import socket
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from c2am_jax.errors import UserError
from c2am_jax.files import is_remote, locked, replace_text
from c2am_jax.storage import StorageError, delete_version, read_version, write_version

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
    owner, _ = _claim_file(workdir).read()
    if owner is not None and owner.alive():
        raise _refusal(workdir, owner)


def _refusal(workdir: Path, owner: Claim) -> UserError:
    return UserError(
        f"{workdir}: another training runs there ({owner.text}): wait for it, stop it, or take another --workdir"
    )


class _LocalFile:
    """``owner.json`` of a folder. Its version is its time and number on the disk; a lock keeps writers apart."""

    fresh_s = 0.0  # how long what was read last is good for

    def __init__(self, workdir: Path):
        self._file, self._lock = workdir / FILE, workdir / f".{FILE}.lock"

    def read(self) -> tuple[Claim | None, Any]:
        """The claim and its version, which changes when it is renewed; None, None without one."""
        try:
            stat = self._file.stat()
            return _parsed(self._file.read_text()), (stat.st_mtime_ns, stat.st_ino)
        except FileNotFoundError:
            return None, None

    def write(self, claim: Claim, version: Any) -> bool:
        """Write a claim if the file still has that version (None: is not there); whether it did."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with locked(self._lock):
            if self.read()[1] != version:
                return False
            replace_text(self._file, _text(claim))
            return True

    def renew(self, claim: Claim, version: Any) -> None:
        """A sign of life."""
        os.utime(self._file)

    def delete(self, version: Any) -> None:
        """Give the claim up, if it has that version still."""
        with locked(self._lock):
            if self.read()[1] == version:
                self._file.unlink(missing_ok=True)


class _BucketFile:
    """``owner.json`` in a bucket, which itself writes only what is still of the version (generation) that was read."""

    fresh_s = 5.0  # a look is a request over the network

    def __init__(self, workdir: Path):
        self._file = workdir / FILE

    def read(self) -> tuple[Claim | None, Any]:
        """As `_LocalFile.read`."""
        found = read_version(self._file)
        return (None, None) if found is None else (_parsed(found[0]), found[1])

    def write(self, claim: Claim, version: Any) -> bool:
        """As `_LocalFile.write`."""
        written = write_version(self._file, _text(claim), version or 0) is not None
        return written or self.read()[0] == claim  # it came through, its answer did not

    def renew(self, claim: Claim, version: Any) -> None:
        """As `_LocalFile.renew`; nothing if another run has it by now."""
        write_version(self._file, _text(claim), version)

    def delete(self, version: Any) -> None:
        """As `_LocalFile.delete`."""
        delete_version(self._file, version)


def _claim_file(workdir: Path) -> _LocalFile | _BucketFile:
    return _BucketFile(workdir) if is_remote(workdir) else _LocalFile(workdir)


def _text(claim: Claim) -> str:
    return json.dumps(dataclasses.asdict(claim), indent=1)


def _parsed(text: str) -> Claim:
    try:
        return Claim(**json.loads(text))
    except (ValueError, TypeError):
        return Claim("an unknown host", "", 0, "", "an unknown time", "")


class Ownership:
    """The claim of this run on a workdir; a context manager, in which it is renewed."""

    def __init__(self, workdir: Path):
        """Nothing is claimed yet."""
        self._workdir, self._file = workdir, _claim_file(workdir)
        self._claim = Claim.mine()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True)
        self._lost: Claim | None = None
        self._looked = float("-inf")

    def __enter__(self) -> "Ownership":
        """Claim the workdir for all processes of the run.

        Raises:
          UserError: another training runs there, or the folder can't be written; every process of the run raises.
        """
        problem: UserError | None = None
        if jax.process_index() == 0:
            try:
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
            with contextlib.suppress(OSError, StorageError):
                owner, version = self._file.read()
                if owner == self._claim:
                    self._file.delete(version)

    def check(self) -> None:
        """Raises UserError if another run took the workdir meanwhile; for the first process, before it writes."""
        if self._thread.is_alive() and time.monotonic() - self._looked >= self._file.fresh_s:
            self._look()
        if self._lost is not None:
            raise UserError(
                f"{self._workdir}: {self._lost.text}, trains here now, because this process gave no sign of life for "
                f"{LAPSE_S:.0f} s; nothing more is written, and that run resumes from the last checkpoint"
            )

    def _take(self) -> None:
        while True:
            owner, version = self._file.read()
            if owner is not None and owner.alive():
                raise _refusal(self._workdir, owner)
            if owner is not None and owner.alive() is None and not self._lapses(owner, version):
                continue  # it is alive, or gone, or another has it: look again
            if owner is not None and owner.alive() is False:
                _LOG.info("%s: its last owner is gone (%s)", self._workdir, owner.text)
            if self._file.write(self._claim, version):
                return

    def _lapses(self, owner: Claim, version: Any) -> bool:
        """Wait for a sign of life of an owner on another machine; True if none came. Raises UserError if one came."""
        waiting = "%s is claimed by %s: waiting up to %.0f s for a sign of life, in case it is dead"
        _LOG.info(waiting, self._workdir, owner.text, LAPSE_S)
        until = time.monotonic() + LAPSE_S
        while time.monotonic() < until:
            time.sleep(min(1.0, BEAT_S / 4))
            there, now = self._file.read()
            if now != version:
                if there == owner:
                    raise _refusal(self._workdir, owner)
                return False
        return True

    def _look(self) -> Any:
        """See who owns the workdir; returns the version of the own claim, written again if somebody deleted it."""
        there, version = self._file.read()
        self._looked = time.monotonic()
        if there is None:
            self._file.write(self._claim, None)
        elif there != self._claim:
            self._lost = there
        return version

    def _renew(self) -> None:
        while self._lost is None and not self._closed.wait(BEAT_S):
            try:
                version = self._look()
                if self._lost is None and version is not None:
                    self._file.renew(self._claim, version)
            except (OSError, StorageError) as error:
                _LOG.warning("%s: the claim on this workdir could not be renewed: %s", self._workdir / FILE, error)


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
