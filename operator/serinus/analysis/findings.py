"""What the tests say, in numbers and words, the same for status, `explain` and rollback messages."""

from math import ceil, isfinite, log, sqrt

from serinus.analysis.engine import Readout
from serinus.analysis.latency import percentile_ms, slower_than
from serinus.analysis.model import LATENCY_EDGES_MS, Counts, Finding, Numbers, Sample, Verdict
from serinus.analysis.monitor import Monitor, Watched
from serinus.analysis.rows import ABANDONED, ERRORS, LATENCY
from serinus.analysis.settings import Margin, Row, Settings, Tolerance
from serinus.analysis.words import TIMES, count, milliseconds, percent
from serinus.api.canary import CanarySpec

_TUNED_FOR = 0.05
"""The interval of the excess is narrowest when about that is known of it (its standard error)."""
_SURE = 0.05
_SUSPECT_PCT = 30.0


def excess(bad: int, requests: int, stable_bad: int, stable_requests: int) -> tuple[float, float, float] | None:
    """Return by how many points the candidate's share of bad requests exceeds stable's: estimate, lower, upper bound.

    The bounds hold at all times at once with a probability of about 95 %. None without requests of both.

    Source: Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas, "Time-uniform central limit theory and asymptotic confidence
    sequences", 2024, arXiv 2103.06476, with the variance of a difference of shares.
    """
    if not requests or not stable_requests:
        return None
    difference = bad / requests - stable_bad / stable_requests
    variance = _variance(bad, requests) + _variance(stable_bad, stable_requests)
    known, least = 1 / variance, 1 / _TUNED_FOR**2
    half = sqrt((known + least) * log((known / least + 1) / _SURE**2)) / known
    return tuple(round(100 * value, 4) for value in (difference, difference - half, difference + half))  # type: ignore[return-value]


def _variance(bad: int, requests: int) -> float:
    share = (bad + 0.5) / (requests + 1)
    return share * (1 - share) / requests


def errors_finding(spec: CanarySpec, sample: Sample, monitor: Monitor, watched: Watched, readout: Readout) -> Finding:
    """Return what the failed requests say."""
    candidate, stable = sample.total.candidate, sample.total.stable
    rows = [index for index, row in enumerate(monitor.engine.rows) if row.family == ERRORS]
    verdict, which = _verdict(monitor, readout, ERRORS, rows)
    row = monitor.engine.rows[which]
    limit = _limit(row, watched.now_s, verdict)
    numbers = _numbers(
        candidate.failures,
        candidate.requests,
        stable.failures,
        stable.requests,
        monitor,
        watched,
        readout,
        ERRORS,
        rows,
    )
    rate, stable_rate = _rate(candidate), _rate(stable)
    if rate is None:
        words = f"no request to the candidate yet; {spec.analysis.min_requests:,} are needed at each weight"
        return Finding(ERRORS, Verdict.UNDECIDED, None, stable_rate, limit, message=words, numbers=numbers)
    against = f" (stable {percent(stable_rate)} of {stable.requests:,})" if stable_rate is not None else ""
    seen = f"success rate {percent(rate)} of {count(candidate.requests, 'request')}{against}"
    return Finding(
        ERRORS,
        verdict,
        rate,
        stable_rate,
        limit,
        message=_sentence(seen, verdict, limit, numbers, monitor.settings),
        numbers=numbers,
    )


def abandoned_finding(sample: Sample, monitor: Monitor, watched: Watched, readout: Readout) -> list[Finding]:
    """Return what the requests say that callers gave up; nothing while there are none."""
    candidate, stable = sample.total.candidate, sample.total.stable
    if not candidate.abandoned and not stable.abandoned:
        return []
    rows = [index for index, row in enumerate(monitor.engine.rows) if row.family == ABANDONED]
    verdict, which = _verdict(monitor, readout, ABANDONED, rows)
    limit = _limit(monitor.engine.rows[which], watched.now_s, verdict)
    pair = candidate.abandoned, candidate.requests, stable.abandoned, stable.requests
    numbers = _numbers(*pair, monitor, watched, readout, ABANDONED, rows)
    share, stable_share = (
        100 * counts.abandoned / counts.requests if counts.requests else None for counts in (candidate, stable)
    )
    against = f" (stable {percent(stable_share)} of {stable.requests:,})" if stable_share is not None else ""
    part = percent(share) if share is not None else "none"
    seen = f"callers gave up {part} of {count(candidate.requests, 'request')} before the answer came{against}"
    message = _sentence(seen, verdict, limit, numbers, monitor.settings)
    return [Finding(ABANDONED, verdict, share, stable_share, limit, message=message, numbers=numbers)]


