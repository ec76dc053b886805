"""Users' PromQL: names filled in, and a light look at the syntax. Prometheus itself has the last word on a query."""

from functools import lru_cache

from jinja2 import StrictUndefined, TemplateSyntaxError, nodes
from jinja2.sandbox import SandboxedEnvironment

QUERY_NAMES = ("namespace", "target", "service", "revision", "stableRevision", "interval")
"""What may stand between ``{{`` and ``}}`` in a query."""

_ENVIRONMENT = SandboxedEnvironment(undefined=StrictUndefined, autoescape=False)
_CLOSING = {")": "(", "]": "[", "}": "{"}


@lru_cache(maxsize=1024)
def render_query(template: str, **names: str) -> str:
    """Return the query with every ``{{ name }}`` filled in. A run asks for the same ones at every look.

    Nothing but plain names is taken between the braces: no expressions, filters or statements, so that a query can
    neither read what it should not nor take time or memory without end.

    Raises:
        ValueError: with a sentence that says what to write instead.
    """
    known = ", ".join(names)
    try:
        tree = _ENVIRONMENT.parse(template)
    except TemplateSyntaxError as problem:
        raise ValueError(
            f"line {problem.lineno} of the query cannot be read: {problem.message}. "
            f"Write {{{{ name }}}} with one of the names {known}"
        ) from problem
    for node in _parts(tree):
        if isinstance(node, nodes.Name):
            if node.name not in names:
                raise ValueError(f"the query asks for {{{{ {node.name} }}}}, which is not known; the names are {known}")
        elif not isinstance(node, nodes.TemplateData):
            raise ValueError(
                f"line {node.lineno} of the query has more than a name between its braces; "
                f"only {{{{ name }}}} is filled in, with one of the names {known}"
            )
    return _ENVIRONMENT.from_string(template).render(names)


def check_promql(text: str) -> str | None:
    """Return a sentence about what is wrong with a query, or ``None``.

    Looked at are emptiness, brackets and quotes; comments and strings are skipped as PromQL does.
    """
    open_at: list[tuple[str, int]] = []
    said, at = False, 0
    while at < len(text):
        char = text[at]
        if char == "#":
            at = _after(text, "\n", at)
            continue
        if char in "\"'`":
            end = _string_end(text, at)
            if end is None:
                return f"the query's string that begins at {_place(text, at)} with {char} does not end; close it"
            said, at = True, end
            continue
        if char in "([{":
            open_at.append((char, at))
        elif char in _CLOSING:
            if not open_at:
                return f"the query has a {char} at {_place(text, at)} that nothing opens; remove it"
            opened, begin = open_at.pop()
            if opened != _CLOSING[char]:
                return f"the query's {opened} at {_place(text, begin)} is closed by a {char} at {_place(text, at)}"
        said = said or not char.isspace()
        at += 1
    if open_at:
        opened, begin = open_at[-1]
        return f"the query's {opened} at {_place(text, begin)} is not closed"
    return None if said else "the query is empty; write PromQL that gives one number"


def _parts(tree: nodes.Template) -> list[nodes.Node]:
    """Return the pieces of a template: text, names, and whatever else stands at the top."""
    found: list[nodes.Node] = []
    for node in tree.body:
        found += node.nodes if isinstance(node, nodes.Output) else [node]
    return found


def _string_end(text: str, begin: int) -> int | None:
    """Return where the string that begins at ``begin`` has ended. Backquotes know no escapes, the others no newline."""
    quote, at = text[begin], begin + 1
    while at < len(text):
        char = text[at]
        if char == quote:
            return at + 1
        if quote != "`":
            if char == "\n":
                return None
            if char == "\\":
                at += 1
        at += 1
    return None


def _after(text: str, mark: str, at: int) -> int:
    found = text.find(mark, at)
    return len(text) if found < 0 else found + 1


def _place(text: str, at: int) -> str:
    line = text.count("\n", 0, at) + 1
    column = at - (text.rfind("\n", 0, at) + 1) + 1
    return f"line {line}, column {column}"
