"""The command from outside: what it writes, what it asks of the cluster, and its exit status."""

import asyncio
import io
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from serinus.api.commands import commands
from serinus.cli import session
from serinus.cli.app import app
from serinus.cli.asking import ask
from serinus.cli.lint_cluster import amount, short_of
from serinus.cli.session import Exit, Place, Stop
from serinus.cli.watching import watch
from serinus.kube.errors import KubeError, NotFound, Rejected, Transient
from serinus.kube.kinds import CANARY, DEPLOYMENT, SELF_SUBJECT_REVIEW, Kind

Run = Callable[[Coroutine[Any, Any, Any]], Any]
READY = [{"type": "Ready", "status": "True", "reason": "Promoted"}]
MOVING = [{"type": "Reconciling", "status": "True"}, {"type": "Ready", "status": "Unknown", "reason": "Analysing"}]
STALLED = [{"type": "Stalled", "status": "True"}, {"type": "Ready", "status": "False", "reason": "RolledBack"}]


def canary(phase: str = "Analysing", conditions: Any = MOVING, **status: Any) -> dict[str, Any]:
    return {
        "apiVersion": "serinus.dev/v1alpha1",
        "kind": "Canary",
        "metadata": {"name": "cart", "namespace": "shop", "generation": 1},
        "spec": {"targetRef": {"name": "cart"}, "strategy": {"steps": [{"weight": 10}]}},
        "status": {
            "phase": phase,
            "observedGeneration": 1,
            "message": "it is judged",
            "stable": {"revision": "old"},
            "run": {"id": "r1", "revision": "new", "step": 0, "weight": 10, "causeMessage": "too many errors"},
            "conditions": conditions,
        }
        | status,
    }


class FakeKube:
    """Objects by kind and name; ``after(seconds)`` changes them later; an operator that acknowledges when told to."""

    def __init__(self, *objects: tuple[Kind, dict[str, Any]], operator: bool = True) -> None:
        self.objects = {(kind, body["metadata"]["name"]): body for kind, body in objects}
        self.operator = operator
        self.asked: list[Any] = []
        self.troubles: list[KubeError] = []
        self.installed = True
        self.looks = 0
        self.script: dict[int, dict[str, Any]] = {}

    async def get(self, kind: Kind, name: str, namespace: str | None = None) -> dict[str, Any]:
        if self.troubles:
            raise self.troubles.pop(0)
        if kind is CANARY:
            self.looks += 1
            if self.looks in self.script:
                self.objects[kind, name]["status"] |= self.script[self.looks]
        if (kind, name) not in self.objects:
            raise NotFound(f"get {kind.plural} {namespace}/{name}: not found (404)", status=404)
        return self.objects[kind, name]

    async def list(self, kind: Kind, namespace: str | None = None, **_: Any) -> list[dict[str, Any]]:
        if kind is CANARY and not self.installed:
            raise NotFound("list canaries: 404 page not found (404)", status=404)
        return [body for (known, _), body in self.objects.items() if known is kind]

    async def create(self, kind: Kind, body: dict[str, Any], namespace: str | None = None) -> dict[str, Any]:
        assert kind is SELF_SUBJECT_REVIEW
        return {"status": {"userInfo": {"username": "jane"}}}

    async def patch(self, kind: Kind, name: str, namespace: str | None, change: dict[str, Any]) -> dict[str, Any]:
        (command,) = commands(change["metadata"]["annotations"])
        self.asked.append(command)
        if self.operator:
            handled = {"token": command.token, "verb": command.verb, "result": f"{command.verb} is done"}
            self.objects[kind, name]["status"]["commands"] = [handled]
        return self.objects[kind, name]


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeKube]:
    """Put a fake cluster in the place of the real one."""

    def put(*objects: tuple[Kind, dict[str, Any]], operator: bool = True) -> FakeKube:
        kube = FakeKube(*objects, operator=operator)

        @asynccontextmanager
        async def cluster(place: Place) -> AsyncIterator[tuple[FakeKube, str]]:
            yield kube, place.namespace or "shop"

        monkeypatch.setattr(session, "cluster", cluster)
        return kube

    return put


def call(*arguments: str, stdin: str | None = None) -> Any:
    return CliRunner().invoke(app, list(arguments), input=stdin)


def quiet() -> Console:
    return Console(width=300, force_terminal=False, record=True, file=io.StringIO())


# Reading


def test_status_shows_the_tree(use: Any) -> None:
    use((CANARY, canary()))
    result = call("status", "cart")
    assert result.exit_code == 0
    assert "Canary shop/cart" in result.stdout
    assert "waits for  it is judged" in result.stdout


def test_status_as_json_is_the_object(use: Any) -> None:
    use((CANARY, canary()))
    assert json.loads(call("status", "cart", "-o", "json").stdout)["status"]["run"]["id"] == "r1"


@pytest.mark.parametrize("output", ["yaml", "wide"])
def test_status_has_other_forms(use: Any, output: str) -> None:
    use((CANARY, canary()))
    result = call("status", "cart", "-o", output)
    assert result.exit_code == 0
    assert "it is judged" in result.stdout


