"""What a spec must fulfil beyond the types of its fields: each rule once, as CEL for the API server and as Python.

The API server refuses an object that breaks a rule (``serinus.api.schema`` puts the CEL in the resource definition);
``serinus lint`` says the same without a cluster, and the operator where something slipped past the API server.
"""

import re
from collections.abc import Iterator
from itertools import pairwise

from pydantic import BaseModel

from serinus.api.analysis import Analysis, CountQueries, Latency, SuccessRate, UserMetric
from serinus.api.base import seconds
from serinus.api.canary import CanarySpec, Step, Strategy, TargetRef
from serinus.api.fault_rules import FAULT_RULES
from serinus.api.matching import HeaderMatch, PathMatch
from serinus.api.rule import Rule, exactly_one
from serinus.api.trafficpolicy import Route, TrafficPolicySpec

MAX_NAME_LENGTH = 63
NAME_MESSAGE = "the name goes into a label on the target, which may have 63 characters; write a shorter name"


def _weights(strategy: Strategy) -> list[int]:
    return [step.weight for step in strategy.steps or [] if step.weight is not None]


def _try_fits(timeout: str | None, part: TrafficPolicySpec | Route) -> bool:
    per_try = part.retries.per_try_timeout if part.retries else None
    return not timeout or not per_try or seconds(timeout) == 0 or seconds(per_try) <= seconds(timeout)


def _unlimited(metric: UserMetric) -> bool:
    return metric.min is None and metric.max is None and metric.failure_limit == 1


def _experiments(spec: CanarySpec) -> set[str | None]:
    return {experiment.name for experiment in spec.faults}


def _unique(names: list[str]) -> bool:
    return len(names) == len(set(names))


_TRY_TOO_LONG = "one try may not take longer than the whole request; write a perTryTimeout of at most the timeout"
_CEL_TRY_FITS = (
    "!has(self.timeout) || !has(self.retries) || !has(self.retries.perTryTimeout)"
    " || duration(self.timeout) == duration('0s')"
    " || duration(self.retries.perTryTimeout) <= duration(self.timeout)"
)
_CEL_WEIGHTS = "self.steps.filter(s, has(s.weight)).map(s, s.weight)"

