"""The node as one process: started in namespaces of its own, found again by pid, ended by pid."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import cgroups
import components
import layout
from components import Tools
from layout import Layout
from progress import Refusal

NAMESPACES = ["unshare", "--net", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc"]
ENDS_WITHIN_S = 20.0


def start_time(pid: int) -> str | None:
    """When a process started, in ticks since boot; with the pid it names one process.

    None when there is none, or when it has ended and only waits to be collected by its parent.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def recorded(where: Layout) -> int | None:
    """The pid of the process that holds the node's namespaces, if it still runs."""
    try:
        pid, started = where.node_file.read_text().split()
    except (OSError, ValueError):
        return None
    return int(pid) if start_time(int(pid)) == started else None


def first_process(where: Layout) -> int | None:
    """The host's pid of the node's process 1, whose namespaces a command can enter."""
    pid = recorded(where)
    if pid is None:
        return None
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return None
    return int(children[0]) if children else None


def enter(where: Layout, *which: str) -> list[str]:
    """The command line in front of a command that is to run inside the node; all namespaces if none is named.

    Raises:
        Refusal: there is no node.
    """
    pid = first_process(where)
    if pid is None:
        raise Refusal(f"No cluster of {where.state} is up: `make up` starts one.")
    return ["nsenter", "-t", str(pid), *(which or ("-m", "-n", "-p"))]


def snapshotter(directory: Path) -> str:
    """`native` where the state lies on an overlay (a container's own file system), which cannot be laid over again."""
    kind = subprocess.run(
        ["stat", "-f", "-c", "%T", str(directory)], capture_output=True, text=True, check=False
    ).stdout.strip()
    return "native" if kind == "overlayfs" else "overlayfs"


def start(where: Layout, tools: Tools, listening: socket.socket) -> None:
    """Writes the node's files and starts it; it goes on when this process ends."""
    listening.set_inheritable(True)
    for folder in ("bin", "cni", "cni-addresses", "containerd", "etcd", "kubelet", "log/pods", "volume-plugins"):
        (where.state / folder).mkdir(parents=True, exist_ok=True)
    (where.state / "etcd").chmod(0o700)
    for path, text in components.files(where, tools).items():
        path.write_text(text)
    for name, binary in tools.binaries.items():
        link = where.state / "bin" / name
        link.unlink(missing_ok=True)
        link.symlink_to(binary)
    cgroups.make(cgroups.detect_here(), where.cgroup)
    node = {
        "state": str(where.state),
        "logs": str(where.logs),
        "needed": [str(path) for path in (where.state, where.cache, layout.HERE, Path(sys.prefix), Path(tools.python))],
        "components": [asdict(c) for c in components.components(where, tools, listening.fileno())],
    }
    (where.state / "node.json").write_text(json.dumps(node, indent=2))
    with (where.logs / "node.log").open("a") as log:
        process = subprocess.Popen(
            [*NAMESPACES, tools.python, str(layout.HERE / "node.py"), str(where.state / "node.json")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={"PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"},
            pass_fds=(listening.fileno(),),
            start_new_session=True,
            cwd="/",
        )
    where.node_file.write_text(f"{process.pid} {start_time(process.pid)}\n")
    process.returncode = 0  # it outlives us; nobody here waits for it


def end(where: Layout) -> None:
    """Ends the node, if it runs, and everything that it started; removes its cgroup.

    Raises:
        Refusal: it would not end.
    """
    holder, first = recorded(where), first_process(where)
    for pid in (first, holder):
        if pid is not None:
            _kill(pid)
    deadline = time.monotonic() + ENDS_WITHIN_S
    while any(pid is not None and start_time(pid) is not None for pid in (first, holder)):
        if time.monotonic() > deadline:
            raise Refusal(f"The node's process {first} did not end within {ENDS_WITHIN_S:.0f} s.")
        time.sleep(0.05)
    cgroups.remove(cgroups.detect_here(), where.cgroup)
    where.node_file.unlink(missing_ok=True)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def remove_state(where: Layout) -> None:
    """Removes the state directory.

    Raises:
        Refusal: it does not look like one of ours, so removing it might cost somebody's files.
    """
    if not where.state.exists():
        return
    if any(where.state.iterdir()) and not (where.state / "pki").exists() and not where.port_file.exists():
        raise Refusal(f"{where.state} was not made by `up`, so it is not removed: look at SERINUS_STATE.")
    shutil.rmtree(where.state)
