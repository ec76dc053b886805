"""Numbers that change with time: a list of changes, or a measured series out of a CSV file."""

import csv
import io
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from serinus.api.base import Duration, Strict
from serinus.simulation.fields import Factor, Percent, PerSecond, SomeTime

MAX_VALUES = 1_000_000
"""Longest series, in rows."""


class Change(Strict):
    """One change of a number, as a step or as a trend."""

    after: Duration
    """Time from the begin of the run until the change begins."""
    over: Duration = "0s"
    """How long it takes, linearly. Without it the change is a step."""


class RateChange(Change):
    """A change of the number of requests."""

    to: PerSecond
    """Requests per second from then on."""


class ErrorChange(Change):
    """A change of the error rate of both versions."""

    to: Percent
    """Error rate from then on, in percent."""


class Series(Strict):
    """A measured series: one number for each interval. It starts again when it has come to its end."""

    file: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """A CSV file, by its path from where the traffic model is. Exactly one of `file` and `values` is set."""
    column: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    """Name of the file's column, as its first line says. Without it the last column is read."""
    values: list[PerSecond] = Field(default_factory=list, max_length=MAX_VALUES)
    """The numbers themselves."""
    interval: SomeTime
    """How long each number holds."""
    factor: Factor = 1
    """What each number is multiplied by; a file of requests per minute has `0.016667`."""
    start: Duration = "0s"
    """Where in the series the run begins. What is earlier is the service's history."""

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        if bool(self.file) == bool(self.values):
            raise ValueError("a series comes from one place; write either file or values")
        if self.column and not self.file:
            raise ValueError("only a file has columns; leave column out, or write file")
        return self


def values_of(series: Series, directory: Path | None, where: str) -> list[float]:
    """Return the numbers of a series, as they stand in its file.

    Args:
        series: the series, which has a file.
        directory: where paths begin; None where files may not be read.
        where: the series' place in the traffic model, for messages.

    Raises:
        ValueError: the file cannot be read or has something else than numbers; one sentence.
    """
    where = f"{where}.file"
    if directory is None:
        raise ValueError(f"{where}: no file can be read here; write the numbers as values")
    try:
        text = (directory / str(series.file)).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise ValueError(
            f'{where}: "{series.file}" cannot be read ({reason}); write the path of a CSV file, from {directory}'
        ) from error
    rows = [(number, row) for number, row in enumerate(csv.reader(io.StringIO(text)), 1) if any(map(str.strip, row))]
    if not rows:
        raise ValueError(f'{where}: "{series.file}" is empty; it needs one number in each line')
    column, rows = _column(series, rows, where)
    if not 0 < len(rows) <= MAX_VALUES:
        raise ValueError(f'{where}: "{series.file}" has {len(rows)} numbers; it needs 1 to {MAX_VALUES:,}')
    return [_number(row, column, f'{where}: line {number} of "{series.file}"') for number, row in rows]


def _column(series: Series, rows: list[tuple[int, list[str]]], where: str) -> tuple[int, list[tuple[int, list[str]]]]:
    """Return the index of the wanted column, and the rows without a first line of names."""
    names = [name.strip() for name in rows[0][1]]
    if series.column is None:
        return -1, rows if _is_number(names[-1]) else rows[1:]
    if series.column not in names:
        raise ValueError(
            f'{where.removesuffix(".file")}.column: "{series.file}" has no column "{series.column}"; '
            f"write one of {', '.join(names)}"
        )
    return names.index(series.column), rows[1:]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _number(row: list[str], column: int, place: str) -> float:
    cell = row[column].strip() if column < len(row) else ""
    if not _is_number(cell) or not 0 <= float(cell) <= 1_000_000:
        raise ValueError(f'{place} has "{cell}"; write a number from 0 to 1,000,000 there')
    return float(cell)
