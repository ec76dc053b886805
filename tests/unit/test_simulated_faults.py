"""Experiments of the fault gate in simulated releases: the product's own decisions on what a model says of a fault."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from serinus.api import parse_live
from serinus.api.canary import CanarySpec
from serinus.api.status import Reason
from serinus.cli import simulated
from serinus.cli.app import app
from serinus.cli.session import Exit
from serinus.simulation.coping import Coping, Failing
from serinus.simulation.counter import Counter
from serinus.simulation.release import Ending, Release, simulate
from serinus.simulation.summary import Summary
from serinus.simulation.traffic import TrafficModel, load_traffic
from serinus.simulation.world import World

ROOT = Path(__file__).parents[2]
GATE, LOST = ROOT / "examples/canary/fault-gate.yaml", ROOT / "examples/traffic/fallback-lost.yaml"


def played(faults: str = "", *, seed: int = 1, rate: int = 200, **experiment: Any) -> Release:
    """Return a release in steps, with one experiment, under a traffic model with these ``faults``."""
    spec = parse_live(
        CanarySpec,
        {
            "targetRef": {"name": "web"},
            "strategy": {"steps": [{"weight": 40, "for": "10s"}, {"fault": "stock-fails"}]},
            "analysis": {"warmUp": "0s", "minRequests": 20, "successRate": {"maxDrop": 1}},
            "faults": [
                {"name": "stock-fails", "to": "stock", "abort": {"httpStatus": 503}, "recovery": "30s"} | experiment
            ],
        },
    )
    model = load_traffic(f"requests: {{perSecond: {rate}}}\nfaults: [{faults}]\n")
    return simulate(spec, model, seed, horizon_s=1200, history_s=600)


@pytest.mark.parametrize(
    ("candidate", "words"),
    [
        ("errors: 50", "to the candidate failed"),
        ("slow: 60, slowBy: 2s", "of the candidate's answers took longer than"),
        ("calls: 3", "calls for each request"),
    ],
    ids=["it lost its fallback", "it waits", "it storms"],
)
def test_a_candidate_that_copes_worse_is_rolled_back_by_the_gate(candidate: str, words: str) -> None:
    release = played(f"{{candidate: {{{candidate}}}}}")
    assert release.ending is Ending.ROLLED_BACK
    assert "experiment stock-fails" in release.message
    assert words in release.message
    assert [each.verdict for each in release.experiments] == ["Failed"]
    assert [each.reason for each in release.happenings][-2:] == [Reason.FAULT, Reason.FAULT_GATE]


def test_one_that_does_not_recover_is_rolled_back_after_the_fault() -> None:
    release = played("{stable: {errors: 6}, candidate: {errors: 6, recoversAfter: 10m}}", budget=100_000)
    assert release.ending is Ending.ROLLED_BACK
    assert "after the fault" in release.message


@pytest.mark.parametrize("faults", ["", "{stable: {errors: 3}}", "{experiment: other, candidate: {errors: 90}}"])
def test_one_that_copes_alike_is_promoted(faults: str) -> None:
    release = played(faults)
    assert release.ending is Ending.PROMOTED, release.message
    assert [each.verdict for each in release.experiments] == ["Passed"]


def test_a_dry_run_meets_no_fault() -> None:
    release = played("{candidate: {errors: 90}}", dryRun=True)
    assert release.ending is Ending.PROMOTED
    assert release.experiments[0].dry_run


def test_a_suite_is_played_part_by_part() -> None:
    release = played("{stable: {errors: 2}}", abort=None, suite="errors")
    assert release.ending is Ending.PROMOTED, release.message
    parts = [(each.what.split(" in ")[0], each.verdict) for each in release.experiments]
    assert parts == [("answer 503", "Passed"), ("broken connection", "Passed")]


def test_failures_of_the_two_groups_are_failed_responses() -> None:
    release = played("{candidate: {errors: 50}}")
    errors = next(each for each in release.experiments[0].metrics if each.name == "errors")
    others = sum(moment.candidate.failures + moment.stable.failures for moment in release.moments)
    assert errors.bad is not None
    assert errors.bad > 20
    assert release.failed_responses >= others + errors.bad + (errors.stable_bad or 0)


def test_what_a_defect_does_to_the_candidates_group_is_harm() -> None:
    world = World(
        load_traffic("requests: {perSecond: 1000}\nlatency: {median: 1ms}\ndefects: [{outage: true}]\n"), 1, 1
    )
    tick = world.tick(np.array([5.0]), 1, arms_pct=10)
    assert tick.arms is not None
    group, other = (int(each.requests[0]) for each in (tick.arms[0], tick.candidate))
    assert group > other > 0
    assert float(tick.hurt[0]) == pytest.approx(group + other, rel=0.01)


def test_pods_recover_from_the_fault_that_they_met_not_from_the_next_one() -> None:
    world = World(load_traffic("requests: {perSecond: 1000}\nerrors: {percent: 0}\n"), 1, 1)
    stuck = Failing(experiment="one", stable=Coping(errors=100, recovers_after="10m"))
    lost = []
    for order in ([(stuck, True), (Failing(), False)], [(Failing(), True), (stuck, False)]):
        counter = Counter(5, 1)
        for failing, injected in order:
            before = counter.arms(0).evidence
            counter.take(world.tick(np.array([5.0]), 1, arms_pct=10), 2.0, failing, injected=injected)
        seen = counter.arms(0).evidence - before
        lost.append(seen.stable.failures / seen.stable.requests)
    assert lost == [1, 0]


def test_what_spills_over_ends_the_experiment() -> None:
    release = played("{spillOver: 20}")
    assert [each.reason for each in release.experiments] == ["SpillOver"]
    assert "other requests fail since the fault began" in release.experiments[0].message


def test_the_budget_ends_it_where_both_are_fragile() -> None:
    release = played("{stable: {errors: 60}}", budget=20)
    assert [each.reason for each in release.experiments] == ["Budget"]
    assert release.ending is Ending.UNDECIDED
    assert "serinus promote" in release.message


def test_the_same_seed_gives_the_same_release() -> None:
    one, two, other = (played("{candidate: {errors: 4}}", seed=seed) for seed in (7, 7, 8))
    assert (one.experiments, one.ended_s) == (two.experiments, two.ended_s)
    assert one.experiments != other.experiments


def test_a_fault_changes_nothing_of_a_release_without_experiments() -> None:
    spec = parse_live(CanarySpec, {"targetRef": {"name": "web"}})
    plain, told = (load_traffic(f"requests: {{perSecond: 50}}\n{faults}") for faults in ("", "faults: [{}]\n"))
    assert simulate(spec, plain, 3, horizon_s=60) == simulate(spec, told, 3, horizon_s=60)


@pytest.mark.parametrize(
    ("faults", "sentence"),
    [
        ("[{experiment: a}, {experiment: a}]", "two entries are about the same experiment"),
        ("[{}, {}]", "two entries are about the same experiment"),
        ("[{candidate: {erors: 5}}]", "faults[0].candidate.erors: there is no such field; write errors"),
        ("[{candidate: {errors: 101}}]", "faults[0].candidate.errors: 101 is more than 100"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(faults: str, sentence: str) -> None:
    with pytest.raises(ValueError, match="faults") as refused:
        load_traffic(f"requests: {{perSecond: 1}}\nfaults: {faults}\n")
    assert sentence in str(refused.value)


@pytest.fixture
def _each_seed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the command play each seed once, and no second time in another format."""
    known: dict[int, Release] = {}

    def play(spec: CanarySpec, model: TrafficModel, seed: int, **how: Any) -> Release:
        if seed not in known:
            known[seed] = simulate(spec, model, seed, **how)
        return known[seed]

    monkeypatch.setattr(simulated, "simulate", play)


