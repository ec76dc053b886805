"""``serinus lint``: files in, sentences with their places out; with ``--cluster`` also what stands in the way there."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from serinus.cli import session
from serinus.cli.app import app
from serinus.cli.session import Exit
from serinus.kube.kinds import CANARY, DEPLOYMENT, POD_DISRUPTION_BUDGET, RESOURCE_QUOTA, SERVICE, Kind

GOOD = """
apiVersion: serinus.dev/v1alpha1
kind: Canary
metadata: {name: cart}
spec:
  targetRef: {name: cart}
  strategy:
    steps:
    - weight: 10
      for: 30s
    - approval: look at sales
    - weight: 50
"""
POLICY = """
apiVersion: serinus.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: cart}
spec:
  targetRef: {name: cart}
  timeout: 2s
  routes:
  - name: search
    match: {path: {prefix: /search}}
    timeout: 500ms
"""
FOREIGN = """
apiVersion: v1
kind: ConfigMap
metadata: {name: other}
data: {on: "true"}
"""


def lint(tmp_path: Path, *texts: str, arguments: tuple[str, ...] = ()) -> Any:
    file = tmp_path / "canary.yaml"
    file.write_text("\n---\n".join(texts))
    return CliRunner().invoke(app, ["lint", str(file), *arguments])


def lines(result: Any, tmp_path: Path) -> list[str]:
    return [line.removeprefix(f"{tmp_path}/") for line in result.stdout.splitlines()]


def test_good_files_have_no_problem_and_foreign_kinds_are_left_alone(tmp_path: Path) -> None:
    result = lint(tmp_path, GOOD, FOREIGN, POLICY)
    assert result.exit_code == Exit.DONE
    assert result.stdout == ""
    assert result.stderr == "2 resources, no problems.\n"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        pytest.param(
            GOOD.replace("weight: 50", "weight: 200"),
            "canary.yaml:2:spec.strategy.steps[2].weight: 200 is more than 100; write a whole number from 0 to 100",
            id="a weight above 100",
        ),
        pytest.param(
            GOOD.replace("weight: 50", "weight: 5"),
            "canary.yaml:2:spec.strategy.steps: weights may not fall from one step to the next; write them in rising"
            " order",
            id="a weight that falls",
        ),
        pytest.param(
            GOOD.replace("for: 30s", "fro: 30s"),
            "canary.yaml:2:spec.strategy.steps[0].fro: there is no such field; write for",
            id="a field that does not exist",
        ),
        pytest.param(
            GOOD.replace("v1alpha1", "v1"),
            "canary.yaml:2:apiVersion: serinus.dev/v1 is not known; write serinus.dev/v1alpha1",
            id="a version that does not exist",
        ),
        pytest.param(
            GOOD.replace("kind: Canary", "kind: Canaries"),
            "canary.yaml:2:kind: there is no kind Canaries in serinus.dev; write Canary or TrafficPolicy",
            id="a kind that does not exist",
        ),
        pytest.param(
            GOOD.replace("{name: cart}\nspec", "{}\nspec"),
            "canary.yaml:2:metadata.name: this field is missing; write a name",
            id="no name",
        ),
        pytest.param(
            GOOD.replace("{name: cart}\nspec", "{name: " + "x" * 64 + "}\nspec"),
            "canary.yaml:2:metadata.name: the name goes into a label on the target, which may have 63 characters; write"
            " a shorter name",
            id="a name that fits no label",
        ),
        pytest.param(
            GOOD.partition("spec:")[0],
            "canary.yaml:2:spec: this field is missing; write a block with fields",
            id="no spec",
        ),
        pytest.param(
            GOOD.replace("      for: 30s", "      for: 30s\n      weight: 20"),
            "canary.yaml:2:this is not YAML in line 25, column 7: weight stands twice",
            id="a key that stands twice",
        ),
        pytest.param(
            GOOD + "  analysis: [",
            "canary.yaml:2:this is not YAML in line 27, column 14: expected the node content",
            id="text that is no YAML",
        ),
        pytest.param(
            GOOD + "  analysis: {prometheus: {address: http://p}, metrics: [{name: a, query: sum(x, max: 1}]}",
            "canary.yaml:2:spec.analysis.metrics[0].query: the query's ( at line 1, column 4 is not closed",
            id="a query that is none",
        ),
        pytest.param(
            GOOD
            + '  analysis: {prometheus: {address: http://p}, metrics: [{name: a, query: "x{n={{ ns }}}", max: 1}]}',
            "canary.yaml:2:spec.analysis.metrics[0].query: the query asks for {{ ns }}, which is not known; the names",
            id="a query with a name that is not filled in",
        ),
        pytest.param(
            POLICY.replace("timeout: 500ms", "timeout: 500ms\n    retries: {perTryTimeout: 1s}"),
            "canary.yaml:2:spec.routes[0].retries: one try may not take longer than the whole request; write a"
            " perTryTimeout of at most the timeout",
            id="a policy whose try is longer than its request",
        ),
        pytest.param(
            GOOD.replace("name: cart}\nspec", "name: second}\nspec"),
            "has the same target; drop one of the two",
            id="two canaries of one target",
        ),
    ],
)
def test_a_problem_stands_with_file_document_and_path(tmp_path: Path, text: str, line: str) -> None:
    result = lint(tmp_path, GOOD, text)
    assert result.exit_code == Exit.REFUSED
    found = lines(result, tmp_path)
    assert any(line in one for one in found), found
    assert "problem" in result.stderr


def test_all_problems_of_all_files_are_told_at_once(tmp_path: Path) -> None:
    bad = GOOD.replace("weight: 10", "weight: -1").replace("for: 30s", "for: soon").replace("approval", "aproval")
    result = lint(tmp_path, bad, POLICY.replace("timeout: 2s", "timeout: 2"))
    assert len(lines(result, tmp_path)) == 4
    assert result.stderr == "2 resources, 4 problems.\n"


def test_a_hint_is_no_problem(tmp_path: Path) -> None:
    result = lint(tmp_path, POLICY.replace("prefix: /search", 'regex: "/(?=a).*"'))
    assert result.exit_code == Exit.DONE
    assert "hint: spec.routes[0].match.path.regex: this expression looks ahead or behind" in result.stdout


def test_a_folder_is_looked_through(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.yml").write_text(GOOD)
    (tmp_path / "deep" / "notes.txt").write_text("kind: [")
    assert CliRunner().invoke(app, ["lint", str(tmp_path)]).stderr == "1 resource, no problems.\n"


def test_standard_input_is_a_file_too() -> None:
    result = CliRunner().invoke(app, ["lint", "-"], input=GOOD.replace("weight: 10", "weight: 0"))
    assert result.stdout.startswith("-:1:spec.strategy.steps: a step with weight 0")


def test_a_file_without_resources_of_ours_is_not_silently_good(tmp_path: Path) -> None:
    result = lint(tmp_path, FOREIGN)
    assert result.exit_code == Exit.REFUSED
    assert "There is no Canary and no TrafficPolicy in" in result.stderr


def test_a_file_that_is_not_there_is_a_sentence() -> None:
    result = CliRunner().invoke(app, ["lint", "/nowhere.yaml"])
    assert result.exit_code == Exit.MISSING
    assert result.stderr == "/nowhere.yaml cannot be read: No such file or directory\n"


# With a cluster


def named(name: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": spec}


LABELS = {"app": "cart", "tier": "web"}
TARGET = named("cart", replicas=3, template={"metadata": {"labels": LABELS}, "spec": {"containers": [{"name": "a"}]}})
HTTP = {"clusterIP": "10.0.0.1", "selector": {"app": "cart"}, "ports": [{"port": 80, "name": "http"}]}
WELL = [(DEPLOYMENT, TARGET), (SERVICE, named("cart", **HTTP))]


class FakeKube:
    def __init__(self, objects: list[tuple[Kind, dict[str, Any]]]) -> None:
        self.objects = objects

    async def list(self, kind: Kind, namespace: str | None = None) -> list[dict[str, Any]]:
        return [body for known, body in self.objects if known is kind]

    async def get(self, kind: Kind, name: str, namespace: str | None = None) -> dict[str, Any]:
        from serinus.kube.errors import NotFound

        for body in await self.list(kind):
            if body["metadata"]["name"] == name:
                return body
        raise NotFound("not found", status=404)


@pytest.mark.parametrize(
    ("objects", "sentence", "status"),
    [
        pytest.param(WELL, "", Exit.DONE, id="all is well"),
        pytest.param(WELL[1:], "there is no Deployment cart in shop", Exit.REFUSED, id="no target"),
        pytest.param(WELL[:1], "spec.service: there is no Service cart in shop", Exit.REFUSED, id="no Service"),
        pytest.param(
            [*WELL[:1], (SERVICE, named("cart", **(HTTP | {"selector": None})))],
            "spec.service: Service cart has no selector",
            Exit.REFUSED,
            id="a Service without a selector",
        ),
        pytest.param(
            [*WELL, (SERVICE, named("peers", **(HTTP | {"publishNotReadyAddresses": True})))],
            "Service peers selects the target's pods and publishes not-ready addresses",
            Exit.REFUSED,
            id="another Service that serves pods that are not ready",
        ),
        pytest.param(
            [*WELL, (SERVICE, named("peers", **(HTTP | {"publishNotReadyAddresses": True, "selector": {"app": "x"}})))],
            "",
            Exit.DONE,
            id="another Service that selects other pods",
        ),
        pytest.param(
            [*WELL, (CANARY, named("older", targetRef={"name": "cart"}))],
            "Canary older in shop has the same target",
            Exit.REFUSED,
            id="another Canary of the same target",
        ),
        pytest.param(
            [*WELL, (CANARY, named("cart", targetRef={"name": "cart"}))], "", Exit.DONE, id="the same Canary, applied"
        ),
        pytest.param(
            [*WELL, (POD_DISRUPTION_BUDGET, named("b", maxUnavailable=1, selector={"matchLabels": {"app": "cart"}}))],
            "hint: spec.candidate: PodDisruptionBudget b has maxUnavailable",
            Exit.DONE,
            id="a budget with maxUnavailable",
        ),
        pytest.param(
            [*WELL, (POD_DISRUPTION_BUDGET, named("b", minAvailable="50%", selector={"matchLabels": {"app": "cart"}}))],
            "hint: spec.candidate: PodDisruptionBudget b is in percent (50%)",
            Exit.DONE,
            id="a budget in percent",
        ),
        pytest.param(
            [*WELL, (POD_DISRUPTION_BUDGET, named("b", minAvailable=1, selector={"matchLabels": {"app": "cart"}}))],
            "",
            Exit.DONE,
            id="a budget in numbers",
        ),
        pytest.param(
            [
                *WELL,
                (
                    RESOURCE_QUOTA,
                    {"metadata": {"name": "q"}, "status": {"hard": {"pods": "5"}, "used": {"pods": "3"}}},
                ),
            ],
            "ResourceQuota q leaves 2 of pods; the candidate's 3 pods need 3",
            Exit.REFUSED,
            id="a quota without room",
        ),
    ],
)
def test_what_stands_in_the_way_in_the_cluster(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    objects: list[tuple[Kind, dict[str, Any]]],
    sentence: str,
    status: Exit,
) -> None:
    from contextlib import asynccontextmanager

    @asynccontextmanager
    async def cluster(place: session.Place) -> Any:
        yield FakeKube(objects), "shop"

    monkeypatch.setattr(session, "cluster", cluster)
    result = lint(tmp_path, GOOD, arguments=("--cluster",))
    assert result.exit_code == status, result.output
    assert sentence in result.stdout
    assert bool(sentence) == bool(result.stdout)
