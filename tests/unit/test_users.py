"""Users' counters and gauges: what they say of the candidate, what is no evidence, what is remembered."""

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from serinus.analysis.judge import judge
from serinus.analysis.model import Counts, Evidence, Finding, Outcome, Reading, Sample, Verdict
from serinus.analysis.queries import judge_queries
from serinus.analysis.rows import settings_of
from serinus.analysis.settings import PROFILES
from serinus.analysis.users import UserTests
from serinus.api.canary import CanarySpec

HARM, SAFE, UNDECIDED = Verdict.HARM, Verdict.SAFE, Verdict.UNDECIDED
BAD = {"name": "orders", "counts": {"bad": "bad {{ revision }}", "total": "all {{ revision }}"}}
GOOD = {"name": "orders", "counts": {"good": "good {{ revision }}", "total": "all {{ revision }}"}}
GAUGE = {"name": "memory", "gauge": {"query": "memory {{ revision }}"}}
QUERY = {"name": "errors", "query": "x", "max": 5}


def a_spec(*metrics: dict[str, Any], **analysis: Any) -> CanarySpec:
    fields = {"warmUp": "0s", "prometheus": {"address": "http://prometheus:9090"}, "metrics": list(metrics)}
    return CanarySpec.model_validate({"targetRef": {"name": "shop"}, "analysis": fields | analysis})


class Run:
    """A run whose metrics are read every so often; between two looks the state is JSON in a status, unless kept."""

    def __init__(self, spec: CanarySpec, every_s: float = 10.0):
        self.spec, self.every_s = spec, every_s
        self.now_s, self.sequence = 0.0, 0
        self.state: dict[str, Any] | None = None
        self.kept: UserTests | None = None
        self.last: dict[str, Reading] = {}

    def read(self, values: dict[str, float | Outcome]) -> Finding:
        self.sequence += 1
        self.now_s += self.every_s
        for name, value in values.items():
            outcome = value if isinstance(value, Outcome) else Outcome.VALUE
            number = None if isinstance(value, Outcome) else value
            self.last[name] = Reading(name, outcome, number, "detail" if number is None else "", self.sequence)
        return self.look()

    def look(self) -> Finding:
        """Judge by the last answers to all queries, as the operator does between two readings, too."""
        users = self.kept or UserTests.load(self.spec, self.state)
        users.take(tuple(self.last.values()), self.now_s)
        if not self.kept:
            self.state = json.loads(json.dumps(users.dump()))
        (finding,) = users.findings(settings_of(self.spec))
        return finding


class Shop(Run):
    """Counters of orders, which rise by so many for each reading. ``part`` is what is counted beside the total."""

    def __init__(self, spec: CanarySpec, part: str = "bad", every_s: float = 10.0):
        super().__init__(spec, every_s)
        self.part = part
        self.counters = {"candidate/total": 0.0, f"candidate/{part}": 0.0}
        self.counters |= {"stable/total": 90_000.0, f"stable/{part}": 900.0 if part == "bad" else 89_100.0}

    def sell(self, candidate: tuple[float, float], stable: tuple[float, float]) -> Finding:
        """Count bad ones and all of both versions, then read."""
        for version, (bad, total) in (("candidate", candidate), ("stable", stable)):
            self.counters[f"{version}/total"] += total
            self.counters[f"{version}/{self.part}"] += bad if self.part == "bad" else total - bad
        return self.read({f"orders/{name}": value for name, value in self.counters.items()})


def sold(
    run: Shop, readings: int, share: float, stable_share: float, *, seed: int = 1, size: tuple[int, int] = (100, 300)
) -> Finding:
    """Sell with these shares of bad ones, until it is decided or for so many readings."""
    chance = np.random.default_rng(seed)
    finding = run.sell((0, 0), (0, 0))
    for _ in range(readings):
        bad, stable_bad = chance.binomial(size[0], share), chance.binomial(size[1], stable_share)
        finding = run.sell((float(bad), size[0]), (float(stable_bad), size[1]))
        if finding.verdict is HARM:
            break
    return finding


