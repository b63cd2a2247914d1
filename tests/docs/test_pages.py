"""The docs: blocks can be pasted, every file, flag, key and module that a page names exists, pages are short."""

import ast
import json
import re
import subprocess
import sys
import tomllib

import pytest
from pages import BLOCKS, LANGUAGES, NEEDS, PAGES, ROOT, Block, inline_code

from c2am_jax import config_files
from c2am_jax.config import load_experiment, own_data, parse_overrides, with_overrides
from c2am_jax.experiments.published import METHODS as PUBLISHED
from c2am_jax.experiments.published import PAPER
from c2am_jax.experiments.rows import TABLES
from c2am_jax.losses.calibration import CALIBRATIONS
from c2am_jax.losses.methods import METHODS

# Pages to look things up in, not to read through.
LOOKED_UP = {"scaling.md", "performance.md", "architecture.md", "parity.md", "published_methods.md", "reference.md"}
OTHER_PROGRAMS = {
    "pip",
    "cmp",
    "python3",
    ".",
    "tensorboard",
    "mkdocs",
    "pre-commit",
    "ruff",
    "pyright",
    "gcloud",
    "srun",
}
SECTIONS = ("data", "train", "model", "eval", "loss", "calibration")


def flat(tree, prefix=""):
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key


@pytest.fixture(scope="module")
def keys():
    """Every key that some config has, and the groups of keys."""
    names = [name for name in config_files.names() if name != "own_data"]
    found = set(flat(own_data().to_dict())) | {"calibration.name"}
    for name in [name for name in names if name.startswith("methods/")] + ["cascade_r50_c2am", "maskrcnn_r50_c2am"]:
        found |= set(flat(load_experiment(name).as_dict()))
    return found | {key.rsplit(".", n)[0] for key in found for n in (1, 2) if key.count(".") >= n}


