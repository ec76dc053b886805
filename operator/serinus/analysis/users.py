"""Users' own metrics that compare both versions: counters and gauges, each with a test of its own.

Metrics with limits are judged by ``serinus.analysis.queries``.
"""

import json
from contextlib import suppress
from hashlib import sha256
from typing import Any

from serinus.analysis.counters import CountTest
from serinus.analysis.model import Finding, Reading
from serinus.analysis.ranks import RankTest
from serinus.analysis.rows import settings_of
from serinus.analysis.settings import Settings
from serinus.api.analysis import UserMetric
from serinus.api.canary import CanarySpec


class UserTests:
    """The tests of a Canary's metrics, in the order of the spec."""

    def __init__(self, tests: dict[str, tuple[str, CountTest | RankTest]]):
        self._tests = tests

    @classmethod
    def load(cls, spec: CanarySpec, raw: dict[str, Any] | None) -> "UserTests":
        """Return the tests as they stand.

        Args:
            spec: the metrics.
            raw: what ``dump`` returned last in this run. The tests of a metric that it does not know, or knows with
                other queries, other margins or other settings, begin afresh.
        """
        metrics = [metric for metric in spec.analysis.metrics if metric.query is None]
        if not metrics:
            return cls({})
        settings, tests = settings_of(spec), {}
        for metric in metrics:
            test, print_ = _begun(metric, settings), _print(metric, settings)
            noted = (raw or {}).get(metric.name) or {}
            if test is None:
                continue
            if noted.get("print") == print_:
                with suppress(KeyError, TypeError, ValueError):  # of another version of this program
                    test.restore(noted)
            tests[metric.name] = print_, test
        return cls(tests)

    def take(self, readings: tuple[Reading, ...], now_s: float) -> None:
        """Take in answers to the queries, oldest first, at ``now_s`` seconds of the run.

        An answer that was passed before does not count twice.
        """
        answers = {reading.metric: reading for reading in readings}
        for _, test in self._tests.values():
            test.take(answers, now_s)

    def findings(self, settings: Settings) -> list[Finding]:
        """Return what each metric says, at the chances of being wrong that ``settings`` allow."""
        return [test.finding(settings) for _, test in self._tests.values()]

    def dump(self) -> dict[str, Any]:
        """Return the state of all tests as plain JSON."""
        return {name: {"print": print_} | test.dump() for name, (print_, test) in self._tests.items()}


def _begun(metric: UserMetric, settings: Settings) -> CountTest | RankTest | None:
    if metric.counts is not None:
        return CountTest(metric, metric.counts, settings)
    return RankTest(metric, metric.gauge, settings) if metric.gauge is not None else None


def _print(metric: UserMetric, settings: Settings) -> str:
    """Return what tells metrics apart that are tested in another way."""
    return sha256(json.dumps([metric.model_dump(mode="json"), repr(settings)]).encode()).hexdigest()[:12]
