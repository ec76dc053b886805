"""The book of evidence in a run's status: what was counted, from where the present window begins, what the judge noted.

A reader counts up from its own start. The book keeps what earlier readers had reached (``base``), so that a restart of
the operator loses nothing that was written down, and reading the same totals twice adds nothing.
"""

from dataclasses import dataclass, field, replace
from typing import Any

from serinus.analysis.model import Counts, Evidence
from serinus.delivery.model import Totals


@dataclass(frozen=True, slots=True)
class Book:
    """``total`` is all that was counted in this run, ``mark`` what it was when the present window began.

    ``last`` is what the stable version did in the last window in which it was asked.
    """

    reader: str = ""
    base: Evidence = field(default_factory=Evidence)
    total: Evidence = field(default_factory=Evidence)
    mark: Evidence = field(default_factory=Evidence)
    last: Counts = field(default_factory=Counts)
    notes: dict[str, Any] | None = None

    def counted(self, totals: Totals | None) -> "Book":
        """Return the book with what the reader has reached. Another reader starts on top of what is written."""
        if totals is None:
            return self
        base = self.base if totals.reader == self.reader else self.total
        return replace(self, reader=totals.reader, base=base, total=_add(base, totals.evidence))

    def marked(self) -> "Book":
        """Return the book with a new, empty window."""
        stable = self.window.stable
        return replace(self, mark=self.total, last=stable if stable.requests else self.last, notes=None)

    @property
    def window(self) -> Evidence:
        """What was counted since the mark."""
        return Evidence(self.total.candidate - self.mark.candidate, self.total.stable - self.mark.stable)

    @property
    def compared(self) -> Evidence:
        """The window with the stable version's last one in it: at weight 100 nothing reaches the stable version."""
        return Evidence(self.window.candidate, self.last + self.window.stable)

    def dump(self) -> dict[str, Any]:
        """Return the book as plain JSON for the status."""
        return {
            "reader": self.reader,
            "base": _dump(self.base),
            "total": _dump(self.total),
            "mark": _dump(self.mark),
            "last": _row(self.last),
            "notes": self.notes or {},
        }


def load(raw: dict[str, Any]) -> Book:
    """Return the book that ``dump`` wrote; an empty one for an empty dict."""
    if not raw:
        return Book()
    return Book(
        reader=raw["reader"],
        base=_load(raw["base"]),
        total=_load(raw["total"]),
        mark=_load(raw["mark"]),
        last=_counts(raw["last"]),
        notes=raw.get("notes") or None,
    )


def measured_weight(window: Evidence) -> float | None:
    """Return the candidate's share of the tries in percent, or None without any."""
    every = window.candidate.requests + window.stable.requests
    return round(100 * window.candidate.requests / every, 1) if every else None


def _add(one: Evidence, two: Evidence) -> Evidence:
    return Evidence(one.candidate + two.candidate, one.stable + two.stable)


def _dump(evidence: Evidence) -> list[list[int]]:
    return [_row(evidence.candidate), _row(evidence.stable)]


def _load(raw: list[list[int]]) -> Evidence:
    return Evidence(*(_counts(row) for row in raw))


def _row(counts: Counts) -> list[int]:
    return [counts.requests, counts.failures, *counts.buckets]


def _counts(row: list[int]) -> Counts:
    return Counts(row[0], row[1], tuple(row[2:]))
