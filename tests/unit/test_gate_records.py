"""Experiments of the fault gate in the record of a run: kept, shown, and judged again from what was counted."""

import asyncio
import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from serinus.analysis import gatelog, runlog
from serinus.analysis.gatemodel import GateSample, GateSettings, GateStage
from serinus.analysis.model import Counts, Evidence
from serinus.analysis.replay import Replayed, replay
from serinus.api import parse_live
from serinus.api.release import CanaryStatus, ExperimentStatus, Phase, RunStatus
from serinus.cli import records, recounting, run_page, verdict_page
from serinus.cli.session import Exit
from serinus.controller.records import Records
from serinus.delivery import plan, recording
from serinus.delivery.decide import decide
from serinus.delivery.model import ArmTotals, Dependency
from serinus.simulation.page import page as simulation_page

from .recorded import Maps
from .test_experiment import FREE, INJECTING, THROUGH, WHAT, at, note, spec
from .test_looking_back import call, canary, use  # noqa: F401 - a fixture
from .test_simulate import OUTAGE, a_release
from .world import NOW, counts, seen

Record = dict[str, Any]
OWNER = {"kind": "Canary", "name": "web", "uid": "uid-web"}


class Experiment:
    """An experiment that is looked at every two seconds; the status goes through JSON each time."""

    def __init__(self, shares: tuple[float, float], after: tuple[float, float] = (0.0, 0.0), **fields: Any) -> None:
        self.shares, self.after = shares, after
        began = ExperimentStatus(name="stock-fails", what=WHAT, to="stock", budget=200, began_at=NOW.isoformat())
        self.snapshot = at(
            plan.INJECT, spec=spec(**fields), dependency=INJECTING, run_experiment=note(), run_experiments=[began]
        )
        self.random = np.random.default_rng(5)
        self.now, self.looks, self.largest = NOW, 0, 0
        self.arms, self.calls = Evidence(), [0, 0]
        self.chunks: dict[int, str] = {}
        self.status = self.snapshot.status

    @property
    def run(self) -> RunStatus:
        assert self.status.run is not None
        return self.status.run

    @property
    def last(self) -> ExperimentStatus:
        return self.run.experiments[-1]

    def play(self, most: int = 200, rate: float = 16.0, **parts: Any) -> "Experiment":
        """Look until there is a verdict, or so many times."""
        for _ in range(most):
            if self.last.verdict or self.run.stage not in plan.EXPERIMENT:
                break
            self.look(rate, **parts)
        return self

    def look(self, rate: float = 16.0, **parts: Any) -> None:
        self.looks += 1
        self.now += timedelta(seconds=2.003)
        under_fault = self.run.stage == plan.INJECT
        new = [self._counts(rate, share) for share in (self.shares if under_fault else self.after)]
        self.arms = Evidence(self.arms.candidate + new[0], self.arms.stable + new[1])
        for arm in (0, 1):
            self.calls[arm] += int(self.random.poisson(new[arm].requests))
        fields = {
            "status": self.status,
            "totals": seen(counts(900 + 36 * self.looks, self.looks // 9), counts(8100 + 328 * self.looks)),
            "arms": ArmTotals("reader-1", self.arms, (self.calls[0], self.calls[1])),
            "dependency": INJECTING if under_fault else THROUGH,
        }
        snapshot = replace(self.snapshot, **{**fields, **parts})
        status = decide(snapshot, self.now).status
        self.status = parse_live(CanaryStatus, json.loads(json.dumps(status.model_dump(mode="json", by_alias=True))))
        notes = self.run.evidence["notes"]
        self.largest = max(self.largest, len(json.dumps([notes[runlog.LOG], notes.get(runlog.CHUNK)])))
        self.chunks |= _chunk(notes)

    def _counts(self, rate: float, share: float) -> Counts:
        requests = int(self.random.poisson(rate))
        return counts(requests, int(self.random.binomial(requests, share)))

    def ended(self) -> CanaryStatus:
        """The status once the run is over."""
        phase = Phase.FAILED if self.run.cause else Phase.READY
        return self.status.model_copy(update={"phase": phase})

    def record(self) -> Record:
        """The record, put together by the commands from the objects that the operator wrote."""
        kube, meta = Maps(), self.snapshot.meta

        async def through() -> Record:
            writer = Records(kube)  # type: ignore[arg-type]
            for number, rows in self.chunks.items():
                await writer.keep(meta, (recording._part(meta, self.run, str(number), rows, OWNER),))
            assert await writer.keep(meta, recording.parts(meta, self.ended(), OWNER))
            assert all(len(json.dumps(one)) < 40_000 for one in kube.maps.values())
            gone = {"metadata": {"namespace": "shop", "name": "web"}, "spec": {}, "status": {}}
            return await records.record(kube, gone, self.run.id)  # type: ignore[arg-type]

        return dict(json.loads(json.dumps(asyncio.run(through()))))


def _chunk(notes: dict[str, Any]) -> dict[int, str]:
    chunk = notes.get(runlog.CHUNK)
    return {chunk["number"]: chunk["rows"]} if chunk else {}


@pytest.fixture(scope="module")
def failed() -> Experiment:
    return Experiment((0.3, 0.01)).play()


@pytest.fixture(scope="module")
def passed() -> Experiment:
    return Experiment((0.02, 0.02)).play()


def gate_of(found: Replayed) -> Any:
    (experiment,) = found.experiments
    return experiment


# What comes out again


@pytest.mark.parametrize(
    ("shares", "after", "fields", "verdict", "reason"),
    [
        ((0.7, 0.01), (0.0, 0.0), {}, "Failed", ""),
        ((0.02, 0.02), (0.0, 0.0), {}, "Passed", ""),
        ((0.02, 0.02), (0.0, 0.0), {"recovery": "0s"}, "Passed", ""),
        ((0.02, 0.02), (0.6, 0.0), {}, "Failed", ""),
        ((0.3, 0.3), (0.0, 0.0), {"budget": 30}, "Inconclusive", "Budget"),
        ((0.06, 0.02), (0.0, 0.0), {"duration": "20s"}, "Inconclusive", "Time"),
        ((0.02, 0.02), (0.3, 0.3), {"budget": 40}, "Inconclusive", "Budget"),
    ],
    ids=[
        "it copes worse",
        "it copes no worse, and recovers",
        "it copes no worse, and that is all that is asked",
        "it does not recover",
        "the budget is spent",
        "the time is over",
        "the budget is spent in recovery",
    ],
)
def test_a_verdict_comes_out_again_from_the_record(
    shares: tuple[float, float], after: tuple[float, float], fields: dict[str, Any], verdict: str, reason: str
) -> None:
    experiment = Experiment(shares, after, **fields).play()
    assert (experiment.last.verdict, experiment.last.reason) == (verdict, reason)
    found = replay(experiment.record())
    again = gate_of(found)
    assert found.differences == ()
    assert (again.verdict, again.reason, again.spent) == (verdict, reason, experiment.last.spent)
    assert again.message in experiment.last.message
    assert again.budget == experiment.last.budget
    assert again.samples >= 3


def test_few_requests_and_looks_without_any_come_out_again() -> None:
    experiment = Experiment((0.5, 0.0)).play(rate=1.5)
    assert experiment.last.verdict
    assert replay(experiment.record()).differences == ()


def test_a_look_at_which_nothing_was_counted_leaves_no_row() -> None:
    experiment = Experiment((0.02, 0.02)).play(3)
    arms = ArmTotals("reader-1", experiment.arms, (experiment.calls[0], experiment.calls[1]))
    totals = seen(counts(900 + 36 * 3, 0), counts(8100 + 328 * 3))
    experiment.look(arms=arms, totals=totals)
    before = [row for row in experiment.run.evidence["notes"][runlog.LOG] if gatelog.is_row(row)]
    experiment.look(arms=arms, totals=totals)
    assert [row for row in experiment.run.evidence["notes"][runlog.LOG] if gatelog.is_row(row)] == before


def test_settings_that_are_edited_in_between_are_those_that_it_is_judged_by_from_then_on() -> None:
    experiment = Experiment((0.3, 0.3)).play(4)
    experiment.snapshot = replace(experiment.snapshot, spec=spec(budget=60))
    experiment.play()
    assert (experiment.last.reason, experiment.last.budget) == ("Budget", 60)
    record = experiment.record()
    assert sum(row.startswith("!=") for row in record["rows"]) == 2
    assert replay(record).differences == ()


def test_what_ended_it_from_outside_is_taken_as_it_was() -> None:
    experiment = Experiment((0.02, 0.02)).play(5)
    experiment.look(dependency=Dependency(refusal="faults are stopped in namespace shop"))
    assert experiment.last.reason == "Stopped"
    found = replay(experiment.record())
    assert found.differences == ()
    assert (gate_of(found).verdict, gate_of(found).reason) == ("Inconclusive", "Stopped")
    assert "what ended it (Stopped) is not computed again" in recounting.again(gate_of(found))


def test_an_attempt_that_was_broken_off_is_kept_beside_the_one_that_was_judged() -> None:
    experiment = Experiment((0.02, 0.02)).play(5)
    experiment.look(arms=ArmTotals("reader-2", Evidence(counts(3), counts(3)), (3, 3)))
    assert experiment.run.stage == plan.JUDGE
    experiment.look(dependency=FREE)
    assert experiment.last.attempt == 2
    began = experiment.last.model_copy(update={"began_at": experiment.now.isoformat()})
    changes = {"stage": plan.INJECT, "experiments": [began], "experiment": note()}
    run = experiment.run.model_copy(update=changes)
    experiment.status = experiment.status.model_copy(update={"run": run})
    experiment.arms, experiment.calls = Evidence(), [0, 0]
    experiment.shares = (0.7, 0.01)
    experiment.play()
    found = replay(experiment.record())
    assert found.differences == ()
    assert [(each.recorded is None, each.verdict) for each in found.experiments] == [(True, ""), (False, "Failed")]


def test_a_run_under_way_can_be_judged_again_as_far_as_it_has_come() -> None:
    experiment = Experiment((0.02, 0.02)).play(5)
    found = replay(experiment.record())
    assert found.differences == ()
    assert gate_of(found).verdict == ""


# What differs


@pytest.mark.parametrize("field", [1, 2, 5], ids=["the candidate's failures", "stable's failures", "calls"])
def test_one_more_in_any_row_that_the_tests_took_in_gives_another_state(failed: Experiment, field: int) -> None:
    record = failed.record()
    places = [place for place, row in enumerate(record["rows"]) if re.match(r"![\d.]+ ", row)]
    assert len(places) >= 4
    for place in places:
        parts = record["rows"][place].split(" ")
        one, sign, two = parts[field].partition("," if field == 5 else "/")
        parts[field] = f"{int(one) + 1}{sign}{two}" if field == 5 else f"{one}/{int(two or 0) + 1}"
        rows = [*record["rows"][:place], " ".join(parts), *record["rows"][place + 1 :]]
        differences = replay(record | {"rows": rows}).differences
        assert differences, record["rows"][place]
        assert all(said.startswith("experiment stock-fails: ") for said in differences)


def experiment_with(record: Record, **changes: Any) -> Record:
    (known,) = record["run"]["experiments"]
    return record | {"run": record["run"] | {"experiments": [known | changes]}}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"verdict": "Passed"}, "it was recorded as Passed and comes out as Failed"),
        (
            {"verdict": "Inconclusive", "reason": "Stopped"},
            "recorded as Inconclusive (Stopped) and comes out as Failed",
        ),
        ({"verdict": ""}, "it was recorded as undecided and comes out as Failed"),
        ({"spent": 1}, "the requests that failed were recorded as 1 and come out as "),
        ({"budget": 9}, "the requests that were risked were recorded as 9 and come out as 200"),
        ({"difference": [1, 0, 2]}, "what was lost by the fault comes out otherwise than was recorded"),
        ({"metrics": []}, "errors comes out with other numbers than were recorded"),
        ({"beganAt": "2020-01-01T00:00:00Z"}, "it was recorded as Failed and comes out as undecided"),
    ],
)
def test_what_was_written_down_of_it_is_compared(failed: Experiment, changes: dict[str, Any], words: str) -> None:
    differences = replay(experiment_with(failed.record(), **changes)).differences
    assert any(words in said for said in differences), differences


