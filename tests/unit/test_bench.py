"""The bench: what it counts is what happens, its bars are what is asked, and its engine is the product's."""

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from math import inf

import numpy as np
import pytest

from serinus.analysis import record
from serinus.analysis.judge import judge
from serinus.analysis.model import Counts, Evidence, Sample, Verdict
from serinus.analysis.rows import choose_edges, plan_of
from serinus.analysis.settings import PROFILES
from serinus.api.canary import CanarySpec
from serinus.cli.bench import bench
from serinus.cli.session import Stop
from serinus.simulation.bars import Bar, Names, bars
from serinus.simulation.bench import CONTESTANTS, FAST, KNOWN, OURS, Job, Subset, jobs, run, spec_of, tabulate
from serinus.simulation.contest import play
from serinus.simulation.ours import PREPARING_S, Serinus
from serinus.simulation.policy import Outcome
from serinus.simulation.report import document, markdown
from serinus.simulation.scenarios import CANDIDATE_PODS, HELD_OUT_RATES, RATES, SCENARIOS, STABLE_PODS, Kind, Scenario
from serinus.simulation.scoring import Cell, pooled_median, score
from serinus.simulation.traffic import TrafficModel, load_traffic
from serinus.simulation.world import ArmCounts, FloatArray, IntArray, Tick, World

RUNS = 4


class Scripted:
    """Gives a weight, and at a certain second an outcome, whatever happens."""

    name = "scripted"
    tick_s = 10.0
    weight_pct: FloatArray
    outcome: IntArray

    def __init__(self, at_s: float, ends: Outcome, weight: float = 10.0) -> None:
        self._at_s, self._ends, self._weight = at_s, ends, weight

    def start(self, runs: int) -> None:
        self.weight_pct = np.full(runs, self._weight)
        self.outcome = np.full(runs, int(Outcome.RUNNING))

    def step(self, now_s: float, tick: Tick) -> None:
        if now_s >= self._at_s:
            self.outcome[:] = self._ends


def model(rest: str = "", rate: float = 100) -> TrafficModel:
    return load_traffic(f"requests: {{perSecond: {rate}}}\npods: {{stable: 4, candidate: 2}}\n{rest}")


def scenario(name: str) -> Scenario:
    return next(each for each in SCENARIOS if each.name == name)


def serinus(profile: str = "Standard", learned: bool = False) -> Serinus:
    return Serinus("serinus", spec_of(profile), CANDIDATE_PODS, STABLE_PODS, learned)


# What is counted


@pytest.mark.parametrize(
    ("ends", "at_full_weight_s"), [(Outcome.PROMOTED, 540.0), (Outcome.ROLLED_BACK, 0.0)], ids=["promoted", "back"]
)
def test_a_bad_release_hurts_at_its_weight_and_after_promotion_at_all_of_the_traffic(
    ends: Outcome, at_full_weight_s: float
) -> None:
    found = play(Scripted(60.0, ends), model("defects: [{errorPoints: 5}]"), 200, seed=1, horizon_s=600.0)
    slow = 0.002
    expected = 100 * (60.0 * 0.1 + at_full_weight_s) * 0.05 * (1 - slow)
    assert found.hurt.mean() == pytest.approx(expected, rel=0.01 if at_full_weight_s else 0.05)
    assert (found.ended_s == 60.0).all()
    assert (found.shipped_s == 60.0).all() == (ends is Outcome.PROMOTED)


def test_a_defect_that_shows_after_the_promotion_is_counted() -> None:
    late = model("defects: [{errorPoints: 5, after: 5m}]")
    found = play(Scripted(60.0, Outcome.PROMOTED), late, 50, seed=1, horizon_s=600.0)
    assert found.hurt.mean() == pytest.approx(100 * 300.0 * 0.05, rel=0.02)