def test_a_canary_that_is_not_there_names_those_that_are(use: Any) -> None:
    use((CANARY, canary()))
    result = call("status", "card")
    assert result.exit_code == Exit.MISSING
    assert result.stderr == "There is no Canary card in namespace shop. There are: cart.\n"


def test_a_namespace_without_canaries_says_where_to_look(use: Any) -> None:
    use()
    assert "serinus list -A" in call("status", "cart").stderr


def test_a_cluster_without_serinus_says_what_to_do(use: Any) -> None:
    use().installed = False
    for arguments in (["status", "cart"], ["list"], ["abort", "cart"], ["watch", "cart"]):
        result = call(*arguments)
        assert result.exit_code == Exit.MISSING
        assert "Serinus is not installed in it. Install it" in result.stderr


def test_without_a_kubeconfig_a_sentence_says_what_to_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    result = call("status", "cart", "--kubeconfig", str(tmp_path / "none"))
    assert result.exit_code == Exit.MISSING
    assert result.stderr.startswith("No cluster to talk to: there is no file ")
    assert "--kubeconfig" in result.stderr


def test_list_has_a_row_for_each(use: Any) -> None:
    use((CANARY, canary()))
    assert call("list").stdout.splitlines()[1].startswith("cart")
    assert call("list", "-A").stdout.splitlines()[1].startswith("shop")


def test_an_empty_list_is_no_error(use: Any) -> None:
    use()
    result = call("list")
    assert result.exit_code == 0
    assert result.stdout == ""
    assert "There is no Canary in namespace shop" in result.stderr


# Asking


@pytest.mark.parametrize("verb", ["promote", "abort", "pause", "resume", "retry", "approve"])
def test_a_request_names_the_place_that_its_author_saw(use: Any, verb: str) -> None:
    kube = use((CANARY, canary()))
    result = call(verb, "cart")
    assert result.exit_code == 0
    assert result.stdout == f"cart: {verb} is done\n"
    (command,) = kube.asked
    assert (command.verb, command.run, command.step, command.full, command.by) == (verb, "r1", 0, False, "jane")
    assert len(command.token) == 32


def test_two_requests_have_two_tokens(use: Any) -> None:
    kube = use((CANARY, canary()))
    call("pause", "cart")
    call("pause", "cart")
    assert len({command.token for command in kube.asked}) == 2


def test_promote_full_passes_all_steps(use: Any) -> None:
    kube = use((CANARY, canary()))
    call("promote", "cart", "--full")
    assert kube.asked[0].full


def test_an_operator_that_does_not_answer_ends_in_a_time_out(use: Any, in_virtual_time: Run) -> None:
    use((CANARY, canary()), operator=False)
    with pytest.raises(Stop, match="is written, but the operator has not taken it up within 10 s") as stop:
        in_virtual_time(ask(Place(), "cart", "abort", console=quiet()))
    assert stop.value.status == Exit.TIMEOUT


def test_a_canary_that_is_stalled_says_why_a_request_waits(use: Any, in_virtual_time: Run) -> None:
    stalled = [{"type": "Stalled", "status": "True", "message": "there is no Service web"}]
    use((CANARY, canary("Ready", stalled)), operator=False)
    with pytest.raises(Stop, match="waits, since the Canary is stalled: there is no Service web"):
        in_virtual_time(ask(Place(), "cart", "abort", console=quiet()))


@pytest.mark.parametrize(
    ("end", "status", "words"),
    [
        pytest.param(
            {"phase": "Ready", "conditions": READY, "stable": {"revision": "new"}}, Exit.DONE, "promoted", id="promoted"
        ),
        pytest.param({"phase": "Failed", "conditions": STALLED}, Exit.REFUSED, "too many errors", id="rolled back"),
        pytest.param({}, Exit.TIMEOUT, "no verdict on cart within 60 s; the last message: it is judged", id="neither"),
    ],
)
def test_with_wait_the_verdict_is_the_exit_status(
    use: Any, in_virtual_time: Run, end: dict[str, Any], status: Exit, words: str
) -> None:
    kube = use((CANARY, canary()))
    kube.script[8] = end
    console = quiet()
    assert in_virtual_time(ask(Place(), "cart", "promote", console=console, wait=True, timeout_s=60)) == status
    assert words in console.export_text()


def test_a_cluster_that_is_away_for_a_while_does_not_end_the_waiting(use: Any, in_virtual_time: Run) -> None:
    kube = use((CANARY, canary()))
    kube.script[6] = {"phase": "Ready", "conditions": READY, "stable": {"revision": "new"}}

    async def scenario() -> int:
        waiting = asyncio.create_task(ask(Place(), "cart", "promote", console=quiet(), wait=True, timeout_s=60))
        await asyncio.sleep(2.5)
        kube.troubles += [Transient("no answer")] * 3
        return await waiting

    assert in_virtual_time(scenario()) == Exit.DONE


def test_a_refusal_of_the_cluster_is_a_sentence(use: Any) -> None:
    use((CANARY, canary())).troubles.append(Rejected("get canaries shop/cart: you may not (403)", status=403))
    result = call("abort", "cart")
    assert result.exit_code == Exit.MISSING
    assert result.stderr == "Get canaries shop/cart: you may not (403)\n"


