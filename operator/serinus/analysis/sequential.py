"""Tests on counts that may be looked at as often as one likes: e-processes against "the limit is kept".

An e-process starts at 1 and, while the limit is kept, exceeds ``1 / alpha`` at any time whatever with probability
``alpha`` at most (Ville's inequality), so that looking every two seconds costs nothing. These keep no state; the checks
of ``serinus.analysis.guards`` use them. They are the universal-inference ratio: the likelihood of the counts averaged
over a prior (Jeffreys' Beta(1/2, 1/2) on each share), divided by the greatest likelihood that any shares within the
limit give them. Exact for every sample size and any split of the traffic.

Source: Wasserman, Ramdas, Balakrishnan, "Universal inference", PNAS 2020, arXiv 1912.11436, section 8 (running
likelihood ratios); for mixtures Ramdas, Grünwald, Vovk, Shafer, "Game-theoretic statistics and safe anytime-valid
inference", 2023, arXiv 2210.01948.
"""

from math import inf, lgamma, log

_BISECTIONS = 60


def log_e_share(bad: int, tries: int, limit: float) -> float:
    """Return the logarithm of the evidence that a share of bad tries is greater than ``limit``.

    Args:
        bad: bad tries among ``tries``.
        tries: all tries.
        limit: the greatest share that is good, 0 to 1.
    """
    if not tries:
        return 0.0
    return _log_mixture(bad, tries) - _log_likelihood(bad, tries, min(bad / tries, limit))


def log_e_difference(bad: int, tries: int, stable_bad: int, stable_tries: int, margin: float) -> float:
    """Return the logarithm of the evidence that the candidate's share of bad tries exceeds stable's by over ``margin``.

    Args:
        bad: the candidate's bad tries among its ``tries``.
        tries: all tries of the candidate.
        stable_bad: the stable version's bad tries among its ``stable_tries``.
        stable_tries: all tries of the stable version.
        margin: the greatest difference of the shares that is good, 0 to 1.
    """
    if not tries or not stable_tries:
        return 0.0
    share, stable_share = bad / tries, stable_bad / stable_tries
    if share > stable_share + margin:
        stable_share = _nearest_within(bad, tries, stable_bad, stable_tries, margin)
        share = min(stable_share + margin, 1.0)
    mixture = _log_mixture(bad, tries) + _log_mixture(stable_bad, stable_tries)
    within = _log_likelihood(bad, tries, share) + _log_likelihood(stable_bad, stable_tries, stable_share)
    return mixture - within


def _nearest_within(bad: int, tries: int, stable_bad: int, stable_tries: int, margin: float) -> float:
    """Return stable's share at the likeliest point where the candidate's is just ``margin`` above.

    The logarithm of the likelihood is concave along that line; this finds the zero of its slope.
    """
    low, high = 0.0, 1.0 - margin
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        slope = _slope(bad, tries, middle + margin) + _slope(stable_bad, stable_tries, middle)
        low, high = (middle, high) if slope > 0 else (low, middle)
    return (low + high) / 2


def _slope(bad: int, tries: int, share: float) -> float:
    rising = bad / share if bad else 0.0
    falling = (tries - bad) / (1 - share) if tries > bad else 0.0
    return rising - falling


def _log_likelihood(bad: int, tries: int, share: float) -> float:
    if (bad and share <= 0) or (tries > bad and share >= 1):
        return -inf
    return (bad * log(share) if bad else 0.0) + ((tries - bad) * log(1 - share) if tries > bad else 0.0)


def _log_mixture(bad: int, tries: int) -> float:
    """Return the log-likelihood of the counts, averaged over Beta(1/2, 1/2)."""
    return _log_beta(bad + 0.5, tries - bad + 0.5) - _log_beta(0.5, 0.5)


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)