RULES: tuple[Rule, ...] = (
    Rule(
        TargetRef,
        "self == oldSelf",
        None,
        "targetRef cannot be changed; delete this Canary and make a new one for the other target",
    ),
    Rule(
        Step,
        "[has(self.weight), has(self.approval), has(self.fault)].exists_one(given, given)",
        exactly_one("weight", "approval", "fault"),
        "a step has exactly one of weight, approval and fault; write one step for each",
    ),
    Rule(
        Step,
        "has(self.weight) || !has(self.__for__)",
        lambda step: step.weight is not None or step.for_ is None,
        "for goes with weight only, an approval waits for a person; write it in a step that has a weight",
        "for",
    ),
    Rule(
        Strategy,
        f"!has(self.steps) || {_CEL_WEIGHTS}.isSorted()",
        lambda strategy: all(a <= b for a, b in pairwise(_weights(strategy))),
        "weights may not fall from one step to the next; write them in rising order",
        "steps",
    ),
    Rule(
        Strategy,
        f"!has(self.steps) || {_CEL_WEIGHTS}.all(w, w > 0)",
        lambda strategy: all(weight > 0 for weight in _weights(strategy)),
        "a step with weight 0 shows the candidate no request; write a weight from 1 to 100",
        "steps",
    ),
    Rule(
        Strategy,
        "!has(self.steps) || !has(self.adaptive)",
        lambda strategy: not strategy.steps or strategy.adaptive is None,
        "either evidence decides or the steps do; write one of adaptive and steps",
        "adaptive",
    ),
    Rule(
        SuccessRate,
        "!has(self.maxDrop) || (!has(self.promise) && !has(self.tolerances))",
        lambda limits: limits.max_drop is None or (limits.promise is None and limits.tolerances is None),
        "maxDrop is promise and tolerance in one; write either maxDrop, or promise and tolerances",
        "maxDrop",
    ),
    Rule(
        Latency,
        "!has(self.max) || (duration(self.max) >= duration('1ms') && duration(self.max) <= duration('5s'))",
        lambda latency: latency.max is None or 0.001 <= seconds(latency.max) <= 5,
        "the sidecars count latency from 1ms to 5s; write a max within that",
        "max",
    ),
    Rule(
        UserMetric,
        "[has(self.query), has(self.counts), has(self.gauge)].exists_one(given, given)",
        exactly_one("query", "counts", "gauge"),
        "a metric is judged in exactly one way; write one of query, counts and gauge",
    ),
    Rule(
        UserMetric,
        "!has(self.query) || has(self.min) || has(self.max)",
        lambda metric: metric.query is None or metric.min is not None or metric.max is not None,
        "the metric has no limit; write min, max or both",
    ),
    Rule(
        UserMetric,
        "has(self.query) || (!has(self.min) && !has(self.max) && (!has(self.failureLimit) || self.failureLimit == 1))",
        lambda metric: metric.query is not None or _unlimited(metric),
        "min, max and failureLimit go with query only; write them in a metric that has a query",
    ),
    Rule(
        UserMetric,
        "!has(self.min) || !has(self.max) || self.min <= self.max",
        lambda metric: metric.min is None or metric.max is None or metric.min <= metric.max,
        "min is above max, so that no value is good; write a min of at most max",
        "min",
    ),
    Rule(
        CountQueries,
        "has(self.bad) != has(self.good)",
        exactly_one("bad", "good"),
        "either the bad ones are counted or the good ones are; write exactly one of bad and good, beside total",
    ),
    Rule(
        CountQueries,
        "!has(self.tolerance) || self.tolerance.ratio > 1.0 || self.tolerance.points > 0.0",
        lambda counts: counts.tolerance is None or counts.tolerance.ratio > 1 or counts.tolerance.points > 0,
        "a candidate that is as good as the stable version would never be shown to be safe; write a ratio above 1, or"
        " points above 0",
        "tolerance",
    ),
    Rule(
        Analysis,
        "!has(self.metrics) || size(self.metrics) == 0 || has(self.prometheus)",
        lambda analysis: not analysis.metrics or analysis.prometheus is not None,
        "nothing answers the queries; write prometheus.address, for example http://prometheus.monitoring:9090",
        "metrics",
    ),
    Rule(
        Analysis,
        "!has(self.requests) || has(self.prometheus)",
        lambda analysis: analysis.requests is None or analysis.prometheus is not None,
        "nothing answers the queries; write prometheus.address, for example http://prometheus.monitoring:9090",
        "requests",
    ),
    Rule(
        Analysis,
        "!has(self.requests) || has(self.requests.durations) || !has(self.latency)"
        " || (!has(self.latency.max) && !has(self.latency.maxIncrease))",
        lambda analysis: analysis.timed or (analysis.latency.max is None and analysis.latency.max_increase is None),
        "requests.durations is not there, so nothing tells how long requests take; write it, or drop max and"
        " maxIncrease",
        "latency",
    ),
    Rule(
        Analysis,
        "",  # the list's key
        lambda analysis: _unique([metric.name for metric in analysis.metrics]),
        "two metrics have the same name; write another name for one of them",
        "metrics",
    ),
    Rule(
        Analysis,
        "!has(self.interval) || duration(self.interval) >= duration('1s')",
        lambda analysis: seconds(analysis.interval) >= 1,
        'the queries are asked too often; write an interval of at least "1s"',
        "interval",
    ),
    Rule(
        CanarySpec,
        "!has(self.progressDeadline) || duration(self.progressDeadline) >= duration('1s')",
        lambda spec: seconds(spec.progress_deadline) >= 1,
        'no pod becomes ready in no time; write at least "1s", for example "10m"',
        "progressDeadline",
    ),
    Rule(
        CanarySpec,
        "!has(self.deadline) || duration(self.deadline) >= duration('1s')",
        lambda spec: seconds(spec.deadline) >= 1,
        'no run ends in no time; write at least "1s", for example "24h"',
        "deadline",
    ),
    Rule(
        CanarySpec,
        "!has(self.strategy) || !has(self.strategy.steps) || self.strategy.steps.all(s, !has(s.fault)"
        " || (has(self.faults) && self.faults.exists(f, f.name == s.fault)))",
        lambda spec: {step.fault for step in spec.strategy.steps or [] if step.fault} <= _experiments(spec),
        "a step names an experiment that is not there; write names of spec.faults",
        "strategy.steps",
    ),
    Rule(
        CanarySpec,
        "!has(self.faults) || !has(self.strategy) || !has(self.strategy.steps)"
        " || self.faults.all(f, self.strategy.steps.exists(s, has(s.fault) && s.fault == f.name))",
        lambda spec: not spec.strategy.steps or _experiments(spec) <= {step.fault for step in spec.strategy.steps},
        "an experiment is named by no step, so it would never be made; write a step for it, for example {fault: NAME}",
        "faults",
    ),
    Rule(
        CanarySpec,
        "",  # the list's key
        lambda spec: _unique([experiment.name for experiment in spec.faults]),
        "two experiments have the same name; write another name for one of them",
        "faults",
    ),
    Rule(
        Strategy,
        "!has(self.steps) || !has(self.steps[0].fault)",
        lambda strategy: not strategy.steps or strategy.steps[0].fault is None,
        "an experiment needs a candidate that has been seen at a weight; write a step with a weight before it",
        "steps",
    ),
    Rule(
        HeaderMatch,
        "[has(self.exact), has(self.prefix), has(self.regex), has(self.present)].exists_one(given, given)",
        exactly_one("exact", "prefix", "regex", "present"),
        "a header is compared in exactly one way; write one of exact, prefix, regex and present",
    ),
    Rule(
        PathMatch,
        "[has(self.exact), has(self.prefix), has(self.regex)].exists_one(given, given)",
        exactly_one("exact", "prefix", "regex"),
        "a path is compared in exactly one way; write one of exact, prefix and regex",
    ),
    Rule(Route, _CEL_TRY_FITS, lambda route: _try_fits(route.timeout, route), _TRY_TOO_LONG, "retries"),
    Rule(TrafficPolicySpec, _CEL_TRY_FITS, lambda spec: _try_fits(spec.timeout, spec), _TRY_TOO_LONG, "retries"),
    Rule(
        TrafficPolicySpec,
        "!has(self.timeout) || duration(self.timeout) == duration('0s') || !has(self.routes)"
        " || self.routes.all(r, has(r.timeout) || !has(r.retries) || !has(r.retries.perTryTimeout)"
        " || duration(r.retries.perTryTimeout) <= duration(self.timeout))",
        lambda spec: all(_try_fits(spec.timeout, route) for route in spec.routes if not route.timeout),
        f"a route without a timeout has the policy's: {_TRY_TOO_LONG}",
        "routes",
    ),
    Rule(
        TrafficPolicySpec,
        "",  # the list's key
        lambda spec: _unique([route.name for route in spec.routes]),
        "two routes have the same name; write another name for one of them",
        "routes",
    ),
    Rule(
        TrafficPolicySpec,
        "!has(self.fault) || !has(self.fault.routes)"
        " || (has(self.routes) && self.fault.routes.all(f, self.routes.exists(r, r.name == f)))",
        lambda spec: not spec.fault or set(spec.fault.routes or []) <= {route.name for route in spec.routes},
        "the fault names a route that this policy does not have; write names of spec.routes",
        "fault.routes",
    ),
    *FAULT_RULES,
)


