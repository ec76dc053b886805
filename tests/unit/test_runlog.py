"""The log of a run: rows that read back, chunks that close, and verdicts that come out again."""

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serinus.analysis import runlog
from serinus.analysis.apart import ROUNDING
from serinus.analysis.model import Counts, Evidence, Outcome, Reading, Verdict
from serinus.analysis.replay import replay
from serinus.analysis.runlog import Answers, Entry

from .recorded import Run, spec_of

numbers = st.one_of(st.just(0), st.integers(-5, 10**9))
tries = st.lists(numbers, min_size=13, max_size=13).map(tuple)
counts = st.one_of(
    st.builds(Counts, numbers, numbers, tries),
    tries.map(lambda buckets: Counts(sum(buckets), 0, buckets)),
)
entries = st.builds(
    Entry,
    st.floats(0, 1e7),
    st.integers(0, 100),
    st.integers(1, 99),
    st.integers(1, 99),
    st.builds(Evidence, counts, counts),
    st.tuples(numbers, numbers, numbers, numbers),
)


@given(entries)
def test_a_row_reads_back_as_what_was_taken_in(entry: Entry) -> None:
    assert runlog.read(runlog.row_of(entry)) == entry


@given(st.floats(0, 1e7))
def test_the_beginning_of_the_tests_reads_back(now_s: float) -> None:
    assert runlog.read(runlog.started(now_s)) == now_s


@given(st.floats(0, 1e7), st.floats(allow_nan=False))
def test_answers_read_back(now_s: float, value: float) -> None:
    readings = (Reading("a b", Outcome.VALUE, value, sequence=3), Reading("c", Outcome.EMPTY, None, sequence=9))
    answers = Answers(now_s, True, ("a b",), readings)
    assert runlog.read(runlog.row_of_answers(answers)) == answers


def test_a_quiet_scrape_is_a_short_row() -> None:
    entry = Entry(14.506, 10, 2, 4, Evidence(), (0, 0, 0, 0))
    assert runlog.row_of(entry) == "14.506 10 2 4 - - ,,,"


def test_a_row_is_as_the_documentation_draws_it() -> None:
    candidate = Counts(17, 0, (0, 0, 0, 12, 5, *[0] * 8))
    stable = Counts(151, 1, (0, 0, 0, 110, 41, *[0] * 8))
    entry = Entry(14.506, 10, 2, 4, Evidence(candidate, stable), (0, 75, 1, 75))
    row = runlog.row_of(entry)
    assert row == "14.506 10 2 4 @3:12,5 /1@3:110,41 75,,75,1"
    assert row in (runlog.__doc__ or "")


def test_rows_survive_being_packed() -> None:
    rows = [f"{n}.5 1 1 1 - - ,,," for n in range(9)]
    assert runlog.unpack(runlog.pack(rows)) == rows
    assert runlog.unpack(runlog.pack([])) == []


def test_damaged_rows_are_refused() -> None:
    packed = runlog.pack(["1.0 1 1 1 - - ,,,"])
    with pytest.raises(ValueError, match="damaged"):
        runlog.unpack(packed[:8] + packed[12:])


# Chunks


def test_a_chunk_closes_when_it_is_full_and_stays_until_the_next_one_does() -> None:
    run = Run(spec_of()).play(runlog.ROWS - 2)
    assert runlog.CHUNK not in run.state
    assert len(run.state[runlog.LOG]) == runlog.ROWS - 1  # the beginning of the tests is a row, too
    run.scrape()
    assert run.state[runlog.LOG] == []
    first = run.state[runlog.CHUNK]
    assert first["number"] == 1
    assert len(runlog.unpack(first["rows"])) == runlog.ROWS
    run.play(20)
    assert run.state[runlog.CHUNK] == first
    run.play(runlog.ROWS)
    assert sorted(run.chunks) == [1, 2]


def test_long_rows_close_a_chunk_early_so_that_the_status_stays_small() -> None:
    run = Run(spec_of(), rate=200_000, weight_pct=50).play(400)
    assert len(run.chunks) > 400 // runlog.ROWS
    assert run.largest < 20_000