def latency_finding(
    spec: CanarySpec, sample: Sample, monitor: Monitor, watched: Watched, readout: Readout
) -> list[Finding]:
    """Return what the latency says: judged at the edge that speaks loudest, or only shown."""
    candidate, stable = sample.total.candidate, sample.total.stable
    percentile = spec.analysis.latency.percentile
    number, stable_number = percentile_ms(candidate, percentile), percentile_ms(stable, percentile)
    rows = [index for index, row in enumerate(monitor.engine.rows) if row.family == LATENCY]
    if not rows:
        if number is None:
            return []
        words = f"{percentile:g}th percentile {milliseconds(number)}; it is not compared, so it is not judged"
        return [Finding(LATENCY, Verdict.UNDECIDED, number, stable_number, message=words)]
    verdict, which = _verdict(monitor, readout, LATENCY, rows)
    row = monitor.engine.rows[which]
    limit = _limit(row, watched.now_s, verdict)
    edge = row.edge if row.edge is not None else len(LATENCY_EDGES_MS) - 1
    slow, slow_stable = slower_than(candidate, edge), slower_than(stable, edge)
    total, total_stable = sum(candidate.buckets), sum(stable.buckets)
    numbers = _numbers(slow, total, slow_stable, total_stable, monitor, watched, readout, LATENCY, rows)
    if number is None or not total:
        words = "no latency of the candidate was seen yet"
        return [Finding(LATENCY, Verdict.UNDECIDED, None, stable_number, limit, message=words, numbers=numbers)]
    share = percent(100 * slow / total)
    against = f" (stable {percent(100 * slow_stable / total_stable)})" if total_stable else ""
    seen = f"{share} of {count(total, 'request')} took longer than {milliseconds(LATENCY_EDGES_MS[edge])}{against}"
    stable_words = f", stable {milliseconds(stable_number)}" if stable_number is not None else ""
    seen = f"latency: {seen}; {percentile:g}th percentile {milliseconds(number)}{stable_words}"
    message = _sentence(seen, verdict, limit, numbers, monitor.settings)
    return [Finding(LATENCY, verdict, number, stable_number, limit, message=message, numbers=numbers)]


def _verdict(monitor: Monitor, readout: Readout, family: str, rows: list[int]) -> tuple[Verdict, int]:
    """Return the family's verdict, and the row that speaks: for harm the loudest, else the one that is least safe."""
    settings = monitor.settings
    loudest = max(rows, key=lambda row: float(readout.rows[row, 0]))
    if float(readout.harm[family][0]) >= -log(settings.alpha):
        return Verdict.HARM, loudest
    weakest = min(rows, key=lambda row: float(readout.safe[row, 0]))
    if float(readout.safe[weakest, 0]) >= -log(settings.beta):
        return Verdict.SAFE, weakest
    return Verdict.UNDECIDED, weakest


def _numbers(
    bad: int,
    requests: int,
    stable_bad: int,
    stable_requests: int,
    monitor: Monitor,
    watched: Watched,
    readout: Readout,
    family: str,
    rows: list[int],
) -> Numbers:
    settings = monitor.settings
    harm = float(readout.harm[family][0]) / -log(settings.alpha)
    weakest = min(rows, key=lambda row: float(readout.safe[row, 0]))
    safe = float(readout.safe[weakest, 0]) / -log(settings.beta)
    return Numbers(
        bad,
        requests,
        stable_bad,
        stable_requests,
        excess(bad, requests, stable_bad, stable_requests),
        round(100 * max(harm, -9.0), 1),
        round(100 * min(max(safe, -9.0), 9.0), 1),
        needed(monitor, watched, readout, weakest),
    )


