"""Render the templates: JSON in shape, every value passed through ``tojson``, a missing value is an error."""

import json
from functools import lru_cache
from typing import Any

import jinja2

from serinus.resources import data


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    # Not PackageLoader: templates lie beside the package in a checkout (see serinus.resources).
    return jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: data("templates").joinpath(name).read_text("utf-8")),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701 - JSON, not HTML; ``tojson`` quotes
        trim_blocks=True,
        lstrip_blocks=True,
    )


@lru_cache(maxsize=64)
def _template(name: str) -> jinja2.Template:
    return _environment().get_template(name)


def render_text(name: str, /, **values: Any) -> str:
    """Return the template ``name`` (such as ``inject/capture.rules.j2``), rendered."""
    return _template(name).render(**values)


def render(name: str, /, **values: Any) -> Any:
    """Return what the JSON template ``name`` (such as ``envoy/cluster.json.j2``) says with these values.

    Raises:
        jinja2.UndefinedError: the template names a value that was not given.
        json.JSONDecodeError: the template is not JSON; both are defects of ours, no input causes them.
    """
    return json.loads(render_text(name, **values))