def test_a_look_too_soon_after_the_last_is_no_row() -> None:
    run = Run(spec_of()).play(5)
    rows = list(run.state[runlog.LOG])
    run.now_s += 0.4
    run.look()
    assert run.state[runlog.LOG] == rows


def test_queries_are_recorded_by_their_digest_and_limits_as_they_are() -> None:
    long = "sum(rate(errors[1m])) " + "or vector(0) " * 200
    spec = spec_of(
        metrics=[
            {"name": "limit", "query": long, "max": 3},
            {"name": "orders", "counts": {"bad": long, "total": long}},
        ],
        prometheus={"address": "http://prometheus:9090"},
    )
    noted = runlog.spec_of(spec)
    assert "vector" not in json.dumps(noted)
    assert "prometheus:9090" not in json.dumps(noted)
    assert noted["analysis"]["metrics"][0]["max"] == 3
    assert noted["analysis"]["warmUp"] == "20s"


# Replay


def same(run: Run) -> Any:
    """Replay a run and be sure that it comes out as it was, bit for bit."""
    found = replay(run.record())
    assert found.differences == ()
    assert found.off == 0.0
    assert run.judgement is not None
    assert found.verdict is run.judgement.verdict
    return found


@pytest.mark.parametrize(
    ("failing", "rate", "weight_pct", "verdict"),
    [
        pytest.param(0.002, 400, 40, Verdict.SAFE, id="a good candidate"),
        pytest.param(0.08, 100, 20, Verdict.HARM, id="a bad candidate"),
        pytest.param(0.9, 100, 5, Verdict.HARM, id="an outage"),
        pytest.param(0.002, 3, 10, Verdict.UNDECIDED, id="little traffic"),
        pytest.param(0.002, 100, 100, None, id="all traffic, beside what stable is remembered to do"),
    ],
)
def test_a_run_replays_bit_for_bit(failing: float, rate: int, weight_pct: int, verdict: Verdict | None) -> None:
    run = Run(spec_of(), failing, rate, weight_pct).play(320)
    found = same(run)
    assert found.scrapes == 320
    if verdict is not None:
        assert found.verdict is verdict


def test_a_run_replays_through_restarts_of_the_operator_and_its_reader() -> None:
    run = Run(spec_of(), failing=0.01).play(40)
    run.restart()
    run.play(200)
    run.restart()
    assert same(run.play(30)).scrapes == 270


@pytest.mark.parametrize(("failures", "abandoned", "buckets"), [(0, 0, 0), (3, 0, 5), (0, 4, 0), (2, 4, 5), (0, 9, 7)])
def test_counts_are_the_same_when_they_were_written_and_read(failures: int, abandoned: int, buckets: int) -> None:
    counted = Counts(buckets + failures + abandoned, failures, (0, buckets, *Counts().buckets[2:]), abandoned)
    assert runlog.counts_of(runlog.counts_text(counted)) == counted
    assert Counts.of_row(json.loads(json.dumps(counted.row()))) == counted


def test_a_row_of_before_there_were_abandoned_requests_has_none() -> None:
    old = Counts(7, 1, (0, 6, *Counts().buckets[2:]))
    assert Counts.of_row(old.row()[:-1]) == old


def test_a_run_that_a_look_followed_too_soon_replays_with_the_counts_of_that_look() -> None:
    run = Run(spec_of()).play(30)
    run.every_s = 0.3
    run.scrape()
    assert same(run).scrapes == 30


def test_after_an_edit_of_the_spec_the_tests_begin_afresh_and_so_does_the_replay() -> None:
    run = Run(spec_of()).play(200)
    run.spec = spec_of(successRate={"min": 99})
    found = same(run.play(60))
    assert (found.began, found.scrapes) == (2, 60)


def test_a_run_without_a_request_replays_to_nothing() -> None:
    run = Run(spec_of(), rate=0)
    run.book = run.book.counted(None)
    record = run.play(3).record() | {"tests": None, "rows": []}
    record["run"]["metrics"] = []
    found = replay(record)
    assert (found.differences, found.verdict, found.findings) == ((), Verdict.UNDECIDED, ())


