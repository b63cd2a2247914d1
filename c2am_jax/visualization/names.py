"""Class names as they stand on pictures: readable, and shortened where a name ends or a word does."""

import functools
import re
from pathlib import Path

import matplotlib
from PIL import ImageFont

FONT_SIZE = 13
_BETWEEN = re.compile(r"(?<=[^\s_])_+(?=[^\s_])")
WORTH = 0.5  # of the letters that fit, which whole words must keep; else the last word is cut


@functools.cache
def font() -> ImageFont.FreeTypeFont:
    """Of names on pictures and captions above them."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), FONT_SIZE)


def readable(name: str) -> str:
    """A class name with spaces for the underscores between its words: "baby buggy (vehicle)"."""
    return _BETWEEN.sub(" ", name)


def fitting(text: str, ending: str, width: int) -> str:
    """`text` and `ending`, the text shortened until both are at most `width` pixels wide.

    The explanation in brackets at the end of a name goes first, then whole words, then letters.
    """
    whole = f"{text} {ending}".strip()
    if font().getlength(whole) <= width:
        return whole
    kept = text
    while kept and font().getlength(f"{kept.rstrip()}… {ending}".strip()) > width:
        kept = kept[:-1]
    return f"{_rounded(kept, text)}… {ending}".strip() if kept.strip() else ending


def _rounded(kept: str, text: str) -> str:
    """The beginning `kept` of a text, cut back to whole words and whole brackets where enough is left."""
    before, bracket, _ = kept.rpartition("(")
    if bracket and ")" not in kept[len(before) :] and before.strip():
        return before.rstrip()
    words = kept if text[len(kept)].isspace() else kept.rpartition(" ")[0]
    return words.rstrip() if len(words) >= WORTH * len(kept) else kept.rstrip()
