"""How much traffic the candidate gets next: as much as the evidence so far makes affordable.

Were the release as bad as the evidence still allows, the bad requests until it would be stopped are to stay within a
budget: ``w <= (B + b R h p_b) / (R h U)``, with the requests a second ``R``, the time to react ``h``, stable's share
of bad requests ``p_b``, and ``U`` the upper bound of the candidate's share in excess of stable's at the same time.
``U`` begins at 1 and falls as ``(3 + ln(n) / 2) / n`` for a clean candidate, so the weight grows geometrically with
clean traffic, and more slowly where there are bad requests.

Source of the idea: Zhao et al., "Safely and quickly deploying new features with a staged rollout framework using
sequential test and adaptive experimental design", 2019, arXiv 1905.10493 (risk-based ramp).
"""

import numpy as np
from numpy.typing import NDArray

from serinus.analysis.evalues import Floats, upper_bound
from serinus.analysis.settings import Settings

_LEAST_EXCESS = 1e-4


def first_weight(settings: Settings, rate: Floats) -> Floats:
    """Return the first weight in percent for a ``rate`` of requests a second, (N,): what the budget allows."""
    least, most = settings.first_pct
    affordable = 100 * settings.budget / np.maximum(rate * settings.reaction_s, 1e-9)
    return np.floor(np.clip(affordable, least, min(most, settings.most_pct)) + 1e-9)


def affordable_weight(settings: Settings, seen: Floats, rate: Floats, known_share: Floats) -> Floats:
    """Return the weight in percent that the budget allows, (N,), not rounded, 100 at most.

    Args:
        settings: budget and reaction time.
        seen: ``State.seen``.
        rate: requests a second to both versions.
        known_share: stable's share of bad requests.
    """
    bad, requests, expected, _ = seen
    excess = upper_bound(bad, requests) - expected / np.maximum(requests, 1)
    reacting = np.maximum(rate * settings.reaction_s, 1e-9)
    budget = settings.budget + settings.budget_share * reacting * known_share
    return np.asarray(np.minimum(100 * budget / (reacting * np.maximum(excess, _LEAST_EXCESS)), 100.0))


def next_weight(settings: Settings, weight_pct: Floats, affordable_pct: Floats, may_rise: NDArray[np.bool_]) -> Floats:
    """Return the weight in whole percent that follows: no less, at most ``growth`` times as much, to ``most_pct``."""
    highest = np.minimum(weight_pct * settings.growth, settings.most_pct)
    raised = np.floor(np.clip(affordable_pct, weight_pct, np.maximum(highest, weight_pct)) + 1e-9)
    return np.where(may_rise, np.maximum(raised, weight_pct), weight_pct)
