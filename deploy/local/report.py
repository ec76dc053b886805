"""What `status` shows: one screen about the node, its pods and its images."""

from collections import Counter
from pathlib import Path

import cgroups
import kube
import layout
import life
from layout import Layout

PAGE_BYTES = 4096


def descendants(pid: int) -> list[int]:
    """A process and everything below it."""
    found = [pid]
    for parent in found:
        try:
            found += [
                int(p) for t in Path(f"/proc/{parent}/task").iterdir() for p in (t / "children").read_text().split()
            ]
        except OSError:
            continue
    return found


def memory_mib(pids: list[int]) -> float:
    """Resident memory of processes, in MiB."""
    pages = 0
    for pid in pids:
        try:
            pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except (OSError, IndexError):
            continue
    return pages * PAGE_BYTES / (1 << 20)


def lines(where: Layout) -> list[str]:
    """The lines to print for a node that runs."""
    pid = life.first_process(where) or 0
    everything = descendants(pid)
    names = Counter(_name(p) for p in everything)
    port = int(where.port_file.read_text())
    hierarchies = cgroups.detect_here()
    shown = [
        f"state        {where.state}",
        f"cache        {where.cache}",
        f"kubeconfig   {where.kubeconfig}  (127.0.0.1:{port})",
        f"process      {pid} with {len(everything) - 1} below it, {memory_mib(everything):.0f} MiB resident",
        f"cgroup       {where.cgroup} (version {hierarchies.version})",
        f"components   {', '.join(n for n in sorted(names) if n in COMPONENTS)}",
    ]
    lacking = sorted(COMPONENTS - set(names))
    if lacking:
        shown.append(f"not running  {', '.join(lacking)}: see {where.logs}")
    try:
        shown += _from_api(kube.Api(where.pki, port))
    except OSError as error:
        shown.append(f"API server   does not answer: {error}")
    return shown


COMPONENTS = {
    *("containerd", "coredns", "etcd", "kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler"),
    "kubelet",
}


def _name(pid: int) -> str:
    try:
        return Path(Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()).name
    except OSError:
        return ""


def _from_api(api: kube.Api) -> list[str]:
    version = api.get("/version")["gitVersion"]
    ready = "Ready" if kube.node_ready(api, layout.NODE_NAME) else "not Ready"
    pods = api.get("/api/v1/pods")["items"]
    assert isinstance(pods, list)  # noqa: S101 - a list of the API
    phases = Counter((pod["metadata"]["namespace"], pod["status"].get("phase", "Unknown")) for pod in pods)
    shown = [f"Kubernetes   {version}, {layout.NODE_NAME} is {ready}"]
    for (namespace, phase), count in sorted(phases.items()):
        shown.append(f"pods         {namespace}: {count} {phase}")
    return shown
