"""Traffic models: what can be written, and the sentence for what cannot."""

from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import pytest
from pydantic import BaseModel

from serinus.simulation.traffic import TrafficModel, load_traffic

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples" / "traffic").glob("*.yaml"))
ONE = "requests: {perSecond: 1}\n"


def refusal(text: str, directory: Path | None = None) -> str:
    with pytest.raises(ValueError, match=r"\S") as caught:
        load_traffic(text, directory)
    return str(caught.value)


def test_one_number_is_enough() -> None:
    model = load_traffic("requests: {perSecond: 12.5}")
    assert model.requests.per_second == 12.5
    assert (model.errors.percent, model.latency.median, model.slow_line) == (0.1, "50ms", "500ms")
    assert not model.defects


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_are_traffic_models(example: Path) -> None:
    assert load_traffic(example.read_text(), example.parent).requests.per_second == 100


def test_one_example_is_good_and_one_has_a_defect() -> None:
    models = {path.stem: load_traffic(path.read_text(), path.parent) for path in EXAMPLES}
    assert {name: bool(model.defects) for name, model in models.items()} == {
        "steady": False,
        "leak": True,
        "fallback-lost": False,
    }


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", 'the traffic model: there are no fields in it; write for example "requests: {perSecond: 100}"'),
        ("a: [", "line 1: this is not YAML: expected the node content, but found '<stream end>'"),
        ("{}", "requests: this field is missing; write it (how many requests the service gets)"),
        ("requests: {}", "requests: requests come from one place; write either perSecond or series"),
        ("requests: {perSecond: -1}", "requests.perSecond: -1 is less than 0; write a number from 0 to 1,000,000"),
        (
            "requests: {perSecond: '5'}",
            'requests.perSecond: "5" does not fit here; write a number from 0 to 1,000,000',
        ),
        (
            "requests: {perSecond: 1, changes: [{after: 5m, to: 3, over: 2m}, {after: 6m, to: 1}]}",
            (
                "requests.changes: entry 1 is not over when entry 2 begins; write them in the order of time, entry 2"
                " after 420s at the earliest"
            ),
        ),
        (
            "requests: {series: {values: [1], interval: 1m}, changes: [{after: 1s, to: 2}]}",
            "requests: a series changes by itself; leave changes out, or write perSecond instead of series",
        ),
        (
            "requests: {series: {interval: 1m}}",
            "requests.series: a series comes from one place; write either file or values",
        ),
        (
            "requests: {series: {values: [1], column: rps, interval: 1m}}",
            "requests.series: only a file has columns; leave column out, or write file",
        ),
        (
            "requests: {series: {file: rps.csv, interval: 1m}}",
            "requests.series.file: no file can be read here; write the numbers as values",
        ),
        (ONE + "error: {percent: 1}", "error: there is no such field; write errors"),
        (
            ONE + "errors: {percent: 1, series: {values: [1], interval: 1m}}",
            "errors: an error rate comes from one place; write either series, or percent and changes",
        ),
        (
            ONE + "errors: {series: {values: [1, 60], factor: 2, interval: 1m}}",
            "errors: the series has error rates above 100 percent; write a smaller factor",
        ),
        (
            ONE + "errors: {changes: [{after: 5m, to: 101}]}",
            "errors.changes[0].to: 101 is more than 100; write a number from 0 to 100",
        ),
        (
            ONE + "latency: {median: 10ms, quantiles: [{percent: 50, at: 1s}, {percent: 90, at: 2s}]}",
            "latency: the distribution is given twice; write either quantiles, or median, sigma and slow",
        ),
        (
            ONE + "latency: {quantiles: [{percent: 50, at: 1s}, {percent: 90, at: 1s}]}",
            "latency: quantiles need two entries at least, each with a greater percent and time than the last",
        ),
        (
            ONE + "slowLine: soon",
            'slowLine: "soon" is not a duration; write for example "30s", "5m", "1h30m" or "250ms"',
        ),
        (
            ONE + "noise: {bursts: {every: 0s, lasts: 60s}}",
            'noise.bursts.every: "0s" is no time at all; write for example "1s"',
        ),
        (
            ONE + "noise: {glitches: {every: 20m, lasts: 60, percent: 20}}",
            'noise.glitches.lasts: 60 does not fit here; write a duration, for example "30s", "5m" or "1h30m"',
        ),
        (
            ONE + "noise: {sparks: {decay: 1m}}",
            (
                "noise.sparks: there is no such field; known are bursts, pods, glitches, warmUp, missingScrapes,"
                " counterResets, lateSeries, overload"
            ),
        ),
        (ONE + "pods: {candidate: 0}", "pods.candidate: 0 is less than 1; write a whole number from 1 to 1000"),
        (
            ONE + "endpoints: [{name: a, percent: 90}, {name: b, percent: 20}]",
            "endpoints: they have 110 percent of the requests together; write 100 at most",
        ),
        (
            ONE + "endpoints: [{name: a, percent: 9}, {name: a, percent: 2}]",
            "endpoints: two endpoints have the same name; write another name for one of them",
        ),
        (
            ONE + "defects: [{after: 5m}]",
            (
                "defects[0]: this defect does nothing; write one of errorRatio, errorPoints, outage, latencyFactor and"
                " slowTail"
            ),
        ),
        (
            ONE + "endpoints: [{name: buy, percent: 9}]\ndefects: [{outage: true, endpoint: by}]",
            'defects[0].endpoint: there is no endpoint "by"; write one of buy',
        ),
        (
            ONE + "defects: [{outage: true, endpoint: buy}]",
            'defects[0].endpoint: there is no endpoint "buy"; write it into endpoints, too',
        ),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(text: str, sentence: str) -> None:
    assert refusal(text) == sentence


