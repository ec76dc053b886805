"""``serinus faults``: which faults are in force, stop them, try one."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from serinus.cli.options import Context, Kubeconfig, Namespace, run
from serinus.cli.session import Exit, Object, Place, Stop

if TYPE_CHECKING:
    from serinus.kube.client import Kube

STOPPED_WITHIN_S = 10.0
_LOOK_S = 0.2

app = typer.Typer(
    name="faults",
    help="Faults on purpose: which are in force, stop them, try one.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command("list")
def list_(
    all_namespaces: Annotated[bool, typer.Option("-A", "--all-namespaces", help="In all namespaces.")] = False,
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
) -> None:
    """List faults of policies and experiments of Canaries: what each does, to whom, how long, in how many sidecars."""

    async def show(place: Place) -> int:
        from serinus.cli import session, view

        async with session.cluster(place) as (kube, where):
            policies, canaries = await _sources(kube, None if all_namespaces else where)
        rows = [_row(policy) for policy in policies if (policy.get("spec") or {}).get("fault")]
        rows += [_experiment_row(canary) for canary in canaries if _stage(canary)]
        if rows:
            sys.stdout.write(view.table([["NAMESPACE", "BY", "SERVICE", "STATE", "SIDECARS", "FAULT"], *rows]) + "\n")
        else:
            scope = "in this cluster" if all_namespaces else f"in namespace {where}; -A lists all namespaces"
            sys.stderr.write(f"There is no fault {scope}.\n")
        return Exit.DONE

    run(show(Place(kubeconfig, context, namespace)))


@app.command()
def stop(
    everywhere: Annotated[bool, typer.Option("--all", help="In all namespaces.")] = False,
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
) -> None:
    """End every fault at once, and allow none until you say otherwise."""

    async def end(place: Place) -> int:
        import asyncio
        import time

        from serinus.api.names import ANNOTATION_FAULTS
        from serinus.cli import session
        from serinus.delivery.faulting import ALLOWED, STOPPED
        from serinus.kube.kinds import NAMESPACE

        async with session.cluster(place) as (kube, where):
            names = await _allowing(kube) if everywhere else [where]
            began = time.monotonic()
            change = {"metadata": {"annotations": {ANNOTATION_FAULTS: STOPPED}}}
            await asyncio.gather(*(kube.patch(NAMESPACE, name, None, change) for name in names))
            while left := [each for group in await _sources(kube, None) for each in group if _active(each, names)]:
                if time.monotonic() - began > STOPPED_WITHIN_S:
                    said = ", ".join(map(_name, left))
                    raise Stop(
                        f"The namespaces are marked, but the operator has not said within {STOPPED_WITHIN_S:g} s that"
                        f" {said} ended. Without it, sidecars end all faults by themselves within as long.",
                        Exit.TIMEOUT,
                    )
                await asyncio.sleep(_LOOK_S)
        if not names:
            sys.stdout.write("No namespace allows faults.\n")
            return Exit.DONE
        sys.stdout.write(
            f"Faults are stopped in {', '.join(sorted(names))} ({time.monotonic() - began:.1f} s). To allow them again:"
            f" kubectl annotate namespace NAME {ANNOTATION_FAULTS}={ALLOWED} --overwrite\n"
        )
        return Exit.DONE

    run(end(Place(kubeconfig, context, namespace)))


@app.command("try")
def try_(
    service: Annotated[str, typer.Argument(help="Name of the Service.")],
    abort: Annotated[int | None, typer.Option(help="Answer with this HTTP status.")] = None,
    grpc: Annotated[int | None, typer.Option(help="Answer with this gRPC status.")] = None,
    delay: Annotated[str, typer.Option(help='Wait so long first, for example "2s".')] = "",
    reset: Annotated[bool, typer.Option("--reset", help="Break the connection.")] = False,
    percentage: Annotated[float, typer.Option("--percent", help="Share of the requests.")] = 10.0,
    lasting: Annotated[str, typer.Option("--for", help="How long.")] = "30s",
    sender: Annotated[list[str] | None, typer.Option("--from", help="Only callers with this service account.")] = None,
    unsafe: Annotated[bool, typer.Option("--unsafe", help="Also POST and others that may change something.")] = False,
    namespace: Namespace = "",
    context: Context = "",
    kubeconfig: Kubeconfig = "",
) -> None:
    """Inject a fault for a time, and take it out again. Ctrl-C ends it early."""
    from serinus.cli import faults_try

    answer = {"httpStatus": abort, "grpcStatus": grpc}
    spec: dict[str, Any] = {"percentage": percentage, "ttl": lasting, "allowUnsafe": unsafe, "reset": reset}
    spec |= {"abort": {name: value for name, value in answer.items() if value is not None}} if abort or grpc else {}
    spec |= {"delay": delay} if delay else {}
    spec |= {"from": sender} if sender else {}
    run(faults_try.attempt(Place(kubeconfig, context, namespace), service, spec))


async def _sources(kube: "Kube", namespace: str | None) -> tuple[list[Object], list[Object]]:
    """Return all TrafficPolicies and all Canaries, which may inject faults."""
    from serinus.cli import session
    from serinus.kube.errors import NotFound
    from serinus.kube.kinds import CANARY, TRAFFIC_POLICY

    try:
        return await kube.list(TRAFFIC_POLICY, namespace), await kube.list(CANARY, namespace)
    except NotFound as problem:
        raise Stop(session.NOT_INSTALLED) from problem


async def _allowing(kube: "Kube") -> list[str]:
    """Return the namespaces that say anything of faults but that they are stopped."""
    from serinus.api.names import ANNOTATION_FAULTS
    from serinus.delivery.faulting import STOPPED
    from serinus.kube.kinds import NAMESPACE

    found = []
    for body in await kube.list(NAMESPACE):
        value = (body["metadata"].get("annotations") or {}).get(ANNOTATION_FAULTS, STOPPED)
        if value != STOPPED:
            found.append(body["metadata"]["name"])
    return found


def _active(body: Object, namespaces: list[str]) -> bool:
    """Whether a policy or a Canary injects a fault in one of these namespaces, as its status says."""
    fault = (body.get("status") or {}).get("fault") or {}
    injects = fault.get("state") == "Active" or _stage(body) == "Active"
    return injects and body["metadata"]["namespace"] in namespaces


def _stage(canary: Object) -> str:
    """Return how a Canary's experiment stands; empty without one."""
    from serinus.delivery import plan

    run = (canary.get("status") or {}).get("run") or {}
    if run.get("stage") not in plan.EXPERIMENT or not run.get("experiments"):
        return ""
    if run["stage"] == plan.INJECT and not run["experiments"][-1].get("dryRun"):
        return "Active"
    return "Ended" if run["stage"] == plan.RECOVER else "Waiting"


def _experiment_row(canary: Object) -> list[str]:
    meta, last = canary["metadata"], canary["status"]["run"]["experiments"][-1]
    what = f"experiment {last['name']}: {last.get('what') or last.get('message', '')}"
    return [meta["namespace"], f"canary/{meta['name']}", last.get("to", ""), _stage(canary), "", what]


def _row(policy: Object) -> list[str]:
    fault = (policy.get("status") or {}).get("fault") or {}
    meta, spec = policy["metadata"], policy["spec"]
    return [
        meta["namespace"],
        f"trafficpolicy/{meta['name']}",
        spec["targetRef"]["name"],
        fault.get("state", "Waiting"),
        str(fault.get("proxies", 0)),
        fault.get("message") or "the operator has not looked at it yet",
    ]


def _name(body: Object) -> str:
    return f"{body['metadata']['namespace']}/{body['metadata']['name']}"
