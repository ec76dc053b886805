"""What the analysis checks about itself and its surroundings. None of it judges the candidate; some of it halts."""

import math

from serinus.analysis.model import Counts, Evidence, Finding, Sample, Verdict
from serinus.analysis.sequential import log_e_difference, log_e_share
from serinus.analysis.words import count, percent
from serinus.api.canary import CanarySpec

SURE = math.log(1 / 0.0001)
"""Evidence at which a check speaks up: once in ten thousand runs by chance."""
SHARE_FACTOR, SHARE_POINTS = 0.2, 0.01
"""A candidate's share of the requests may be off by this part of its weight, or by so much."""
SETTLED_S = 10.0
"""Requests that were under way when a weight came into force still count for it for a while."""
LEVEL_S = 60.0
_LEVEL_EVERY_S = 5.0
_LEVEL_NEEDED = 20


def share_hold(sample: Sample) -> str:
    """Return why the candidate's share of the requests cannot be what was asked for; empty while it can.

    A candidate that does not get its share, or takes more, was not tried as the numbers make believe: callers without
    a sidecar, sticky sessions, requests that vanish.
    """
    weight = sample.weight_pct / 100
    candidate, stable = sample.window.candidate.requests, sample.window.stable.requests
    every = candidate + stable
    if not 0 < weight < 1 or sample.at_weight_s < SETTLED_S or not every:
        return ""
    off = max(SHARE_FACTOR * weight, SHARE_POINTS)
    many = log_e_share(candidate, every, min(weight + off, 1.0))
    few = log_e_share(stable, every, min(1 - weight + off, 1.0))
    if max(many, few) < SURE:
        return ""
    share = percent(100 * candidate / every)
    return (
        f"the candidate gets {share} of {count(every, 'request')} where {sample.weight_pct} % are asked for, "
        "beyond chance; look for callers without a sidecar, sticky sessions, and requests that never end"
    )


def level_hold(spec: CanarySpec, sample: Sample, raw: list[list[float]]) -> tuple[str, list[list[float]]]:
    """Return why the release halts because the whole Service is below ``serviceLevel``, and the counts to remember.

    Args:
        spec: says the level.
        sample: what was counted.
        raw: what this returned last time: rows of second, requests, failures, oldest first.
    """
    if spec.analysis.service_level is None:
        return "", []
    both = _both(sample.total)
    kept = [row for row in raw if row[0] >= sample.now_s - LEVEL_S - _LEVEL_EVERY_S]
    if not kept or sample.now_s - kept[-1][0] >= _LEVEL_EVERY_S:
        kept = [*kept, [sample.now_s, both.requests, both.failures]]
    requests, failures = both.requests - kept[0][1], both.failures - kept[0][2]
    if requests < _LEVEL_NEEDED:
        return "", kept
    rate = 100 * (1 - failures / requests)
    if rate >= spec.analysis.service_level.success_rate:
        return "", kept
    words = (
        f"the Service as a whole answers {percent(rate)} of its requests well, below serviceLevel.successRate of "
        f"{percent(spec.analysis.service_level.success_rate)}; the release halts until it is above"
    )
    return words, kept


def remarks(sample: Sample) -> list[Finding]:
    """Return what a reader of the numbers should know: one pod only, or stable pods that differ among themselves."""
    found = []
    if sample.candidates == 1 and sample.weight_pct:
        words = "the candidate has one pod; a bad node cannot be told from a bad release"
        found.append(Finding("one-pod", Verdict.UNDECIDED, message=words))
    (requests_1, bad_1), (requests_2, bad_2) = sample.halves
    differ = max(
        log_e_difference(bad_1, requests_1, bad_2, requests_2, 0.0),
        log_e_difference(bad_2, requests_2, bad_1, requests_1, 0.0),
    )
    if differ >= SURE:
        one, two = (percent(100 * bad / requests) for bad, requests in ((bad_1, requests_1), (bad_2, requests_2)))
        words = (
            f"two halves of the stable version's own pods fail differently, {one} and {two}; "
            "differences between pods count for less"
        )
        found.append(Finding("stable-against-itself", Verdict.UNDECIDED, message=words))
    return found


def _both(counted: Evidence) -> Counts:
    return counted.candidate + counted.stable
