"""Conditions on requests, as TrafficPolicies have them in routes and faults."""

from typing import Annotated, Literal

from pydantic import Field

from serinus.api.base import Strict

Method = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
"""Methods that change nothing (RFC 9110, 9.2.1)."""


class StringMatch(Strict):
    """How one string is compared. Exactly one field is set."""

    exact: Annotated[str, Field(max_length=1024)] | None = None
    """The whole string."""
    prefix: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """The string's beginning."""
    regex: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """An RE2 expression that the whole string matches."""
    present: bool | None = None
    """Whether the header is there at all."""


class HeaderMatch(StringMatch):
    """A condition on one request header. Exactly one of `exact`, `prefix`, `regex`, `present` is set."""

    name: Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[A-Za-z0-9-]+$")]
    """Name of the header, in any case."""


class PathMatch(Strict):
    """A condition on the request's path, without its query. Exactly one field is set."""

    exact: Annotated[str, Field(pattern=r"^/", max_length=1024)] | None = None
    """The whole path."""
    prefix: Annotated[str, Field(pattern=r"^/", max_length=1024)] | None = None
    """The path's beginning, in whole segments: `/a` matches `/a` and `/a/b`, not `/ab`."""
    regex: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """An RE2 expression that the whole path matches."""


class Match(Strict):
    """Conditions on a request; all that are given must hold. Without any, every request matches."""

    path: PathMatch | None = None
    """Condition on the path."""
    methods: Annotated[list[Method], Field(min_length=1, max_length=7)] | None = None
    """The request's method is one of these."""
    headers: Annotated[list[HeaderMatch], Field(min_length=1, max_length=16)] | None = None
    """Conditions on headers; all must hold."""
