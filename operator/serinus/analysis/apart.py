"""How far a state that was computed again is from the recorded one."""

from math import inf, isinf, isnan
from typing import Any

ROUNDING = 1e-9
"""Other processors round logarithms otherwise in the last digit: up to so much, relative, results are the same."""


def apart(recorded: Any, reached: Any) -> float:
    """Return the greatest relative difference between two pieces of JSON; infinite when their shapes differ."""
    if isinstance(recorded, dict) and isinstance(reached, dict):
        if recorded.keys() != reached.keys():
            return inf
        return max((apart(recorded[key], reached[key]) for key in recorded), default=0.0)
    if isinstance(recorded, list | tuple) and isinstance(reached, list | tuple):
        if len(recorded) != len(reached):
            return inf
        return max((apart(*pair) for pair in zip(recorded, reached, strict=True)), default=0.0)
    if recorded == reached:
        return 0.0
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in (recorded, reached)):
        return inf
    if isnan(recorded) and isnan(reached):
        return 0.0
    difference = abs(recorded - reached) / max(abs(recorded), abs(reached), 1.0)
    return inf if isnan(difference) or isinf(difference) else difference
