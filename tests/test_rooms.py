"""The rooms of the package: imports run one way, as docs/architecture.md says, and nothing imports in a circle."""

import ast
import graphlib
from pathlib import Path

import c2am_jax

# A room imports rooms of lines above its own, never those of its own line or below.
ORDER = (
    ("errors", "frequency", "processes", "progress", "structures", "wording"),
    ("files",),
    ("ahead", "checks", "config_files", "downloads", "environment", "storage", "to_onnx"),
    ("data", "ops", "visualization"),
    ("losses", "mesh"),
    ("models",),
    ("experiment", "weights"),
    ("config", "evaluation"),
    ("report", "training"),
    ("interop",),
    ("browse", "command_line", "experiments", "export", "predict"),
    ("eval", "train"),
)

# Names under which commands are started by `python -m`: they may stand in another room than what they start.
ENTRANCES = {
    "c2am_jax.data.browse": {"c2am_jax.browse.command"},
    "c2am_jax.data.stats": {"c2am_jax.browse.stats"},
}


def imports() -> dict[str, set[str]]:
    """The modules below `c2am_jax` that each of them imports, anywhere in its text."""
    root = Path(c2am_jax.__file__).parent
    files = {}
    for path in root.rglob("*.py"):
        parts = path.relative_to(root.parent).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    del files["c2am_jax"]  # only the version
    found: dict[str, set[str]] = {}
    for module, path in files.items():
        named = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{module} imports by a relative name"
                whole = {f"{node.module}.{alias.name}" for alias in node.names}
                named |= {name if name in files else str(node.module) for name in whole}
            elif isinstance(node, ast.Import):
                named |= {alias.name for alias in node.names}
        found[module] = named & files.keys() - {module}
    return found


def room(module: str) -> str:
    return module.split(".")[1]


def test_every_room_has_its_place():
    assert {room(module) for module in imports()} == {name for line in ORDER for name in line}


def test_imports_run_one_way():
    level = {name: number for number, line in enumerate(ORDER) for name in line}
    upwards = {
        (module, other)
        for module, others in imports().items()
        for other in others - ENTRANCES.get(module, set())
        if room(other) != room(module) and level[room(other)] >= level[room(module)]
    }
    assert not upwards


def test_nothing_imports_an_entrance():
    assert not ENTRANCES.keys() & set().union(*imports().values())


def test_no_module_imports_itself_through_others():
    graphlib.TopologicalSorter(imports()).prepare()  # raises CycleError, which names the circle
