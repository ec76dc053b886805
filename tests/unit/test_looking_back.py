"""explain, history and replay, as a person sees them."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from serinus.analysis.advice import advise
from serinus.analysis.holding import holds
from serinus.analysis.model import Finding, Numbers, Verdict
from serinus.analysis.words import lasting
from serinus.api.release import CanaryStatus, ExperimentStatus, Phase, RunStatus
from serinus.cli import explaining, session, view
from serinus.cli.app import app
from serinus.cli.session import Exit, Place
from serinus.controller.records import Records
from serinus.delivery import recording

from .recorded import META, Maps, Run, spec_of

OWNER = {"kind": "Canary", "name": "cart", "uid": "uid-cart"}


def canary(run: RunStatus | None, phase: Phase = Phase.ANALYSING, **analysis: Any) -> dict[str, Any]:
    message = "the adaptive run at 20 %: 40 more requests are needed"
    status = CanaryStatus(phase=phase, run=run, message=message)
    return {
        "apiVersion": "serinus.dev/v1alpha1",
        "kind": "Canary",
        "metadata": {"name": "cart", "namespace": "shop", "generation": 1},
        "spec": {"targetRef": {"name": "cart"}, "analysis": {"warmUp": "20s", **analysis}},
        "status": status.model_dump(mode="json", by_alias=True, exclude_none=True),
    }


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, Any] | None], Maps]:
    """Put a fake cluster in the place of the real one."""

    def put(present: dict[str, Any] | None) -> Maps:
        kube = Maps(present)

        @asynccontextmanager
        async def cluster(place: Place) -> AsyncIterator[tuple[Maps, str]]:
            yield kube, place.namespace or "shop"

        monkeypatch.setattr(session, "cluster", cluster)
        return kube

    return put


def call(*arguments: str, stdin: str | None = None) -> Any:
    return CliRunner(env={"COLUMNS": "160"}).invoke(app, list(arguments), input=stdin)


@pytest.fixture(scope="module")
def under_way() -> RunStatus:
    return Run(spec_of(), failing=0.006).play(60).status().model_copy(update={"stage": "Judge"})


@pytest.fixture(scope="module")
def harmful() -> RunStatus:
    run = Run(spec_of(), failing=0.08).play(190).status()
    return run.model_copy(update={"cause": "RolledBack", "cause_message": "success rate 92 %; the limit is 99 %"})


# explain


@pytest.mark.parametrize(
    "words",
    [
        "Canary shop/cart  Analysing",
        "run         rev-1, revision rev, began ",
        "the candidate gets 2",
        "requests a second",
        "waits for   the adaptive run at 20 %: 40 more requests are needed",
        "success-rate  Undecided   limit: stable's failures",
        "  candidate ",
        " failed ",
        "  excess    +",
        "% of what rolls it back",
        "% of what lets it pass",
        "  needed    about ",
        "more requests to the candidate, ",
        "took longer than 50 ms",
    ],
)
def test_explain_shows_what_the_evidence_says_and_what_is_needed(use: Any, under_way: RunStatus, words: str) -> None:
    use(canary(under_way))
    result = call("explain", "cart")
    assert result.exit_code == 0
    assert words in result.stdout
    assert len(result.stdout.splitlines()) < 30


def test_explain_of_a_rollback_says_what_decided(use: Any, harmful: RunStatus) -> None:
    use(canary(harmful, Phase.FAILED))
    text = call("explain", "cart").stdout
    assert "says        success rate 92 %; the limit is 99 %" in text
    assert "success-rate  Harm" in text
    assert "100 % of what rolls it back" in text
    assert "nothing more; it is shown to be beyond the limit" in text
    assert "a second" not in text


def test_explain_as_json_has_the_same_numbers(use: Any, under_way: RunStatus) -> None:
    use(canary(under_way))
    found = json.loads(call("explain", "cart", "-o", "json").stdout)
    metric = next(one for one in found["metrics"] if one["name"] == "success-rate")
    status = under_way.metrics[0]
    assert (metric["bad"], metric["requests"], metric["needed"]) == (status.bad, status.requests, status.needed)
    assert metric["excess"]["lower"] < metric["excess"]["estimate"] < metric["excess"]["upper"]
    assert metric["neededSeconds"] == pytest.approx(metric["needed"] / found["requestsPerSecond"], rel=0.01)
    assert found["requestsPerSecond"] == pytest.approx(20, rel=0.3)
    assert found["experiments"] == []


def test_explain_as_json_has_the_experiments(use: Any, under_way: RunStatus) -> None:
    made = ExperimentStatus(name="stock-fails", what="answer 503", verdict="Failed", budget=200, spent=23)
    use(canary(under_way.model_copy(update={"experiments": [made]})))
    (found,) = json.loads(call("explain", "cart", "-o", "json").stdout)["experiments"]
    assert (found["name"], found["verdict"], found["budget"], found["spent"]) == ("stock-fails", "Failed", 200, 23)


def test_explain_before_the_first_run_says_so(use: Any) -> None:
    use(canary(None, Phase.READY))
    result = call("explain", "cart")
    assert result.exit_code == Exit.REFUSED
    assert result.stderr == "cart has had no run yet, so there is nothing to explain.\n"


def test_evidence_beyond_the_scale_fills_the_bar_and_no_more() -> None:
    numbers = Numbers(9, 100, 0, 100, (9.0, 4.0, 14.0), harm=345.0, safe=-900.0, needed=None)
    text = explaining.metrics((Finding("success-rate", Verdict.HARM, 91.0, 100.0, "99 %", numbers=numbers),)).plain
    assert f"{'█' * explaining.BAR}  100 % of what rolls it back" in text
    assert f"{'░' * explaining.BAR}    0 % of what lets it pass" in text


def test_metrics_without_counts_show_their_value_and_remarks_come_last() -> None:
    query = Finding("depth", Verdict.SAFE, 4.0, None, "at most 10", "Value", "depth: 4; the limit is at most 10")
    remark = Finding("one-pod", Verdict.UNDECIDED, message="the candidate has one pod")
    text = explaining.metrics((remark, query)).plain
    assert "depth  Safe   limit: at most 10" in text
    assert "now       4" in text
    assert text.rstrip().endswith("note        the candidate has one pod")


def test_what_nobody_can_say_is_not_said() -> None:
    numbers = Numbers(9, 100, 0, 100, None, harm=10.0, safe=0.0, needed=None)
    text = explaining.metrics((Finding("success-rate", Verdict.UNDECIDED, 91.0, 100.0, "99 %", numbers=numbers),)).plain
    assert "cannot be said" in text
    assert "excess" not in text


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-1, "0 s"), (119.2, "120 s"), (121, "3 min"), (10_800, "180 min"), (14_400, "4 h"), (345_600, "4 days")],
)
def test_a_time_is_in_words(seconds: float, words: str) -> None:
    assert lasting(seconds) == words


# status


def test_status_has_the_same_numbers_in_one_line(under_way: RunStatus) -> None:
    shown = Console(width=250, force_terminal=False, color_system=None)
    with shown.capture() as capture:
        shown.print(view.tree(canary(under_way), view.datetime.now(view.UTC)))
    text = capture.get()
    metric = under_way.metrics[0]
    assert f"{metric.bad:,} of {metric.requests:,}, stable {metric.stable_bad:,} of {metric.stable_requests:,}" in text
    assert "excess +" in text
    assert "harm " in text
    assert "more requests to the candidate, " in text
    assert "the evidence decides weight and pace" in text


# What holds the weight


@pytest.mark.parametrize(
    ("scrapes", "failing", "weight_pct", "at_weight_s", "requests", "words"),
    [
        (3, 0.002, 5, 60.0, 100, "the candidate warms up for another"),
        (40, 0.05, 5, 60.0, 100, "there is evidence for harm"),
        (60, 0.002, 5, 10.0, 100, "this one for another 20 s"),
        (60, 0.002, 5, 60.0, 3, "17 more requests to the candidate are needed"),
        (12, 0.004, 40, 60.0, 100, "the budget of bad requests allows about"),
        (30, 0.002, 50, 10.0, 100, "not shown to be safe yet: "),
        (30, 0.002, 50, 10.0, 100, "the greatest weight is held for another 50 s"),
        (30, 0.002, 50, 10.0, 100, "a run is judged for another"),
    ],
)
def test_what_holds_the_weight_is_said(
    scrapes: int, failing: float, weight_pct: int, at_weight_s: float, requests: int, words: str
) -> None:
    assert any(words in hold for hold in _holds(scrapes, failing, weight_pct, at_weight_s, requests)[0])


@pytest.mark.parametrize("scrapes", [3, 12, 40, 90, 200])
@pytest.mark.parametrize("failing", [0.0, 0.004, 0.05])
@pytest.mark.parametrize("weight_pct", [2, 10, 50])
@pytest.mark.parametrize(("at_weight_s", "requests"), [(5.0, 400), (70.0, 4), (70.0, 400)])
def test_the_weight_is_held_exactly_when_something_is_said(
    scrapes: int, failing: float, weight_pct: int, at_weight_s: float, requests: int
) -> None:
    said, rises = _holds(scrapes, failing, weight_pct, at_weight_s, requests)
    assert bool(said) is not rises


def _holds(scrapes: int, failing: float, weight_pct: int, at_weight_s: float, requests: int) -> tuple[list[str], bool]:
    from serinus.analysis.judge import begun, take_in
    from serinus.analysis.runlog import read

    key = scrapes, failing
    if key not in _PLAYED:
        run = Run(spec_of(), failing=failing).play(scrapes)
        bench = begun(run.spec, tuple(run.state["tests"]["edges"]), run.book.before, 0.0)
        for row in run.record()["rows"][1:]:
            take_in(bench, read(row))  # type: ignore[arg-type]
        _PLAYED[key] = bench
    bench = _PLAYED[key]
    readout = bench.monitor.engine.read(bench.watched.state, bench.watched.now_s)
    said = holds(bench.monitor, bench.watched, readout, weight_pct, at_weight_s, requests)
    arrays = (np.array([float(value)]) for value in (weight_pct, at_weight_s, requests))
    advice = advise(bench.monitor, bench.watched, readout, *arrays)
    return said, bool(advice.weight_pct[0] > weight_pct or advice.done[0])


_PLAYED: dict[tuple[int, float], Any] = {}


# history


def past(kube: Maps, *runs: RunStatus) -> None:
    """Record runs that have ended, oldest first."""

    async def write() -> None:
        writer = Records(kube)  # type: ignore[arg-type]
        for run in runs:
            await writer.keep(META, recording.parts(META, CanaryStatus(phase=Phase.READY, run=run), OWNER))

    asyncio.run(write())


def renamed(run: RunStatus, number: int, **changes: Any) -> RunStatus:
    at = {"started_at": f"2026-05-0{number}T12:00:00.000Z", "stage_since": f"2026-05-0{number}T12:25:00.000Z"}
    return run.model_copy(update={"id": f"run-{number}", **at, **changes})


def test_history_lists_runs_newest_first_with_verdict_and_reason(
    use: Any, harmful: RunStatus, under_way: RunStatus
) -> None:
    kube = use(canary(renamed(under_way, 3)))
    past(kube, renamed(under_way, 1, verdict="Safe", metrics=[]), renamed(harmful, 2))
    lines = call("history", "cart").stdout.splitlines()
    assert lines[0].split() == ["RUN", "REVISION", "BEGAN", "TOOK", "VERDICT", "REASON"]
    assert [line.split()[0] for line in lines[1:]] == ["run-3", "run-2", "run-1"]
    assert "Undecided so far" in lines[1]
    assert "25 min   RolledBack         success rate 92 %; the limit is 99 %" in lines[2]
    assert "Promoted" in lines[3]
    assert "nothing was judged" in lines[3]


def test_history_as_json_is_for_programs(use: Any, harmful: RunStatus) -> None:
    past(use(canary(None)), renamed(harmful, 2))
    (found,) = json.loads(call("history", "cart", "-o", "json").stdout)
    assert (found["run"], found["seconds"], found["outcome"]) == ("run-2", 1500.0, "RolledBack")
    assert found["reason"] == "success rate 92 %; the limit is 99 %"


def test_a_run_whose_end_is_not_recorded_is_listed_all_the_same(use: Any, harmful: RunStatus) -> None:
    kube = use(canary(None))
    past(kube, renamed(harmful, 2))
    del kube.maps["cart-run-2-end"]
    assert "unknown" in call("history", "cart").stdout
    result = call("replay", "cart", "run-2")
    assert result.exit_code == Exit.REFUSED
    assert "The end of run run-2 was not recorded" in result.stderr


def test_one_run_is_shown_with_its_metrics(use: Any, harmful: RunStatus) -> None:
    past(use(canary(None)), renamed(harmful, 2))
    text = call("history", "cart", "run-2").stdout
    assert "Run run-2 of shop/cart" in text
    assert "took 25 min: RolledBack, verdict Harm" in text
    assert "success-rate  Harm" in text


def test_without_a_run_history_is_empty(use: Any) -> None:
    use(canary(None))
    result = call("history", "cart")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "cart has had no run yet.\n")


def test_a_run_that_is_not_there_names_those_that_are(use: Any, harmful: RunStatus) -> None:
    past(use(canary(None)), renamed(harmful, 2))
    result = call("history", "cart", "r9", "-o", "json")
    assert result.exit_code == Exit.MISSING
    assert result.stderr == "There is no record of a run r9 of cart. There are: run-2.\n"


# replay


def test_replay_says_that_the_verdict_comes_out_again(use: Any, harmful: RunStatus) -> None:
    past(use(canary(None)), renamed(harmful, 2))
    result = call("replay", "cart", "run-2")
    assert result.exit_code == 0
    assert "190 scrapes went through the tests again." in result.stdout
    assert "The same: Harm, and what the tests have come to is equal bit for bit." in result.stdout
    assert "100 % of what rolls it back" in result.stdout


def test_a_record_in_a_file_replays_without_a_cluster(use: Any, harmful: RunStatus, tmp_path: Path) -> None:
    past(use(canary(None)), renamed(harmful, 2))
    written = call("history", "cart", "run-2", "-o", "json").stdout
    file = tmp_path / "record.json"
    file.write_text(written)
    use(None)
    assert call("replay", "--file", str(file)).exit_code == 0
    result = call("replay", "--file", "-", "-o", "json", stdin=written)
    found = json.loads(result.stdout)
    assert (found["same"], found["bitForBit"], found["verdict"], found["scrapes"]) == (True, True, "Harm", 190)


def test_a_replay_that_comes_out_otherwise_fails_and_says_why(use: Any, harmful: RunStatus) -> None:
    past(use(canary(None)), renamed(harmful, 2))
    record = json.loads(call("history", "cart", "run-2", "-o", "json").stdout)
    del record["rows"][77]
    result = call("replay", "--file", "-", stdin=json.dumps(record))
    assert result.exit_code == Exit.REFUSED
    assert "Not the same:" in result.stdout
    assert "the rows hold" in result.stdout


def test_a_chunk_that_is_gone_is_a_difference(use: Any, harmful: RunStatus) -> None:
    kube = use(canary(None))
    past(kube, renamed(harmful, 2))
    del kube.maps["cart-run-2-1"]
    result = call("replay", "cart", "run-2")
    assert result.exit_code == Exit.REFUSED
    assert "rows are missing: chunk 1 of 1 is not there" in result.stdout


def test_a_record_of_another_version_says_so(use: Any, harmful: RunStatus) -> None:
    past(use(canary(None)), renamed(harmful, 2))
    record = json.loads(call("history", "cart", "run-2", "-o", "json").stdout) | {"serinus": "0.0.1"}
    assert "It was recorded by Serinus 0.0.1; this is" in call("replay", "--file", "-", stdin=json.dumps(record)).stdout


@pytest.mark.parametrize(
    ("text", "words", "status"),
    [
        ("{", "is not JSON", Exit.USAGE),
        ("[]", "This is no record of a run", Exit.REFUSED),
        ('{"canary": "x"}', "This is no record of a run", Exit.REFUSED),
    ],
)
def test_what_is_no_record_is_a_sentence(text: str, words: str, status: Exit) -> None:
    result = call("replay", "--file", "-", stdin=text)
    assert result.exit_code == status
    assert words in result.stderr


@pytest.mark.parametrize("arguments", [[], ["cart"], ["cart", "r1", "--file", "x"]])
def test_replay_wants_a_run_or_a_file(arguments: list[str]) -> None:
    assert call("replay", *arguments).exit_code == Exit.USAGE


def test_a_run_long_past_is_found_by_the_beginning_of_its_name(use: Any, harmful: RunStatus) -> None:
    past(use(canary(replace_id(harmful, "run-9"))), renamed(harmful, 1), renamed(harmful, 2))
    assert call("replay", "cart", "run-2").exit_code == 0
    result = call("replay", "cart", "run-")
    assert result.exit_code == Exit.USAGE
    assert "Several runs of cart begin with run-" in result.stderr


def replace_id(run: RunStatus, name: str) -> RunStatus:
    return run.model_copy(update={"id": name})
