"""What the bench found, as Markdown and as JSON."""

from collections.abc import Callable, Iterable, Sequence
from statistics import fmean
from typing import Any

from serinus.simulation.bars import Bar
from serinus.simulation.bench import CONTESTANTS, NAMES, Table
from serinus.simulation.scenarios import Kind
from serinus.simulation.scoring import LEVELS, Cell, calibrations, mean_hurt, percentile, pooled_median

_NOTHING = "-"
_BAND = (5.0, 50.0, 95.0)


def markdown(table: Table) -> str:
    """Return the bars, a scoreboard, and every cell."""
    plain = [cell for cell in table.cells if not cell.held_out]
    held_out = [cell for cell in table.cells if cell.held_out]
    parts = [
        *_section("Bars", _bars(bar for bar in table.bars if not bar.held_out)),
        *_section("Scoreboard", _scoreboard(plain)),
        *_section("Good releases: rolled back / median minutes to ship / undecided", _grid(plain, (Kind.GOOD,), _good)),
        *_section(
            "Clear defects: promoted / mean bad responses (95th percentile) / median seconds to roll back",
            _grid(plain, (Kind.CLEAR,), _bad),
        ),
        *_section("Other defects: the same", _grid(plain, (Kind.OTHER,), _bad)),
        *_section("Calibration: how often evidence for harm ever reached 1/alpha", _calibration(table.cells)),
    ]
    if held_out:
        parts += [
            *_section("Held out: bars", _bars(bar for bar in table.bars if bar.held_out)),
            *_section("Held out: scoreboard", _scoreboard(held_out)),
            *_section("Held out: good releases", _grid(held_out, (Kind.GOOD,), _good)),
            *_section("Held out: defects", _grid(held_out, (Kind.CLEAR, Kind.OTHER), _bad)),
        ]
    return "\n".join(parts)


def document(table: Table) -> dict[str, Any]:
    """Return all of it as plain JSON. Bands are the 5th, 50th and 95th percentile; times are seconds."""
    return {
        "subset": table.subset.value,
        "seed": table.seed,
        "bars": [
            {"asked": bar.asked, "found": bar.found, "met": bar.met, "heldOut": bar.held_out} for bar in table.bars
        ],
        "cells": [_cell(cell) for cell in table.cells],
    }


def _cell(cell: Cell) -> dict[str, Any]:
    return {
        "policy": cell.policy,
        "scenario": cell.scenario,
        "kind": cell.kind.value,
        "heldOut": cell.held_out,
        "requestsPerSecond": cell.rate,
        "runs": cell.runs,
        "rolledBack": cell.rolled_back,
        "shipped": cell.shipped,
        "undecided": cell.undecided,
        "shipSeconds": _band(cell.ship_s),
        "rollBackSeconds": _band(cell.back_s),
        "badResponses": {"mean": fmean(cell.hurt), "band": _band(cell.hurt)},
        "alarms": {family: dict(zip(map(str, LEVELS), alarms, strict=True)) for family, alarms in cell.alarms.items()},
    }


def _band(values: Sequence[float]) -> list[float | None]:
    return [percentile(values, percent) for percent in _BAND]


def _section(title: str, rows: list[list[str]]) -> list[str]:
    """Return a heading and a table whose first row is its head; nothing without other rows."""
    if len(rows) < 2:
        return []
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return [f"### {title}", "", *("| " + " | ".join(cells) + " |" for cells in lines), ""]


def _bars(found: Iterable[Bar]) -> list[list[str]]:
    words = {True: "met", False: "**not met**", None: "open"}
    return [["bar", "found", ""], *([bar.asked, bar.found, words[bar.met]] for bar in found)]


def _policies(cells: Iterable[Cell]) -> list[str]:
    """Return who is in these cells, in the order of the contestants."""
    present = {cell.policy for cell in cells}
    return [name for name in CONTESTANTS if name in present]


Measure = tuple[str, Callable[[list[Cell]], str]]