# Counters


@pytest.mark.parametrize(("metric", "part"), [(BAD, "bad"), (GOOD, "good")], ids=["by bad ones", "by good ones"])
def test_three_times_as_many_bad_orders_are_harm(metric: dict[str, Any], part: str) -> None:
    run = Shop(a_spec(metric), part)
    finding = sold(run, 60, 0.03, 0.01)
    assert finding.verdict is HARM, finding.message
    assert run.now_s < 400
    numbers = finding.numbers
    assert numbers is not None
    assert numbers.harm is not None
    assert numbers.harm >= 100
    assert numbers.requests == run.counters["candidate/total"]
    assert finding.candidate == 100 * numbers.bad / numbers.requests
    assert "the limit is stable's share \N{MULTIPLICATION SIGN} 1.2 + 0.1 points" in finding.message
    assert f"of {numbers.requests:,} were bad (stable " in finding.message


@pytest.mark.parametrize(("metric", "part"), [(BAD, "bad"), (GOOD, "good")], ids=["by bad ones", "by good ones"])
def test_equal_shares_become_safe(metric: dict[str, Any], part: str) -> None:
    run = Shop(a_spec(metric), part)
    early = sold(run, 2, 0.01, 0.01)
    assert early.verdict is UNDECIDED
    assert "more of the candidate's show whether it is within stable's share" in early.message
    finding = sold(run, 58, 0.01, 0.01, seed=2)
    assert finding.verdict is SAFE, finding.message
    assert finding.numbers is not None
    assert finding.numbers.needed == 0


def test_a_share_between_promise_and_tolerance_is_hardly_ever_harm() -> None:
    alpha, runs, alarms = PROFILES["Standard"].settings.alpha, 100, 0
    for seed in range(runs):
        run = Shop(a_spec(BAD))
        run.kept = UserTests.load(run.spec, None)
        alarms += sold(run, 40, 0.0125, 0.01, seed=seed).verdict is HARM
    assert alarms / runs <= alpha + 3 * math.sqrt(alpha / runs)


def test_a_metric_has_the_lines_that_it_sets() -> None:
    wide = BAD | {"counts": BAD["counts"] | {"promise": {"ratio": 5}, "tolerance": {"ratio": 6}}}
    finding = sold(Shop(a_spec(wide)), 60, 0.03, 0.01)
    assert finding.verdict is SAFE, finding.message
    assert finding.limit == "stable's share \N{MULTIPLICATION SIGN} 6"


def test_before_it_is_warm_nothing_counts_for_the_candidate_and_a_threefold_rise_not_against_it() -> None:
    assert sold(Shop(a_spec(BAD, warmUp="10m")), 50, 0.01, 0.01).verdict is UNDECIDED
    assert sold(Shop(a_spec(BAD, warmUp="10m")), 50, 0.03, 0.01).verdict is UNDECIDED
    assert sold(Shop(a_spec(BAD, warmUp="10m")), 50, 0.3, 0.01).verdict is HARM


def test_the_same_answers_looked_at_again_and_again_count_once() -> None:
    often, once = Shop(a_spec(BAD)), Shop(a_spec(BAD))
    for run in (often, once):
        sold(run, 3, 0.3, 0.01)
    for _ in range(50):
        often.now_s += 2
        often.look()
    assert often.look().numbers == once.look().numbers


def test_a_block_waits_until_all_four_counters_are_new() -> None:
    run = Shop(a_spec(BAD))
    run.sell((0, 0), (0, 0))
    before = run.look().numbers
    for step in range(1, 30):
        run.read({"orders/candidate/total": 100.0 * step, "orders/candidate/bad": 100.0 * step})
    assert run.look().numbers == before