def test_without_its_rows_a_verdict_is_not_confirmed(failed: Experiment) -> None:
    record = failed.record()
    rows = [row for row in record["rows"] if not gatelog.is_row(row)]
    assert any("comes out as undecided" in said for said in replay(record | {"rows": rows}).differences)


def test_a_recovery_does_not_stand_without_the_fault_before_it(passed: Experiment) -> None:
    record = passed.record()
    recovery = next(place for place, row in enumerate(record["rows"]) if '"stage":"Recovery"' in row)
    first = next(place for place, row in enumerate(record["rows"]) if gatelog.is_row(row))
    rows = record["rows"][:first] + record["rows"][recovery:]
    said = replay(record | {"rows": rows}).differences
    assert any("under the fault it does not come out as safe" in each for each in said)


# What is kept


def test_what_is_kept_is_small_and_the_status_stays_bounded() -> None:
    experiment = Experiment((0.06, 0.02), duration="30m", budget=100_000).play(500, rate=10.0)
    rows = [row for row in experiment.record()["rows"] if gatelog.is_row(row)]
    assert experiment.chunks, "it takes longer than a chunk"
    assert replay(experiment.record()).differences == ()
    assert max(len(row) for row in rows) < 1_600
    assert len(runlog.pack(rows)) < 40 * len(rows)
    assert experiment.largest < 20_000


