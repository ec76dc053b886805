"""The log of a run: every scrape that the tests took in, exactly, so that a verdict can be computed again.

A row is one line of text. ``=12.5`` says that the tests began (or, after an edit of the spec, began afresh) at that
second of the run. A row that begins with ``?`` has answers to users' queries, as JSON behind the second. One with
``!`` in front is the fault gate's (``serinus.analysis.gatelog``). Every other row is a scrape::

    14.506 10 2 4 @3:12,5 /1@3:110,41 75,,75,1
    |      |  | | |       |           `- stable's halves: requests and failures of each
    |      |  | | |       `------------- new counts of the stable version
    |      |  | | `--------------------- new counts of the candidate
    |      |  | `----------------------- pods of the stable version
    |      |  `------------------------- pods of the candidate
    |      `---------------------------- weight in percent
    `----------------------------------- second of the run

Counts are ``requests/failures~abandoned@bucket:tries,tries,…`` from the first bucket with tries to the last. What is
zero is left out, and so are requests that are as many as the buckets hold; ``-`` is nothing at all. Seconds are written
in the fewest digits that read back as the same double.

The judge keeps the rows in its state until there are enough for a chunk, which is compressed; the chunk stays in the
state until the next one is full, so whoever writes chunks away has that long for it.
"""

import base64
import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from serinus.analysis.model import Counts, Evidence, Outcome, Reading
from serinus.api.canary import CanarySpec

ROWS = 150
"""So many rows are a chunk."""
MOST_CHARACTERS = 10_000
"""Rows longer than this together are a chunk, too: what the status carries is bounded."""
LOG, CHUNK, SPEC = "log", "chunk", "spec"
"""Keys in the judge's state: rows of the chunk under way; the last full one, as ``{"number": n, "rows": …}``; and what
the run is judged by."""
_START, _ANSWERS = "=", "?"
_NOTHING = "-"


