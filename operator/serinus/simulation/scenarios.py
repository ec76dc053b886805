"""The scenarios of the bench, as data: services, their noise, and what is wrong with their candidates.

Every scenario is a traffic model without its load (``docs/traffic.md`` tells what the fields mean), played at several
rates. Those that are held out have services, defects, noise and rates of their own, and nothing is ever tuned on them.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from serinus.api.checking import parse_live
from serinus.simulation.traffic import TrafficModel

RATES = (1.0, 10.0, 100.0, 1000.0)
"""Requests per second to both versions together."""
HELD_OUT_RATES = (30.0, 300.0)
STABLE_PODS, CANDIDATE_PODS = 4, 2

Raw = dict[str, Any]


class Kind(StrEnum):
    """What is to become of the candidate."""

    GOOD = "good"
    """It is as good as the stable version, and is to be promoted."""
    CLEAR = "clear defect"
    """It is worse, at every tolerance or beyond, from its first request on; it is to be rolled back."""
    OTHER = "other defect"
    """It is worse, but later, or only at times, or only in a part."""
    LINE = "at the promise"
    """It is as bad as it may be without being harmful: here false alarms are counted, nothing else."""


@dataclass(frozen=True, slots=True)
class Load:
    """A change of the load at ``after``: to ``factor`` times the scenario's rate, or to ``per_second``."""

    after: str
    factor: float = 1.0
    per_second: float | None = None

    def change(self, rate: float) -> Raw:
        """Return it as a traffic model has it, for a scenario at this rate."""
        return {"after": self.after, "to": self.factor * rate if self.per_second is None else self.per_second}


@dataclass(frozen=True, slots=True)
class Scenario:
    """A service and its candidate, at any rate."""

    name: str
    kind: Kind
    errors: Raw
    defects: tuple[Raw, ...] = ()
    noise: Raw = field(default_factory=dict)
    latency: Raw = field(default_factory=dict)
    endpoints: tuple[Raw, ...] = ()
    load: tuple[Load, ...] = ()
    held_out: bool = False

    @property
    def rates(self) -> tuple[float, ...]:
        """The rates that it is played at."""
        return HELD_OUT_RATES if self.held_out else RATES

    def traffic(self, rate: float) -> TrafficModel:
        """Return the traffic model at so many requests per second."""
        raw = {
            "requests": {"perSecond": rate, "changes": [load.change(rate) for load in self.load]},
            "errors": self.errors,
            "latency": self.latency,
            "pods": {"stable": STABLE_PODS, "candidate": CANDIDATE_PODS},
            "endpoints": list(self.endpoints),
            "noise": self.noise,
            "defects": list(self.defects),
        }
        return parse_live(TrafficModel, raw)


_LOW, _HIGH = {"percent": 0.1}, {"percent": 1.0}

_BURSTS: Raw = {"bursts": {"every": "10m", "lasts": "60s", "errorPoints": 5, "latencyFactor": 2}}
_GLITCHES: Raw = {"glitches": {"every": "20m", "lasts": "10s", "percent": 20}}
_COLD: Raw = {"warmUp": {"decay": "60s", "errorsFactor": 5, "latencyFactor": 2}}


def _pods(errors: float, latency: float = 0.0) -> Raw:
    return {"pods": {"errorsCv": errors, "latencyCv": latency, "correlation": "60s"}}


_GOOD = (
    Scenario("identical, 0.1 %", Kind.GOOD, _LOW),
    Scenario("identical, 1 %", Kind.GOOD, _HIGH),
    Scenario("bursts", Kind.GOOD, _LOW, noise=_BURSTS),
    Scenario(
        "errors rise fourfold", Kind.GOOD, {"percent": 0.1, "changes": [{"after": "0s", "to": 0.4, "over": "20m"}]}
    ),
    Scenario("pods differ, cv 0.5", Kind.GOOD, _LOW, noise=_pods(0.5)),
    Scenario("pods differ, cv 1", Kind.GOOD, _LOW, noise=_pods(1.0)),
    Scenario("pods differ, latency too", Kind.GOOD, _LOW, noise=_pods(0.5, 0.1)),
    Scenario("cold start", Kind.GOOD, _LOW, noise=_COLD),
    Scenario("glitches", Kind.GOOD, _LOW, noise=_GLITCHES),
    Scenario(
        "traffic stops for a while",
        Kind.GOOD,
        _LOW,
        load=(Load("2m", per_second=1.0), Load("4m", per_second=0.0), Load("8m")),
    ),
    Scenario("scrapes are missing", Kind.GOOD, _LOW, noise={"missingScrapes": {"percent": 20}}),
    Scenario("counters reset", Kind.GOOD, _LOW, noise={"counterResets": {"every": "2m"}}),
    Scenario("series come late", Kind.GOOD, _LOW, noise={"lateSeries": {"after": "30s"}}),
    Scenario("traffic rises fivefold", Kind.GOOD, _LOW, load=(Load("4m", factor=5.0),)),
    Scenario(
        "errors step while weights shift",
        Kind.GOOD,
        {"percent": 0.1, "changes": [{"after": "4m", "to": 2.0}, {"after": "6m", "to": 0.1}, {"after": "8m", "to": 1}]},
    ),
)
"""Simpson's paradox is the last one: errors pooled over several weights are not those of any."""

