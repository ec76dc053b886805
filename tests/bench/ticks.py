"""What one look at many active Canaries costs: the judge alone, without the cluster."""

import statistics
import time
from typing import Any

import numpy as np

from serinus.analysis.judge import judge
from serinus.analysis.model import Counts, Evidence, Outcome, Reading, Sample
from serinus.api import parse_live
from serinus.api.canary import CanarySpec

LOOKS = 40
SPEC = {
    "targetRef": {"name": "web"},
    "analysis": {
        "prometheus": {"address": "http://prometheus:9090"},
        "metrics": [
            {"name": "orders", "counts": {"bad": 'bad{r="{{ revision }}"}', "total": 'all{r="{{ revision }}"}'}}
        ],
    },
}
"""Success rate, latency at five edges, and a user's counts, which are read every ten seconds."""
_BUCKETS = [0, 0, 0, 0, 0.3, 0.2, 0.25, 0.15, 0.05, 0.03, 0.01, 0.005, 0.005]


def tick_ms(canaries: int) -> list[float]:
    """Return the milliseconds of one core that each of ``LOOKS`` ticks took, two seconds apart, at 100 requests/s."""
    rng, spec = np.random.default_rng(1), parse_live(CanarySpec, SPEC)
    before = _counts(rng, 100_000)
    states: list[dict[str, Any]] = [{} for _ in range(canaries)]
    totals, took_ms = [Evidence() for _ in range(canaries)], []
    for look in range(1, LOOKS + 1):
        for index, total in enumerate(totals):
            totals[index] = Evidence(total.candidate + _counts(rng, 20), total.stable + _counts(rng, 180))
        readings = _readings(look // 5 + 1)
        began = time.process_time()
        for index, total in enumerate(totals):
            sample = Sample(
                total=total,
                window=total,
                halves=((90 * look, 0), (90 * look, 0)),
                before=before,
                candidates=2,
                stables=4,
                weight_pct=10,
                at_weight_s=2.0 * look,
                now_s=2.0 * look + 2,
                readings=readings,
            )
            states[index] = judge(spec, sample, states[index]).state
        took_ms.append(1000 * (time.process_time() - began))
    return took_ms


def in_words(took_ms: list[float]) -> str:
    """Return mean, median and most of them."""
    return f"mean {statistics.fmean(took_ms):.0f} ms, median {statistics.median(took_ms):.0f}, most {max(took_ms):.0f}"


def _counts(rng: np.random.Generator, requests: int) -> Counts:
    buckets = rng.multinomial(requests, _BUCKETS)
    return Counts(requests, int(rng.binomial(requests, 0.001)), tuple(int(number) for number in buckets))


def _readings(sequence: int) -> tuple[Reading, ...]:
    parts = [("bad", 1.0), ("total", 100.0)]
    return tuple(
        Reading(f"orders/{arm}/{part}", Outcome.VALUE, value * sequence, sequence=sequence)
        for arm in ("candidate", "stable")
        for part, value in parts
    )
