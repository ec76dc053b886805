"""HTML reports: each is one page that needs nothing else, from a template in ``templates/report``."""

from collections.abc import Callable, Mapping
from typing import Any

import jinja2

from serinus.resources import data


def template(name: str, filters: Mapping[str, Callable[..., str]] | None = None) -> jinja2.Template:
    """Return a template that quotes what is put into it.

    Args:
        name: its file in ``templates/report``.
        filters: what it uses beside ``evidence``.
    """
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda path: data("templates").joinpath(path).read_text("utf-8")),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"evidence": _evidence, **(filters or {})}
    return environment.get_template(f"report/{name}")


def rendered(found: jinja2.Template, values: dict[str, Any]) -> str:
    """Return the page with its values."""
    return found.render(**values) + "\n"


def _evidence(value: float | None) -> str:
    return "" if value is None else f"{value:.0f} %"