@pytest.fixture(scope="module")
def flags():
    """{source file: flags that it defines}."""
    found = {}
    for path in [*ROOT.glob("c2am_jax/**/*.py"), *ROOT.glob("benchmarks/*.py"), *ROOT.glob("tools/*.py")]:
        names = set()
        for call in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)):
            texts = [a.value for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            called = getattr(call.func, "attr", getattr(call.func, "id", ""))
            if called.startswith("DEFINE") and texts:
                names.add(f"--{texts[0]}")
            names |= {text for text in texts if text.startswith("--")}
        found[path.relative_to(ROOT).as_posix()] = names
    return found


def source_of(module):
    """The file of ``python -m MODULE``, "" for none."""
    path = module.replace(".", "/")
    return next((f for f in (f"{path}.py", f"{path}/__main__.py", f"{path}/__init__.py") if (ROOT / f).exists()), "")


def words(text):
    return len([word for word in text.split() if re.search(r"\w", word)])


def test_blocks_can_be_pasted_and_output_stands_apart():
    for block in BLOCKS:
        assert block.language in LANGUAGES, f"{block.page}: a block of {block.language or 'no language'}"
        assert not block.needs or block.needs in NEEDS, f"{block.page}: needs {block.needs}"
        if block.language == "bash":
            assert not re.search(r"^\s*\$ ", block.text, re.M), f"{block.page}: $ in {block.text}"
        if block.language == "python":
            ast.parse(block.text)
        if block.language == "json":
            json.loads(block.text)
        if block.language == "toml":
            tomllib.loads(block.text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_say_first_what_they_are_for_and_are_short(page):
    text = page.read_text()
    if page.name not in LOOKED_UP:
        assert words(text) <= 1200, f"{page.name}: {words(text)} words"
    first = text.partition("\n\n")[2].lstrip()
    assert not first.startswith(("#", "```", "|", "!")), f"{page.name} starts with {first[:40]!r}"


def test_the_reading_path_is_short():
    read = [page for page in PAGES if page.name not in LOOKED_UP | {"CONTRIBUTING.md"}]
    assert len(read) > 20
    total = sum(words(page.read_text()) for page in read)
    assert total <= 9690, f"{total} words: a fact stands on one page, others link to it"


def check_command(command, block: Block, flags, keys):
    """That the program, its flags, configs and config keys exist."""
    where = f"{block.page}: {' '.join(command)}"
    if command[0] != "python":
        assert command[0] in OTHER_PROGRAMS, where
        return
    if command[1] in ("train.py", "eval.py"):
        sources = [f"c2am_jax/{command[1]}", "c2am_jax/command_line.py"]
        rest = command[2:]
    else:
        module = command[2] if command[1] == "-m" else command[1].removesuffix(".py").replace("/", ".")
        if module == "pytest":
            return
        file, rest = source_of(module), command[3 if command[1] == "-m" else 2 :]
        assert file, where
        folder = file.rpartition("/")[0]
        sources = [file, *(f for f in flags if f.startswith(f"{folder}/") and folder != "c2am_jax")]
        if module == "c2am_jax.data.browse":
            sources.append("c2am_jax/browse/command.py")
    known = set().union(*(flags[source] for source in sources))
    overrides, config = [], None
    for i, word in enumerate(rest):
        name, equals, value = word.partition("=")
        if name.startswith("--config."):
            overrides.append(word.removeprefix("--config."))
        elif name == "--config":
            config = value if equals else rest[i + 1]
        elif name in ("--override", "--first"):
            overrides.append(value if equals else rest[i + 1])
        elif name.startswith("--"):
            assert name in known, f"{where}: no flag {name}"
    for override in overrides:
        assert override.partition("=")[0] in keys, f"{where}: no key {override}"
    is_file_of_the_page = config and any(b.file and b.file == config.partition(":")[0] for b in BLOCKS)
    if config and not is_file_of_the_page and "own_data" not in config:
        with_overrides(load_experiment(config), parse_overrides([o for o in overrides if "calibration" not in o]))


def test_commands_have_the_flags_configs_and_keys_that_the_blocks_give_them(flags, keys, monkeypatch):
    monkeypatch.chdir(ROOT)
    for block in BLOCKS:
        for command in block.commands if block.language == "bash" else []:
            check_command(command, block, flags, keys)


PLACEHOLDER = re.compile(r"\b[A-Z]{2,}\b|N\b|\.\.\.|[*{]")
PATH = re.compile(
    r"((?:c2am_jax|configs|tests|benchmarks|docs|tools|\.ci)/[\w./]+|train\.py|eval\.py|[\w-]+\.cff|requirements[\w-]*\.txt)$"
)
MODULE = re.compile(r"(?:python -m )?((?:c2am_jax|benchmarks)(?:\.\w+)+)\b")


def names_a_thing(dotted):
    """Whether a dotted name is a module or stands in one."""
    parts = dotted.split(".")
    for n in range(len(parts), 0, -1):
        file = source_of(".".join(parts[:n]))
        if file or (ROOT / "/".join(parts[:n])).is_dir():
            text = (ROOT / file).read_text() if file else ""
            return all(re.search(rf"\b{part}\b", text) for part in parts[n:])
    return False


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_flag_key_and_module_that_a_page_names_exists(page, flags, keys):
    every_flag = set().union(*flags.values()) | {"--help", "--config"}
    for code in inline_code(page):
        for word in code.split():
            path = PATH.match(word.partition(":")[0].rstrip(",.;/"))
            if path and not PLACEHOLDER.search(word):
                assert (ROOT / path[1]).exists(), f"{page.name}: no file {word}"
            flag = re.match(r"--[a-z][a-z_-]*", word)
            if flag and flag[0] == "--config":
                key = re.match(r"--config\.([\w.]+)", word)
                assert not key or PLACEHOLDER.search(key[1]) or key[1] in keys, f"{page.name}: no key {word}"
            elif flag and not code.startswith(("gcloud", "srun", "npm", "pip", "tensorboard", "--beam")):
                assert flag[0] in every_flag, f"{page.name}: no flag {word}"
            key = re.fullmatch(rf"(?:config\.)?((?:{'|'.join(SECTIONS)})(?:\.[a-z_0-9]+)+)(?:=.*)?", word)
            if (
                key
                and not word.endswith((".py", ".md", ".json", ".npz", ".jpg"))
                and not source_of(f"c2am_jax.{key[1]}")
            ):
                assert key[1] in keys or names_a_thing(f"c2am_jax.{key[1]}"), f"{page.name}: no key {word}"
        module = MODULE.match(code)
        if module and not PLACEHOLDER.search(module[1]):
            assert names_a_thing(module[1]), f"{page.name}: no module {module[1]}"
    for link in re.findall(r"\]\((?!https?://|#)([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / link).exists(), f"{page.name}: no file {link}"


def messages():
    """The texts of the package as one string each, with "..." where a value is put in."""
    for path in [*ROOT.glob("c2am_jax/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                yield "".join(str(v.value) if isinstance(v, ast.Constant) else "\0" for v in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_three_words_of_each_message_of_troubleshooting_are_in_the_package():
    texts = "\n".join(messages())
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    listed = [cell for row in re.findall(r"^\| (`.*?) \|", page, re.M) for cell in re.findall(r"`([^`]+)`", row)]
    assert len(listed) > 50
    gone = []
    for message in listed:
        pieces = [piece.split() for piece in re.split(r"\.\.\.|\d+|'\w+'", message)]
        runs = [" ".join(words[i : i + 3]) for words in pieces for i in range(max(1, len(words) - 2))]
        gone += [] if any(run in texts for run in runs if len(run) > 6) else [message]
    assert not gone, f"no text of the package has words of {gone}"


def test_every_method_has_its_row_and_its_published_numbers_where_there_are_some():
    text = (ROOT / "docs" / "methods.md").read_text() + (ROOT / "docs" / "two_stage.md").read_text()
    for name in [*METHODS, *CALIBRATIONS[1:]]:
        assert re.search(rf"^\| `(methods/)?{name}", text, re.M) or f"`{name}`" in text, name
    configs = {name.partition("/")[2] for name in config_files.names() if name.startswith("methods/")}
    assert set(PUBLISHED) <= configs | set(CALIBRATIONS)
    for number, rows in PAPER.items():
        assert set(rows) <= {row.key for row in TABLES[number][1]} | {row.key for row in TABLES["6"][1]}, number


def test_generated_tables_are_up_to_date():
    done = subprocess.run([sys.executable, "tools/tables.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_version_is_the_same_everywhere():
    (version,) = re.findall(r'__version__ = "(.+)"', (ROOT / "c2am_jax/__init__.py").read_text())
    assert f"version: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"{{{version}}}" in (ROOT / "docs/cite.md").read_text()
    assert f"## {version} (" in (ROOT / "CHANGELOG.md").read_text()