def test_a_cell_ends_with_its_last_release() -> None:
    class Counting(Scripted):
        steps = 0

        def step(self, now_s: float, tick: Tick) -> None:
            self.steps += 1
            super().step(now_s, tick)

    policy = Counting(60.0, Outcome.PROMOTED)
    assert (play(policy, model(), RUNS, seed=1).hurt == 0).all()
    assert policy.steps == 6


def test_a_release_that_passed_and_was_taken_back_is_not_shipped() -> None:
    passed = Scripted(120.0, Outcome.ROLLED_BACK)

    def start(runs: int) -> None:
        Scripted.start(passed, runs)
        passed.passed_s = np.array([60.0] * (runs - 1) + [np.nan])  # type: ignore[attr-defined]

    passed.start = start  # type: ignore[method-assign]
    cell = score("p", scenario("identical, 0.1 %"), 100.0, play(passed, model(), RUNS, seed=1))
    assert (cell.shipped, cell.rolled_back, cell.undecided) == (0, RUNS, 0)


def test_the_undecided_count_as_slowest_in_the_median() -> None:
    undecided = cell_of("p", "identical, 0.1 %", 100, ship_s=(60.0, inf, inf))
    assert pooled_median([undecided]) is None
    assert pooled_median([undecided, cell_of("p", "bursts", 100, ship_s=(70.0, 80.0))]) == 80.0


# The engine of the bench is the product's

_LOOKS = 130
"""So many scrapes; a good release with the profile Fast has passed after fewer."""


def history_of(world: World) -> tuple[list[Tick], Counts]:
    ticks = list(world.history(600.0))
    known = ticks[: -round(PREPARING_S / 2)]
    return ticks, counts(half for tick in known for half in tick.stable)


def counts(arms: Iterable[ArmCounts]) -> Counts:
    arms = list(arms)
    buckets = tuple(int(sum(arm.buckets[edge, 0] for arm in arms)) for edge in range(len(Counts().buckets)))
    return Counts(sum(int(arm.requests[0]) for arm in arms), sum(int(arm.failures[0]) for arm in arms), buckets)


@pytest.mark.parametrize("profile", ["Standard", "Fast", "Strict"])
def test_rows_and_settings_are_those_of_the_canary_that_says_nothing_but_its_profile(profile: str) -> None:
    policy, world = serinus(profile), World(model(), 1, seed=3)
    policy.start(1)
    ticks, before = history_of(world)
    policy.learn(ticks)
    spec = spec_of(profile)
    expected = plan_of(spec, choose_edges(spec.analysis.latency, before), before)
    (group,) = policy._groups
    assert group.monitor.settings == PROFILES[profile].settings
    assert group.monitor.engine.rows == expected.rows
    assert len(expected.rows) > 3


def test_releases_whose_histories_choose_other_edges_are_tested_at_other_edges() -> None:
    policy, world = serinus(), World(model("latency: {median: 40ms, sigma: 1}", rate=1), 40, seed=1)
    policy.start(40)
    policy.learn(world.history(600.0))
    assert sorted(int(run) for group in policy._groups for run in group.indices) == list(range(40))
    assert len(policy._groups) > 1


def test_what_stable_did_before_is_known_and_how_its_pods_differ_only_on_demand() -> None:
    for learned in (False, True):
        policy, world = serinus(learned=learned), World(model(), RUNS, seed=1)
        policy.start(RUNS)
        policy.learn(world.history(1800.0))
        (group,) = policy._groups
        assert (group.watched.state.known[0] > 40_000).all()
        assert (group.watched.dispersion.scale[0] > 5).all() == learned
        assert (group.watched.dispersion.scale[0] < 1).all() != learned