METRICS = [
    {"name": "depth", "query": "depth", "max": 10, "failureLimit": 3},
    {"name": "orders", "counts": {"bad": "bad{{ revision }}", "total": "all{{ revision }}"}},
    {"name": "memory", "gauge": {"query": "memory{{ revision }}"}},
]


def with_users_metrics() -> Run:
    run = Run(spec_of(metrics=METRICS, prometheus={"address": "http://prometheus:9090"}), rate=50)
    _answers(run, 120)
    return run


def _answers(run: Run, times: int) -> None:
    for n in range(1, times + 1):
        if n % 4 == 0:
            named = _named(run, n)
            run.answer(**named)
        run.scrape()


def _named(run: Run, n: int) -> dict[str, float]:
    from serinus.analysis.questions import questions

    values: dict[str, float] = {"depth": 4.0 + (n % 16 == 0) * 9}
    for metric in run.spec.analysis.metrics:
        for index, question in enumerate(questions(metric) if metric.query is None else ()):
            values[question.name] = float(run.sequence * (40, 1)[index % 2]) if metric.counts else 100.0 + index
    return values


def test_users_metrics_replay_too() -> None:
    run = with_users_metrics()
    assert run.state["users"]["orders"]["watched"] is not None
    found = same(run)
    assert found.answers > 20
    assert {finding.metric for finding in found.findings} >= {"depth", "orders", "memory"}


def test_users_metrics_that_were_edited_begin_afresh_and_replay() -> None:
    run = with_users_metrics()
    edited = [METRICS[0], {**METRICS[1], "counts": {**METRICS[1]["counts"], "tolerance": {"points": 5}}}, METRICS[2]]
    run.spec = spec_of(metrics=edited, prometheus={"address": "http://prometheus:9090"})
    _answers(run, 60)
    same(run)


def test_a_new_weight_counts_readings_within_limits_anew_in_the_replay_too() -> None:
    run = with_users_metrics()
    run.state.pop("queries")
    _answers(run, 21)
    same(run)


# What replay finds


@pytest.fixture(scope="module")
def bad() -> dict[str, Any]:
    return Run(spec_of(), failing=0.08).play(200).record()


@pytest.fixture
def record(bad: dict[str, Any]) -> dict[str, Any]:
    return copy.deepcopy(bad)


def test_a_row_that_is_missing_is_found(record: dict[str, Any]) -> None:
    del record["rows"][100]
    found = replay(record)
    assert any("the rows hold" in words and "to the candidate" in words for words in found.differences)
    assert any("another state" in words for words in found.differences)


def test_a_chunk_that_is_missing_is_named(record: dict[str, Any]) -> None:
    found = replay(record | {"rows": record["rows"][150:], "missing": [1]})
    assert "rows are missing: chunk 1 of 1 is not there" in found.differences


def test_a_verdict_that_was_changed_is_found(record: dict[str, Any]) -> None:
    record["run"]["verdict"] = "Safe"
    assert replay(record).differences == ("the verdict was recorded as Safe and comes out as Harm",)


def test_a_number_that_was_changed_is_found(record: dict[str, Any]) -> None:
    record["run"]["metrics"][0]["harm"] = 12.0
    assert replay(record).differences == ("success-rate comes out with other numbers than were recorded",)


def test_settings_that_were_changed_are_found(record: dict[str, Any]) -> None:
    record["spec"]["analysis"]["tuning"] = {"falseAlarm": 0.0001}
    found = replay(record)
    assert "the recorded settings are others than those of the recorded tests" in found.differences


def test_the_last_digit_of_another_processor_is_no_difference(record: dict[str, Any]) -> None:
    harm = record["tests"]["watched"]["state"]["harm"]
    harm[0][0] *= 1 + 4e-15
    found = replay(record)
    assert 0 < found.off < ROUNDING
    assert found.differences == ()
