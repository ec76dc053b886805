"""Users' PromQL as text: names filled in, and the light check."""

import pytest

from serinus.analysis.promql import QUERY_NAMES, check_promql, render_query

NAMES = {
    "namespace": "demo",
    "target": "shop",
    "service": "shop",
    "revision": "abc",
    "stableRevision": "def",
    "interval": "10s",
}


def test_every_name_is_filled_in():
    assert set(NAMES) == set(QUERY_NAMES)
    template = " ".join(f"{{{{ {name} }}}}" for name in NAMES)
    assert render_query(template, **NAMES) == "demo shop shop abc def 10s"


def test_the_braces_of_promql_stay():
    query = 'sum(rate(errors{namespace="{{ namespace }}",hash="{{revision}}"}[{{ interval }}])) or vector(0)'
    expected = 'sum(rate(errors{namespace="demo",hash="abc"}[10s])) or vector(0)'
    assert render_query(query, **NAMES) == expected


@pytest.mark.parametrize(
    ("template", "words"),
    [
        pytest.param(
            "up{a='{{ pod }}'}",
            r"asks for \{\{ pod \}\}, which is not known; the names are namespace,",
            id="unknown name",
        ),
        pytest.param("up\n{{ namespace", "line 2 of the query cannot be read", id="braces that do not close"),
        pytest.param("{{ namespace.__class__ }}", "more than a name", id="an attribute"),
        pytest.param("{{ 'a' * 1000000000 }}", "more than a name", id="an expression without end"),
        pytest.param("{{ namespace | upper }}", "more than a name", id="a filter"),
        pytest.param("{% for i in range(9) %}x{% endfor %}", "more than a name", id="a loop"),
        pytest.param("{% include 'x' %}", "more than a name", id="an include"),
        pytest.param("{{ self }}", "is not known", id="what jinja itself defines"),
    ],
)
def test_what_cannot_be_filled_in_is_refused_with_the_names_that_can(template, words):
    with pytest.raises(ValueError, match=words) as caught:
        render_query(template, **NAMES)
    assert "stableRevision" in str(caught.value)


@pytest.mark.parametrize(
    "query",
    [
        pytest.param("up", id="a name"),
        pytest.param('sum by (a) (rate(x{a="b)("}[5m]))', id="brackets inside a string"),
        pytest.param('x{a="\\"]"}', id="an escaped quote"),
        pytest.param("x{a=`\\`}", id="a backquoted string knows no escapes"),
        pytest.param("up # it's (\n or vector(0)", id="a comment"),
    ],
)
def test_queries_that_pass(query):
    assert check_promql(query) is None


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        pytest.param("", "the query is empty; write PromQL that gives one number", id="empty"),
        pytest.param(" \n# only a comment", "the query is empty; write PromQL that gives one number", id="a comment"),
        pytest.param("sum(rate(x[5m])", "the query's ( at line 1, column 4 is not closed", id="not closed"),
        pytest.param("up)", "the query has a ) at line 1, column 3 that nothing opens; remove it", id="not opened"),
        pytest.param(
            "sum(\n  x[5m)]", "the query's [ at line 2, column 4 is closed by a ) at line 2, column 7", id="crossed"
        ),
        pytest.param(
            'x{a="b}',
            "the query's string that begins at line 1, column 5 with \" does not end; close it",
            id="a string that does not end",
        ),
        pytest.param(
            'x{a="b\n"}',
            "the query's string that begins at line 1, column 5 with \" does not end; close it",
            id="a string over two lines",
        ),
    ],
)
def test_queries_that_do_not_and_the_sentence(query, sentence):
    assert check_promql(query) == sentence