_EVERYWHERE: dict[str, Raw] = {
    "+1 point": {"errorPoints": 1},
    "+5 points": {"errorPoints": 5},
    "outage": {"outage": True},
    "latency x1.3": {"latencyFactor": 1.3},
    "latency x2": {"latencyFactor": 2},
    "slow tail": {"slowTail": {"percent": 2, "add": "1s"}},
}
_CLEAR = tuple(
    Scenario(f"{name}, {errors['percent']:g} %", Kind.CLEAR, errors, defects=(defect,))
    for errors in (_LOW, _HIGH)
    for name, defect in _EVERYWHERE.items()
) + tuple(Scenario(f"errors x{ratio}, 1 %", Kind.CLEAR, _HIGH, defects=({"errorRatio": ratio},)) for ratio in (2, 5))

_OTHER = (
    Scenario("+5 points after 10 min", Kind.OTHER, _LOW, defects=({"errorPoints": 5, "after": "10m"},)),
    Scenario("+5 points from weight 25", Kind.OTHER, _LOW, defects=({"errorPoints": 5, "fromWeight": 25},)),
    Scenario(
        "one endpoint is broken",
        Kind.OTHER,
        _LOW,
        defects=({"outage": True, "endpoint": "checkout"},),
        endpoints=({"name": "checkout", "percent": 2},),
    ),
    Scenario("+10 points over 30 min", Kind.OTHER, _LOW, defects=({"errorPoints": 10, "over": "30m"},)),
    Scenario(
        "tries refused and repeated",
        Kind.OTHER,
        _LOW,
        defects=(
            {"errorPoints": 3, "unanswered": True},
            {"slowTail": {"percent": 3, "add": "250ms"}},
        ),
    ),
)

_LINE = (
    Scenario("at the promise, 0.1 %", Kind.LINE, _LOW, defects=({"errorRatio": 1.2}, {"errorPoints": 0.01})),
    Scenario("at the promise, 1 %", Kind.LINE, _HIGH, defects=({"errorRatio": 1.2}, {"errorPoints": 0.01})),
)

_SLOW_SERVICE: Raw = {"median": "120ms", "sigma": 0.6}
_OTHER_SERVICE: Raw = {"percent": 0.3}
_MIXED: Raw = {
    "bursts": {"every": "15m", "lasts": "40s", "errorPoints": 3, "latencyFactor": 1.5},
    "pods": {"errorsCv": 0.7, "correlation": "90s"},
    "glitches": {"every": "25m", "lasts": "8s", "percent": 15},
}
_HELD_OUT_DEFECTS: dict[str, Raw] = {
    "+2 points": {"errorPoints": 2},
    "outage": {"outage": True},
    "latency x1.6": {"latencyFactor": 1.6},
    "slow tail of 1 %": {"slowTail": {"percent": 1, "add": "800ms"}},
}
_QUICK_SERVICE: Raw = {"median": "30ms", "sigma": 1.0}
_HELD_OUT = (
    Scenario("identical, 0.3 %, 120 ms", Kind.GOOD, _OTHER_SERVICE, latency=_SLOW_SERVICE, held_out=True),
    Scenario("identical, 0.02 %, 30 ms", Kind.GOOD, {"percent": 0.02}, latency=_QUICK_SERVICE, held_out=True),
    Scenario("identical, 3 %, 30 ms", Kind.GOOD, {"percent": 3}, latency=_QUICK_SERVICE, held_out=True),
    Scenario("bursts, glitches, cv 0.7", Kind.GOOD, _OTHER_SERVICE, latency=_SLOW_SERVICE, noise=_MIXED, held_out=True),
    Scenario(
        "cold start of 40 s",
        Kind.GOOD,
        _OTHER_SERVICE,
        latency=_SLOW_SERVICE,
        noise={"warmUp": {"decay": "40s", "errorsFactor": 4, "errorPoints": 0.5, "latencyFactor": 1.7}},
        held_out=True,
    ),
    Scenario(
        "errors come and go",
        Kind.GOOD,
        {"percent": 0.3, "changes": [{"after": "2m", "to": 1.5, "over": "5m"}, {"after": "9m", "to": 0.3}]},
        latency=_SLOW_SERVICE,
        held_out=True,
    ),
    *(
        Scenario(f"{name}, 0.3 %", Kind.CLEAR, _OTHER_SERVICE, latency=_SLOW_SERVICE, defects=(defect,), held_out=True)
        for name, defect in _HELD_OUT_DEFECTS.items()
    ),
    Scenario("errors x3, 1 %", Kind.CLEAR, _HIGH, latency=_SLOW_SERVICE, defects=({"errorRatio": 3},), held_out=True),
    Scenario(
        "+2 points under noise",
        Kind.CLEAR,
        _OTHER_SERVICE,
        latency=_SLOW_SERVICE,
        noise=_MIXED,
        defects=({"errorPoints": 2},),
        held_out=True,
    ),
    Scenario(
        "+2 points after 7 min",
        Kind.OTHER,
        _OTHER_SERVICE,
        latency=_SLOW_SERVICE,
        defects=({"errorPoints": 2, "after": "7m"},),
        held_out=True,
    ),
)

SCENARIOS = (*_GOOD, *_CLEAR, *_OTHER, *_LINE, *_HELD_OUT)
"""All scenarios. A name occurs once among those that are held out, and once among the others."""
