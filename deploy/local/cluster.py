"""A real one-node Kubernetes on a bare Linux machine: up, down, status, load, images, run, kubeconfig, exec.

Everything runs in namespaces that no packet leaves; the host reaches the API server on 127.0.0.1 only. One process is
the cluster: `down` ends it, and nothing is left but the cache.
"""

import argparse
import fcntl
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import binaries
import components
import images
import kube
import layout
import life
import packages
import pki
import report
from components import Tools
from layout import Layout
from progress import NO_CLUSTER_HERE, Refusal, say, step

DNS_QUESTION = (
    bytes.fromhex("1234 0100 0001 0000 0000 0000")  # an id, recursion wished, one question
    + b"\x0akubernetes\x07default\x03svc\x07cluster\x05local\x00"
    + bytes.fromhex("0001 0001")  # an address, of the internet
)
ASK_DNS = f"""import socket
asked = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asked.settimeout(1)
asked.sendto({DNS_QUESTION!r}, ({layout.DNS_SERVICE_IP!r}, 53))
answer = asked.recv(512)
raise SystemExit(0 if answer[3] & 15 == 0 and socket.inet_aton({layout.API_SERVICE_IP!r}) in answer else 1)
"""
NOT_UP = 1


@contextmanager
def lock(where: Layout, name: str) -> Iterator[None]:
    """Keeps two commands from changing one state directory, or from building images in one cache, at the same time."""
    where.cache.mkdir(parents=True, exist_ok=True)
    with (where.cache / f"{name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("  another command is at work here; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def load_kernel_modules() -> None:
    """Asks the kernel for what the node needs.

    Raises:
        Refusal: it has no bridge filter, without which Services do not work for pods.
    """
    modprobe = packages.which("modprobe")
    if modprobe is not None:
        subprocess.run([modprobe, "-a", "br_netfilter", "overlay", "nf_conntrack"], capture_output=True, check=False)
    if not Path("/proc/sys/net/bridge/bridge-nf-call-iptables").exists():
        raise Refusal("This kernel has no br_netfilter, without which Services do not work: load that module.", 3)


def listen(where: Layout) -> socket.socket:
    """Listens on the cluster's port of 127.0.0.1 and records it.

    Raises:
        Refusal: every port that may be used is taken.
    """
    recorded = int(where.port_file.read_text()) if where.port_file.exists() else None
    port = layout.choose_port(recorded)
    if port is None:
        last = layout.FIRST_PORT + layout.PORTS_TRIED - 1
        raise Refusal(f"All ports from {layout.FIRST_PORT} to {last} of 127.0.0.1 are taken: free one.")
    where.port_file.write_text(str(port))
    return socket.create_server(("127.0.0.1", port))


def up(where: Layout) -> None:
    """Brings the cluster up, or finds it up, and waits until it can run pods."""
    began = time.monotonic()
    if life.recorded(where) is not None:
        _wait_until_ready(where)
        say(f"The cluster is up: export KUBECONFIG={where.kubeconfig}")
        return
    say(f"Bringing up a cluster in {where.state}")
    packages.install_missing()
    load_kernel_modules()
    containerd, plugins = packages.which("containerd"), packages.cni_directory()
    if containerd is None or plugins is None:
        raise Refusal("containerd or its network plugins vanished while we looked.", 3)
    with lock(where, "images"):
        programs = binaries.ensure(where)
        pause = images.build(where, "pause")
    where.state.mkdir(parents=True, exist_ok=True)
    tools = Tools(programs, containerd, plugins, life.snapshotter(where.state), sys.executable)
    with listen(where) as listening:
        with step("certificates"):
            pki.ensure(where, listening.getsockname()[1])
        life.start(where, tools, listening)
    socket_path = "/run/containerd/containerd.sock"
    with step("containerd"):
        _wait(where, 30, "containerd answers", lambda: _succeeds(where, "test", "-S", socket_path))
    images.import_into_node(where, [pause])
    _wait_until_ready(where)
    say(f"Up in {time.monotonic() - began:.1f} s: export KUBECONFIG={where.kubeconfig}")


def _succeeds(where: Layout, *command: str) -> bool:
    try:
        inside = life.enter(where)
    except Refusal:
        return False
    return subprocess.run([*inside, *command], capture_output=True, timeout=10, check=False).returncode == 0


def _wait(where: Layout, within_s: float, what: str, holds: kube.Condition) -> None:
    kube.wait_until(holds, within_s, what, lambda: life.recorded(where) is not None, where.logs)


def _wait_until_ready(where: Layout) -> None:
    api = kube.Api(where.pki, int(where.port_file.read_text()))
    with step("API server"):
        _wait(where, 90, "the API server answers", lambda: api.request("/readyz") == b"ok")
        for thing in components.dns_objects():
            api.apply(thing)
        where.dns_file.touch()
    with step("node Ready"):
        _wait(where, 90, "the node is Ready", lambda: kube.node_ready(api, layout.NODE_NAME))
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        _wait(where, 30, "pods have a service account", lambda: bool(api.get(account)))
    with step("DNS"):
        _wait(where, 60, "names are answered", lambda: _succeeds(where, sys.executable, "-c", ASK_DNS))


def down(where: Layout) -> None:
    """Ends the cluster and removes every trace of it but the cache."""
    was_up = life.recorded(where) is not None
    with step("ending the node"):
        life.end(where)
    life.remove_state(where)
    say("Down; nothing is left but the cache." if was_up else "It was not up; what was left of it is removed.")


def status(where: Layout) -> int:
    """One screen; exit code 1 when the cluster is not up."""
    if life.recorded(where) is None:
        say(f"No cluster of {where.state} is up: `make up` starts one.")
        return NOT_UP
    for line in report.lines(where):
        say(line)
    return 0


def run_inside(where: Layout, command: list[str]) -> int:
    """Runs a command inside the node's namespaces and gives its exit code."""
    if not command:
        raise Refusal("Say what to run: `cluster.py exec -- ip address`.")
    return subprocess.run([*life.enter(where), *command], check=False).returncode


def after_dashes(argv: list[str]) -> list[str]:
    """A command line without the `--` in front of it."""
    return argv[1:] if argv[:1] == ["--"] else argv


def run(where: Layout, command: list[str]) -> int:
    """Runs a command against a cluster with our images: the one that KUBECONFIG names, else the local one.

    A local cluster that was not up before is taken down afterwards.

    Returns:
        The command's exit code, save that 3 is told as 1: 3 means that this machine can have no cluster.
    """
    if not command:
        raise Refusal("Say what to run: `cluster.py run -- pytest tests/e2e`.")
    given = os.environ.get("KUBECONFIG")
    was_up = life.recorded(where) is not None
    if given:
        say(f"Using the cluster of KUBECONFIG={given}")
    else:
        packages.require_possible()
        with lock(where, where.cgroup):
            up(where)
    try:
        with lock(where, "images"):
            images.build_and_load(where, [])
        kubeconfig = given or str(where.kubeconfig)
        code = subprocess.run(command, env={**os.environ, "KUBECONFIG": kubeconfig}, check=False).returncode
    finally:
        if not given and not was_up:
            down(where)
    return 1 if code == NO_CLUSTER_HERE else code


def main(arguments: list[str] | None = None) -> int:
    """Reads the command line; gives the exit code: 0, 1 for a refusal, 3 when this machine can have no cluster."""
    parser = argparse.ArgumentParser(
        prog="cluster.py", description="A real one-node Kubernetes on a bare Linux machine."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("up", help="bring it up, or make sure that it is")
    commands.add_parser("down", help="end it and remove its state")
    commands.add_parser("status", help="what runs; exit code 1 when it is not up")
    commands.add_parser("kubeconfig", help="print the path of its kubeconfig")
    building = commands.add_parser("images", help="build every image and load those that changed")
    building.add_argument("targets", nargs="*", metavar="TARGET", help=f"any of {', '.join(images.TARGETS)}")
    loading = commands.add_parser("load", help="load an image into it")
    loading.add_argument("image", help="a tar of an image, or the name of one that buildah has")
    running = commands.add_parser("run", help="run a command with KUBECONFIG set; bring the cluster up if it is not")
    running.add_argument("argv", nargs=argparse.REMAINDER)
    executing = commands.add_parser("exec", help="run a command inside the node")
    executing.add_argument("argv", nargs=argparse.REMAINDER)
    chosen = parser.parse_args(arguments)
    where = Layout.from_environment()
    os.environ["PATH"] = f"{os.environ.get('PATH', '')}:{packages.SEARCH_PATH}"
    try:
        match chosen.command:
            case "status":
                return status(where)
            case "kubeconfig":
                say(str(where.kubeconfig))
            case "exec":
                return run_inside(where, after_dashes(chosen.argv))
            case "run":
                return run(where, after_dashes(chosen.argv))
            case "up" | "down":
                packages.require_possible()
                with lock(where, where.cgroup):
                    up(where) if chosen.command == "up" else down(where)
            case "images":
                with lock(where, "images"):
                    images.build_and_load(where, chosen.targets)
            case "load":
                images.load(where, chosen.image)
    except Refusal as refusal:
        print(refusal, file=sys.stderr, flush=True)
        return refusal.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