def test_counters_that_begin_again_give_no_block_and_go_on_from_there() -> None:
    run = Shop(a_spec(BAD))
    for _ in range(3):
        run.sell((1, 100), (3, 300))
    before = run.look().numbers
    run.counters["stable/total"], run.counters["stable/bad"] = 40.0, 0.0
    after = run.sell((80, 100), (0, 0)).numbers
    assert before is not None
    assert after is not None
    assert (after.bad, after.requests, after.stable_requests) == (before.bad, before.requests, before.stable_requests)
    run.sell((2, 100), (3, 300))
    last = run.look().numbers
    assert last is not None
    assert (last.bad, last.requests, last.stable_requests) == (
        before.bad + 2,
        before.requests + 100,
        before.stable_requests + 300,
    )


@pytest.mark.parametrize(("metric", "part"), [(BAD, "bad"), (GOOD, "good")], ids=["by bad ones", "by good ones"])
def test_a_scrape_between_two_queries_is_made_good_by_the_next_reading(metric: dict[str, Any], part: str) -> None:
    run = Shop(a_spec(metric), part)
    run.sell((0, 0), (0, 0))
    run.counters["candidate/total"] -= 100  # its query was answered before a scrape, the other one after it
    early = run.sell((5, 100), (3, 300))
    assert early.numbers is not None
    assert early.numbers.requests == 0
    run.counters["candidate/total"] += 100
    later = run.sell((5, 100), (3, 300)).numbers
    assert later is not None
    assert (later.bad, later.requests, later.stable_bad, later.stable_requests) == (10, 200, 6, 600)


def test_more_bad_ones_than_there_are_in_all_are_left_out_and_named() -> None:
    run = Shop(a_spec(BAD))
    for _ in range(8):
        finding = run.sell((120, 100), (3, 300))
    assert finding.numbers is not None
    assert finding.numbers.bad == finding.numbers.requests > 0
    assert "at times more were bad than there were in all, check that bad and total count the same" in finding.message


def test_one_jump_of_a_counter_is_no_harm() -> None:
    run = Shop(a_spec(BAD))
    for _ in range(5):
        run.sell((1, 100), (3, 300))
    run.sell((5000, 0), (0, 0))
    for _ in range(10):
        assert run.sell((1, 100), (3, 300)).verdict is not HARM


def test_no_orders_are_no_evidence() -> None:
    run = Shop(a_spec(BAD))
    for _ in range(40):
        finding = run.sell((0, 0), (3, 300))
    assert finding.verdict is UNDECIDED
    assert finding.message == "orders: nothing was counted of the candidate yet"
    run = Shop(a_spec(BAD))
    for _ in range(40):
        finding = run.sell((2, 200), (0, 0))
    assert finding.verdict is UNDECIDED
    assert "nothing was counted of the stable version yet" in finding.message


def test_counters_may_have_fractions() -> None:
    run = Shop(a_spec(BAD))
    for _ in range(40):
        finding = run.sell((20.25, 80.5), (2.75, 240.125))
    assert finding.verdict is HARM


# Answers that are no value

OTHERS = [outcome for outcome in Outcome if outcome is not Outcome.VALUE]
ADVICE = {
    Outcome.EMPTY: "the query gave nothing",
    Outcome.NAN: "gave no number (NaN)",
    Outcome.MANY_SERIES: "put sum()",
    Outcome.QUERY_ERROR: "Prometheus refused the query",
    Outcome.TIMEOUT: "did not answer in time",
    Outcome.UNREACHABLE: "cannot be reached",
}


@pytest.mark.parametrize("outcome", OTHERS)
@pytest.mark.parametrize("query", ["candidate/total", "candidate/bad", "stable/total", "stable/bad"])
def test_an_answer_to_counts_that_is_no_value_is_named_and_is_no_evidence(query: str, outcome: Outcome) -> None:
    run = Shop(a_spec(BAD))
    sold(run, 3, 0.01, 0.01)
    before = run.look().numbers
    values: dict[str, float | Outcome] = {f"orders/{name}": value + 50 for name, value in run.counters.items()}
    for _ in range(20):
        finding = run.read(values | {f"orders/{query}": outcome})
    version, part = query.split("/")
    assert finding.verdict is UNDECIDED
    assert finding.outcome == outcome.value
    assert finding.numbers == before
    whose = "the candidate's" if version == "candidate" else "the stable version's"
    assert f"{whose} {part}: {outcome.value}: " in finding.message
    assert ADVICE[outcome] in finding.message
    assert "(detail)" in finding.message
    assert ("or vector(0)" in finding.message) is (outcome is Outcome.EMPTY and part == "bad")