def rules_of(model_name: str) -> list[Rule]:
    """Return the rules on the model of this name."""
    return [rule for rule in RULES if rule.model.__name__ == model_name]


def check_canary(spec: CanarySpec) -> list[str]:
    """Return a sentence for every rule that a Canary's spec breaks; queries are not looked into."""
    return _broken(spec)


def check_policy(spec: TrafficPolicySpec) -> list[str]:
    """Return a sentence for every rule that a TrafficPolicy's spec breaks."""
    return _broken(spec)


_NOT_IN_RE2 = (
    (re.compile(r"\(\?(?:=|!|<=|<!)"), "looks ahead or behind"),
    (re.compile(r"(?<!\\)(?:\\\\)*\\[1-9]"), "refers back to a group"),
    (re.compile(r"\(\?>|[*+?}]\+"), "takes without giving back"),
)


def hint_policy(spec: TrafficPolicySpec) -> list[str]:
    """Return a sentence for every regular expression that Envoy's engine, RE2, will probably refuse.

    Source: https://github.com/google/re2/wiki/Syntax
    """
    found = []
    for path, part in _parts(spec, "spec"):
        regex = getattr(part, "regex", None)
        for pattern, what in _NOT_IN_RE2:
            if regex and pattern.search(regex):
                found.append(f"{path}.regex: this expression {what}, which RE2 does not know; write it without")
    return found


def _broken(spec: BaseModel) -> list[str]:
    return [
        f"{path}.{rule.field}: {rule.message}" if rule.field else f"{path}: {rule.message}"
        for path, part in _parts(spec, "spec")
        for rule in RULES
        if type(part) is rule.model and rule.holds and not rule.holds(part)
    ]


def _parts(part: BaseModel, path: str) -> Iterator[tuple[str, BaseModel]]:
    """Yield every object in a spec with its path, as the user wrote it."""
    yield path, part
    for name, field in type(part).model_fields.items():
        value, below = getattr(part, name), f"{path}.{field.alias or name}"
        if isinstance(value, BaseModel):
            yield from _parts(value, below)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, BaseModel):
                    yield from _parts(item, f"{below}[{index}]")
