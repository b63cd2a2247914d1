"""The configs that come with the package: found by name in a clone and in an installed package."""

import ast
from pathlib import Path

from c2am_jax.errors import UserError
from c2am_jax.files import as_path

_PACKAGE = Path(__file__).resolve().parent
# An installed package has them inside; in a clone they stand beside the package.
FOLDER = next((folder for folder in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if folder.is_dir()), None)


def names() -> dict[str, str]:
    """Name -> first line of the docstring: "glyphs_c2am", "methods/eql" and so on."""
    if FOLDER is None:
        return {}
    files = [*sorted(FOLDER.glob("*.py")), *sorted(FOLDER.glob("methods/*.py"))]
    found = {}
    for file in files:
        text = ast.get_docstring(ast.parse(file.read_text())) or ""
        found[file.relative_to(FOLDER).with_suffix("").as_posix()] = text.split("\n")[0]
    return found


def listing() -> str:
    """All names with a line each, to print."""
    known = names()
    width = max(map(len, known), default=0)
    return "\n".join(f"  {name:{width}}  {line}" for name, line in known.items())


def find(argument: str) -> str:
    """The file that ``--config`` names, as a path; ``:ARGUMENT`` behind it stays.

    Args:
      argument: a file ("mine.py", "mine.py:v05"), or the name of a config that comes with the package ("glyphs_c2am",
        "methods/eql:v05"). ``configs/NAME.py`` is also a name where there is no such file. Or the ``config.json``
        of a run, which `config.get_config` reads.

    Raises:
      UserError: neither a file nor a known name.
    """
    if argument.endswith(".json") and as_path(argument).is_file():
        return f"{_PACKAGE / 'config.py'}:{argument}"
    file, colon, given = argument.partition(":")
    if Path(file).is_file():
        return argument
    name = file.removeprefix("configs/").removesuffix(".py")
    if FOLDER is not None and name and (FOLDER / f"{name}.py").is_file():
        return f"{FOLDER / name}.py{colon}{given}"
    raise UserError(
        f"no config file {file}; give a file, the config.json of a run or one of these names: {', '.join(names())}"
    )
