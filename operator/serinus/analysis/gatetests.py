"""The tests of the fault gate: counts of its two groups of pods in, evidence that the candidate copes worse out.

Both groups, the arms, get the same share of live traffic and the same fault at the same time. Four hypotheses have
e-processes of their own: failed requests, slow answers, calls for each request, failed requests after the fault. That
of slow answers is the mean of one at each of several edges, since nobody knows before at which the arms differ.

*Worse.* The null is the promise ``p_c <= rho p_b + delta``. The e-process is the mixture, with equal stakes, of one bet
for each alternative of a fixed grid beyond the line; it needs to know nothing of the shares under the fault, and bounds
false alarms whatever they are and however they change (``serinus.analysis.evalues``). *No worse.* The same with the
tolerance, from the other side. Calls are compared given their sum, by ``log_e_ratio``.

``alpha`` is divided among the four, so that equal arms are failed with probability ``alpha`` at most, however the four
depend on each other (union bound). Proved for requests that fail independently given the shares of their block.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from serinus.analysis.evalues import Floats, log_e, log_e_ratio
from serinus.analysis.gatemodel import CALLS, ERRORS, SLOW, GateSettings
from serinus.analysis.settings import Margin

_SHARES = np.array([0.001, 0.003, 0.01, 0.03, 0.08, 0.2, 0.35, 0.6])
"""Shares of stable's bad requests in the alternatives: from nearly none to most, about three times as many each."""
_ODDS = np.array([1.6, 3.0, 8.0, 40.0])
"""By how much the odds of the candidate's exceed the promise there. An alternative of safety is that it is alike."""
_ROOM = 0.93
"""Where the promise is above that, nothing can exceed it by much."""
_MORE_CALLS = np.array([1.3, 1.6, 2.5, 5.0])
"""By how many times the candidate's calls for each request exceed what is allowed, in the alternatives."""
_CLUSTERED = 3.0
"""Calls come in clusters, as one request is tried again several times: the evidence is divided by what that adds to the
variance of a count, at most. A power below 1 of an e-value is one (Jensen's inequality)."""


@dataclass(frozen=True, slots=True)
class Block:
    """New counts of the arms, each of shape (N,): bad requests, requests, answers, calls; slow answers (edges, N).

    ``span_s`` is the time they came in, in seconds; 0 where that is not known.
    """

    bad_c: Floats
    n_c: Floats
    bad_b: Floats
    n_b: Floats
    slow_c: Floats
    timed_c: Floats
    slow_b: Floats
    timed_b: Floats
    calls_c: Floats
    calls_b: Floats
    span_s: float = 0.0


@dataclass(slots=True)
class GateTests:
    """The evidence of N experiments: logarithms of the bets, alternatives first, experiments on the last axis."""

    settings: GateSettings
    worse: dict[str, Floats] = field(default_factory=dict)
    fine: dict[str, Floats] = field(default_factory=dict)

    @classmethod
    def start(cls, settings: GateSettings, runs: int) -> "GateTests":
        """Return the tests before anything was counted."""
        harm, safe = alternatives(settings.harm, worse=True), alternatives(settings.safe, worse=False)
        names = (ERRORS, *settings.slow)
        return cls(
            settings,
            {**{name: np.zeros((len(harm[0]), runs)) for name in names}, CALLS: np.zeros((len(_MORE_CALLS), runs))},
            {name: np.zeros((len(safe[0]), runs)) for name in names},
        )

    @classmethod
    def load(cls, settings: GateSettings, raw: dict[str, Any]) -> "GateTests":
        """Return the tests of one experiment as ``dump`` wrote them."""
        worse, fine = (
            {name: np.array(bets)[:, None] for name, bets in raw[side].items()} for side in ("worse", "fine")
        )
        return cls(settings, worse, fine)

    def dump(self) -> dict[str, Any]:
        """Return the tests of the first experiment as plain JSON, exact to 1e-6 nats."""
        return {
            side: {name: [round(float(bet), 6) for bet in bets[:, 0]] for name, bets in of_side.items()}
            for side, of_side in (("worse", self.worse), ("fine", self.fine))
        }

    def take(self, block: Block) -> None:
        """Multiply a block into every bet; experiments in which an arm had no request are left as they are."""
        self._shares(ERRORS, block.bad_c, block.n_c, block.bad_b, block.n_b, block.span_s)
        for name, slow_c, slow_b in zip(self.settings.slow, block.slow_c, block.slow_b, strict=True):
            self._shares(name, slow_c, block.timed_c, slow_b, block.timed_b, block.span_s)
        allowed = np.full(1, self.settings.most_calls)
        ratios = self.settings.most_calls * _MORE_CALLS[:, None]
        calls = log_e_ratio(block.calls_c, block.n_c, block.calls_b, block.n_b, ratios, allowed) / _CLUSTERED
        self.worse[CALLS] = self.worse[CALLS] + np.minimum(calls, self.settings.cap)

    def _shares(self, name: str, bad_c: Floats, n_c: Floats, bad_b: Floats, n_b: Floats, span_s: float) -> None:
        there = (n_c > 0) & (n_b > 0)
        most = self.settings.cap * _blocks(self.settings, bad_c, n_c, span_s)
        for bets, margin, worse in (
            (self.worse, self.settings.harm, True),
            (self.fine, self.settings.safe, False),
        ):
            q_c, q_b = alternatives(margin, worse=worse)
            rho, delta = np.full(1, margin.rho), np.full(1, margin.delta)
            new = log_e(bad_c, n_c, bad_b, n_b, q_c[:, None], q_b[:, None], rho, delta)
            bets[name] = bets[name] + np.where(there, np.minimum(new, most) if worse else new, 0.0)

    def harm(self, name: str) -> Floats:
        """Return the evidence that the candidate is worse by a hypothesis, (N,)."""
        names = self.settings.slow if name == SLOW else (name,)
        return _mean(np.concatenate([self.worse[each] for each in names]))

    def safe(self, name: str) -> Floats:
        """Return the evidence that it is no worse, (N,); of slow answers, at the edge where that is least shown."""
        names = self.settings.slow if name == SLOW else (name,)
        return np.asarray(np.min([_mean(self.fine[each]) for each in names], axis=0))


def _blocks(settings: GateSettings, bad: Floats, requests: Floats, span_s: float) -> Floats:
    """Return as how many blocks one counts that was read late: as many as its bad requests must have taken, (N,).

    Where requests come evenly, a share of ``span_s`` went bad; a hiccup within a long block stays one block, and so do
    a few requests, which may have come at once. The cap may depend on the block's own counts: it only takes away from
    what was won, so false alarms are bounded as before.
    """
    taken_s = span_s * bad / np.maximum(requests, 1.0)
    return np.asarray(np.maximum(1.0, np.floor(np.minimum(taken_s / settings.block_s, bad / settings.fewest))))


def alternatives(margin: Margin, *, worse: bool) -> tuple[Floats, Floats]:
    """Return the pairs of shares that are bet on, the candidate's and stable's, beyond a line or within it."""
    line = margin.rho * _SHARES + margin.delta
    if not worse:
        alike = _SHARES[line < 0.98]
        return alike, alike
    shares, line = _SHARES[line < _ROOM], line[line < _ROOM]
    odds = _ODDS[:, None] * line / (1 - line)
    return (odds / (1 + odds)).ravel(), np.tile(shares, len(_ODDS))


def _mean(bets: Floats) -> Floats:
    """Return the logarithm of the mean of what the bets have won, over the first axis."""
    most = bets.max(axis=0)
    return np.asarray(most + np.log(np.exp(bets - most).mean(axis=0)))