def _scoreboard(cells: list[Cell]) -> list[list[str]]:
    """Return each rate's sums, policy by policy."""
    policies = _policies(cell for cell in cells if cell.kind is not Kind.LINE)
    rows = [["", *policies]]
    for rate in sorted({cell.rate for cell in cells}):
        for words, measure in _MEASURES:
            found = [
                measure([cell for cell in cells if cell.rate == rate and cell.policy == name]) for name in policies
            ]
            if any(each != _NOTHING for each in found):
                rows.append([f"{rate:g}/s: {words}", *found])
    return rows


def _of(kind: Kind, measure: Callable[[list[Cell]], str]) -> Callable[[list[Cell]], str]:
    def measured(cells: list[Cell]) -> str:
        own = [cell for cell in cells if cell.kind is kind]
        return measure(own) if own else _NOTHING

    return measured


_MEASURES: tuple[Measure, ...] = (
    ("false rollbacks, mean", _of(Kind.GOOD, lambda own: _percent(fmean(cell.false_rollback for cell in own)))),
    ("false rollbacks, worst", _of(Kind.GOOD, lambda own: _percent(max(cell.false_rollback for cell in own)))),
    ("minutes to ship, median", _of(Kind.GOOD, lambda own: _minutes(pooled_median(own)))),
    ("undecided at 2 h", _of(Kind.GOOD, lambda own: _percent(fmean(cell.open for cell in own)))),
    ("clear defects promoted", _of(Kind.CLEAR, lambda own: _percent(fmean(cell.promoted for cell in own)))),
    ("clear defects: bad responses", _of(Kind.CLEAR, lambda own: _number(mean_hurt(own)))),
    ("other defects promoted", _of(Kind.OTHER, lambda own: _percent(fmean(cell.promoted for cell in own)))),
    ("other defects: bad responses", _of(Kind.OTHER, lambda own: _number(mean_hurt(own)))),
)


def _grid(cells: list[Cell], kinds: tuple[Kind, ...], show: Callable[[Cell], str]) -> list[list[str]]:
    own = [cell for cell in cells if cell.kind in kinds]
    policies = _policies(own)
    rows = [["scenario", "requests/s", *policies]]
    places = dict.fromkeys((cell.scenario, cell.rate) for cell in own)
    by_place = {(cell.scenario, cell.rate, cell.policy): cell for cell in own}
    for scenario, rate in places:
        found = [by_place.get((scenario, rate, policy)) for policy in policies]
        rows.append([scenario, f"{rate:g}", *(show(cell) if cell else _NOTHING for cell in found)])
    return rows


def _good(cell: Cell) -> str:
    words = f"{_percent(cell.false_rollback)} / {_minutes(percentile(cell.ship_s, 50))}"
    return f"{words} / {_percent(cell.open)}" if cell.undecided else words


def _bad(cell: Cell) -> str:
    hurt = f"{_number(fmean(cell.hurt))} ({_number(percentile(cell.hurt, 95) or 0.0)})"
    back = percentile(cell.back_s, 50)
    words = f"{_percent(cell.promoted)} / {hurt} / {_NOTHING if back is None else f'{back:.0f}'}"
    return f"{words} / undecided {_percent(cell.open)}" if cell.undecided else words


def _calibration(cells: Iterable[Cell]) -> list[list[str]]:
    head = ["scenario", "requests/s", "metrics", "runs", *(f"alpha = {_percent(level)}" for level in LEVELS)]
    return [
        head,
        *(
            [
                one.scenario,
                f"{one.rate:g}",
                one.family,
                str(one.runs),
                *(_percent(alarms / one.runs) for alarms in one.alarms),
            ]
            for one in calibrations(cell for cell in cells if cell.policy == NAMES.ours)
        ),
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share else "0 %"


def _minutes(time_s: float | None) -> str:
    return _NOTHING if time_s is None else f"{time_s / 60:.1f}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 9.95 else f"{value:.1f}"
