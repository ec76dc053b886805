"""What keeps the weight of an adaptive run where it is, in words: the conditions of ``advise``, one by one."""

import numpy as np

from serinus.analysis.engine import Readout
from serinus.analysis.monitor import Monitor, Watched
from serinus.analysis.ramp import affordable_weight
from serinus.analysis.words import count, lasting

LEAST_CLEAR_PCT = 1.0
"""The weight rises in steps of this many percent."""


def holds(
    monitor: Monitor,
    watched: Watched,
    readout: Readout,
    weight_pct: int,
    at_weight_s: float,
    requests_at_weight: int,
) -> list[str]:
    """Return why the weight does not rise, or why the run has not passed at the greatest one; empty when nothing does.

    Args:
        monitor: the tests of one release.
        watched: what they have come to.
        readout: the evidence.
        weight_pct: the weight that every sidecar has.
        at_weight_s: seconds since they have it.
        requests_at_weight: requests to the candidate since then.
    """
    settings, now_s = monitor.settings, watched.now_s
    found = []
    begun_s = float(watched.first_s[0])
    if begun_s < 0:
        found.append("the candidate has not answered a request yet")
    elif not bool(monitor.warm(watched, now_s)[0]):
        left_s = settings.warm_up_s - (now_s - begun_s)
        found.append(f"the candidate warms up for another {lasting(left_s)}; nothing counts for it until then")
    worst = float(readout.worst()[0])
    if worst >= np.log(settings.suspicion):
        share = 100 * worst / -np.log(settings.alpha)
        found.append(f"there is evidence for harm, {share:.0f} % of what rolls it back; that is looked into first")
    if weight_pct >= settings.most_pct:
        return found + _not_passed(monitor, watched, readout, at_weight_s)
    if at_weight_s < settings.dwell_s:
        found.append(f"every weight is held for {lasting(settings.dwell_s)}, this one for another "
                     f"{lasting(settings.dwell_s - at_weight_s)}")  # fmt: skip
    if requests_at_weight < settings.fewest:
        missing = settings.fewest - requests_at_weight
        found.append(f"{count(missing, 'more request')} to the candidate are needed at this weight")
    known = watched.state.known_bad[0] / watched.state.known[0]
    affordable = float(affordable_weight(settings, watched.state.seen, watched.rate, known)[0])
    if affordable < weight_pct + LEAST_CLEAR_PCT:
        found.append(
            f"the budget of bad requests allows about {affordable:.0f} % while the candidate may be as bad as the "
            "evidence still allows; more requests without failures raise that"
        )
    return found


def _not_passed(monitor: Monitor, watched: Watched, readout: Readout, at_weight_s: float) -> list[str]:
    """Return what a run at its greatest weight waits for."""
    settings, found = monitor.settings, []
    wanted = float(-np.log(settings.beta))
    behind = {row.family for row, safe in zip(monitor.engine.rows, readout.safe[:, 0], strict=True) if safe < wanted}
    if behind:
        found.append(f"not shown to be safe yet: {', '.join(sorted(behind))}")
    if at_weight_s < settings.last_s:
        found.append(f"the greatest weight is held for another {lasting(settings.last_s - at_weight_s)}")
    if watched.now_s < settings.shortest_s:
        found.append(f"a run is judged for another {lasting(settings.shortest_s - watched.now_s)} at least")
    return found
