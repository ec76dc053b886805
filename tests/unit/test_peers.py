"""The rules of Flagger, Argo Rollouts and Kayenta, minute by minute."""

from collections.abc import Sequence

import numpy as np
import pytest

from serinus.analysis.model import LATENCY_EDGES_MS
from serinus.simulation.peers import (
    POLICIES,
    WEIGHTS_PCT,
    Argo,
    Flagger,
    Kayenta,
    Minutely,
    TunedFlagger,
    histogram_quantile,
)
from serinus.simulation.policy import Outcome, Policy
from serinus.simulation.traffic import load_traffic
from serinus.simulation.world import ArmCounts, IntArray, Tick, World

RUNNING, BACK, PROMOTED = Outcome.RUNNING, Outcome.ROLLED_BACK, Outcome.PROMOTED
WELL, BAD, SLOW, NOTHING = "well", "bad", "slow", "nothing"
FAST_BUCKET, SLOW_BUCKET = LATENCY_EDGES_MS.index(50.0), LATENCY_EDGES_MS.index(1000.0)


def arm(kind: str, requests: int = 100) -> ArmCounts:
    """Return ten seconds of one release: 2 % errors are bad, 2 % above 500 ms are slow."""
    buckets = np.zeros((len(LATENCY_EDGES_MS) + 1, 1), dtype=np.int64)
    requests = 0 if kind == NOTHING else requests
    late = requests // 50 if kind == SLOW else 0
    buckets[FAST_BUCKET], buckets[SLOW_BUCKET] = requests - late, late
    return ArmCounts(np.array([requests]), np.array([requests // 50 if kind == BAD else 0]), buckets)


def tick(candidate: str, stable: str = WELL) -> Tick:
    return Tick(arm(candidate), (arm(stable, 1000), arm(stable, 1000)), np.zeros(1))


def run(policy: Policy, minutes: Sequence[str], stable: str = WELL) -> list[tuple[float, int]]:
    """Play minutes, and return weight and outcome after each of them."""
    policy.start(1)
    after = []
    for number, kind in enumerate(minutes):
        for part in range(6):
            policy.step(60.0 * number + 10.0 * (part + 1), tick(kind, stable))
        after.append((float(policy.weight_pct[0]), int(policy.outcome[0])))
    return after


def outcomes(policy: Policy, minutes: Sequence[str], stable: str = WELL) -> list[int]:
    return [outcome for _, outcome in run(policy, minutes, stable)]


@pytest.mark.parametrize(
    ("counts", "quantile", "expected"),
    [
        pytest.param({250.0: 100}, 0.5, 175.0, id="spread evenly from 100 to 250 ms"),
        pytest.param({1.0: 10}, 0.5, 0.5, id="the first bucket begins at 0"),
        pytest.param({50.0: 98, 500.0: 2}, 0.99, 375.0, id="half of the way through the bucket of the rank"),
        pytest.param({50.0: 99, 500.0: 1}, 0.99, 50.0, id="a rank at the end of a bucket is its edge"),
        pytest.param({50.0: 50, None: 50}, 0.99, 5000.0, id="the last finite edge for the open bucket"),
        pytest.param({}, 0.99, float("nan"), id="NaN without requests"),
    ],
)
def test_a_quantile_is_that_of_prometheus(counts: dict[float | None, int], quantile: float, expected: float) -> None:
    buckets = np.zeros((len(LATENCY_EDGES_MS) + 1, 1), dtype=np.int64)
    for edge, count in counts.items():
        buckets[-1 if edge is None else LATENCY_EDGES_MS.index(edge)] = count
    assert histogram_quantile(quantile, buckets)[0] == pytest.approx(expected, nan_ok=True)


def test_flagger_promotes_after_a_good_check_at_every_weight() -> None:
    assert run(Flagger("f"), [WELL] * 5) == [
        (5.0, RUNNING),
        (10.0, RUNNING),
        (25.0, RUNNING),
        (50.0, RUNNING),
        (50.0, PROMOTED),
    ]


@pytest.mark.parametrize("failing", [BAD, SLOW, NOTHING])
def test_flagger_keeps_the_weight_at_a_failed_check_and_rolls_back_a_look_after_the_fifth(failing: str) -> None:
    after = run(Flagger("f"), [WELL, *[failing] * 5, WELL])
    assert [weight for weight, _ in after] == [5.0] * 7
    assert [outcome for _, outcome in after] == [RUNNING] * 6 + [BACK]


def test_flagger_never_forgets_a_failed_check() -> None:
    minutes = [BAD, WELL, BAD, WELL, BAD, WELL, BAD, WELL, BAD]
    assert outcomes(Flagger("f"), [*minutes, WELL])[-2:] == [RUNNING, BACK]
    assert outcomes(Flagger("f"), [*minutes[:-1], WELL])[-1] == PROMOTED


def test_flagger_reads_a_duration_in_whole_milliseconds() -> None:
    policy, slow = Flagger("f"), arm(WELL, 0)
    slow.buckets[FAST_BUCKET], slow.buckets[LATENCY_EDGES_MS.index(1000.0)] = 98_999, 1_001
    counts = ArmCounts(np.array([100_000]), np.array([0]), slow.buckets)
    assert 500 < histogram_quantile(0.99, counts.buckets)[0] < 501
    policy.start(1)
    for _ in range(6):
        policy.step(0.0, Tick(counts, (arm(WELL), arm(WELL)), np.zeros(1)))
    assert policy.weight_pct[0] == 5.0


def test_flaggers_tuned_line_is_half_a_point_above_what_stable_had() -> None:
    policy = TunedFlagger("f")
    policy.start(1)
    policy.learn([tick(NOTHING, stable=BAD)] * 6)
    for _ in range(6):
        policy.step(0.0, tick(BAD))
    assert policy.weight_pct[0] == 5.0, "2 % are within 2 % and half a point"
    policy.start(1)
    policy.learn([tick(NOTHING)] * 6)
    for _ in range(6):
        policy.step(0.0, tick(BAD))
    assert policy.weight_pct[0] == 1.0, "2 % are not within half a point"


def test_argo_goes_on_every_five_minutes_and_promotes_after_the_last_pause() -> None:
    after = run(Argo("a"), [WELL] * 25)
    assert [weight for weight, _ in after[:24]] == [WEIGHTS_PCT[minute // 5] for minute in range(1, 25)]
    assert [outcome for _, outcome in after] == [RUNNING] * 24 + [PROMOTED]


@pytest.mark.parametrize("failing", [BAD, SLOW, NOTHING])
def test_argo_aborts_at_the_fourth_failure(failing: str) -> None:
    assert outcomes(Argo("a"), [failing] * 4) == [RUNNING] * 3 + [BACK]


def test_argo_promotes_with_exactly_three_failures() -> None:
    assert outcomes(Argo("a"), [WELL] * 22 + [BAD] * 3)[-1] == PROMOTED


def test_argos_failures_add_up_whatever_is_between_them() -> None:
    minutes = [BAD, *[WELL] * 6] * 3 + [BAD]
    assert outcomes(Argo("a"), minutes)[-2:] == [RUNNING, BACK]


def test_argo_counts_the_failures_of_each_metric_for_itself() -> None:
    assert outcomes(Argo("a"), [BAD] * 3 + [SLOW] * 3 + [WELL] * 19)[-1] == PROMOTED


def test_argo_aborts_at_a_fourth_failure_in_the_last_minute() -> None:
    assert outcomes(Argo("a"), [WELL] * 21 + [BAD] * 4)[-1] == BACK


@pytest.mark.parametrize("kind", [BAD, SLOW])
def test_relative_lines_of_argo_move_with_the_stable_version(kind: str) -> None:
    assert outcomes(Argo("a", relative=True), [kind] * 4)[-1] == BACK
    assert outcomes(Argo("a", relative=True), [kind] * 4, stable=kind)[-1] == RUNNING
    assert outcomes(Argo("a"), [kind] * 4, stable=kind)[-1] == BACK


@pytest.mark.parametrize(("stable_late", "expected"), [(2, BACK), (3, RUNNING)])
def test_argo_allows_three_tenths_more_than_the_p99_of_stable(stable_late: int, expected: int) -> None:
    """Of 100 requests two or three take 100 to 250 ms: the p99 is 175 or 200 ms; the candidate's is 250 ms."""
    candidate, stable = arm(WELL), arm(WELL)
    for counts, late, edge in ((candidate, 1, 250.0), (candidate, 1, 500.0), (stable, stable_late, 250.0)):
        counts.buckets[FAST_BUCKET] -= late
        counts.buckets[LATENCY_EDGES_MS.index(edge)] += late
    assert histogram_quantile(0.99, stable.buckets)[0] == pytest.approx({2: 175, 3: 200}[stable_late])
    assert 175 * 1.3 < histogram_quantile(0.99, candidate.buckets)[0] < 200 * 1.3
    policy = Argo("a", relative=True)
    policy.start(1)
    for _ in range(4 * 6):
        policy.step(0.0, Tick(candidate, (stable, stable), np.zeros(1)))
    assert policy.outcome[0] == expected


def test_a_relative_line_fails_without_numbers_of_the_stable_version() -> None:
    assert outcomes(Argo("a", relative=True), [WELL] * 4, stable=NOTHING)[-1] == BACK


FAILING_NEAR = pytest.mark.parametrize(
    ("candidate", "stable_failures", "beyond"),
    [
        pytest.param((100, 0), (100, 100), "", id="1 % of errors are on the fixed line"),
        pytest.param((101, 0), (100, 100), "fixed", id="1.01 % are beyond it"),
        pytest.param((0, 100), (0, 0), "", id="a p99 of 500 ms is on the fixed line"),
        pytest.param((0, 101), (0, 0), "fixed", id="one of 505 ms is beyond it"),
        pytest.param((150, 0), (0, 200), "fixed", id="1.5 % are half a point above the 1 % of both halves of stable"),
        pytest.param((151, 0), (0, 200), "fixed relative", id="1.51 % are more than half a point above"),
        pytest.param((50, 0), (0, 0), "", id="0.5 % are half a point above no errors"),
        pytest.param((51, 0), (0, 0), "relative", id="0.51 % are more than half a point above"),
    ],
)


def precise(failures: int, above_500: int = 0) -> ArmCounts:
    """Return 10,000 requests of which one in a hundred, or a few more, take over 500 ms, and the others up to that."""
    counts = arm(NOTHING)
    counts.buckets[LATENCY_EDGES_MS.index(500.0)], counts.buckets[SLOW_BUCKET] = 10_000 - above_500, above_500
    return ArmCounts(np.array([10_000]), np.array([failures]), counts.buckets)


@FAILING_NEAR
def test_what_is_on_a_line_is_within_it(
    candidate: tuple[int, int], stable_failures: tuple[int, int], beyond: str
) -> None:
    one, other = (precise(failures, 100) for failures in stable_failures)
    minute = [Tick(precise(*candidate), (one, other), np.zeros(1))] * 6
    for name, lines in (("flagger", "fixed"), ("argo", "fixed"), ("argo, relative", "relative")):
        policy = POLICIES[name]()
        policy.start(1)
        for each in minute * 4:
            policy.step(0.0, each)
        halted = policy.outcome[0] == BACK if "argo" in name else policy.weight_pct[0] == WEIGHTS_PCT[0]
        assert halted == (lines in beyond), name


@pytest.mark.parametrize(("failures", "weight"), [(150, 5.0), (151, 1.0)])
def test_flaggers_tuned_line_is_half_a_point_above_both_halves_of_stable(failures: int, weight: float) -> None:
    policy = TunedFlagger("f")
    policy.start(1)
    policy.learn([Tick(arm(NOTHING), (precise(0), precise(200)), np.zeros(1))])
    for _ in range(6):
        policy.step(0.0, Tick(precise(failures), (precise(0), precise(0)), np.zeros(1)))
    assert policy.weight_pct[0] == weight


def test_kayenta_decides_once_after_an_hour_and_not_before() -> None:
    after = run(POLICIES["kayenta, 60 min"](), [BAD] * 60)
    assert after == [(5.0, RUNNING)] * 59 + [(5.0, BACK)]
    assert outcomes(POLICIES["kayenta, 60 min"](), [WELL] * 60)[-2:] == [RUNNING, PROMOTED]


def test_kayenta_decides_at_the_end_of_every_step_from_the_points_of_that_step() -> None:
    after = run(POLICIES["kayenta, steps"](), [WELL] * 50)
    assert [weight for weight, _ in after[::10]] == list(WEIGHTS_PCT)
    assert [weight for weight, _ in after[9::10]] == [*WEIGHTS_PCT[1:], 50.0]
    assert [outcome for _, outcome in after] == [RUNNING] * 49 + [PROMOTED]
    later = outcomes(POLICIES["kayenta, steps"](), [WELL] * 20 + [SLOW] * 10)
    assert later == [RUNNING] * 29 + [BACK]


def test_kayenta_passes_seven_bad_minutes_of_ten_and_not_eight() -> None:
    assert outcomes(Kayenta("k", 10), [BAD] * 7 + [WELL] * 3)[-1] == RUNNING
    assert outcomes(Kayenta("k", 10), [BAD] * 8 + [WELL] * 2)[-1] == BACK


def test_kayenta_rolls_back_what_nobody_called() -> None:
    assert outcomes(Kayenta("k", 10), [NOTHING] * 10)[-1] == BACK
    assert outcomes(Kayenta("k", 10), [NOTHING] * 9 + [WELL])[-1] == RUNNING


@pytest.mark.parametrize("name", POLICIES)
def test_a_release_that_ended_stays_ended(name: str) -> None:
    policy = POLICIES[name]()
    ended = outcomes(policy, [WELL] * 60)
    assert ended[-1] == PROMOTED
    for kind in [BAD] * 60 * 6:
        policy.step(0.0, tick(kind))
    assert policy.outcome.tolist() == [PROMOTED]


@pytest.mark.parametrize("name", POLICIES)
def test_releases_side_by_side_do_not_touch_each_other(name: str) -> None:
    kinds = [[WELL] * 60, [BAD] * 60, [NOTHING] * 60, [SLOW, WELL] * 30]
    policy = POLICIES[name]()
    policy.start(len(kinds))
    for minute in zip(*kinds, strict=True):
        ticks = [tick(kind) for kind in minute]
        together = Tick(
            _beside([one.candidate for one in ticks]),
            (_beside([one.stable[0] for one in ticks]), _beside([one.stable[1] for one in ticks])),
            np.zeros(len(kinds)),
        )
        for _ in range(6):
            policy.step(0.0, together)
    alone = [outcomes(POLICIES[name](), minutes)[-1] for minutes in kinds]
    assert policy.outcome.tolist() == alone
    assert len(set(alone)) == 2


def _beside(arms: Sequence[ArmCounts]) -> ArmCounts:
    return ArmCounts(
        np.concatenate([one.requests for one in arms]),
        np.concatenate([one.failures for one in arms]),
        np.concatenate([one.buckets for one in arms], axis=1),
    )


@pytest.mark.parametrize("name", POLICIES)
def test_every_rule_knows_an_outage_from_a_good_release_when_there_is_traffic(name: str) -> None:
    service = "requests: {perSecond: 100}\nerrors: {percent: 0.1}\n"
    assert (_play(POLICIES[name](), service) == PROMOTED).mean() >= 0.8
    assert (_play(POLICIES[name](), f"{service}defects: [{{outage: true}}]\n") == BACK).all()


def _play(policy: Policy, service: str) -> IntArray:
    world = World(load_traffic(service), 10, seed=1, tick_s=policy.tick_s)
    policy.start(10)
    if isinstance(policy, TunedFlagger):
        policy.learn(world.history(600.0))
    while world.now_s < 7200 and (policy.outcome == RUNNING).any():
        tick_seen = world.tick(np.where(policy.outcome == RUNNING, policy.weight_pct, 0.0))
        policy.step(world.now_s, tick_seen)
    return policy.outcome


def test_names_are_those_of_the_table() -> None:
    made = {name: make() for name, make in POLICIES.items()}
    assert all(isinstance(policy, Minutely) and policy.name == name for name, policy in made.items())
    assert [name for name, policy in made.items() if hasattr(policy, "learn")] == ["flagger, tuned"]