@pytest.mark.parametrize("outcome", OTHERS)
@pytest.mark.parametrize("version", ["candidate", "stable"])
def test_an_answer_to_a_gauge_that_is_no_value_is_named_and_is_no_evidence(version: str, outcome: Outcome) -> None:
    run = Run(a_spec(GAUGE), 30)
    first = run.read({"memory/candidate": 900.0, "memory/stable": 100.0})
    assert "in 1 of 1 comparison" in first.message
    for _ in range(40):
        finding = run.read({"memory/candidate": 900.0, "memory/stable": 100.0} | {f"memory/{version}": outcome})
    assert finding.verdict is UNDECIDED
    assert finding.outcome == outcome.value
    assert "in 1 of 1 comparison" in finding.message
    assert ADVICE[outcome] in finding.message


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_value_that_is_no_number_is_named_so(number: float) -> None:
    run = Run(a_spec(GAUGE), 30)
    for _ in range(20):
        finding = run.read({"memory/candidate": number, "memory/stable": 100.0})
    assert (finding.verdict, finding.outcome) == (UNDECIDED, "NaN")
    assert "the candidate's number: NaN" in finding.message


def test_before_the_first_answers_they_are_awaited() -> None:
    assert Run(a_spec(BAD)).look().message == "orders: the candidate's total is awaited"
    assert Run(a_spec(GAUGE)).look().message == "memory: the candidate's number is awaited"


def test_harm_is_not_forgotten_when_the_source_goes_away() -> None:
    run = Shop(a_spec(BAD))
    assert sold(run, 60, 0.1, 0.01).verdict is HARM
    finding = run.read(dict.fromkeys(run.last, Outcome.UNREACHABLE))
    assert finding.verdict is HARM
    assert finding.outcome == "Unreachable"


def test_what_was_safe_waits_while_the_source_is_away() -> None:
    run = Shop(a_spec(BAD))
    assert sold(run, 60, 0.01, 0.01).verdict is SAFE
    away = run.read(dict.fromkeys(run.last, Outcome.UNREACHABLE))
    assert away.verdict is UNDECIDED
    assert run.sell((1, 100), (3, 300)).verdict is SAFE


def test_what_was_safe_stays_so_when_nothing_reaches_the_stable_version_any_more() -> None:
    run = Run(a_spec(GAUGE), 30)
    for _ in range(20):
        finding = run.read({"memory/candidate": 100.0, "memory/stable": 100.0})
    assert finding.verdict is SAFE
    assert run.read({"memory/candidate": 100.0, "memory/stable": Outcome.NAN}).verdict is SAFE
    assert run.read({"memory/candidate": Outcome.NAN, "memory/stable": Outcome.NAN}).verdict is UNDECIDED
    shop = Shop(a_spec(BAD))
    assert sold(shop, 60, 0.01, 0.01).verdict is SAFE
    assert shop.read({"orders/stable/bad": Outcome.EMPTY}).verdict is SAFE
    assert shop.read({"orders/candidate/bad": Outcome.EMPTY}).verdict is UNDECIDED


# Gauges


def gauged(
    candidate: Callable[[int], float], stable: Callable[[int], float], readings: int, run: Run | None = None
) -> Finding:
    """Read both numbers so often, or until there is harm."""
    run = run or Run(a_spec(GAUGE), 30)
    for step in range(readings):
        finding = run.read({"memory/candidate": candidate(step), "memory/stable": stable(step)})
        if finding.verdict is HARM:
            break
    return finding