@pytest.mark.parametrize(
    ("rest", "rate", "reached"),
    [
        ("", 200.0, 1.0),
        ("", 200.0, 0.5),
        ("noise: {missingScrapes: {percent: 20}, counterResets: {every: 1m}}", 60.0, 1.0),
        ("noise: {lateSeries: {after: 40s}}", 200.0, 1.0),
        ("defects: [{errorPoints: 2}]", 100.0, 1.0),
        ("defects: [{latencyFactor: 2, after: 1m}]", 300.0, 1.0),
    ],
    ids=["good", "half of the callers do not obey", "poor scrapes", "late series", "errors", "late and slow"],
)
def test_evidence_weights_and_verdicts_are_those_of_the_products_judge_scrape_by_scrape(
    rest: str, rate: float, reached: float
) -> None:
    policy, world, spec = serinus("Fast"), World(model(rest, rate), 1, seed=5), spec_of("Fast")
    policy.start(1)
    ticks, before = history_of(world)
    policy.learn(ticks)
    product = Product(spec, before)
    for number, tick in enumerate(ticks[-round(PREPARING_S / 2) :], 1):
        product.look(number * 2.0, tick)
    product.weight = product.advised
    assert product.weight == policy.weight_pct[0]
    for _ in range(_LOOKS):
        tick = world.tick(policy.weight_pct * reached)
        product.at_weight_s += 2.0
        verdict, done = product.look(world.now_s + PREPARING_S, tick)
        policy.step(world.now_s, tick)
        assert product.evidence() == record.dump(policy._groups[0].watched)
        assert (policy.outcome[0] == Outcome.ROLLED_BACK) == (verdict is Verdict.HARM)
        if verdict is Verdict.HARM:
            break
        if done and not product.passed:
            product.passed, product.advised = True, 95
        assert product.passed == (not np.isnan(policy.passed_s[0]))
        if product.advised != product.weight:
            product.shift()
        assert product.weight == policy.weight_pct[0]
    assert ("defects" in rest) == (policy.outcome[0] == Outcome.ROLLED_BACK)
    assert product.weight >= 50 or verdict is Verdict.HARM or reached < 1
    assert product.weight < 50 or reached == 1


class Product:
    """One release, looked at by the product's judge and moved as ``serinus.delivery.running`` does."""

    def __init__(self, spec: CanarySpec, before: Counts) -> None:
        self.spec, self.before = spec, before
        self.total = self.mark = Evidence()
        self.halves = ((0, 0), (0, 0))
        self.state: dict[str, object] = {}
        self.weight = self.advised = 0
        self.at_weight_s = 0.0
        self.passed = False

    def look(self, now_s: float, tick: Tick) -> tuple[Verdict, bool]:
        new = Evidence(counts([tick.candidate]), counts(tick.stable))
        self.total = Evidence(self.total.candidate + new.candidate, self.total.stable + new.stable)
        (n_1, bad_1), (n_2, bad_2) = self.halves
        one, two = tick.stable
        self.halves = (
            (n_1 + int(one.requests[0]), bad_1 + int(one.failures[0])),
            (n_2 + int(two.requests[0]), bad_2 + int(two.failures[0])),
        )
        window = Evidence(self.total.candidate - self.mark.candidate, self.total.stable - self.mark.stable)
        sample = Sample(
            total=self.total,
            window=window if self.weight else Evidence(),
            halves=self.halves,
            before=self.before,
            candidates=CANDIDATE_PODS,
            stables=STABLE_PODS,
            weight_pct=self.weight,
            at_weight_s=self.at_weight_s,
            now_s=now_s,
        )
        judgement = judge(self.spec, sample, self.state)
        self.state = json.loads(json.dumps(judgement.state))
        if not self.passed:
            self.advised = judgement.weight_pct
        return judgement.verdict, judgement.done

    def evidence(self) -> object:
        return self.state["tests"]["watched"]  # type: ignore[index]

    def shift(self) -> None:
        self.weight, self.at_weight_s, self.mark = self.advised, 0.0, self.total


def test_harm_in_the_watch_takes_a_release_back_that_had_passed() -> None:
    late = model("defects: [{errorPoints: 10, after: 6m}]", rate=300)
    policy = serinus("Fast")
    found = play(policy, late, RUNS, seed=1)
    assert (found.outcome == Outcome.ROLLED_BACK).all()
    assert (found.shipped_s < 360).all()
    assert (found.ended_s > 360).all()
    assert found.hurt.mean() == pytest.approx(300 * 0.95 * 0.1 * (found.ended_s.mean() - 360), rel=0.05)


