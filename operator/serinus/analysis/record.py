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
    for name, plain, nested in _parts(type(part)):  # type: ignore[arg-type]
        value = getattr(part, name)
        found[name] = value if plain else _dumped(value) if nested else value[..., 0].tolist()
    return found


@cache
def _parts(kind: type[Any]) -> tuple[tuple[str, type[Any] | None, type[Any] | None], ...]:
    """Return every field's name, and its type if that is a number, or else if that is a record itself.

    Looked up once, for this is done for every Canary at every scrape.
    """
    hints = get_type_hints(kind)
    return tuple(
        (
            each.name,
            hints[each.name] if hints[each.name] in (int, float) else None,
            hints[each.name] if is_dataclass(hints[each.name]) else None,
        )
        for each in fields(kind)
    )


def load(raw: dict[str, Any]) -> Watched:
    """Return what ``dump`` wrote.

    Raises:
        KeyError, ValueError, TypeError: it is something else.
    """
    return _loaded(Watched, raw)


def _loaded(kind: type[T], raw: dict[str, Any]) -> T:
    values: dict[str, Any] = {}
    for name, plain, nested in _parts(kind):  # type: ignore[arg-type]
        value = raw[name]
        if plain:
            values[name] = plain(value)
        elif nested:
            values[name] = _loaded(nested, value)
        else:
            values[name] = np.array(value, np.float64)[..., None]
    return kind(**values)