def test_memory_that_is_half_as_much_again_is_harm_within_minutes() -> None:
    run = Run(a_spec(GAUGE), 30)
    finding = gauged(lambda step: 150 + step % 3, lambda step: 100 + step % 3, 60, run)
    assert finding.verdict is HARM
    assert 240 <= run.now_s <= 420
    assert "at most stable's + 20 %" in finding.message
    assert (finding.candidate, finding.limit) == (150 + (run.sequence - 1) % 3, "at most stable's + 20 %")


def test_a_tenth_more_memory_is_within_a_fifth_and_becomes_safe() -> None:
    run = Run(a_spec(GAUGE), 30)
    early = gauged(lambda _: 110, lambda _: 100, 3, run)
    assert early.verdict is UNDECIDED
    assert "more comparisons within the limit would show that it is safe" in early.message
    finding = gauged(lambda _: 110, lambda _: 100, 5, run)
    assert finding.verdict is SAFE, finding.message


def test_gauges_of_equal_medians_are_called_harmful_no_more_often_than_allowed() -> None:
    settings, runs, alarms = PROFILES["Standard"].settings, 400, 0
    for seed in range(runs):
        chance = np.random.default_rng(seed)
        run = Run(a_spec({"name": "memory", "gauge": {"query": "memory {{ revision }}", "maxIncrease": 0}}), 30)
        run.kept = UserTests.load(run.spec, None)
        candidate, stable = chance.normal(100, 30, 60), chance.exponential(100 / math.log(2), 60)
        alarms += gauged(lambda step, c=candidate: c[step], lambda step, b=stable: b[step], 60, run).verdict is HARM
    assert alarms / runs <= settings.alpha + 3 * math.sqrt(settings.alpha / runs)


def test_a_leak_that_begins_after_half_an_hour_is_found() -> None:
    run = Run(a_spec(GAUGE), 30)
    assert gauged(lambda _: 100, lambda _: 100, 60, run).verdict is SAFE
    finding = gauged(lambda step: 125 + step, lambda _: 100, 40, run)
    assert finding.verdict is HARM, finding.message


def test_a_rise_that_both_versions_share_is_nobodys() -> None:
    assert gauged(lambda step: 100 + 40 * step, lambda step: 101 + 40 * step, 60).verdict is SAFE


def test_gauges_are_compared_every_half_minute_however_often_they_are_read() -> None:
    run = Run(a_spec(GAUGE), 5)
    for _ in range(12):
        finding = run.read({"memory/candidate": 900.0, "memory/stable": 100.0})
    assert "in 2 of 2 comparisons" in finding.message


def test_a_gauge_is_not_compared_before_the_candidate_is_warm() -> None:
    run = Run(a_spec(GAUGE, warmUp="5m"), 30)
    for _ in range(10):
        finding = run.read({"memory/candidate": 900.0, "memory/stable": 100.0})
    assert finding.verdict is UNDECIDED
    assert finding.message == "memory: 900 (stable 100); the comparisons begin when the candidate is warmed up"
    assert "in 1 of 1" in run.read({"memory/candidate": 900.0, "memory/stable": 100.0}).message


def test_what_is_allowed_above_a_number_below_zero_is_above_it() -> None:
    assert gauged(lambda _: -100, lambda _: -100, 40).verdict is SAFE


# Remembering


def test_the_state_of_both_tests_survives_a_restart_bit_for_bit() -> None:
    spec, chance = a_spec(BAD, GAUGE), np.random.default_rng(5)
    kept, restarted = UserTests.load(spec, None), UserTests.load(spec, None)
    counters = np.array([0.0, 0.0, 5e4, 700.0])
    names = ("candidate/total", "candidate/bad", "stable/total", "stable/bad")
    for step in range(1, 40):
        rose = chance.binomial([100, 300], [0.012, 0.01])
        counters += [100, rose[0], 300, rose[1]]
        values = {f"orders/{name}": float(value) for name, value in zip(names, counters, strict=True)}
        values |= {f"memory/{version}": chance.normal(1, 0.3) for version in ("candidate", "stable")}
        readings = tuple(Reading(name, Outcome.VALUE, value, "", step) for name, value in values.items())
        kept.take(readings, 10.0 * step)
        restarted = UserTests.load(spec, json.loads(json.dumps(restarted.dump())))
        restarted.take(readings, 10.0 * step)
    assert json.dumps(kept.dump()) == json.dumps(restarted.dump())
    settings = settings_of(spec)
    assert kept.findings(settings) == restarted.findings(settings)
    assert len(json.dumps(kept.dump())) < 4000


