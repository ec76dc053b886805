"""The first judge: what was measured against limits, with "by chance" taken seriously.

``judge`` is harm only where a limit is exceeded beyond chance (``serinus.analysis.sequential``), safe only where enough
requests were seen and every number is within its limit, and undecided otherwise. Each metric may wrongly be called
harmful at one step with probability ``ALPHA`` at most, however often it is looked at.
"""

from serinus.analysis.latency import judge_latency, show_latency
from serinus.analysis.model import Evidence, Finding, Judgement, Reading, Verdict
from serinus.analysis.queries import judge_queries
from serinus.analysis.sequential import FEWEST_BAD, STABLE_NEEDED, harm_log, log_e_difference, log_e_share
from serinus.analysis.words import MINUS, count, percent
from serinus.api.canary import Analysis


def judge(spec: Analysis, window: Evidence, readings: tuple[Reading, ...], state: dict[str, object]) -> Judgement:
    """Return what the evidence says of the candidate at the present step.

    Args:
        spec: the limits.
        window: what both versions did since every sidecar had the step's weight in force, all of it, not what is new.
            At weight 100, where nothing reaches the stable version, the caller passes the last window that had both.
        readings: answers to the queries, oldest first; an answer that was passed before does not count twice.
        state: ``Judgement.state`` of the last call at this step; empty at the first, which only notes the sequences of
            readings that are there: they are of the time before, and do not count.

    Returns:
        HARM if any metric says so, SAFE if all that have limits do, else UNDECIDED; with a sentence on what decided.
    """
    queries, kept = judge_queries(spec, readings, state)
    judged = [judge_success(spec, window), *queries]
    shown = []
    if spec.latency:
        judged.insert(1, judge_latency(spec.latency, spec.min_requests, window))
    elif finding := show_latency(window):
        shown.append(finding)
    verdict = _worst([finding.verdict for finding in judged])
    return Judgement(verdict, _message(judged, verdict), (*judged, *shown), kept)


def judge_success(spec: Analysis, window: Evidence) -> Finding:
    """Return what the success rate says: against ``min``, and against the stable version's less ``maxDrop``.

    Without a request to the stable version ``min`` decides; without ``min`` too, nothing can.
    """
    candidate, stable = window.candidate, window.stable
    limits = spec.success_rate
    rate = _rate(candidate.requests, candidate.failures)
    stable_rate = _rate(stable.requests, stable.failures)
    drop = limits.max_drop if limits.max_drop is not None and limits.max_drop < 100 else None
    lowest = _lowest(limits.min, drop, stable_rate)

    def finding(verdict: Verdict, words: str, limit: str = "") -> Finding:
        return Finding("success-rate", verdict, rate, stable_rate, limit or _limit_words(*lowest), message=words)

    if rate is None:
        return finding(Verdict.UNDECIDED, f"no request to the candidate yet; {spec.min_requests:,} are needed")
    seen = f"success rate {percent(rate)} of {count(candidate.requests, 'request')}"

    if candidate.failures >= FEWEST_BAD:
        bad = (candidate.failures, candidate.requests)
        if limits.min is not None and log_e_share(*bad, 1 - limits.min / 100) >= harm_log(2):
            words = _limit_words(limits.min, None, None)
            return finding(Verdict.HARM, f"{seen}; the limit is {words}", words)
        stable_bad = (stable.failures, stable.requests)
        if drop is not None and log_e_difference(*bad, *stable_bad, drop / 100) >= harm_log(2):
            words = _limit_words(*_lowest(None, drop, stable_rate))
            return finding(Verdict.HARM, f"{seen}; the limit is {words}", words)

    wanted = []
    if (missing := spec.min_requests - candidate.requests) > 0:
        wanted.append(f"{count(missing, 'more request')} to the candidate")
    if drop is not None and (limits.min is None or stable.requests):
        missing = min(spec.min_requests, STABLE_NEEDED) - stable.requests
        if missing > 0:
            wanted.append(f"{count(missing, 'more request')} to the stable version, to compare with")
    if wanted:
        return finding(Verdict.UNDECIDED, f"{seen}; needed: {' and '.join(wanted)}")
    if lowest[0] is not None and rate < lowest[0] - 1e-9:
        words = f"{seen} is below the limit of {_limit_words(*lowest)}, by no more than chance may do; waiting for more"
        return finding(Verdict.UNDECIDED, words)
    against = f" (stable {percent(stable_rate)})" if stable_rate is not None else ""
    return finding(Verdict.SAFE, f"{seen}{against}")


def _rate(requests: int, failures: int) -> float | None:
    return 100 * (1 - failures / requests) if requests else None


Lowest = tuple[float | None, float | None, float | None]
"""The lowest rate that is good, and, when it comes from a comparison, stable's rate and the drop."""


def _lowest(minimum: float | None, drop: float | None, stable_rate: float | None) -> Lowest:
    compared = max(stable_rate - drop, 0.0) if stable_rate is not None and drop is not None else None
    if compared is not None and (minimum is None or compared > minimum):
        return compared, stable_rate, drop
    return minimum, None, None


def _limit_words(lowest: float | None, stable_rate: float | None, drop: float | None) -> str:
    if lowest is None:
        return ""
    if stable_rate is None or drop is None:
        return percent(lowest)
    return f"{percent(lowest)} (stable {percent(stable_rate)} {MINUS} {drop:g})"


def _worst(verdicts: list[Verdict]) -> Verdict:
    if Verdict.HARM in verdicts:
        return Verdict.HARM
    return Verdict.UNDECIDED if Verdict.UNDECIDED in verdicts else Verdict.SAFE


def _message(judged: list[Finding], verdict: Verdict) -> str:
    """Return the sentence of the first metric that made the verdict, and how many others say the same."""
    speaking = [finding for finding in judged if finding.verdict == verdict]
    others = len(speaking) - 1
    if verdict == Verdict.SAFE:
        kept = f"; all {len(judged)} metrics are within their limits" if others else ""
        return speaking[0].message + kept
    also = {Verdict.HARM: "is harmful", Verdict.UNDECIDED: "is undecided"}[verdict]
    plural = also.replace("is ", "are ")
    more = f"; {count(others, 'other metric')} {also if others == 1 else plural} too" if others else ""
    return speaking[0].message + more
