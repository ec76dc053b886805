"""What can be said about a Canary's queries before any Prometheus is asked."""

from serinus.analysis.promql import QUERY_NAMES, check_promql, render_query
from serinus.analysis.questions import Question, questions
from serinus.api.canary import CanarySpec

_EXAMPLES = dict.fromkeys(QUERY_NAMES, "x") | {"interval": "1m"}


def check_queries(spec: CanarySpec) -> list[str]:
    """Return a sentence for every query in ``spec.analysis`` that cannot be one, with its place in the spec."""
    found = _check_requests(spec)
    for index, metric in enumerate(spec.analysis.metrics):
        asked = {question.field: question for question in questions(metric)}
        for field, question in asked.items():
            if sentence := _wrong(question):
                found.append(f"spec.analysis.metrics[{index}].{field}: {sentence}")
    return found


def _check_requests(spec: CanarySpec) -> list[str]:
    queries = spec.analysis.requests
    if queries is None:
        return []
    found = []
    for field, query in queries.model_dump(exclude_none=True).items():
        if sentence := _wrong(Question(field, field, query, compared=True)):
            found.append(f"spec.analysis.requests.{field}: {sentence}")
    return found


def _wrong(question: Question) -> str | None:
    try:
        query = render_query(question.template, **_EXAMPLES)
        other = render_query(question.template, **_EXAMPLES | {"revision": "y"})
    except ValueError as problem:
        return str(problem)
    if question.compared and query == other:
        return (
            "the query gives the same number for both versions; write {{ revision }} where the version is told by, "
            'for example pod=~".*-{{ revision }}-.*"'
        )
    return check_promql(query)
