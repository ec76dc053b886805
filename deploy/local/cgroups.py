"""The cgroup below which the kubelet puts every pod: made before the node starts, removed after it is gone."""

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path

from progress import Refusal

WANTED_V2 = ("cpu", "cpuset", "io", "memory", "pids")
WEIGHTS = {"cpu.shares": 4096, "cpu.weight": 200}
"""What all pods together weigh, in version 1 and 2. The node's own processes are beside them, in version 1 each thread
by itself with 1024: by default the pods together would get as much of a processor as one of the API server's threads.
On an ordinary node with two cores they get twice as much as all of the system."""


@dataclass(frozen=True)
class Hierarchies:
    """The mounted cgroup hierarchies.

    Attributes:
        version: 1 or 2, the one that controls pods here.
        roots: where it is mounted; version 2 has one root, version 1 one for each controller.
        other_roots: a hybrid host's version 2, in which container runtimes leave empty directories of our name.
    """

    version: int
    roots: tuple[Path, ...]
    other_roots: tuple[Path, ...] = ()


def detect(mountinfo: str) -> Hierarchies:
    """Reads `/proc/self/mountinfo`.

    A host with any version 1 controller counts as version 1, since there the kubelet and runc use those and leave a
    hybrid host's `unified` mount alone.

    Raises:
        Refusal: no cgroups are mounted.
    """
    v1: list[Path] = []
    v2: list[Path] = []
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) < 5 or not kind:
            continue
        if kind[0] == "cgroup":
            v1.append(Path(fields[4]))
        elif kind[0] == "cgroup2":
            v2.append(Path(fields[4]))
    if v1:
        return Hierarchies(1, tuple(sorted(set(v1))), tuple(v2))
    if v2:
        return Hierarchies(2, (v2[0],))
    raise Refusal("No cgroups are mounted on this machine, so no container can run: mount /sys/fs/cgroup first.", 3)


def detect_here() -> Hierarchies:
    """`detect` for this machine."""
    return detect(Path("/proc/self/mountinfo").read_text())


def make(hierarchies: Hierarchies, name: str) -> None:
    """Makes the cgroup in every hierarchy.

    Raises:
        Refusal: it exists with processes in it (somebody else's), or the kernel does not let us.
    """
    busy = processes(hierarchies, name)
    if busy:
        raise Refusal(
            f"The cgroup {name} already holds processes ({', '.join(map(str, busy[:5]))}) that this state directory "
            "does not know: end them, or choose another directory with SERINUS_STATE."
        )
    remove(hierarchies, name)
    try:
        for root in hierarchies.roots:
            (root / name).mkdir(exist_ok=True)
            if hierarchies.version == 2:
                _delegate(root, root / name)
            elif (root / "cpuset.cpus").exists():
                for knob in (
                    "cpuset.cpus",
                    "cpuset.mems",
                ):  # version 1 starts a new cpuset empty, and nothing runs in it
                    (root / name / knob).write_text((root / knob).read_text())
            for knob, weight in WEIGHTS.items():
                if (root / name / knob).exists():
                    (root / name / knob).write_text(str(weight))
    except OSError as error:
        raise Refusal(f"This machine does not let us make the cgroup {name}: {error}.", 3) from error


def _delegate(root: Path, ours: Path) -> None:
    have = (root / "cgroup.controllers").read_text().split()
    switches = " ".join(f"+{controller}" for controller in WANTED_V2 if controller in have)
    for directory in (root, ours):
        (directory / "cgroup.subtree_control").write_text(switches)


def processes(hierarchies: Hierarchies, name: str) -> list[int]:
    """The pids in our cgroup and below it."""
    found: set[int] = set()
    for root in hierarchies.roots:
        for file in (root / name).rglob("cgroup.procs"):
            with contextlib.suppress(OSError):
                found.update(int(pid) for pid in file.read_text().split())
    return sorted(found)


def remove(hierarchies: Hierarchies, name: str, patience_s: float = 10.0) -> None:
    """Removes our cgroup depth first; processes that were just killed may hold it for a moment.

    Raises:
        Refusal: something still holds it after `patience_s`.
    """
    end = time.monotonic() + patience_s
    for root in (*hierarchies.roots, *hierarchies.other_roots):
        while (root / name).exists():
            below = sorted((path for path in (root / name).rglob("*") if path.is_dir()), reverse=True)
            for directory in [*below, root / name]:
                with contextlib.suppress(OSError):
                    directory.rmdir()
            if not (root / name).exists():
                break
            if time.monotonic() > end:
                raise Refusal(f"The cgroup {root / name} could not be removed: processes in it still run.")
            time.sleep(0.1)
