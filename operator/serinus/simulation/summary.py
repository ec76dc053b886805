"""What simulated releases came to: in a few numbers, in words, and as plain JSON."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from serinus.analysis.words import count, lasting, percent
from serinus.simulation.release import Ending, Release

_VERDICTS = ("Passed", "Failed", "Inconclusive")
WORDS = {Ending.PROMOTED: "promoted", Ending.ROLLED_BACK: "rolled back", Ending.UNDECIDED: "undecided"}


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and 95th percentile of a number over releases; None without any."""

    median: float | None
    p95: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Return the spread of values, by the nearest rank."""
        ordered = sorted(values)
        at = [ordered[max(0, ceil(share * len(ordered)) - 1)] if ordered else None for share in (0.5, 0.95)]
        return cls(at[0], at[1])

    def document(self) -> dict[str, float | None]:
        """Return it as plain JSON."""
        return {"median": _rounded(self.median), "p95": _rounded(self.p95)}


@dataclass(frozen=True, slots=True)
class Tally:
    """One experiment of the fault gate in several releases.

    ``made`` is how often it was begun, ``shares`` how much of that came to which verdict, between 0 and 1. They add up
    to less than 1 where one was still under way in the end.
    """

    name: str
    what: str
    made: int
    shares: dict[str, float]

    @classmethod
    def all_of(cls, releases: Sequence[Release]) -> "tuple[Tally, ...]":
        """Return the experiments of releases, in the order in which they were first made."""
        found: dict[tuple[str, str], list[str]] = {}
        for each in (each for release in releases for each in release.experiments):
            found.setdefault((each.name, each.what), []).append(each.verdict)
        return tuple(
            cls(name, what, len(verdicts), {each: verdicts.count(each) / len(verdicts) for each in _VERDICTS})
            for (name, what), verdicts in found.items()
        )

    @property
    def sentence(self) -> str:
        """How often it was made, and how many came to which verdict."""
        shares = (f"{each.lower()} {percent(100 * share)}" for each, share in self.shares.items())
        return f"experiment {self.name} ({self.what}), made {count(self.made, 'time')}: {', '.join(shares)}"

    def document(self) -> dict[str, str | float]:
        """Return it as plain JSON."""
        shares = {each.lower(): share for each, share in self.shares.items()}
        return {"name": self.name, "what": self.what, "made": self.made, **shares}


@dataclass(frozen=True, slots=True)
class Summary:
    """Several releases. ``shares`` are between 0 and 1; ``seconds`` are of those that came to an end."""

    runs: int
    shares: dict[Ending, float]
    seconds: Spread
    bad_responses: Spread
    experiments: tuple[Tally, ...] = ()

    @classmethod
    def of(cls, releases: Sequence[Release]) -> "Summary":
        """Return the summary of one release at least."""
        return cls(
            runs=len(releases),
            shares={each: sum(one.ending is each for one in releases) / len(releases) for each in Ending},
            seconds=Spread.of([one.ended_s for one in releases if one.ended_s is not None]),
            bad_responses=Spread.of([one.bad_responses for one in releases]),
            experiments=Tally.all_of(releases),
        )

    @property
    def sentence(self) -> str:
        """How many came to which end."""
        shares = (f"{WORDS[each]} {percent(100 * self.shares[each])}" for each in Ending)
        return f"{count(self.runs, 'release')}: {', '.join(shares)}"


def whole(number: float) -> str:
    """Return a number of responses, which may be expected ones."""
    return f"{number:,.1f}" if 0 < number < 10 else f"{number:,.0f}"


def spread(numbers: Spread, unit: str = "") -> str:
    """Return median and 95th percentile in words."""
    if numbers.median is None or numbers.p95 is None:
        return "none"
    return f"{whole(numbers.median)}{unit} and {whole(numbers.p95)}{unit}"


def verdict(release: Release) -> str:
    """Return what became of a release, with the time."""
    if release.ended_s is None:
        return f"undecided after {lasting(release.followed_s)}"
    passed = ""
    if release.ending is Ending.PROMOTED and release.passed_s is not None:
        passed = f", passed after {lasting(release.passed_s)}"
    return f"{WORDS[release.ending]} after {lasting(release.ended_s)}{passed}"


def way(release: Release) -> str:
    """Return the weights over time in one line."""
    return " → ".join(f"{_share(share)} % ({_clock(at_s)})" for at_s, share in release.weights)


def document(release: Release) -> dict[str, Any]:
    """Return a release as plain JSON; ``docs/simulate.md`` tells what the fields are."""
    return {
        "seed": release.seed,
        "verdict": release.ending.value,
        "seconds": _rounded(release.ended_s),
        "passedSeconds": _rounded(release.passed_s),
        "followedSeconds": _rounded(release.followed_s),
        "badResponses": _rounded(release.bad_responses),
        "failedResponses": release.failed_responses,
        "message": release.message,
        "weights": [{"second": _rounded(at_s), "weight": share} for at_s, share in release.weights],
        "metrics": [
            metric.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
            for metric in release.metrics
        ],
        "experiments": [
            each.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
            for each in release.experiments
        ],
        "events": [
            {"second": _rounded(each.second), "reason": each.reason.value, "message": each.message}
            for each in release.happenings
        ],
    }


def documents(releases: Sequence[Release]) -> dict[str, Any]:
    """Return several releases and their summary as plain JSON."""
    summary = Summary.of(releases)
    return {
        "runs": summary.runs,
        "promoted": summary.shares[Ending.PROMOTED],
        "rolledBack": summary.shares[Ending.ROLLED_BACK],
        "undecided": summary.shares[Ending.UNDECIDED],
        "seconds": summary.seconds.document(),
        "badResponses": summary.bad_responses.document(),
        "experiments": [each.document() for each in summary.experiments],
        "releases": [document(each) for each in releases],
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def _share(share: float) -> str:
    return f"{share:g}"


def _clock(second: float) -> str:
    minutes, seconds = divmod(int(second), 60)
    return f"{minutes}:{seconds:02}"
