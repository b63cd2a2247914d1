"""The program before the compiler: how large its text is, and how much of it are constants."""

import dataclasses
import re

_CONSTANT = re.compile(r'= stablehlo\.constant dense<(["\[].*)> : tensor<([^>]*)>')
LISTED = 5


@dataclasses.dataclass(frozen=True)
class ProgramText:
    """Sizes of a StableHLO text.

    Attributes:
      size: characters.
      constants: of them in arrays written out value by value.
      largest: types of the largest of these arrays, such as "268569x4xf32", with their characters.
    """

    size: int
    constants: int
    largest: list[tuple[str, int]]


def measure(text: str) -> ProgramText:
    """What a StableHLO text consists of; constants that are one value at every place are no arrays."""
    arrays = [(found[2], len(found[1])) for found in _CONSTANT.finditer(text)]
    largest = sorted(arrays, key=lambda array: -array[1])[:LISTED]
    return ProgramText(len(text), sum(length for _, length in arrays), largest)
