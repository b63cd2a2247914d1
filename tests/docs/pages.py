"""The pages of the docs: their code blocks, and the names in them."""

import dataclasses
import re
import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
# What a machine that runs the tests may lack; the line above a block names it: <!-- needs: LVIS -->
NEEDS = {"LVIS", "GPU", "TPU", "cloud", "network", "your files"}
LANGUAGES = {"bash", "python", "text", "json", "toml", "bibtex"}

_BLOCK = re.compile(r"(?:<!-- needs: ([^>]+) -->\n)?^```([a-z]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_FILE = re.compile(r"as `([\w/]+\.py)`[^`]*\Z")


@dataclasses.dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
      page: its file's name.
      language: behind the fence.
      text: its lines.
      needs: what it needs beyond an installation, "" for nothing.
      file: where the text in front of it says that it belongs ("Write ... as `FILE`"), "" for nowhere.
    """

    page: str
    language: str
    text: str
    needs: str
    file: str

    @property
    def commands(self) -> list[list[str]]:
        """The commands of a bash block, each as its words."""
        lines = self.text.replace("\\\n", " ").splitlines()
        parts = [part for line in lines if line.strip() for part in line.split("&&")]
        return [shlex.split(part.split(" > ")[0]) for part in parts]


def blocks_of(page: Path) -> list[Block]:
    """All blocks of a page, in order."""
    text = page.read_text()
    found = []
    for match in _BLOCK.finditer(text):
        file = _FILE.search(text[: match.start()].rstrip("\n"))
        found.append(Block(page.name, match[2], match[3], match[1] or "", file[1] if file else ""))
    return found


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def inline_code(page: Path) -> set[str]:
    """What stands between single backticks in a page."""
    return set(re.findall(r"(?<!`)`([^`\n]+)`(?!`)", _BLOCK.sub("", page.read_text())))
