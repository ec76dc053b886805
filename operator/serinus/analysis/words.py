"""Numbers as people read them, the same in every finding."""

from math import ceil

TIMES = "\N{MULTIPLICATION SIGN}"


def percent(value: float) -> str:
    """Return ``99.9 %``; with as many digits as it takes not to call 99.97 % a hundred, at most three."""
    for digits in (1, 2, 3):
        rounded = round(value, digits)
        if rounded not in (0, 100) or rounded == value:
            break
    return f"{rounded:.{digits}f}".rstrip("0").rstrip(".") + " %"


def count(number: int, noun: str) -> str:
    """Return ``1 request`` or ``1,234 requests``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def milliseconds(value: float) -> str:
    """Return ``12.5 ms`` or ``1.2 s``."""
    return f"{value / 1000:.3g} s" if value >= 1000 else f"{value:.3g} ms"


def plain(value: float) -> str:
    """Return a number of the user's own, in four digits at most where it is no whole number."""
    return f"{value:,.0f}" if abs(value) < 1e15 and float(value).is_integer() else f"{value:.4g}"


def lasting(seconds: float) -> str:
    """Return a time as people say it: ``40 s``, ``12 min``, ``5 h``, ``4 days``."""
    if seconds <= 120:
        return f"{ceil(max(seconds, 0.0))} s"
    if seconds <= 10_800:
        return f"{ceil(seconds / 60)} min"
    return f"{seconds / 3_600:.0f} h" if seconds < 259_200 else count(round(seconds / 86_400), "day")
