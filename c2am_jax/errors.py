"""What the user can fix: the commands print its one line and exit with status 2."""

import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any


class UserError(Exception):
    """Wrong input. The text names the file, key or value, and what to do about it."""


EXIT_STOPPED = 75  # EX_TEMPFAIL of sysexits.h: saved, the same command resumes
EXIT_INTERRUPTED = 130  # what shells report of a command that Ctrl-C ended


class Stopped(Exception):
    """The machine or the user asked to stop; the state is saved, and the same command resumes."""


BEST = "best"  # `--step` of the checkpoint with the best evaluation so far
NO_BEST = "no checkpoint there; a run has one when it evaluates while it trains"
STEP_HELP = "of the checkpoint: a number, or best; default the newest"


def checkpoint_step(text: str) -> int | str:
    """What ``--step`` says: a number or "best". Raises UserError for anything else."""
    if text == BEST:
        return text
    if not (text.isascii() and text.isdigit()):
        raise UserError(f"--step {text}: must be a whole number (a checkpoint's step), or {BEST}")
    return int(text)


def first_of(texts: Sequence[str], most: int, separator: str = ", ") -> str:
    """The first `most` texts in a row, and how many more there are."""
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return separator.join(texts[:most]) + more


def guarded(main: Callable[..., int | None]) -> Callable[..., int]:
    """A command whose `UserError` and `OSError` are one line on stderr and exit status 2, as the result.

    Ctrl-C is one line and status 130.
    """

    @functools.wraps(main)
    def command(*arguments: Any) -> int:
        try:
            return main(*arguments) or 0
        except (UserError, OSError) as error:  # the text of an OSError names the file
            return say(error)
        except Stopped as stopped:
            print(stopped, file=sys.stderr)
            return EXIT_STOPPED
        except KeyboardInterrupt:
            print("\ninterrupted: run the same command again to resume", file=sys.stderr)
            return EXIT_INTERRUPTED

    return command


def say(error: BaseException | str) -> int:
    """Print an error as one line; returns the exit status of wrong input."""
    text = " ".join(str(bare(error)).split())
    print(f"error: {text}", file=sys.stderr)
    return 2


def bare(error: BaseException | str) -> BaseException | str:
    """The message of an error without what Python puts around it."""
    while isinstance(error, KeyError | AttributeError) and error.args:
        error = error.args[0]  # a KeyError's own text is the repr of its message, quotes and escapes included
    return error
