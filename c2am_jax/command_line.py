"""What c2am-train and c2am-eval share: flags, a config, help, and one line for wrong flags."""

import functools
import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

from c2am_jax import config_files
from c2am_jax.errors import UserError, bare, guarded, say
from c2am_jax.files import as_path
from c2am_jax.storage import check_reachable

CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "Experiment: a name such as glyphs_c2am, a file, or the config.json of a run; NAME:ARGUMENT where a config "
    "takes one. "
    "--config.KEY=VALUE changes a value of it, such as --config.train.batch_size=8.",
    lock_config=True,
)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of checkpoints and logs, local or gs://BUCKET/...; default runs/NAME."
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator",
    None,
    "Several hosts: HOST:PORT of the first process; unset on TPU pods and Slurm with --distributed.",
)
_PROCESSES = flags.DEFINE_integer("processes", None, "Several hosts: how many processes, with --coordinator.")
_PROCESS = flags.DEFINE_integer(
    "process", None, "Several hosts: the number of this process, from 0, with --coordinator."
)
_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "Several hosts that JAX finds itself: TPU pods, Slurm, MPI.")
HEARTBEAT_S = 100  # after which the others give up on a host


def start_distributed() -> None:
    """Join the other processes of the run, if the flags say that there are any.

    Raises:
      UserError: flags that do not go together, or a coordinator that does not answer.
    """
    if not (_DISTRIBUTED.value or _COORDINATOR.value):
        return
    import jax

    if _COORDINATOR.value and (_PROCESSES.value is None or _PROCESS.value is None):
        raise UserError("--coordinator needs --processes and --process")
    try:
        jax.distributed.initialize(
            coordinator_address=_COORDINATOR.value,
            num_processes=_PROCESSES.value,
            process_id=_PROCESS.value,
            heartbeat_timeout_seconds=HEARTBEAT_S,
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(f"the processes of the run do not find each other: {error}") from None


def given_config() -> Any:
    """The config of ``--config``. Raises UserError without one, after the list of those there are."""
    if CONFIG.value is None:
        print(f"configs:\n{config_files.listing()}", file=sys.stderr)
        raise UserError("give --config NAME_OR_FILE, one of these names or a file of your own")
    return CONFIG.value


def check_environment() -> None:
    """Print where the run computes, and what about it needs the user's attention."""
    from c2am_jax import environment  # which asks JAX for its devices

    print(environment.devices_line(), file=sys.stderr)
    for warning in environment.warnings():
        print(f"warning: {warning}", file=sys.stderr)


def _help(usage: str) -> str:
    """Usage, every flag of the command, every config."""
    found = [
        flag
        for module, of_module in flags.FLAGS.flags_by_module_dict().items()
        if module.startswith("c2am_jax") or module == sys.argv[0]  # which is how absl names a module that is run
        for flag in of_module
    ]
    lines = [usage.strip(), "", "flags:"]
    for flag in found:
        shown = "" if flag.boolean else f"={flag.name.upper()}"
        default = "" if flag.default in (None, False) else f" Default {flag.default}."
        lines += [f"  --{flag.name}{shown}", f"      {flag.help}{default}"]
    return "\n".join([*lines, "", "configs:", config_files.listing()])


def with_config_of_workdir(arguments: Sequence[str]) -> list[str]:
    """Arguments that name a run by ``--workdir`` alone, with the run's own ``--config`` before the others."""
    command, *given = arguments
    named = [argument.lstrip("-").partition("=")[0] if argument.startswith("-") else "" for argument in given]
    if "workdir" in named and not {"config", "annotations"} & {*named}:  # annotations are scored without any config
        place = named.index("workdir")
        _, equals, workdir = given[place].partition("=")
        workdir = workdir if equals else "".join(given[place + 1 : place + 2])
        check_reachable(workdir, run=True)
        file = as_path(workdir) / "config.json"
        if file.is_file():
            return [command, f"--config={file}", *given]
    return [command, *given]


def _parse(arguments: Sequence[str], complete: Callable[[Sequence[str]], list[str]]) -> list[str]:
    try:
        arguments = complete(arguments)
    except UserError as error:
        sys.exit(say(error))
    for number, argument in enumerate(arguments):
        if argument == "--config" and number + 1 < len(arguments):
            argument = f"--config={arguments.pop(number + 1)}"
        if argument.startswith("--config="):
            try:
                arguments[number] = f"--config={config_files.find(argument.removeprefix('--config='))}"
            except UserError as error:
                sys.exit(say(error))
    try:
        return flags.FLAGS(arguments)
    except (AttributeError, KeyError) as error:
        from c2am_jax.experiment import RENAMED  # which imports JAX

        for old, now in RENAMED.items():
            if any(argument.startswith(f"--config.{old}") for argument in arguments):
                sys.exit(say(f"config.{old}: no such setting any more; {now}"))
        sys.exit(say(f"no such key in the config (WORKDIR/config.json of a run lists all): {bare(error)}"))
    except flags.UnrecognizedFlagError as error:
        sys.exit(say(f"{error}; settings of the config are flags like --config.KEY=VALUE"))
    except (UserError, flags.Error, TypeError, ValueError, OSError) as error:
        told = _of_config_file(error) or _of_value(error) or str(error)
        if "get_config() takes 0 positional arguments" in told:
            told = "this config takes no argument behind ':' in --config"
        sys.exit(say(told))


def _of_config_file(error: Exception) -> str:
    """What an error in a config file says; ml_collections hands on its traceback as one text."""
    told, _, trace = str(error).partition(": Error whilst parsing config file:")
    return f"{told.removeprefix('flag ')}: {trace.strip().splitlines()[-1].partition(': ')[2]}" if trace else ""


_KINDS = {
    "invalid literal for int()": "a whole number",
    "could not convert string to float": "a number",
    "('Non-boolean argument to boolean flag'": "True or False",
}


def _of_value(error: Exception) -> str:
    """What an error of a flag's value says, if it is not of the flag's type, in the words of `checks`."""
    for problem, kind in _KINDS.items():
        flag, found, _ = str(error).partition(f": {problem}")
        if found:
            return f"{flag.removeprefix('flag ').replace('--config.', 'config.', 1)}: must be {kind}"
    return ""


class _PlainLines(logging.Formatter):
    """A log line as the commands print: the message, after "warning: " or "error: " if it is one."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, and the traceback if there is one."""
        kind = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        return kind + super().format(record)


def run(
    main: Callable[[Sequence[str]], None], usage: str, complete: Callable[[Sequence[str]], list[str]] = list
) -> None:
    """`absl.app.run` of a `guarded` main; wrong flags are one line and exit status 2 too.

    Args:
      main: takes the arguments that are no flags.
      usage: printed first by ``--help``.
      complete: adds to the arguments before they are read, such as `with_config_of_workdir`.
    """

    def checked(arguments: Sequence[str]) -> None:
        if len(arguments) > 1:
            raise UserError(f"unexpected argument {arguments[1]!r}; overrides look like --config.KEY=VALUE")
        absl_logging.set_verbosity(absl_logging.ERROR)  # Orbax and TFDS log every step they take
        absl_logging.get_absl_handler().setFormatter(_PlainLines())
        logging.getLogger("c2am_jax").setLevel(logging.INFO)
        main(arguments)

    if {"--help", "-help", "-h", "--helpfull"} & set(sys.argv[1:]):
        print(_help(usage))
        return
    app.run(guarded(checked), flags_parser=functools.partial(_parse, complete=complete))