def test_another_promise_begins_that_metric_afresh_and_leaves_the_others() -> None:
    spec = a_spec(BAD, GAUGE)
    users = UserTests.load(spec, None)
    risen = {"orders/candidate/total": 100, "orders/candidate/bad": 1, "orders/stable/total": 300}
    risen |= {"orders/stable/bad": 3, "memory/candidate": 1, "memory/stable": 1}
    for step in range(1, 20):
        readings = (Reading(name, Outcome.VALUE, float(value * step), "", step) for name, value in risen.items())
        users.take(tuple(readings), 30.0 * step)
    raw = users.dump()
    other = a_spec(BAD | {"counts": BAD["counts"] | {"promise": {"ratio": 3}}}, GAUGE)
    changed = UserTests.load(other, raw).dump()
    assert changed["memory"] == raw["memory"]
    assert changed["orders"]["watched"] is None
    tuned = UserTests.load(a_spec(BAD, GAUGE, tuning={"cap": 1}), raw).dump()
    assert (tuned["orders"]["watched"], tuned["memory"]["last"]) == (None, None)
    assert UserTests.load(a_spec(GAUGE), raw).dump() == {"memory": raw["memory"]}


@pytest.mark.parametrize("lost", ["watched", "seen", "signs", "first"])
def test_a_state_of_another_version_of_the_program_begins_afresh(lost: str) -> None:
    spec = a_spec(BAD, GAUGE)
    users = UserTests.load(spec, None)
    raw = users.dump()
    for metric in raw.values():
        metric.pop(lost, None)
    assert UserTests.load(spec, raw).dump() == users.dump()


# Beside metrics with limits


def test_a_metric_with_limits_is_left_to_its_own_judge_and_the_others_to_theirs() -> None:
    spec = a_spec(QUERY, BAD, GAUGE)
    readings = (Reading("errors", Outcome.VALUE, 3.0, "", 7),)
    findings, state = judge_queries(spec.analysis, readings, {"queries": {}})
    assert [(finding.metric, finding.verdict) for finding in findings] == [("errors", SAFE)]
    assert state == {"queries": {"errors": [7, 0, 1]}}
    users = UserTests.load(spec, None)
    assert [finding.metric for finding in users.findings(settings_of(spec))] == ["orders", "memory"]


def test_a_candidate_whose_requests_are_well_and_whose_orders_are_bad_is_harmful() -> None:
    spec = a_spec(BAD, latency={"compare": False})
    run, served = Shop(spec), Counts()
    judgement = judge(spec, Sample(weight_pct=10), {})
    for _ in range(60):
        run.sell((5, 100), (3, 300))
        served += Counts(1000)
        sample = Sample(
            total=Evidence(served, served),
            window=Evidence(served, served),
            weight_pct=50,
            at_weight_s=run.now_s,
            now_s=run.now_s,
            readings=tuple(run.last.values()),
        )
        judgement = judge(spec, sample, json.loads(json.dumps(judgement.state)))
        if judgement.verdict is HARM:
            break
    assert judgement.verdict is HARM
    assert judgement.message.startswith("orders: 5 % of ")


def test_without_metrics_there_is_nothing_to_say_and_nothing_to_remember() -> None:
    users = UserTests.load(a_spec(QUERY), {"gone": {"print": "x"}})
    users.take((), 1.0)
    assert users.findings(settings_of(a_spec(QUERY))) == []
    assert users.dump() == {}