def needed(monitor: Monitor, watched: Watched, readout: Readout, row: int) -> int | None:
    """Return about how many more requests to the candidate make the row safe, if it is as good as stable.

    A request adds the divergence of stable's share from the easiest tolerance in force, where stable's share is known
    well; None where that is nothing.
    """
    have = float(readout.safe[row, 0])
    want = -log(monitor.settings.beta)
    if have >= want:
        return 0
    share = min(max(float(watched.state.known_bad[row, 0]) / float(watched.state.known[row, 0]), 1e-5), 0.9)
    tolerances = [each for each in monitor.engine.rows[row].tolerances if each.after_s <= watched.now_s]
    gains = [_gain(share, tolerance) for tolerance in tolerances]
    best = max(gains, default=0.0)
    if best <= 0 or not isfinite(have):
        return None
    return ceil((want - min(have, want)) / best)


def _gain(share: float, tolerance: Tolerance) -> float:
    """Return how much evidence one request to the candidate is expected to add, beside many of stable."""
    line = max(tolerance.rho * share, min(tolerance.rho, 1.0) * share + tolerance.delta)
    line = min(line, 0.99)
    if share >= line:
        return 0.0
    return share * log(share / line) + (1 - share) * log((1 - share) / (1 - line))


def _limit(row: Row, now_s: float, verdict: Verdict) -> str:
    """Return the limit in words: the promise for harm, else the tolerance in force."""
    if verdict is Verdict.HARM or not row.tolerances:
        return "" if row.promise.delta >= 1 else _line(row.promise, row)
    in_force = [each for each in row.tolerances if each.after_s <= now_s] or list(row.tolerances[:1])
    return _line(in_force[-1], row)


def _line(margin: Margin | Tolerance, row: Row) -> str:
    share = 100 * margin.delta
    if row.edge is not None:
        edge = milliseconds(LATENCY_EDGES_MS[row.edge])
        if margin.rho == 0:
            return f"{share:g} % slower than {edge}"
        return f"stable's share slower than {edge} {_more(margin)}"
    if margin.rho == 0:
        return percent(100 - share)
    return f"stable's {'share' if row.family == ABANDONED else 'failures'} {_more(margin)}"


def _more(margin: Margin | Tolerance) -> str:
    parts = [f"{TIMES} {margin.rho:g}"] if margin.rho != 1 else []
    joint = "+" if isinstance(margin, Margin) or not parts else "or +"
    return " ".join([*parts, f"{joint} {100 * margin.delta:g} points"]) if margin.delta else " ".join(parts)


def _sentence(seen: str, verdict: Verdict, limit: str, numbers: Numbers, settings: Settings) -> str:
    if verdict is Verdict.HARM:
        return f"{seen}; the limit is {limit}; chance alone does that in less than {settings.alpha:.2g} of all runs"
    if verdict is Verdict.SAFE or not limit:
        return seen
    if numbers.harm is not None and numbers.harm >= _SUSPECT_PCT:
        return f"{seen}; {min(numbers.harm, 99):.0f} % of the evidence that it takes to roll it back"
    if numbers.needed is None:
        return f"{seen}; it is not shown to be within the limit of {limit}"
    more = f"; about {count(numbers.needed, 'more request')} to the candidate show whether it is within {limit}"
    return seen + more


def worst_of(judged: list[Finding]) -> tuple[Verdict, str]:
    """Return the verdict of all metrics and the sentence of the first that made it."""
    verdicts = {finding.verdict for finding in judged}
    verdict = next((each for each in (Verdict.HARM, Verdict.UNDECIDED) if each in verdicts), Verdict.SAFE)
    speaking = [finding for finding in judged if finding.verdict is verdict]
    if not speaking:
        return Verdict.SAFE, "nothing is limited, so nothing is judged"
    others = len(speaking) - 1
    if verdict is Verdict.SAFE:
        return verdict, speaking[0].message + (f"; all {len(judged)} metrics are within their limits" if others else "")
    also = {Verdict.HARM: "harmful", Verdict.UNDECIDED: "undecided"}[verdict]
    more = f"; {count(others, 'other metric')} {'is' if others == 1 else 'are'} {also} too" if others else ""
    return verdict, speaking[0].message + more


def _rate(counts: Counts) -> float | None:
    return 100 * (1 - counts.failures / counts.requests) if counts.requests else None
