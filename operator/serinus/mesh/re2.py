"""Whether Envoy takes a regular expression: one for Python, in the part of the language that RE2 shares. Pure.

Envoy uses RE2 (https://github.com/google/re2/wiki/Syntax), which has neither look-around nor back-references and limits
counted repetition. Some rare expressions that RE2 would take are refused too; none that it refuses are taken knowingly.
"""

import re

_TOKEN = re.compile(
    r"(?P<set>\[\^?\]?(?:\\.|[^\]\\])*\])|(?P<escape>\\.)|(?P<group>\(\?(?:<[=!]|P<|[^:)<>=!]*.))|(?P<possessive>[*+?}]\+)"
    r"|\{(?P<counts>\d[\d,]*|,\d+)\}|.",
    re.DOTALL,
)
_ESCAPE = re.compile(r"\\(?:[aftnrvdDsSwWbBAx0]|[^\w]|_)", re.ASCII)
_GROUP = re.compile(r"\(\?(?::|P<|[ims]*-?[ims]+[:)])")
_MOST_REPEATS = 1000
"""RE2's limit on counted repetition, and on the product of nested ones."""


def fault(regex: str) -> str | None:
    """Return what keeps Envoy from taking ``regex``, as the end of a sentence that starts with it, or None."""
    try:
        re.compile(regex)
    except re.error as error:
        return f"is not a valid regular expression: {error}"
    repeats = 1
    for token in _TOKEN.finditer(regex):
        kind, text = token.lastgroup, token[0]
        if kind == "counts":
            repeats *= max(1, *(int(count) for count in token["counts"].split(",") if count))
        odd = _odd(kind, text)
        if odd is not None:
            return f'has "{odd}", which RE2 does not know; write it without look-around, back-references and the like'
    return f"repeats up to {repeats} times, more than {_MOST_REPEATS}" if repeats > _MOST_REPEATS else None


def _odd(kind: str | None, text: str) -> str | None:
    """Return the part of a token that only Python knows."""
    if kind in ("set", "escape"):
        return next((each for each in re.findall(r"\\.", text, re.DOTALL) if not _accepted(each)), None)
    if kind == "possessive" or (kind == "group" and not _GROUP.match(text)):
        return text
    return None


def _accepted(escape: str) -> bool:
    return escape.isascii() and _ESCAPE.fullmatch(escape) is not None
