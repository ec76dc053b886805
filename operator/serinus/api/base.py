"""What all our models share: strictness, durations, percentages, metadata."""

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema
from pydantic.alias_generators import to_camel

_DURATION = re.compile(r"^(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?(?:(\d+)ms)?$")
DURATION_PATTERN = r"^([0-9]+h)?([0-9]+m)?([0-9]+(\.[0-9]+)?s)?([0-9]+ms)?$"


def seconds(duration: str) -> float:
    """Return the seconds in a duration such as ``1h30m``, ``45s`` or ``250ms``.

    Raises:
        ValueError: with a sentence that says what to write instead.
    """
    found = _DURATION.match(duration)
    if not duration or not found:
        raise ValueError(f'"{duration}" is not a duration; write for example "30s", "5m", "1h30m" or "250ms"')
    hours, minutes, secs, millis = found.groups()
    return int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(secs or 0) + int(millis or 0) / 1000


def _checked(duration: str) -> str:
    seconds(duration)
    return duration


Duration = Annotated[
    str,
    AfterValidator(_checked),
    WithJsonSchema({"type": "string", "pattern": DURATION_PATTERN, "minLength": 2, "maxLength": 32}),
]
"""A duration as Kubernetes writes it: ``30s``, ``5m``, ``1h30m``, ``250ms``."""

Name = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
"""The name of an object in Kubernetes."""


class Strict(BaseModel):
    """A part of a resource's spec: camelCase outside, snake_case inside, frozen, and no field that we do not know.

    ``Model.model_validate(raw)`` refuses unknown fields; ``parse_live`` (see ``serinus.api``) drops them first, so that
    an older operator survives a newer resource definition.
    """

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True, use_attribute_docstrings=True
    )


class Lenient(BaseModel):
    """A part of a resource's status: like ``Strict``, but a field that we do not know is left out."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True, use_attribute_docstrings=True
    )