def test_a_good_release_is_promoted_when_it_has_been_watched() -> None:
    found = play(serinus("Fast"), model(rate=1000), RUNS, seed=1)
    assert (found.outcome == Outcome.PROMOTED).all()
    watch_s = found.ended_s - found.shipped_s
    assert (watch_s >= PROFILES["Fast"].watch_s).all()
    assert (found.shipped_s >= PROFILES["Fast"].settings.shortest_s - PREPARING_S).all()
    assert set(found.peaks) == {"success-rate", "latency", "abandoned"}


# Who plays what


def test_held_out_scenarios_have_seeds_rates_and_names_of_their_own() -> None:
    every = jobs(Subset.FULL, seed=1)
    for held_out, rates in ((False, RATES), (True, HELD_OUT_RATES)):
        own = [job for job in every if SCENARIOS[job.scenario].held_out is held_out]
        assert {job.rate for job in own} == set(rates)
    seeds = {held: {job.seed for job in every if SCENARIOS[job.scenario].held_out is held} for held in (False, True)}
    assert not seeds[False] & seeds[True]
    names = [(each.name, each.held_out) for each in SCENARIOS]
    assert len(names) == len(set(names))


def test_the_ci_subset_is_a_part_of_the_full_one_and_shows_nothing_that_is_held_out() -> None:
    def places(subset: Subset) -> set[tuple[str, int, float]]:
        return {(job.contestant, job.scenario, job.rate) for job in jobs(subset, seed=1)}

    assert places(Subset.CI) < places(Subset.FULL)
    kinds = {SCENARIOS[job.scenario].kind for job in jobs(Subset.CI, seed=1)}
    assert kinds == set(Kind)
    assert not any(SCENARIOS[job.scenario].held_out for job in jobs(Subset.CI, seed=1))


def test_bad_releases_are_half_as_many_and_fast_plays_good_ones_only() -> None:
    for job in jobs(Subset.FULL, seed=1, runs=40):
        kind = SCENARIOS[job.scenario].kind
        assert job.runs == (40 if kind in (Kind.GOOD, Kind.LINE) else 20)
        assert job.contestant != FAST or kind is Kind.GOOD


def test_there_are_fourteen_clear_defects_at_each_rate() -> None:
    clear = [each for each in SCENARIOS if each.kind is Kind.CLEAR and not each.held_out]
    assert len(clear) == 14


@pytest.mark.parametrize("each", SCENARIOS, ids=lambda each: each.name)
def test_a_scenario_is_a_traffic_model_with_a_defect_exactly_when_it_is_not_good(each: Scenario) -> None:
    for rate in each.rates:
        traffic = each.traffic(rate)
        assert traffic.requests.per_second == rate
        assert bool(traffic.defects) == (each.kind is not Kind.GOOD)
        assert (traffic.pods.candidate, traffic.pods.stable) == (CANDIDATE_PODS, STABLE_PODS)


def test_the_same_seed_gives_the_same_table_and_another_one_another() -> None:
    some = SCENARIOS.index(scenario("outage, 0.1 %"))
    peer = next(name for name in CONTESTANTS if name not in (OURS, KNOWN, FAST))
    for name in (OURS, peer):
        job = Job(name, some, 1000.0, RUNS, seed=1)
        assert run(job) == run(job)
        assert run(job) != run(replace(job, seed=2))


# The bars

NAMES = Names("ours", "fast", ("one", "two"))


def cell_of(
    policy: str,
    name: str,
    rate: float,
    *,
    rolled_back: int = 0,
    shipped: int = 0,
    undecided: int = 0,
    ship_s: tuple[float, ...] = (),
    hurt: tuple[float, ...] = (0.0,),
    alarms: dict[str, tuple[int, ...]] | None = None,
) -> Cell:
    kind, held_out = scenario(name).kind, scenario(name).held_out
    return Cell(
        policy,
        name,
        kind,
        held_out,
        rate,
        100,
        rolled_back,
        shipped,
        undecided,
        ship_s,
        (),
        hurt,
        alarms or {},
    )


