"""A release, or several, as one HTML page that needs nothing else."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import jinja2

from serinus.resources import data
from serinus.simulation.charts import draw
from serinus.simulation.release import Release
from serinus.simulation.summary import Summary, spread, verdict, way, whole

_TEMPLATE = "report/simulation.html.j2"


@lru_cache(maxsize=1)
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: data("templates").joinpath(name).read_text("utf-8")),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"verdict": verdict, "way": way, "whole": whole, "evidence": _evidence, "spread": spread}
    return environment.get_template(_TEMPLATE)


def _evidence(value: float | None) -> str:
    return "" if value is None else f"{value:.0f} %"


def page(title: str, releases: Sequence[Release], notes: Sequence[str]) -> str:
    """Return the page: the first release in charts and figures, and all of them in a table if they are several.

    Args:
        title: what was simulated.
        releases: one at least.
        notes: sentences about what the simulation leaves out.
    """
    first = releases[0]
    values: dict[str, Any] = {
        "title": title,
        "first": first,
        "releases": releases if len(releases) > 1 else (),
        "summary": Summary.of(releases),
        "notes": notes,
        "drawing": draw(first),
    }
    return _template().render(**values) + "\n"