@pytest.mark.usefixtures("_each_seed_once")
def test_the_command_shows_experiments_in_every_format() -> None:
    given = ["simulate", str(GATE), "--traffic", str(LOST)]
    table, page = (CliRunner().invoke(app, [*given, *how]).stdout for how in ([], ["-o", "html"]))
    assert "experiment stock-fails" in table
    assert "Failed; risked 200" in table
    assert "Experiment stock-fails" in page
    found = json.loads(CliRunner().invoke(app, [*given, "-o", "json"]).stdout)
    assert (found["verdict"], found["experiments"][0]["verdict"]) == ("RolledBack", "Failed")


def test_several_runs_are_summed_up_by_experiment() -> None:
    passed, failed = played(), played("{candidate: {errors: 50}}")
    (tally,) = Summary.of([passed, failed, failed, failed]).experiments
    assert (tally.made, tally.shares) == (4, {"Passed": 0.25, "Failed": 0.75, "Inconclusive": 0})
    said = "experiment stock-fails (answer 503 in 50 % of the calls to stock), made 4 times: "
    assert tally.sentence == f"{said}passed 25 %, failed 75 %, inconclusive 0 %"


@pytest.mark.usefixtures("_each_seed_once")
def test_the_command_names_experiments_of_several_runs_in_every_format() -> None:
    given = ["simulate", str(GATE), "--traffic", str(LOST), "--runs", "2", "--processes", "1"]
    table, page = (CliRunner().invoke(app, [*given, *how]).stdout for how in ([], ["-o", "html"]))
    for shown in (table, page):
        assert "experiment stock-fails (answer 503 in 50 % of the calls to stock), made 2 times: passed 0 %" in shown
    found = json.loads(CliRunner().invoke(app, [*given, "-o", "json"]).stdout)
    (experiment,) = found["experiments"]
    assert experiment == {
        "name": "stock-fails",
        "what": "answer 503 in 50 % of the calls to stock",
        "made": 2,
        "passed": 0,
        "failed": 1,
        "inconclusive": 0,
    }


def test_an_experiment_that_the_canary_does_not_have_is_named() -> None:
    plain = str(ROOT / "examples/canary/adaptive.yaml")
    result = CliRunner().invoke(app, ["simulate", plain, "--traffic", str(LOST), "--for", "20s"])
    assert result.exit_code == Exit.REFUSED
    assert 'faults[0].experiment: the Canary has no experiment "stock-fails"; it has none' in result.stderr
