"""The kinds of numbers that a traffic model is made of."""

from typing import Annotated

from pydantic import AfterValidator, Field

from serinus.api.base import Duration, seconds


def _some_time(duration: str) -> str:
    if seconds(duration) <= 0:
        raise ValueError(f'"{duration}" is no time at all; write for example "1s"')
    return duration


Percent = Annotated[float, Field(ge=0, le=100)]
"""A share in percent, or percentage points."""

Factor = Annotated[float, Field(ge=0, le=1000)]
"""What an error rate is multiplied by."""

Slowing = Annotated[float, Field(ge=0.01, le=1000)]
"""What a latency is multiplied by."""

PerSecond = Annotated[float, Field(ge=0, le=1_000_000)]
"""Requests per second."""

Sigma = Annotated[float, Field(ge=0.05, le=5)]
"""Standard deviation of a latency's logarithm."""

SomeTime = Annotated[Duration, AfterValidator(_some_time)]
"""A duration above zero."""
