"""What can be said about a Canary's queries before any Prometheus is asked."""

from serinus.analysis.promql import QUERY_NAMES, check_promql, render_query
from serinus.api.canary import CanarySpec

_EXAMPLES = dict.fromkeys(QUERY_NAMES, "x") | {"interval": "1m"}


def check_queries(spec: CanarySpec) -> list[str]:
    """Return a sentence for every query in ``analysis.metrics`` that cannot be one, with its place in the spec."""
    found = []
    for index, metric in enumerate(spec.analysis.metrics):
        try:
            sentence = check_promql(render_query(metric.query, **_EXAMPLES))
        except ValueError as problem:
            sentence = str(problem)
        if sentence:
            found.append(f"spec.analysis.metrics[{index}].query: {sentence}")
    return found
