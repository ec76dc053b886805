"""The sequential engine: counts of both versions in, evidence for harm and for safety out. Vectorised over releases.

*Harm.* For every row an e-process against "the promise is kept": a mixture over effect sizes and over the times at
which a defect may begin. Half of the stake bets from the first request on, the rest is spread over all later minutes,
as ``1 / (t ln² t)``, so that there is one ``alpha`` for a run of any length. Rows of a family are averaged, which is
valid however they depend on each other. An outage is looked for at every scrape in the same way.

*Safety.* For every row and tolerance an e-process against "the candidate is at the tolerance or beyond"; it is safe
when every row has passed one that is in force.

Requests are taken in blocks: the sizes of a block's two arms are fixed first, its bad requests are then tested. Each
block is compared with itself alone, so whatever both versions go through together cancels, and shifting weights cannot
feign a difference (Simpson's paradox).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serinus.analysis.dispersion import SPAN_S
from serinus.analysis.evalues import Floats, log_e
from serinus.analysis.settings import Row, Settings

_AT_ONCE = 0.5
"""The part of the stake that bets from the first request on."""
_ALL_STARTS = 2.10974
"""The sum of ``1 / (n ln² n)`` from 2 on."""
_SAFE_EFFECTS = np.array([0.6, 1.0, 1.15])
"""The candidate's share of bad requests as a multiple of stable's, in the alternatives that bet on safety."""
_OUTAGES = np.array([0.6, 0.95])
"""The candidate's share of failed requests in the alternatives that bet on an outage."""
_OUTAGE_STAKE = 0.2
_SUSTAINED = 10.0
_HARD = 2.0
"""A block with so much more evidence for harm than is let in may be one of a hiccup: taken back when it is over."""
_SHARE_PRIOR = (0.5, 500.0)
"""Bad requests and requests of stable that are assumed before any was seen."""
_SURPRISE, _FORGETS = 8.0, 0.5
"""So much evidence in one block against the share that is remembered of stable, in nats, halves the memory: an incident
that is over, or has begun, must not blunt the alternatives for half an hour."""
_LEAST, _MOST = 1e-5, 0.98


@dataclass(frozen=True, slots=True)
class Arms:
    """Counts of both versions, (4, rows, N): the candidate's bad requests and requests, then stable's."""

    counts: Floats

    @classmethod
    def of(cls, bad_c: Floats, n_c: Floats, bad_b: Floats, n_b: Floats) -> "Arms":
        """Return these counts, each of shape (rows, N)."""
        return cls(np.stack([bad_c, n_c, bad_b, n_b]))

    @classmethod
    def none(cls, rows: int, runs: int) -> "Arms":
        """Return counts of nothing."""
        return cls(np.zeros((4, rows, runs)))

    @property
    def bad_c(self) -> Floats:
        """The candidate's bad requests, (rows, N)."""
        return self.counts[0]  # type: ignore[no-any-return]

    @property
    def n_c(self) -> Floats:
        """Requests to the candidate, (rows, N)."""
        return self.counts[1]  # type: ignore[no-any-return]

    @property
    def bad_b(self) -> Floats:
        """Stable's bad requests, (rows, N)."""
        return self.counts[2]  # type: ignore[no-any-return]

    @property
    def n_b(self) -> Floats:
        """Requests to stable, (rows, N)."""
        return self.counts[3]  # type: ignore[no-any-return]

    def __add__(self, other: "Arms") -> "Arms":
        return Arms(self.counts + other.counts)

    def only(self, which: NDArray[np.bool_]) -> "Arms":
        """Return the counts of these releases, (N,), and none of the others."""
        return Arms(self.counts * which)


@dataclass(slots=True)
class State:
    """What the tests have come to. Everything is a float or an array with the releases on the last axis."""

    harm: Floats
    """(rows, effects, N): logarithm of each bet on harm, restarts in it."""
    out: Floats
    """(outages, N): of each bet on an outage."""
    safe: Floats
    """(tolerances of all rows, alternatives, N)."""
    known_bad: Floats
    """(rows, N): stable's bad requests, fading."""
    known: Floats
    """(rows, N): stable's requests, fading alike."""
    room: Floats
    """(rows, N): how much evidence for harm the next block may give, before what comes back until then."""
    hot_s: Floats
    """(rows, N): for how long every block had more evidence for harm than was let in."""
    hiccup: Floats
    """(rows, N): what was let in of blocks with very much more evidence for harm, as long as none spoke against it."""
    seen: Floats
    """(4, N): all bad requests and requests to the candidate, those that stable's rate at the time would have given,
    and the requests of both versions."""
    restarts: int = 0
    scrapes: int = 0


