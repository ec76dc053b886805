"""What the tests have come to, as plain JSON for a Canary's status, and back, bit for bit.

Numbers are written as Python and Go write them, in the fewest digits that read back as the same double.
"""

from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, get_type_hints

import numpy as np

from serinus.analysis.monitor import Watched

T = TypeVar("T")
_PLAIN = (int, float)


def dump(watched: Watched) -> dict[str, Any]:
    """Return what is known of one release."""
    return _dumped(watched)


def _dumped(part: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, kind in _parts(type(part)):  # type: ignore[arg-type]
        value = getattr(part, name)
        if kind in _PLAIN:
            found[name] = value
        elif isinstance(value, np.ndarray):
            found[name] = value[..., 0].tolist()
        else:
            found[name] = _dumped(value)
    return found


@cache
def _parts(kind: type[Any]) -> tuple[tuple[str, Any], ...]:
    """Return name and type of every field; looked up once, for this is done for every Canary at every scrape."""
    hints = get_type_hints(kind)
    return tuple((each.name, hints[each.name]) for each in fields(kind))


def load(raw: dict[str, Any]) -> Watched:
    """Return what ``dump`` wrote.

    Raises:
        KeyError, ValueError, TypeError: it is something else.
    """
    return _loaded(Watched, raw)


def _loaded(kind: type[T], raw: dict[str, Any]) -> T:
    values: dict[str, Any] = {}
    for name, hint in _parts(kind):  # type: ignore[arg-type]
        value = raw[name]
        if hint in _PLAIN:
            values[name] = hint(value)
        elif is_dataclass(hint):
            values[name] = _loaded(hint, value)  # type: ignore[arg-type]
        else:
            values[name] = np.array(value, np.float64)[..., None]
    return kind(**values)
