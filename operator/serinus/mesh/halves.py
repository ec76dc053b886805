"""How the stable version's own pods differ: the tries and failures of two halves of them, side by side. Pure.

Two halves of one version differ by chance, and by what pods do not share: a noisy neighbour, a cold cache, a bad node.
What they differ by more than chance is what a candidate may differ by without being worse.
"""

import math
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from zlib import crc32

from serinus.mesh.envoy_stats import EndpointCounters, Endpoints

Tries = tuple[int, int]
"""Tries that ended, and those of them that failed."""
NO_TRIES: Tries = (0, 0)

MAX_LISTED = 8000
"""Endpoints listed in one round by all callers together, about. Each is 160 bytes to read and 3 microseconds' work."""


class Rota:
    """Which callers list which cluster's endpoints in this round.

    All do, until that is more than ``MAX_LISTED`` endpoints; then they take turns, each caller and cluster its own, and
    what a caller counts between two of its turns is read with the second.
    """

    def __init__(self) -> None:
        self._round = 0
        self._every = 1
        self._listed = 0

    def turn(self) -> None:
        """Begin the next round."""
        self._round += 1
        self._every = max(1, math.ceil(self._listed / MAX_LISTED))
        self._listed = 0

    def due(self, uid: str, cluster: str, listed: int) -> bool:
        """Return whether the caller lists the cluster now, where it has ``listed`` endpoints. Ask once a round."""
        self._listed += listed
        return (crc32(f"{uid} {cluster}".encode()) - self._round) % self._every == 0


_NOTHING = EndpointCounters()


@dataclass(slots=True)
class Halves:
    """What all callers have counted for the pods of one stable version, in two halves.

    A pod is an address without its port, and stays in the half that it was given when it was first listed. Halves are
    kept of equal size among the pods that a caller lists at once, so that two pods are always one and one; who goes
    where follows from a hash of the address, so that every process divides the same pods alike.
    """

    sums: tuple[Tries, Tries] = (NO_TRIES, NO_TRIES)
    tried: set[str] = field(default_factory=set)
    """The pods with a try that ended."""
    _half: dict[str, int] = field(default_factory=dict)
    _seen: dict[str, dict[str, Endpoints]] = field(default_factory=dict)

    def take(self, uid: str, endpoints: Mapping[str, Endpoints], *, newborn: bool) -> None:
        """Add what is new in one answer of the caller ``uid``, which lists all endpoints of the clusters in it.

        What is listed for a cluster for the first time is where counting starts, unless the sidecar is ``newborn``:
        then, and for endpoints that come to a cluster later, all of it counts. An endpoint that is no longer listed
        will come back with counters at 0.
        """
        seen = self._seen.setdefault(uid, {})
        self._divide({_pod(address) for listed in endpoints.values() for address in listed})
        sums = [list(half) for half in self.sums]
        for cluster, listed in endpoints.items():
            earlier = seen.get(cluster)
            seen[cluster] = listed
            if earlier is None and not newborn:
                continue
            known = earlier or {}
            for address, counters in listed.items():
                change = counters.since(known.get(address, _NOTHING))
                if change.successes or change.errors:
                    pod = _pod(address)
                    half = sums[self._half[pod]]
                    half[0] += change.successes + change.errors
                    half[1] += change.errors
                    self.tried.add(pod)
        (a, b), (c, d) = sums
        self.sums = ((a, b), (c, d))

    def restarted(self, uid: str) -> None:
        """Take notice that the caller's sidecar has started again: whatever it lists next, it counted since."""
        if uid in self._seen:
            self._seen[uid] = {cluster: {} for cluster in self._seen[uid]}

    def listed(self, uid: str, cluster: str) -> int | None:
        """Return how many endpoints the caller listed last time for the cluster; None when it never did."""
        seen = self._seen.get(uid, {}).get(cluster)
        return None if seen is None else len(seen)

    def _divide(self, pods: AbstractSet[str]) -> None:
        sizes = [0, 0]
        for pod in pods & self._half.keys():
            sizes[self._half[pod]] += 1
        for pod in _in_order(pods - self._half.keys()):
            half = int(sizes[1] < sizes[0])
            self._half[pod] = half
            sizes[half] += 1


def _pod(address: str) -> str:
    return address.rpartition("_")[0]


def _in_order(pods: Iterable[str]) -> list[str]:
    return sorted(pods, key=lambda pod: (crc32(pod.encode()), pod))
