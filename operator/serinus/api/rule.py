"""What a rule is: one sentence about a spec, as CEL for the API server and as Python."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule on one model.

    ``cel`` and ``holds`` say the same of an object; ``field`` is the field that the message is about. ``cel`` is empty
    where the schema says it in another way, and ``holds`` is None where the rule is about a change. The message says
    what to write instead.
    """

    model: type[BaseModel]
    cel: str
    holds: Callable[[Any], bool] | None
    message: str
    field: str = ""


def exactly_one(*fields: str) -> Callable[[Any], bool]:
    """Return whether exactly one of the fields of an object is set."""
    return lambda part: sum(getattr(part, field) is not None for field in fields) == 1
