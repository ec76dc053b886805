"""The traffic model: a service, its noise and its candidate's defects, as a user describes them in YAML.

``docs/traffic.md`` tells users what each field means; ``serinus.simulation.world`` plays it. Percentages are 0 to 100,
durations are written as everywhere ("30s", "5m", "250ms"), and times are counted from the begin of the run.
"""

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

import yaml
from pydantic import AfterValidator, Field, model_validator

from serinus.api.base import Strict, seconds
from serinus.api.checking import parse_live, problems
from serinus.simulation.coping import Failing
from serinus.simulation.fields import Percent, PerSecond, Sigma, Slowing, SomeTime
from serinus.simulation.series import Change, ErrorChange, RateChange, Series, values_of
from serinus.simulation.trouble import Defect, Noise

SomeChange = TypeVar("SomeChange", bound=Change)


def _in_order(changes: list[SomeChange]) -> list[SomeChange]:
    for index, (one, other) in enumerate(pairwise(changes), 1):
        free_s = seconds(one.after) + seconds(one.over)
        if seconds(other.after) < free_s:
            raise ValueError(
                f"entry {index} is not over when entry {index + 1} begins; write them in the order of time,"
                f" entry {index + 1} after {free_s:g}s at the earliest"
            )
    return changes


class Requests(Strict):
    """How many requests the service gets. They arrive at random (Poisson). One of `perSecond` and `series` is set."""

    per_second: PerSecond | None = None
    """Requests per second to both versions together."""
    changes: Annotated[list[RateChange], AfterValidator(_in_order)] = Field(default_factory=list, max_length=100)
    """Steps and trends of `perSecond`, in the order of time."""
    series: Series | None = None
    """Requests per second as they were measured somewhere."""

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        if (self.per_second is None) == (self.series is None):
            raise ValueError("requests come from one place; write either perSecond or series")
        if self.series and self.changes:
            raise ValueError("a series changes by itself; leave changes out, or write perSecond instead of series")
        return self


class Errors(Strict):
    """How many requests fail in the stable version, and in a candidate without defects."""

    percent: Percent = 0.1
    """Error rate, in percent."""
    changes: Annotated[list[ErrorChange], AfterValidator(_in_order)] = Field(default_factory=list, max_length=100)
    """Steps and trends of the error rate of both versions, in the order of time."""
    series: Series | None = None
    """The error rate in percent, as it was measured somewhere, in place of `percent` and `changes`."""

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        if self.series and ("percent" in self.model_fields_set or self.changes):
            raise ValueError("an error rate comes from one place; write either series, or percent and changes")
        if self.series and max(self.series.values, default=0) * self.series.factor > 100:
            raise ValueError("the series has error rates above 100 percent; write a smaller factor")
        return self


class SlowMode(Strict):
    """A second kind of requests, which take longer: a cache miss, a report."""

    percent: Percent
    """How many percent of the requests are of this kind."""
    median: SomeTime
    """Their median latency."""
    sigma: Sigma = 0.5
    """Standard deviation of the logarithm of their latency."""


class Quantile(Strict):
    """One point of a latency distribution."""

    percent: Annotated[float, Field(gt=0, lt=100)]
    """How many percent of the requests are faster."""
    at: SomeTime
    """Than this."""


class Latency(Strict):
    """How long answers take: log-normal, with or without a second mode, or given by quantiles."""

    median: SomeTime = "50ms"
    """Median latency."""
    sigma: Sigma = 0.8
    """Standard deviation of the logarithm of latency; at 0.8 one in 100 takes over 6.4 medians."""
    slow: SlowMode | None = None
    """A second mode. The first one has the rest of the requests."""
    quantiles: list[Quantile] = Field(default_factory=list, max_length=50)
    """Two quantiles at least, from fast to slow, in place of `median`, `sigma` and `slow`. Between them, and beyond,
    the distribution is log-normal."""

    @model_validator(mode="after")
    def _has_one_shape(self) -> Self:
        if not self.quantiles:
            return self
        if self.model_fields_set & {"median", "sigma", "slow"}:
            raise ValueError("the distribution is given twice; write either quantiles, or median, sigma and slow")
        rising = all(
            one.percent < other.percent and seconds(one.at) < seconds(other.at)
            for one, other in pairwise(self.quantiles)
        )
        if len(self.quantiles) < 2 or not rising:
            raise ValueError("quantiles need two entries at least, each with a greater percent and time than the last")
        return self


