"""`make demo`: a good release is promoted and two others are rolled back, in a real cluster, on live traffic.

One of these fails requests; the other is healthy, but does not survive the failure of what it calls.

KEEP=1 leaves everything up; KUBECONFIG=… uses that cluster. The exit status is 0 only if the good release was promoted,
the others were rolled back, and no request failed because of the mesh.
"""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from stage import CHECKOUT, Load, Stage, Stopped, is_true, tool

from serinus.api.names import ANNOTATION_INJECTED

MANIFESTS = CHECKOUT / "deploy" / "demo" / "manifests"
CLUSTER = CHECKOUT / "deploy" / "local" / "cluster.py"
GOOD, BAD = "localhost/serinus-shop:v2", "localhost/serinus-shop:v3-errors"
FRAGILE = "localhost/serinus-shop:v5-no-fallback"
WANTED = ("promoted", "rolled back", "rolled back")
GENTLY = ("--ignore-not-found", "--timeout=90s")
SETTLED = ("Ready", "Failed")
START_LIMIT_S, VERDICT_LIMIT_S = 60.0, 300.0


@dataclass(frozen=True)
class Release:
    """One release, as it ended. `report` is what callers saw from its start to its end."""

    image: str
    verdict: str
    message: str
    took_s: float
    report: dict[str, Any]

    @property
    def bad_for_s(self) -> float:
        """Seconds from the first bad answer of the application to the last."""
        bad = [v for v in self.report["versions"].values() if v["bad_answers"]]
        return max(v["last_bad_at"] for v in bad) - min(v["first_bad_at"] for v in bad) if bad else 0.0


def bring_up(stage: Stage) -> None:
    """Make sure that there is a cluster with our images, and remember whether it is ours to take down."""
    given = os.environ.get("KUBECONFIG")
    python = sys.executable
    if given:
        stage.kubeconfig = Path(given)
        stage.say(f"Using the cluster of {given}.")
    else:
        status = subprocess.run([python, str(CLUSTER), "status"], capture_output=True, timeout=60, check=False)
        stage.owns_cluster = status.returncode != 0
        stage.say("Bringing up a cluster on this machine." if stage.owns_cluster else "Using the cluster that is up.")
        stage.run([python, str(CLUSTER), "up"], 1500, "Bringing up the cluster")
        state = os.environ.get("SERINUS_STATE") or CHECKOUT / ".state"
        stage.kubeconfig = Path(state).absolute() / "kubeconfig"
    stage.say("Building the images, where they are not there yet.")
    stage.run([python, str(CLUSTER), "images"], 1500, "Building the images")


def install(stage: Stage) -> None:
    """Install Serinus, Prometheus and the shop, and wait until they serve."""
    for namespace in ("shop", "shop-monitoring"):
        labels = stage.kubectl("get", "namespace", namespace, "--ignore-not-found", "-o", "jsonpath={.metadata.labels}")
        if labels and "serinus.dev/demo" not in labels:
            raise Stopped(
                f"Namespace {namespace} is not the demo's, which would remove it; rename it, or use another cluster."
            )
    with stage.step("Installing Serinus from deploy/base."):
        operator = ("deployment/serinus", "-n", "serinus-system")
        installed = stage.kubectl("get", *operator, "--ignore-not-found")
        stage.installed_before = bool(installed)
        stage.kubectl("apply", "-k", "deploy/base")
        if installed:  # by an earlier demo, perhaps of other code: its image has the same tag
            stage.kubectl("rollout", "restart", *operator)
            stage.kubectl("rollout", "status", *operator, "--timeout=120s", limit_s=130)
        stage.ready("serinus-system", 180)
    if stage.kubectl("get", "namespace", "shop", "--ignore-not-found"):
        with stage.step("Removing the shop of an earlier demo."):
            remove_shop(stage)
    with stage.step("Starting the shop (front → cart → stock), a caller with 100 requests a second, and Prometheus."):
        for name in ("namespace", "prometheus", "shop", "loadgen"):
            stage.kubectl("apply", "-f", str(MANIFESTS / f"{name}.yaml"))
        stage.ready("shop", 180)
        stage.ready("shop-monitoring", 120)
    pods = stage.get("pods", "-n", "shop")["items"]
    bare = [p["metadata"]["name"] for p in pods if ANNOTATION_INJECTED not in p["metadata"].get("annotations", {})]
    if bare:
        raise Stopped(f"These pods got no sidecar: {', '.join(bare)}. `kubectl logs -n serinus-system deploy/serinus`.")