# Watching


def test_watch_until_settled_writes_changes_and_ends_with_the_verdict(use: Any, in_virtual_time: Run) -> None:
    kube = use((CANARY, canary()), (DEPLOYMENT, {"metadata": {"name": "cart"}, "spec": {"paused": False}}))
    kube.script[3] = {"message": "it is judged again"}
    kube.script[5] = {"phase": "Failed", "conditions": STALLED, "message": "it was bad"}
    console = quiet()
    code = in_virtual_time(watch(Place(), "cart", until_settled=True, timeout_s=None, console=console))
    assert code == Exit.REFUSED
    lines = [text.split(": ", 1)[-1].strip() for text in console.export_text().splitlines()]
    assert lines == ["it is judged", "it is judged again", "it was bad", "too many errors"]


def test_watch_goes_on_after_the_verdict_unless_told_otherwise(use: Any, in_virtual_time: Run) -> None:
    use((CANARY, canary("Failed", STALLED)))
    code = in_virtual_time(watch(Place(), "cart", until_settled=False, timeout_s=30, console=quiet()))
    assert code == Exit.TIMEOUT


def test_watch_on_a_terminal_draws_the_tree(use: Any, in_virtual_time: Run) -> None:
    use((CANARY, canary("Ready", READY, stable={"revision": "new"})))
    console = Console(width=120, force_terminal=True, color_system=None, record=True, file=io.StringIO())
    assert in_virtual_time(watch(Place(), "cart", until_settled=True, timeout_s=9, console=console)) == Exit.DONE
    assert "Canary shop/cart" in console.export_text()


def test_a_canary_that_is_deleted_meanwhile_ends_the_watching(use: Any, in_virtual_time: Run) -> None:
    kube = use((CANARY, canary()))

    async def scenario() -> int:
        watching = asyncio.create_task(watch(Place(), "cart", until_settled=True, timeout_s=60, console=quiet()))
        await asyncio.sleep(3.5)
        kube.objects.clear()
        return await watching

    with pytest.raises(Stop, match="There is no Canary cart"):
        in_virtual_time(scenario())


def test_a_duration_that_is_none_is_a_usage_error(use: Any) -> None:
    use((CANARY, canary()))
    result = call("watch", "cart", "--timeout", "soon")
    assert result.exit_code == Exit.USAGE
    assert "is not a duration" in result.stderr


# The program itself


def test_help_is_there_at_once() -> None:
    began = time.perf_counter()
    result = subprocess.run([sys.executable, "-m", "serinus", "--help"], capture_output=True, text=True, check=True)
    took_s = time.perf_counter() - began
    assert "approve" in result.stdout
    heavy = "import sys; from serinus.cli.app import app; print([m for m in ('kubernetes', 'pydantic', 'kopf', 'grpc')"
    loaded = subprocess.run(
        [sys.executable, "-c", f"{heavy} if m in sys.modules])"], capture_output=True, text=True, check=True
    )
    assert loaded.stdout.strip() == "[]", f"loaded for help, which took {took_s:.1f} s"


@pytest.mark.parametrize(
    ("called", "name"), [("/usr/bin/kubectl-serinus", "kubectl serinus"), ("/usr/bin/serinus", "serinus")]
)
def test_the_program_goes_by_the_name_that_it_was_called(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], called: str, name: str
) -> None:
    from serinus.cli import main

    monkeypatch.setattr(sys, "argv", [called, "--help"])
    with pytest.raises(SystemExit):
        main()
    assert f"Usage: {name} [OPTIONS]" in capsys.readouterr().out


# The cluster, as lint sees it


@pytest.mark.parametrize(
    ("text", "number"), [("500m", 0.5), ("2", 2), ("1Gi", 2**30), ("1.5k", 1500), ("1e3", 1000), (3, 3)]
)
def test_a_quantity_is_a_number(text: str, number: float) -> None:
    assert amount(text) == pytest.approx(number)


def test_what_is_no_quantity_is_refused() -> None:
    with pytest.raises(ValueError, match="is not a quantity"):
        amount("much")


TEMPLATE = {
    "metadata": {"labels": {"app": "cart", "track": "x"}},
    "spec": {
        "containers": [{"name": "a", "resources": {"requests": {"cpu": "500m"}}}],
        "initContainers": [
            {"name": "init", "resources": {"requests": {"cpu": "64"}}},
            {"name": "sidecar", "restartPolicy": "Always", "resources": {"requests": {"cpu": "100m"}}},
        ],
    },
}


def test_a_quota_that_has_no_room_for_as_many_pods_again_is_named_with_the_numbers() -> None:
    quota = {
        "metadata": {"name": "small"},
        "status": {"hard": {"requests.cpu": "4", "pods": "10"}, "used": {"requests.cpu": "2500m", "pods": "3"}},
    }
    assert short_of(quota, TEMPLATE, 2) == []
    (sentence,) = short_of(quota, TEMPLATE, 3)
    assert "ResourceQuota small leaves 1.5 of requests.cpu" in sentence
    assert "3 pods need 1.8" in sentence