def test_a_row_reads_back_as_what_was_judged() -> None:
    settings = GateSettings(slow_edges=(7, 9))
    timed = Counts(20, 3, (0, 0, 5, 15, *[0] * 9))
    sample = GateSample(
        GateStage.RECOVERY, Evidence(timed, timed), Evidence(counts(9), Counts()), Evidence(), (0, 7), 14.021
    )
    stage = gatelog.Stage("stock-fails", "then", GateStage.RECOVERY, Evidence(), settings)
    (attempt,) = gatelog.attempts([gatelog.row_of_stage(stage), gatelog.row_of(sample, settings)])
    (noted,) = attempt.samples
    read_settings, read = noted.settings, noted.sample
    assert (read_settings, read.arms, read.calls, read.at_s) == (settings, sample.arms, (0, 7), 14.021)
    assert (read.clean.candidate.requests, read.clean.stable.requests, read.stage) == (9, 0, GateStage.RECOVERY)


def test_a_row_is_as_the_documentation_draws_it() -> None:
    arms, clean = Evidence(Counts(71, 9), Counts(68)), Evidence(Counts(804, 4), Counts(7203, 3))
    row = gatelog.row_of(GateSample(GateStage.FAULT, arms, clean, calls=(71, 68), at_s=14.021), GateSettings())
    assert row == "!14.021 71/9 68 804/4 7203/3 71,68"
    assert row in (gatelog.__doc__ or "")


