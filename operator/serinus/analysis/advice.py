"""What follows from the evidence: stop, go on, how far, or done. Vectorised, as the evidence is."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serinus.analysis.engine import Readout
from serinus.analysis.evalues import Floats
from serinus.analysis.monitor import Monitor, Watched
from serinus.analysis.ramp import affordable_weight, next_weight

Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Advice:
    """What follows, all of shape (N,).

    ``weight_pct`` is the weight that follows in an adaptive run; ``done`` says that such a run has passed.
    """

    harm: Flags
    safe: Flags
    suspicious: Flags
    warm: Flags
    weight_pct: Floats
    done: Flags


def advise(
    monitor: Monitor,
    watched: Watched,
    readout: Readout,
    weight_pct: Floats,
    at_weight_s: Floats,
    requests_at_weight: Floats,
) -> Advice:
    """Return what follows.

    Args:
        monitor: the tests.
        watched: what they have come to.
        readout: the evidence.
        weight_pct: the weight that every sidecar has.
        at_weight_s: seconds since they have it.
        requests_at_weight: requests to the candidate since then.
    """
    settings, now_s = monitor.settings, watched.now_s
    worst = readout.worst()
    harm = worst >= -np.log(settings.alpha)
    suspicious = worst >= np.log(settings.suspicion)
    safe = (readout.safe >= -np.log(settings.beta)).all(axis=0)
    warm = monitor.warm(watched, now_s)
    known = watched.state.known_bad[0] / watched.state.known[0]
    calm = warm & ~suspicious & ~harm
    may_rise = calm & (at_weight_s >= settings.dwell_s) & (requests_at_weight >= settings.fewest)
    affordable = weight_pct
    if may_rise.any():
        affordable = affordable_weight(settings, watched.state.seen, watched.rate, known)
    highest = weight_pct >= settings.most_pct
    done = calm & safe & highest & (at_weight_s >= settings.last_s) & (now_s >= settings.shortest_s)
    return Advice(harm, safe, suspicious, warm, next_weight(settings, weight_pct, affordable, may_rise), done)