def adopt(stage: Stage) -> None:
    """Create the Canary for cart and wait until it is Ready."""

    def missing() -> str:
        canary = get_canary(stage)
        return "" if is_true(canary, "Ready") else canary.get("status", {}).get("message") or "it has no status yet"

    def refused() -> str:
        stage.kubectl("apply", "-f", str(MANIFESTS / "canary.yaml"))
        return ""

    pods = serving(stage)
    with stage.step("Adopting cart: one Canary, and nothing that runs is touched."):
        stage.wait("Creating the Canary", 30, refused)
        stage.wait("Adopting cart", 60, missing)
    if serving(stage) != pods:
        raise Stopped("Adopting cart changed its pods; it must not.")


def experiment(stage: Stage) -> None:
    """Let the Canary make an experiment, which the namespace must allow."""
    patch = "deploy/demo/manifests/experiment.yaml"
    commands = (
        ("annotate", "namespace", "shop", "serinus.dev/faults=allowed", "--overwrite"),
        ("patch", "canary", "cart", "-n", "shop", "--type=merge", f"--patch-file={patch}"),
    )
    for command in commands:
        stage.kubectl(*command)
        stage.say(f"$ kubectl {' '.join(command)}", "bold")


def get_canary(stage: Stage) -> dict[str, Any]:
    """Return the Canary as it is in the cluster."""
    canary: dict[str, Any] = stage.get("canaries.serinus.dev", "cart", "-n", "shop")
    return canary


def serving(stage: Stage) -> dict[str, int]:
    """Return cart's pods with the number of their restarts."""
    pods = stage.get("pods", "-n", "shop", "-l", "app=cart")["items"]
    return {
        p["metadata"]["name"]: sum(c["restartCount"] for c in p["status"].get("containerStatuses", [])) for p in pods
    }