@dataclass(frozen=True, slots=True)
class Readout:
    """Evidence as it stands, natural logarithms; ``harm`` by family and ``safe`` by row, releases on the last axis."""

    harm: dict[str, Floats]
    rows: Floats
    """(rows, N): for harm, row by row."""
    safe: Floats
    """(rows, N): for safety, at the best tolerance in force; infinite for a row without any."""

    def worst(self) -> Floats:
        """Return the evidence for harm of the family that has most."""
        return np.asarray(np.max(np.stack(list(self.harm.values())), axis=0))


class Engine:
    """The tests for a fixed list of rows. It holds no counts; ``State`` does."""

    def __init__(self, settings: Settings, rows: tuple[Row, ...]):
        self.settings = settings
        self.rows = rows
        self.families = {
            family: np.array([index for index, row in enumerate(rows) if row.family == family])
            for family in dict.fromkeys(row.family for row in rows)
        }
        """The rows of each family."""
        self._rho = np.array([row.promise.rho for row in rows])[:, None, None]
        self._delta = np.array([row.promise.delta for row in rows])[:, None, None]
        self._effects = np.array(settings.effects)[None, :, None]
        pairs = [(index, tolerance) for index, row in enumerate(rows) for tolerance in row.tolerances]
        self._safe_row = np.array([index for index, _ in pairs], dtype=int)
        self._tolerated, self._first_tolerance = np.unique(self._safe_row, return_index=True)
        self._after_s = np.array([tolerance.after_s for _, tolerance in pairs])
        self._safe_rho = np.array([tolerance.rho for _, tolerance in pairs])[:, None]
        self._safe_delta = np.array([tolerance.delta for _, tolerance in pairs])[:, None]
        self._row = np.concatenate(
            [np.repeat(np.arange(len(rows)), len(settings.effects)), np.repeat(self._safe_row, len(_SAFE_EFFECTS) + 1)]
        )
        """The row of every alternative: first those that bet on harm, then those on safety."""
        self._failed = [index for index, row in enumerate(rows) if row.edge is None and row.outage]

    def start(self, runs: int, before: Arms | None = None) -> State:
        """Return the state before the first request; ``before`` is what stable did earlier."""
        rows, effects = len(self.rows), len(self.settings.effects)
        known_bad, known = (np.full((rows, runs), prior) for prior in _SHARE_PRIOR)
        if before is not None:
            known_bad, known = known_bad + before.bad_b, known + before.n_b
        return State(
            harm=np.full((rows, effects, runs), np.log(_AT_ONCE)),
            out=np.full((len(_OUTAGES), runs), np.log(_AT_ONCE)),
            safe=np.zeros((len(self._after_s), len(_SAFE_EFFECTS) + 1, runs)),
            known_bad=known_bad,
            known=known,
            room=np.full((rows, runs), self.settings.cap),
            hot_s=np.zeros((rows, runs)),
            hiccup=np.zeros((rows, runs)),
            seen=np.zeros((4, runs)),
        )

    def fits(self, state: State) -> bool:
        """Whether a state is one of these rows and alternatives."""
        rows, effects, tolerances = len(self.rows), len(self.settings.effects), len(self._after_s)
        shapes = (rows, effects), (len(_OUTAGES),), (tolerances, len(_SAFE_EFFECTS) + 1)
        return tuple(part.shape[:-1] for part in (state.harm, state.out, state.safe)) == shapes

    def scrape(self, state: State, arms: Arms) -> None:
        """Take in the requests of one scrape, for outages. Scrapes with too few requests are to be put together."""
        if not self._failed:
            return
        row = self._failed[0]
        margin, state.scrapes = self.settings.outage, state.scrapes + 1
        q_b = self._known(state)[row]
        q_c = np.maximum(_OUTAGES[:, None], 1 - (1 - margin.rho * q_b - margin.delta) * 0.4)
        value = log_e(
            arms.bad_c[row],
            arms.n_c[row],
            arms.bad_b[row],
            arms.n_b[row],
            np.minimum(q_c, _MOST),
            np.minimum(q_b, _MOST) + np.zeros_like(q_c),
            np.array(margin.rho),
            np.array(margin.delta),
        )
        both = (arms.n_c[row] > 0) & (arms.n_b[row] > 0)
        value = np.where(both, np.minimum(value, self.settings.outage_cap), 0.0)
        state.out = np.logaddexp(state.out, np.log(_spent(state.scrapes))) + value

    def block(
        self, state: State, arms: Arms, now_s: float, warm: NDArray[np.bool_], kappas: Floats, lengths_s: Floats
    ) -> None:
        """Take in one block.

        Args:
            state: changed in place.
            arms: the block's counts.
            now_s: seconds since the run began.
            warm: whether the candidate was warmed up before the block began, by release.
            kappas: relative variance between the arms' rates, (rows, N), as ``analysis.dispersion`` gives it: as
                if the rates were drawn anew for every block of ``SPAN_S`` seconds.
            lengths_s: length of each block in seconds, (N,); 0 where a release has no block.
        """
        q_b = np.clip(self._known(state), _LEAST, 0.9)
        kappas = kappas * SPAN_S / np.maximum(lengths_s, 1e-9)
        self._restart(state, now_s)
        self._bet(state, arms, warm, kappas, q_b, lengths_s)
        first = self._failed[0] if self._failed else 0
        expected = arms.n_c[first] * np.where(
            arms.n_b[first] > 0, arms.bad_b[first] / np.maximum(arms.n_b[first], 1), q_b[first]
        )
        state.seen += np.stack([arms.bad_c[first], arms.n_c[first], expected, arms.n_c[first] + arms.n_b[first]])
        fade = np.exp(-lengths_s / self.settings.memory_s) * np.where(_surprises(arms, q_b), _FORGETS, 1.0)
        state.known_bad = state.known_bad * fade + arms.bad_b
        state.known = state.known * fade + arms.n_b

    def _known(self, state: State) -> Floats:
        return state.known_bad / state.known

    def _restart(self, state: State, now_s: float) -> None:
        while state.restarts < int(now_s // self.settings.restart_s):
            state.restarts += 1
            state.harm = np.logaddexp(state.harm, np.log(_spent(state.restarts)))

    def _bet(
        self, state: State, arms: Arms, warm: NDArray[np.bool_], kappas: Floats, q_b: Floats, lengths_s: Floats
    ) -> None:
        """Let all alternatives bet on the block, those on harm and those on safety side by side."""
        rows = self._row
        of_row = Arms(arms.counts[:, rows])
        known = q_b[rows]
        rho, delta, line, q_c, bets = _joined(self._on_harm(warm, q_b), self._on_safety(warm, q_b))
        value = _tempered(log_e(*_taken(of_row, bets, rho), q_c, known, rho, delta), of_row, kappas[rows], line, known)
        harm, safe = np.split(value, [len(self.rows) * self._effects.size])
        self._let_in(state, harm.reshape(state.harm.shape), arms, lengths_s)
        state.safe = state.safe + safe.reshape(state.safe.shape)

    def _on_harm(self, warm: NDArray[np.bool_], q_b: Floats) -> tuple[Floats, ...]:
        """Return slope and offset of the line, its height, the alternatives, and which of these bet."""
        wide = np.where(warm, 1.0, self.settings.warm_factor)
        rho, delta = self._rho * wide, self._delta * wide
        height = rho * q_b[:, None] + delta
        line = np.minimum(height, 0.95)
        odds = line / (1 - line) * self._effects
        q_c = np.minimum(odds / (1 + odds), _MOST)
        bets = (q_c > height) & (warm | (self._effects >= self.settings.warm_effect))
        return rho, delta, line, q_c, bets

    def _on_safety(self, warm: NDArray[np.bool_], q_b: Floats) -> tuple[Floats, ...]:
        """Return the same for the alternatives that bet on safety."""
        known = q_b[self._safe_row]
        # The greater of the two bounds is the null's edge; which one that is, is decided before the block.
        wider = self._safe_rho * known >= known + self._safe_delta
        rho = np.where(wider, self._safe_rho, np.minimum(self._safe_rho, 1.0))[:, None]
        delta = np.where(wider, 0.0, self._safe_delta)[:, None]
        line = np.minimum(rho * known[:, None] + delta, 0.98)
        q_c = np.concatenate([_SAFE_EFFECTS[None, :, None] * known[:, None], 0.5 * line], axis=1)
        q_c = np.minimum(np.maximum(q_c, _LEAST / 10), _MOST)
        bets = (q_c < 0.95 * line) & warm
        return rho, delta, line, q_c, bets

    def _let_in(self, state: State, value: Floats, arms: Arms, lengths_s: Floats) -> None:
        """Add evidence for harm, as far as there is room for it."""
        settings, most = self.settings, value.max(axis=1)
        faster = np.where(state.hot_s >= settings.sustained_s, _SUSTAINED, 1.0)
        room = np.minimum(state.room + settings.refill * faster * lengths_s, settings.cap * faster)
        state.harm = state.harm + np.minimum(value, room[:, None])
        state.room = room - np.minimum(np.maximum(most, 0.0), room)
        state.hot_s = np.where(most >= room, state.hot_s + lengths_s, np.where(arms.n_c > 0, 0.0, state.hot_s))
        self._forgive(state, most, room, arms.n_c > 0)

    def _forgive(self, state: State, most: Floats, room: Floats, taken: NDArray[np.bool_]) -> None:
        """Take back what a hiccup gave once it is over: lowering an e-process, whatever was seen, leaves one."""
        state.hiccup = np.where(most > room + _HARD, state.hiccup + room, state.hiccup)
        over = taken & (most <= 0)
        state.harm = state.harm - np.where(over, state.hiccup, 0.0)[:, None]
        state.hiccup = np.where(over | (state.hot_s >= self.settings.sustained_s), 0.0, state.hiccup)

    def read(self, state: State, now_s: float) -> Readout:
        """Return the evidence at ``now_s`` seconds of the run."""
        unspent = np.log(1 - _AT_ONCE - _spent_until(state.restarts))
        rows = np.logaddexp(_log_mean(state.harm, 1), unspent)
        harm = {}
        for family, own in self.families.items():
            harm[family] = _log_mean(rows[own], 0)
        if self._failed:
            family = self.rows[self._failed[0]].family
            left = np.log(1 - _AT_ONCE - _spent_until(state.scrapes))
            out = np.logaddexp(_log_mean(state.out, 0), left)
            harm[family] = np.logaddexp(np.log(1 - _OUTAGE_STAKE) + harm[family], np.log(_OUTAGE_STAKE) + out)
        return Readout(harm, rows, self._safest(state, now_s, rows.shape[1]))

    def _safest(self, state: State, now_s: float, runs: int) -> Floats:
        """Return the evidence for safety of every row at its easiest tolerance in force."""
        safe = np.full((len(self.rows), runs), np.inf)
        if len(self._safe_row):
            in_force = np.where((self._after_s <= now_s)[:, None], _log_mean(state.safe, 1), -np.inf)
            safe[self._tolerated] = np.maximum.reduceat(in_force, self._first_tolerance)
        return safe


def _surprises(arms: Arms, q_b: Floats) -> NDArray[np.bool_]:
    """Return where stable's share in a block is none that is remembered: Poisson's deviance from it is too great."""
    expected = arms.n_b * q_b
    ratio = np.maximum(arms.bad_b, _LEAST) / np.maximum(expected, _LEAST)
    deviance = arms.bad_b * np.log(ratio) - arms.bad_b + expected
    return np.asarray(deviance > _SURPRISE)


def _joined(harm: tuple[Floats, ...], safety: tuple[Floats, ...]) -> Floats:
    """Return what ``_on_harm`` and ``_on_safety`` gave, in full and one after the other: (5, alternatives, N)."""
    (rows, effects, runs), on_safety = harm[3].shape, safety[3].shape
    joined = np.empty((len(harm), rows * effects + on_safety[0] * on_safety[1], runs))
    for part, one, other in zip(joined, harm, safety, strict=True):
        part[: rows * effects].reshape(rows, effects, runs)[...] = one
        part[rows * effects :].reshape(on_safety)[...] = other
    return joined


def _taken(arms: Arms, bets: Floats, rho: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Return the counts for every alternative; nothing where it does not bet."""
    taking = bets * ((arms.n_c > 0) & ((arms.n_b > 0) | (rho == 0)))
    bad_c, n_c, bad_b, n_b = arms.counts * taking
    return bad_c, n_c, bad_b, n_b


def _tempered(value: Floats, arms: Arms, kappas: Floats, line: Floats, q_b: Floats) -> Floats:
    """Return evidence divided by how much more than chance pods differ (``serinus.analysis.dispersion``).

    What is expected at the null's edge is known before the block; where more came, and speaks for the alternative, that
    counts: a smaller e-value is one, too.
    """
    theta = arms.n_c / np.maximum(arms.n_c + arms.n_b, 1)
    spread = kappas * theta * (1 - theta)
    expected = 1 + spread * (arms.n_c * line + arms.n_b * q_b)
    came = 1 + spread * (arms.bad_c + arms.bad_b)
    return value / np.where(value > 0, np.maximum(expected, came), expected)


def _log_mean(logs: Floats, axis: int) -> Floats:
    return np.asarray(np.logaddexp.reduce(logs, axis=axis) - np.log(logs.shape[axis]))


def _spent(start: int) -> float:
    """Return the share of the stake that begins to bet at the start of this number, from 1 on."""
    return float((1 - _AT_ONCE) / _ALL_STARTS / ((start + 1) * np.log(start + 1) ** 2))


_SUMS = [0.0]


def _spent_until(start: int) -> float:
    """Return the share of the stake that has begun to bet after so many starts beyond the first."""
    while len(_SUMS) <= start:
        _SUMS.append(_SUMS[-1] + _spent(len(_SUMS)))
    return _SUMS[start]
