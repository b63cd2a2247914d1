"""What a preparation leaves out: counted by reason, the first ones named."""

from collections.abc import Iterable, Mapping
from typing import Any

NEEDS_MASKS = "the detector trains on masks: give each annotation a polygon or run lengths as segmentation"
LISTED = 1000  # names kept of each reason: a file that is wrong throughout must not fill the memory


class Skipped:
    """Counts and names by reason."""

    def __init__(self, counts: Mapping[str, int] | None = None, entries: Mapping[str, list[str]] | None = None):
        """Empty, or what `as_dict` gave."""
        self.counts = dict(counts or {})
        self.entries = {reason: list(names) for reason, names in (entries or {}).items()}

    def add(self, reason: str, *names: str, count: int | None = None) -> None:
        """Count `names`, or `count` of which these are the first."""
        count = len(names) if count is None else count
        if count:
            self.counts[reason] = self.counts.get(reason, 0) + count
            listed = self.entries.setdefault(reason, [])
            listed.extend(names[: LISTED - len(listed)])

    def merge(self, others: Iterable["Skipped"]) -> None:
        """Add those of other parts, in order."""
        for other in others:
            for reason, count in other.counts.items():
                self.add(reason, *other.entries[reason], count=count)

    def as_dict(self) -> dict[str, Any]:
        """{"counts": ..., "entries": ...}, for json."""
        return {"counts": self.counts, "entries": self.entries}

    def told(self) -> str:
        """All reasons in one line of a message; empty if nothing was left out."""
        parts = [f"{count} x {reason}, for example {self.entries[reason][0]}" for reason, count in self.counts.items()]
        return f"left out: {'; '.join(parts)}" if parts else ""

    def lines(self) -> list[str]:
        """Each reason with its count and an example."""
        return [f"{reason}: {count:,}, for example {self.entries[reason][0]}" for reason, count in self.counts.items()]
