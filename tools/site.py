"""What the site adds to the pages (a hook of mkdocs): formulas as MathML, the notebook as a page.

Nothing of it needs a script or another host in the reader's browser.
"""

import base64
import html
import json
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>([,.;:)]*)', re.DOTALL)
_CODE = re.compile(r"<code>([^<>\n]+)</code>")  # not of a block, which ends with a line break
_LINE = 43  # letters of code that a phone's line holds
_SHORT = 20  # letters of code that stay on one line, spaces too
_COMMANDS = re.compile(r'<div class="language-bash highlight">.*?</div>', re.DOTALL)
_COMMAND = re.compile(r'(<span id="__span[^"]*">(?:<a [^>]*></a>)?)(.*?)(\n</span>)')
_SPACE = '<span class="w"> </span>'
_OUTPUTS = ("png", "jpeg")


def on_page_markdown(text: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links to a notebook lead to its page, but for the page's own, which is the download."""
    notebook = page.file.src_uri.removesuffix(".md") + ".ipynb"
    return re.sub(
        r"\((\w+)\.ipynb\)", lambda link: link[0] if link[1] + ".ipynb" == notebook else f"({link[1]}.md)", text
    )


def on_page_content(text: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Formulas become MathML and keep the comma behind them; words of code stay whole, long ones break behind a dot."""

    def formula(found: re.Match[str]) -> str:
        display = "block" if found[1] == "div" else "inline"
        math = convert(html.unescape(found[2]).strip(), display=display)
        return f"<span class=whole>{math}{found[3]}</span>" if found[3] else math

    def code(found: re.Match[str]) -> str:
        words = [found[1]] if len(found[1]) <= _SHORT else found[1].split(" ")
        return f"<code>{' '.join(map(whole, words))}</code>"

    def whole(word: str) -> str:
        parts = [word] if len(word) <= _LINE else re.split(r"(?<=[./=])", word)
        return "<wbr>".join(f"<span class=whole>{part}</span>" for part in parts)

    def command(line: re.Match[str]) -> str:
        words = (f"<span class=word>{word}</span>" if word else "" for word in line[2].split(_SPACE))
        return line[1] + _SPACE.join(words) + line[3]

    text = _COMMANDS.sub(lambda block: _COMMAND.sub(command, block[0]), text)
    return _CODE.sub(code, _FORMULA.sub(formula, text))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Every notebook is a page, its pictures files beside it."""
    for notebook in [file for file in files if file.src_uri.endswith(".ipynb")]:
        stem = notebook.src_uri.removesuffix(".ipynb")
        content = json.loads(Path(str(notebook.abs_src_path)).read_text())
        text, pictures = markdown_of(content, stem)
        files.append(File.generated(config, f"{stem}.md", content=text))
        for name, data in pictures.items():
            files.append(File.generated(config, name, content=data))
    return files


def markdown_of(notebook: dict[str, Any], stem: str) -> tuple[str, dict[str, bytes]]:
    """A notebook as (markdown, pictures by file name): text, code, what the code printed, what it drew."""
    parts, pictures = [], {}
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", []):
            if "text" in output:
                parts.append(f"```text\n{''.join(output['text']).rstrip()}\n```")
            for kind in _OUTPUTS:
                data = output.get("data", {}).get(f"image/{kind}")
                if data:
                    name = f"images/{stem}_{len(pictures)}.{kind}"
                    pictures[name] = base64.b64decode("".join(data))
                    parts.append(f"![output]({name})")
    parts.append(f"[Download the notebook]({stem}.ipynb)")
    return "\n\n".join(parts) + "\n", pictures
