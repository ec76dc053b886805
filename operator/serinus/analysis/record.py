"""What the tests have come to, as plain JSON for a Canary's status, and back, bit for bit.

Numbers are written as Python and Go write them, in the fewest digits that read back as the same double.
"""

from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, get_type_hints

import numpy as np

from serinus.analysis.monitor import Watched

T = TypeVar("T")


def dump(watched: Watched) -> dict[str, Any]:
    """Return what is known of one release."""
    return _dumped(watched)


def _dumped(part: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for each in fields(part):
        value = getattr(part, each.name)
        if is_dataclass(value):
            found[each.name] = _dumped(value)
        elif isinstance(value, np.ndarray):
            found[each.name] = value[..., 0].tolist()
        else:
            found[each.name] = value
    return found


@cache
def _hints(kind: type[Any]) -> dict[str, Any]:
    return get_type_hints(kind)


def load(raw: dict[str, Any]) -> Watched:
    """Return what ``dump`` wrote.

    Raises:
        KeyError, ValueError, TypeError: it is something else.
    """
    return _loaded(Watched, raw)


def _loaded(kind: type[T], raw: dict[str, Any]) -> T:
    hints = _hints(kind)  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for each in fields(kind):  # type: ignore[arg-type]
        value, hint = raw[each.name], hints[each.name]
        if is_dataclass(hint):
            values[each.name] = _loaded(hint, value)  # type: ignore[arg-type]
        elif hint in (int, float):
            values[each.name] = hint(value)
        else:
            values[each.name] = np.asarray(value, dtype=np.float64)[..., None]
    return kind(**values)