def test_every_problem_has_a_line() -> None:
    assert refusal("requests: {perSecond: -1}\npods: {stable: 0}").splitlines() == [
        "requests.perSecond: -1 is less than 0; write a number from 0 to 1,000,000",
        "pods.stable: 0 is less than 1; write a whole number from 1 to 1000",
    ]


@pytest.mark.parametrize(
    ("content", "column", "values"),
    [
        ("3\n4.5\n\n0\n", "", [3, 4.5, 0]),
        ("time,rps\n10:00,3\n10:01,4\n", "", [3, 4]),
        ("\ufefftime, rps ,errors\n10:00, 3 ,0\n10:01,4,0\n", "column: rps, ", [3, 4]),
    ],
    ids=["numbers only", "the last column of a file with names", "a named column"],
)
def test_a_series_is_read_from_its_file(tmp_path: Path, content: str, column: str, values: list[float]) -> None:
    (tmp_path / "rps.csv").write_text(content)
    model = load_traffic(f"requests: {{series: {{file: rps.csv, {column}interval: 1m}}}}", tmp_path)
    assert model.requests.series is not None
    assert model.requests.series.values == values
    assert TrafficModel.model_validate(model.model_dump()) == model


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", 'requests.series.file: "rps.csv" is empty; it needs one number in each line'),
        ("rps\n", 'requests.series.file: "rps.csv" has 0 numbers; it needs 1 to 1,000,000'),
        (
            "rps\n3\nmany\n",
            'requests.series.file: line 3 of "rps.csv" has "many"; write a number from 0 to 1,000,000 there',
        ),
        ("3\n-4\n", 'requests.series.file: line 2 of "rps.csv" has "-4"; write a number from 0 to 1,000,000 there'),
        ("3\nnan\n", 'requests.series.file: line 2 of "rps.csv" has "nan"; write a number from 0 to 1,000,000 there'),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_a_sentence(tmp_path: Path, content: str, sentence: str) -> None:
    (tmp_path / "rps.csv").write_text(content)
    assert refusal("requests: {series: {file: rps.csv, interval: 1m}}", tmp_path) == sentence


def test_a_column_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    (tmp_path / "rps.csv").write_text("time,rps\n1,2\n")
    text = "requests: {series: {file: rps.csv, column: rate, interval: 1m}}"
    assert refusal(text, tmp_path) == ('requests.series.column: "rps.csv" has no column "rate"; write one of time, rps')


def test_a_file_that_is_not_there_is_named_with_the_place_where_it_was_looked_for(tmp_path: Path) -> None:
    assert refusal("requests: {series: {file: rps.csv, interval: 1m}}", tmp_path) == (
        'requests.series.file: "rps.csv" cannot be read (No such file or directory); write the path of a CSV file,'
        f" from {tmp_path}"
    )


def fields_of(annotation: Any) -> set[str]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {str(field.alias) for field in annotation.model_fields.values()}.union(
            *(fields_of(field.annotation) for field in annotation.model_fields.values())
        )
    if get_origin(annotation) in (list, Union, UnionType, Annotated):
        return set[str]().union(*(fields_of(part) for part in get_args(annotation)))
    return set()


def test_the_documentation_tells_of_every_field() -> None:
    words = (ROOT / "docs" / "traffic.md").read_text()
    fields = fields_of(TrafficModel)
    assert {"perSecond", "errorsCv", "onePodOnly", "fromWeight"} <= fields
    assert {field for field in fields if f"`{field}`" not in words and f"{field}:" not in words} == set()