def ship(stage: Stage, load: Load, image: str) -> Release:
    """Set cart's image, show `serinus watch` until the verdict, and return how it went."""

    def run_of(canary: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = canary.get("status", {}).get("run") or {}
        return found

    before = run_of(get_canary(stage)).get("id")

    def not_begun() -> str:
        canary = get_canary(stage)
        return "" if run_of(canary).get("id") != before else canary.get("status", {}).get("message", "") or "no status"

    since = load.mark()
    began = time.monotonic()
    stage.kubectl("set", "image", "deployment/cart", f"shop={image}", "-n", "shop")
    stage.say(f"$ kubectl set image deployment/cart shop={image} -n shop", "bold")
    stage.wait("The start of the run", START_LIMIT_S, not_begun)
    stage.say("$ serinus watch cart -n shop", "bold")
    took_s = watch_until_settled(stage, VERDICT_LIMIT_S) - began
    time.sleep(3)  # what was under way is answered now
    canary = get_canary(stage)
    status, run = canary["status"], run_of(canary)
    promoted = status["phase"] == "Ready" and (status.get("stable") or {}).get("revision") == run.get("revision")
    rolled_back = status["phase"] == "Failed" and status.get("rejected") == run.get("revision")
    verdict = "promoted" if promoted else "rolled back" if rolled_back else f"left {status['phase']}"
    stage.say(f"{image.rpartition(':')[2]} was {verdict} after {took_s:.0f} s.", "bold")
    return Release(image, verdict, run.get("causeMessage") or status.get("message", ""), took_s, load.report(since))


def watch_until_settled(stage: Stage, limit_s: float) -> float:
    """Show `serinus watch` while the run is under way; return when it was over by the cluster's word, monotonic."""
    command = [tool("serinus"), "watch", "cart", "-n", "shop", "--until-settled"]
    watch = subprocess.Popen(command, cwd=CHECKOUT, env=stage.environment, stdin=subprocess.DEVNULL)
    try:
        stage.wait(
            "The verdict",
            limit_s,
            lambda: "" if (s := get_canary(stage)["status"])["phase"] in SETTLED else s.get("message", ""),
        )
        settled = time.monotonic()
        watch.wait(timeout=15)
    except subprocess.TimeoutExpired:
        stage.say("`serinus watch` did not end with the run; it is ended.", "yellow")
    finally:
        if watch.poll() is None:
            watch.terminate()
            watch.wait(timeout=10)
    return settled


def summarise(stage: Stage, releases: list[Release], whole: dict[str, Any]) -> bool:
    """Print what callers saw of each release, and in the whole time; return whether all went as it must."""
    table = Table(title="What callers saw", title_justify="left", box=box.SIMPLE)
    table.add_column("")
    for release in releases:
        table.add_column(release.image.rpartition("/")[2], justify="right")
    rows: list[tuple[str, list[str]]] = [
        ("requests sent", [f"{r.report['requests']:,}" for r in releases]),
        ("failed by us", [f"{r.report['failed_by_us']:,}" for r in releases]),
        ("bad answers that callers saw", [f"{r.report['bad_answers']:,}" for r in releases]),
        ("first to last bad answer", [f"{r.bad_for_s:.1f} s" if r.report["bad_answers"] else "-" for r in releases]),
        ("verdict", [r.verdict for r in releases]),
        ("from kubectl to the verdict", [f"{r.took_s:.0f} s" for r in releases]),
    ]
    for name, cells in rows:
        table.add_row(name, *cells)
    stage.console.print()
    stage.console.print(table)
    stage.console.print()
    for release in releases:
        if release.verdict == "rolled back":
            stage.console.print(f"Why {release.image.rpartition('/')[2]} was rolled back: {release.message}")
    wrong = [
        f"{r.image} was {r.verdict}; it should have been {wanted}: {r.message}"
        for r, wanted in zip(releases, WANTED, strict=True)
        if r.verdict != wanted
    ]
    if whole["failed_by_us"]:
        first = ", ".join(failure["error"] for failure in whole["failed"][:3])
        wrong.append(f"{whole['failed_by_us']} requests failed by us; the first: {first}")
    for sentence in wrong:
        stage.console.print(sentence, style="bold red", markup=False)
    stage.console.print(
        f"From the adoption to the end: {whole['requests']:,} requests, {whole['failed_by_us']:,} failed by us. "
        f"{stage.elapsed_s / 60:.1f} minutes in total."
    )
    return not wrong


def leave_up(stage: Stage) -> None:
    """Say what to try next."""
    stage.console.print(
        f"""
Everything is left up. Try next:
  export KUBECONFIG={stage.kubeconfig} PATH={Path(sys.executable).parent}:$PATH
  serinus explain cart -n shop                                         what the verdict rests on
  kubectl set image deployment/cart shop=localhost/serinus-shop:v2 -n shop          back to the good version
  kubectl set image deployment/cart shop=localhost/serinus-shop:v4-slow -n shop     a slow one
  serinus watch cart -n shop                                           see it judged
  serinus pause cart -n shop; serinus resume cart -n shop; serinus abort cart -n shop
  kubectl get canaries -A; kubectl explain canary.spec.strategy
  make down                                                            take the cluster away
""",
        markup=False,
    )


def clear(stage: Stage) -> None:
    """Remove what the demo made."""
    if stage.owns_cluster:
        stage.say("Taking the cluster down; KEEP=1 leaves it up.")
        stage.run([sys.executable, str(CLUSTER), "down"], 120, "Taking the cluster down")
        return
    with stage.step("Removing what the demo made; KEEP=1 leaves it."):
        remove_shop(stage)
        if stage.installed_before:  # with it would go Canaries that are not ours
            return
        stage.kubectl("delete", "-k", "deploy/base", *GENTLY, limit_s=120)


def remove_shop(stage: Stage) -> None:
    """Remove the Canary, then the shop and Prometheus."""
    if stage.kubectl("get", "crd", "canaries.serinus.dev", "--ignore-not-found"):
        stage.kubectl("delete", "canaries.serinus.dev", "--all", "-n", "shop", "--timeout=90s", limit_s=120)
    for name in ("loadgen", "shop", "prometheus", "namespace"):
        stage.kubectl("delete", "-f", str(MANIFESTS / f"{name}.yaml"), *GENTLY, limit_s=120)


def main() -> int:
    """Run the demo; return the exit status."""
    stage = Stage()
    keep = os.environ.get("KEEP", "") not in ("", "0")
    passed, releases = False, list[Release]()
    try:
        bring_up(stage)
        install(stage)
        load = Load(stage)
        since = load.mark()
        adopt(stage)
        stage.say("A good version of cart:")
        releases.append(ship(stage, load, GOOD))
        stage.say("A bad version of cart, three answers in ten are errors:")
        releases.append(ship(stage, load, BAD))
        stage.say("A version of cart that answers well, but has lost its fallback for a stock that fails:")
        experiment(stage)
        releases.append(ship(stage, load, FRAGILE))
        passed = summarise(stage, releases, load.report(since))
    except Stopped as error:
        stage.console.print(f"The demo stopped: {error}", style="bold red", markup=False)
    except KeyboardInterrupt:
        stage.console.print("Interrupted.")
    try:
        if keep and releases and stage.kubeconfig:
            leave_up(stage)
        elif keep and stage.kubeconfig:
            stage.console.print(f"Everything is left up: export KUBECONFIG={stage.kubeconfig}", markup=False)
        elif stage.kubeconfig or stage.owns_cluster:
            clear(stage)
    except Stopped as error:
        stage.console.print(f"Not everything was removed: {error}", style="bold red", markup=False)
        return 1
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