class Pods(Strict):
    """How many pods there are. The candidate's share of the requests does not depend on it, but its noise does."""

    stable: Annotated[int, Field(ge=1, le=1000)] = 5
    """Pods of the stable version."""
    candidate: Annotated[int, Field(ge=1, le=1000)] = 1
    """Pods of the candidate, when a Canary does not say."""


class Endpoint(Strict):
    """One kind of requests. What no endpoint has is as `errors` and `latency` say."""

    name: Annotated[str, Field(min_length=1, max_length=63)]
    """A name for it, unique in the model."""
    percent: Percent
    """How many percent of the requests go there."""
    errors: Percent | None = None
    """Its own error rate, in percent, which does not change with time. Without it, it has the service's."""
    latency_factor: Slowing = 1
    """What its latencies are multiplied by."""


class TrafficModel(Strict):
    """A service under load, its noise, and what is wrong with its candidate."""

    requests: Requests
    """How many requests the service gets."""
    errors: Errors = Errors()
    """How many requests fail without any defect."""
    latency: Latency = Latency()
    """How long answers take without any defect."""
    slow_line: SomeTime = "500ms"
    """An answer that takes longer is a bad response, as an error is."""
    pods: Pods = Pods()
    """How many pods there are."""
    endpoints: list[Endpoint] = Field(default_factory=list, max_length=50)
    """Kinds of requests that differ from the rest."""
    noise: Noise = Noise()
    """What disturbs the measurement and is nobody's fault."""
    defects: list[Defect] = Field(default_factory=list, max_length=20)
    """What is wrong with the candidate. Without any it is as good as the stable version."""
    faults: list[Failing] = Field(default_factory=list, max_length=16)
    """What happens while the Canary's experiments let calls fail. Without an entry nothing does."""

    @model_validator(mode="after")
    def _faults_differ(self) -> Self:
        names = [each.experiment for each in self.faults]
        if len(names) != len(set(names)):
            raise ValueError(
                "faults: two entries are about the same experiment; write one entry for each name, and one without"
            )
        return self

    @model_validator(mode="after")
    def _endpoints_fit(self) -> Self:
        names = [endpoint.name for endpoint in self.endpoints]
        if len(names) != len(set(names)):
            raise ValueError("endpoints: two endpoints have the same name; write another name for one of them")
        total = sum(endpoint.percent for endpoint in self.endpoints)
        if total > 100 + 1e-9:
            raise ValueError(f"endpoints: they have {total:g} percent of the requests together; write 100 at most")
        for index, defect in enumerate(self.defects):
            if defect.endpoint is not None and defect.endpoint not in names:
                known = f"write one of {', '.join(names)}" if names else "write it into endpoints, too"
                raise ValueError(f'defects[{index}].endpoint: there is no endpoint "{defect.endpoint}"; {known}')
        return self


def load_traffic(text: str, directory: Path | None = None) -> TrafficModel:
    """Return the traffic model that a YAML text describes, with the numbers of its CSV files in it.

    Args:
        text: the YAML text.
        directory: where the paths of CSV files begin; None where files may not be read.

    Raises:
        ValueError: one line for each problem: where it is, what is wrong, and what to write instead.
    """
    raw = _read(text)
    _check(raw)
    model = parse_live(TrafficModel, raw)
    for name, series in (("requests", model.requests.series), ("errors", model.errors.series)):
        if series and series.file:
            kept = {key: value for key, value in raw[name]["series"].items() if key not in ("file", "column")}
            raw[name] = raw[name] | {"series": kept | {"values": values_of(series, directory, f"{name}.series")}}
    _check(raw)
    return parse_live(TrafficModel, raw)


def _read(text: str) -> dict[str, Any]:
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}" if mark else "the traffic model"
        what = getattr(error, "problem", None) or "it cannot be read"
        raise ValueError(f"{place}: this is not YAML: {what}") from error
    if not isinstance(raw, dict):
        raise ValueError('the traffic model: there are no fields in it; write for example "requests: {perSecond: 100}"')
    return raw


def _check(raw: dict[str, Any]) -> None:
    """Raise what ``problems`` finds. Its paths begin at a resource's spec; a traffic model has none."""
    if found := problems(TrafficModel, raw):
        sentences = (sentence.removeprefix("spec.").removeprefix("spec: ") for sentence in found)
        raise ValueError("\n".join(sentences))
