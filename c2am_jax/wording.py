"""Numbers with their nouns, as messages say them."""

import re
from collections.abc import Sequence


def noun(number: int, one: str, several: str = "") -> str:
    """The noun that goes with a number: "picture" with 1, else "pictures"; also "classes" and "categories".

    `several` is for what has no such rule: `noun(count, "is", "are")`.
    """
    if number == 1:
        return one
    if several:
        return several
    if re.search("[^aeiou]y$", one):
        return f"{one[:-1]}ies"
    return f"{one}es" if one.endswith(("s", "x", "ch", "sh")) else f"{one}s"


def sides(hw: Sequence[int]) -> str:
    """A height and a width in pixels, each with its name: "height 480 and width 640"."""
    return f"height {hw[0]} and width {hw[1]}"


def counted(number: int, one: str, several: str = "") -> str:
    """A number with its noun: "1 picture", "2,400 pictures"."""
    return f"{number:,} {noun(number, one, several)}"