def test_a_setting_of_a_later_version_does_not_matter() -> None:
    stage = gatelog.Stage("a", "then", GateStage.FAULT, Evidence(), GateSettings())
    begun = gatelog.row_of_stage(stage).replace('"alpha"', '"unheard":1,"alpha"')
    (attempt,) = gatelog.attempts([begun, "!2.0 - - - - ,"])
    assert attempt.samples[0].settings == GateSettings()


def test_a_record_with_experiments_has_a_format_that_older_commands_refuse(failed: Experiment) -> None:
    assert failed.record()["format"] == recording.WITH_EXPERIMENTS
    plain = failed.run.model_copy(update={"experiments": []})
    assert recording.ending(failed.snapshot.meta, plain)["format"] == recording.PLAIN


def test_a_record_of_a_version_that_kept_no_experiments_is_read_all_the_same(passed: Experiment) -> None:
    record = passed.record()
    run = {key: value for key, value in record["run"].items() if key != "experiments"}
    old = record | {"format": 1, "run": run, "rows": [row for row in record["rows"] if not gatelog.is_row(row)]}
    found = replay(old)
    assert (found.differences, found.experiments) == ((), ())
    assert "experiment" not in recounting.one_run(old).plain
    assert "experiment" not in recounting.replayed(old, found).plain
    assert "Experiment" not in run_page.page(old, found)
    assert recounting.summary(old)["experiments"] == []


