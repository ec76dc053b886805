"""The book of evidence in a run's status: what was counted, from where the present window begins, what the judge noted.

A reader counts up from its own start. The book keeps what earlier readers had reached (``base``), so that a restart of
the operator loses nothing that was written down, and reading the same totals twice adds nothing.
"""

from dataclasses import dataclass, field, replace
from typing import Any

from serinus.analysis.model import Counts, Evidence
from serinus.delivery.model import Totals

Halves = tuple[tuple[int, int], tuple[int, int]]
"""Tries and failures of two halves of the stable version's pods."""
NO_HALVES: Halves = ((0, 0), (0, 0))
PER_WEIGHT = "queries"
"""What the judge notes for one weight only: how readings within limits went."""


@dataclass(frozen=True, slots=True)
class Book:
    """``total`` is all that was counted in this run, ``mark`` what it was when the present window began.

    ``halves`` are of all the run, like ``total``; ``before`` is what the stable version had done before it.
    ``notes`` is what the judge wants back.
    """

    reader: str = ""
    base: Evidence = field(default_factory=Evidence)
    total: Evidence = field(default_factory=Evidence)
    mark: Evidence = field(default_factory=Evidence)
    base_halves: Halves = NO_HALVES
    halves: Halves = NO_HALVES
    before: Counts = field(default_factory=Counts)
    stable_pods: int = 0
    notes: dict[str, Any] = field(default_factory=dict)

    def counted(self, totals: Totals | None) -> "Book":
        """Return the book with what the reader has reached. Another reader starts on top of what is written."""
        if totals is None:
            return self
        same = totals.reader == self.reader
        base = self.base if same else self.total
        halves = self.base_halves if same else self.halves
        return replace(
            self,
            reader=totals.reader,
            base=base,
            total=_add(base, totals.evidence),
            base_halves=halves,
            halves=_add_halves(halves, totals.halves),
            before=max(self.before, totals.before, key=lambda counts: counts.requests)
            if not self.total.candidate.requests
            else self.before,
            stable_pods=totals.stable_pods or self.stable_pods,
        )

    def marked(self) -> "Book":
        """Return the book with a new, empty window."""
        return replace(self, mark=self.total, notes={key: self.notes[key] for key in self.notes if key != PER_WEIGHT})

    @property
    def window(self) -> Evidence:
        """What was counted since the mark."""
        return Evidence(self.total.candidate - self.mark.candidate, self.total.stable - self.mark.stable)

    def dump(self) -> dict[str, Any]:
        """Return the book as plain JSON for the status."""
        return {
            "reader": self.reader,
            "base": dump_counts(self.base),
            "total": dump_counts(self.total),
            "mark": dump_counts(self.mark),
            "baseHalves": [list(half) for half in self.base_halves],
            "halves": [list(half) for half in self.halves],
            "before": self.before.row(),
            "stablePods": self.stable_pods,
            "notes": self.notes,
        }


def load(raw: dict[str, Any]) -> Book:
    """Return the book that ``dump`` wrote; an empty one for an empty dict, or for one of an older version."""
    if not raw or "before" not in raw:
        return Book()
    return Book(
        reader=raw["reader"],
        base=load_counts(raw["base"]),
        total=load_counts(raw["total"]),
        mark=load_counts(raw["mark"]),
        base_halves=_halves(raw["baseHalves"]),
        halves=_halves(raw["halves"]),
        before=Counts.of_row(raw["before"]),
        stable_pods=raw["stablePods"],
        notes=raw.get("notes") or {},
    )


def _halves(raw: list[list[int]]) -> Halves:
    (tries_1, bad_1), (tries_2, bad_2) = raw
    return (tries_1, bad_1), (tries_2, bad_2)


def _add_halves(one: Halves, two: Halves) -> Halves:
    return (
        (one[0][0] + two[0][0], one[0][1] + two[0][1]),
        (one[1][0] + two[1][0], one[1][1] + two[1][1]),
    )


def measured_weight(window: Evidence) -> float | None:
    """Return the candidate's share of the tries in percent, or None without any."""
    every = window.candidate.requests + window.stable.requests
    return round(100 * window.candidate.requests / every, 1) if every else None


def _add(one: Evidence, two: Evidence) -> Evidence:
    return Evidence(one.candidate + two.candidate, one.stable + two.stable)


def dump_counts(evidence: Evidence) -> list[list[int]]:
    """Return counts as plain JSON."""
    return [evidence.candidate.row(), evidence.stable.row()]


def load_counts(raw: list[list[int]]) -> Evidence:
    """Return what ``dump_counts`` wrote."""
    return Evidence(*(Counts.of_row(row) for row in raw))