def bar(cells: list[Cell], words: str, held_out: bool = False) -> Bar:
    (found,) = [each for each in bars(cells, NAMES) if words in each.asked and each.held_out is held_out]
    return found


def test_nothing_is_met_or_missed_that_was_not_measured() -> None:
    assert {each.met for each in bars([], NAMES)} == {None}


@pytest.mark.parametrize(("rolled_back", "met"), [(1, True), (2, None), (3, None), (4, False)])
@pytest.mark.parametrize("rate", [1, 100, 1000])
def test_false_rollbacks_are_measured_in_the_worst_good_scenario(
    rate: float, rolled_back: int, met: bool | None
) -> None:
    cells = [
        cell_of("ours", "identical, 0.1 %", rate),
        cell_of("ours", "bursts", rate, rolled_back=rolled_back),
        cell_of("one", "bursts", rate, rolled_back=100),
        cell_of("ours", "outage, 0.1 %", rate, rolled_back=100),
    ]
    found = bar(cells, f"{rate} request{'' if rate == 1 else 's'} a second: false rollbacks")
    assert found.met is met
    assert "bursts" in found.found
    assert ("too few to tell" in found.found) is (met is None)


@pytest.mark.parametrize(
    ("rate", "shipped", "met"),
    [(100, 0, True), (100, 1, False), (1000, 1, False), (1, 5, True), (1, 6, None), (1, 12, False)],
)
def test_clear_defects_are_measured_in_the_one_that_slips_through_most(
    rate: float, shipped: int, met: bool | None
) -> None:
    cells = [
        cell_of("ours", "outage, 0.1 %", rate),
        cell_of("ours", "+1 point, 1 %", rate, shipped=shipped),
        cell_of("ours", "+5 points after 10 min", rate, shipped=100),
    ]
    words = "each clear defect promoted" if rate == 1 else f"{rate} requests a second: clear defects promoted"
    assert bar(cells, words).met is met


@pytest.mark.parametrize(("hurt", "met"), [(10.0, True), (10.1, False)])
def test_bad_responses_are_measured_against_the_best_peer_over_all_clear_defects(hurt: float, met: bool) -> None:
    cells = [
        cell_of("ours", "outage, 0.1 %", 100, hurt=(2 * hurt,)),
        cell_of("ours", "+1 point, 0.1 %", 100, hurt=(0.0, 0.0)),
        cell_of("one", "outage, 0.1 %", 100, hurt=(0.0,)),
        cell_of("one", "+1 point, 0.1 %", 100, hurt=(100.0,)),
        cell_of("two", "outage, 0.1 %", 100, hurt=(1000.0,)),
        cell_of("two", "+1 point, 0.1 %", 100, hurt=(0.0,)),
    ]
    found = bar(cells, "At 100 requests a second: bad responses")
    assert found.met is met
    assert "best peer one 50" in found.found


@pytest.mark.parametrize(
    ("policy", "rate", "words", "limit_s"),
    [
        ("ours", 100, "At 100 requests a second: good releases shipped", 600.0),
        ("ours", 1000, "At 1000 requests a second: good releases shipped", 600.0),
        ("fast", 100, "At 100 requests a second: with the profile Fast", 240.0),
        ("ours", 10, "At 10 requests a second: good releases shipped", 1200.0),
    ],
)
def test_times_are_measured_in_the_median_of_all_good_releases(
    policy: str, rate: float, words: str, limit_s: float
) -> None:
    quick, slow = cell_of(policy, "bursts", rate, ship_s=(1.0, limit_s)), (limit_s + 1, limit_s + 2)
    assert bar([quick, cell_of(policy, "glitches", rate, ship_s=slow[:1])], words).met is True
    found = bar([quick, cell_of(policy, "glitches", rate, ship_s=slow)], words)
    assert found.met is False
    assert "longer in “glitches”" in found.found