@dataclass(frozen=True, slots=True)
class Entry:
    """What the tests took in at once.

    ``new`` is what was counted since the last entry; ``halves`` are new failures and requests of each half of stable's
    pods, in that order; ``candidates`` and ``stables`` are numbers of pods.
    """

    now_s: float
    weight_pct: int
    candidates: int
    stables: int
    new: Evidence
    halves: tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers to users' queries that changed what their tests had come to.

    ``first`` tells that counting of readings within limits began anew, as it does at every weight; ``afresh`` names the
    metrics whose tests began anew, since they were edited.
    """

    now_s: float
    first: bool
    afresh: tuple[str, ...]
    readings: tuple[Reading, ...]


def started(now_s: float) -> str:
    """Return the row that says that the tests began at ``now_s`` seconds of the run."""
    return f"{_START}{now_s!r}"


def row_of(entry: Entry) -> str:
    """Return an entry as a row."""
    bad_1, n_1, bad_2, n_2 = entry.halves
    return " ".join(
        (
            repr(entry.now_s),
            str(entry.weight_pct),
            str(entry.candidates),
            str(entry.stables),
            counts_text(entry.new.candidate),
            counts_text(entry.new.stable),
            sparse((n_1, bad_1, n_2, bad_2)),
        )
    )


def row_of_answers(answers: Answers) -> str:
    """Return answers as a row."""
    readings = [[each.metric, each.outcome.value, each.value, each.sequence] for each in answers.readings]
    body = {"first": answers.first, "afresh": list(answers.afresh), "readings": readings}
    return f"{_ANSWERS}{answers.now_s!r} {json.dumps(body, separators=(',', ':'))}"


def read(row: str) -> Entry | Answers | float:
    """Return what a row holds: a scrape, answers, or the second at which the tests began.

    Raises:
        ValueError: the row is none.
    """
    if row.startswith(_START):
        return float(row.removeprefix(_START))
    if row.startswith(_ANSWERS):
        second, _, body = row.removeprefix(_ANSWERS).partition(" ")
        raw = json.loads(body)
        readings = tuple(
            Reading(metric, Outcome(outcome), value, sequence=sequence)
            for metric, outcome, value, sequence in raw["readings"]
        )
        return Answers(float(second), raw["first"], tuple(raw["afresh"]), readings)
    now_s, weight, candidates, stables, candidate, stable, halves = row.split(" ")
    n_1, bad_1, n_2, bad_2 = (int(number or 0) for number in halves.split(","))
    new = Evidence(counts_of(candidate), counts_of(stable))
    return Entry(float(now_s), int(weight), int(candidates), int(stables), new, (bad_1, n_1, bad_2, n_2))


def answered(
    state: dict[str, Any], now_s: float, readings: tuple[Reading, ...], queries: dict[str, Any], users: dict[str, Any]
) -> list[str]:
    """Return the row of the answers to users' queries, if they changed what their tests had come to.

    Args:
        state: the state that the judge was given.
        now_s: second of the run.
        readings: the answers.
        queries: how readings within limits went by now (``serinus.analysis.queries``).
        users: what the other tests have come to by now (``serinus.analysis.users``).
    """
    before = state.get("users") or {}
    if not (queries or users) or (queries == state.get("queries") and users == before):
        return []
    afresh = tuple(name for name, test in users.items() if test["print"] != before.get(name, {}).get("print"))
    return [row_of_answers(Answers(now_s, "queries" not in state, afresh, readings))]


def noted(state: dict[str, Any], rows: Iterable[str]) -> dict[str, Any]:
    """Return the log's part of the judge's state, with more rows in it; a chunk that is full is closed.

    Args:
        state: the state that the judge was given.
        rows: what it took in this time.
    """
    log, chunk = [*(state.get(LOG) or []), *rows], state.get(CHUNK)
    if len(log) >= ROWS or sum(map(len, log)) >= MOST_CHARACTERS:
        log, chunk = [], {"number": closed_chunks(state) + 1, "rows": pack(log)}
    return {LOG: log} | ({CHUNK: chunk} if chunk else {})


def closed_chunks(state: dict[str, Any]) -> int:
    """Return how many chunks are closed."""
    return int((state.get(CHUNK) or {}).get("number", 0))


def spec_of(spec: CanarySpec) -> dict[str, Any]:
    """Return what a run is judged by: analysis and strategy, without defaults, as a manifest has them.

    In the place of each query stands its digest: no verdict is computed from its text, and it may be long.
    """
    shape: dict[str, Any] = {"mode": "json", "by_alias": True, "exclude_defaults": True}
    analysis = spec.analysis.model_dump(**shape, exclude={"prometheus"})
    for metric in analysis.get("metrics") or ():
        for part in (metric, metric.get("counts") or {}, metric.get("gauge") or {}):
            part |= {key: _digest(part[key]) for key in ("query", "bad", "good", "total") if part.get(key)}
    return {"analysis": analysis, "strategy": spec.strategy.model_dump(**shape)}


def _digest(query: str) -> str:
    return f"sha256:{sha256(query.encode()).hexdigest()[:12]}"


def pack(rows: Sequence[str]) -> str:
    """Return rows compressed (zlib), in base64."""
    return base64.b64encode(zlib.compress("\n".join(rows).encode(), 9)).decode()


def unpack(text: str) -> list[str]:
    """Return the rows that ``pack`` was given.

    Raises:
        ValueError: they were damaged.
    """
    try:
        rows = zlib.decompress(base64.b64decode(text, validate=True)).decode()
    except zlib.error as problem:
        raise ValueError(f"the rows are damaged: {problem}") from problem
    return rows.split("\n") if rows else []


def counts_text(counts: Counts) -> str:
    """Return counts as a row has them."""
    first = next((index for index, tries in enumerate(counts.buckets) if tries), None)
    requests = "" if counts.requests == sum(counts.buckets) else str(counts.requests)
    failures = f"/{counts.failures}" if counts.failures else ""
    buckets = ""
    if first is not None:
        last = max(index for index, tries in enumerate(counts.buckets) if tries)
        buckets = f"@{first}:{sparse(counts.buckets[first : last + 1])}"
    abandoned = f"~{counts.abandoned}" if counts.abandoned else ""
    return f"{requests}{failures}{abandoned}{buckets}" or _NOTHING


def sparse(numbers: Sequence[int]) -> str:
    """Return numbers with commas between them; what is zero is left out."""
    return ",".join(str(number or "") for number in numbers)


def counts_of(text: str) -> Counts:
    """Return what ``counts_text`` wrote.

    Raises:
        ValueError: it is nothing of that kind.
    """
    buckets = [0] * len(Counts().buckets)
    counted, _, held = ("" if text == _NOTHING else text).partition("@")
    if held:
        first, _, tries = held.partition(":")
        for index, number in enumerate(tries.split(",")):
            buckets[int(first) + index] = int(number or 0)
    counted, _, abandoned = counted.partition("~")
    requests, _, failures = counted.partition("/")
    every = int(requests) if requests else sum(buckets)
    return Counts(every, int(failures or 0), tuple(buckets), int(abandoned or 0))