# How it looks


def of_record(stdin: Record, *arguments: str) -> Any:
    return call("replay", "--file", "-", *arguments, stdin=json.dumps(stdin))


def test_history_has_a_line_for_each_experiment(use: Callable[[Any], Maps], failed: Experiment) -> None:  # noqa: F811
    use(canary(failed.run, Phase.FAILED))
    shown, last = call("history", "cart").stdout.splitlines(), failed.last
    assert shown[2] == f"  experiment stock-fails: failed, risked 200, used {last.spent}: {last.message}"
    (listed,) = json.loads(call("history", "cart", "-o", "json").stdout)
    assert [(each["name"], each["verdict"]) for each in listed["experiments"]] == [("stock-fails", "Failed")]
    text = call("history", "cart", failed.run.id).stdout
    assert f"experiment stock-fails  {WHAT}: Failed; risked 200, used {last.spent}" in text
    assert "errors: candidate " in text


def test_parts_of_a_suite_are_told_from_each_other_and_an_open_one_is_under_way_or_broken_off() -> None:
    parts = [ExperimentStatus(name="all", what="a", verdict="Passed"), ExperimentStatus(name="all", what="b")]
    assert verdict_page.lines(parts) == ["all (a): passed, risked 0, used 0", "all (b): under way, risked 0, used 0"]
    assert verdict_page.lines(parts[1:], ended=True) == ["all: broken off, risked 0, used 0"]


def test_replay_says_that_the_same_comes_out_and_what_differs(failed: Experiment) -> None:
    record = failed.record()
    result = of_record(record)
    assert result.exit_code == 0, result.stdout
    assert f"experiment stock-fails  {WHAT}: Failed; risked 200, used {failed.last.spent}" in result.stdout
    assert re.search(r"The same, from \d+ samples: Failed\.", result.stdout)
    result = of_record(experiment_with(record, verdict="Passed"))
    assert result.exit_code == Exit.REFUSED
    assert "It differs: it was recorded as Passed and comes out as Failed." in result.stdout
    assert "  experiment stock-fails: it was recorded as Passed and comes out as Failed\n" in result.stdout


def test_replay_as_json_has_each_experiment(failed: Experiment) -> None:
    record = failed.record()
    (each,) = json.loads(of_record(record, "-o", "json").stdout)["experiments"]
    assert (each["same"], each["verdict"], each["recordedVerdict"], each["budget"]) == (True, "Failed", "Failed", 200)
    found = json.loads(of_record(experiment_with(record, spent=0), "-o", "json").stdout)
    assert (found["same"], found["experiments"][0]["same"]) == (False, False)


@pytest.mark.parametrize("command", ["history", "replay"])
def test_the_page_of_a_run_has_the_verdict_page(
    use: Callable[[Any], Maps],  # noqa: F811
    failed: Experiment,
    command: str,
) -> None:
    use(canary(failed.run, Phase.FAILED))
    text = call(command, "cart", failed.run.id, "-o", "html").stdout
    last = failed.last
    (row, *_) = verdict_page.page_of(last).rows
    for words in (f"risked 200, used {last.spent}", row.candidate, row.stable, row.limit, row.harm, WHAT, last.message):
        assert re.sub("'", "&#39;", words) in text
    assert ("The same, from" in text) == (command == "replay")
    assert not re.search(r"<script|https?://|@import|src=|<link", text)


def test_a_page_is_of_one_run() -> None:
    assert call("history", "cart", "-o", "html").exit_code == Exit.USAGE


def test_the_page_of_a_simulation_shows_experiments_in_the_same_way(failed: Experiment) -> None:
    pages = [verdict_page.page_of(failed.last)]
    text = simulation_page("a title", [a_release(OUTAGE, horizon_s=60)], [], pages)
    assert f"risked 200, used {failed.last.spent}" in text
    assert pages[0].rows[0].candidate in text