def test_the_undecided_are_measured_over_all_good_releases_and_the_worst_is_named() -> None:
    cells = [cell_of("ours", "bursts", 10, undecided=0), cell_of("ours", "glitches", 10, undecided=10)]
    assert bar(cells, "undecided").met is True
    cells[0] = replace(cells[0], undecided=1)
    found = bar(cells, "undecided")
    assert found.met is False
    assert "glitches" in found.found


@pytest.mark.parametrize(("alarms", "met"), [((10, 5, 3), True), ((20, 5, 1), False), ((1, 1, 5), False)])
def test_evidence_may_not_be_great_more_often_than_its_level_says(alarms: tuple[int, ...], met: bool) -> None:
    at_the_line = cell_of("ours", "at the promise, 1 %", 100, alarms={"success-rate": alarms})
    noisy = cell_of("ours", "glitches", 100, alarms={"success-rate": (100, 100, 100)})
    assert bar([at_the_line, noisy], "1/alpha").met is met


def test_held_out_cells_have_bars_of_their_own() -> None:
    held_out = cell_of("ours", "identical, 3 %, 30 ms", 300, rolled_back=50)
    assert bar([held_out], "At 300 requests a second: false rollbacks", held_out=True).met is False
    assert all(each.met is None for each in bars([held_out], NAMES) if not each.held_out)


# What is printed


def few(names: Iterable[str] = (OURS,)) -> list[Cell]:
    return [
        run(Job(name, SCENARIOS.index(scenario(where)), 1000.0, RUNS, seed=1))
        for where in ("outage, 0.1 %", "outage, 1 %")
        for name in names
    ]


def test_the_table_shows_each_cell_once_as_markdown_and_as_json() -> None:
    cells = [*few(), cell_of(OURS, "identical, 3 %, 30 ms", 300, rolled_back=50, ship_s=(540.0,) * 50, shipped=50)]
    table = tabulate(Subset.CI, 1, cells)
    text = markdown(table)
    assert text.count("| outage, 0.1 % | 1000 | 0 % /") == 1
    assert "| identical, 3 %, 30 ms | 300 | 50.0 % / 9.0 |" in text
    assert "| At 300 requests a second: false rollbacks ≤ 1 % in every good scenario |" in text
    assert text.count("**not met**") == len(table.unmet) == 1
    raw = json.loads(json.dumps(document(table), allow_nan=False))
    assert [cell["scenario"] for cell in raw["cells"]] == ["outage, 0.1 %", "outage, 1 %", "identical, 3 %, 30 ms"]
    assert raw["cells"][0]["rolledBack"] == RUNS // 1
    assert raw["cells"][0]["rollBackSeconds"][1] == pytest.approx(4.0)


@pytest.mark.parametrize(("unmet", "status"), [(False, 0), (True, 1)])
def test_the_exit_status_tells_whether_a_bar_is_not_met(
    unmet: bool, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found: Callable[[Job], Cell] = lambda job: cell_of(  # noqa: E731
        OURS, SCENARIOS[job.scenario].name, job.rate, rolled_back=50 if unmet else 0, ship_s=(300.0,)
    )
    monkeypatch.setattr("serinus.cli.bench.run", found)
    good = [Job(OURS, SCENARIOS.index(scenario("bursts")), 100.0, 1, 1)]
    monkeypatch.setattr("serinus.cli.bench.jobs", lambda *_: good)
    assert bench("ci", 1, None, [], "markdown", processes=1) == status
    printed = capsys.readouterr()
    assert "1 of 1  serinus: bursts at 100/s" in printed.err
    assert ("Not met: At 100 requests a second: false rollbacks" in printed.err) is unmet
    assert "### Bars" in printed.out


def test_a_policy_that_nobody_knows_is_a_sentence() -> None:
    with pytest.raises(Stop, match='There is no policy "spinnaker"; there are: serinus;'):
        bench("ci", 1, None, ["spinnaker"], "markdown", processes=1)
