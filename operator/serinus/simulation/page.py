"""A release, or several, as one HTML page that needs nothing else."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import jinja2

from serinus.reports import rendered, template
from serinus.simulation.charts import draw
from serinus.simulation.release import Release
from serinus.simulation.summary import Summary, spread, verdict, way, whole


@lru_cache(maxsize=1)
def _template() -> jinja2.Template:
    return template("simulation.html.j2", {"verdict": verdict, "way": way, "whole": whole, "spread": spread})


def page(title: str, releases: Sequence[Release], notes: Sequence[str], experiments: Sequence[object] = ()) -> str:
    """Return the page: the first release in charts and figures, and all of them in a table if they are several.

    Args:
        title: what was simulated.
        releases: one at least.
        notes: sentences about what the simulation leaves out.
        experiments: those of the first release, as ``serinus.cli.verdict_page`` tells of them.
    """
    first = releases[0]
    values: dict[str, Any] = {
        "title": title,
        "first": first,
        "releases": releases if len(releases) > 1 else (),
        "summary": Summary.of(releases),
        "notes": notes,
        "experiments": experiments,
        "drawing": draw(first),
    }
    return rendered(_template(), values)
