"""The node's first process. Inside namespaces of its own it makes the network, starts the components, keeps them up.

Run by `up` as `unshare --net --pid --mount --fork --kill-child --mount-proc python node.py NODE_JSON`; being process 1
of its PID namespace, its end is the end of every process, mount and interface of the node.

Nothing leaves: the network namespace has its loopback, a bridge that only carries the node's address, and the pods'
bridge. There is no default route, so an address that is not ours is unreachable at once.
"""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import layout

RESTART_AFTER_S = 0.5
RESTART_AT_MOST_AFTER_S = 10.0
STABLE_AFTER_S = 30.0
TICK_S = 0.05
IDLE_TICK_S = 1.0

KERNEL_SETTINGS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
"""What the kubelet would set for the whole machine. It finds these values in files mounted over the real ones, and so
leaves the machine as it is."""

HIDDEN = (Path("/var/log"), Path("/var/lib"))
"""Directories that components write fixed paths into; the node sees empty ones of its own instead."""


def shell(*command: str) -> None:
    """Runs a command that must succeed."""
    subprocess.run(command, check=True)


def hideable(needed: list[Path]) -> list[Path]:
    """The directories of `HIDDEN` that hold none of the paths the node needs."""
    return [d for d in HIDDEN if d.is_dir() and not any(path.is_relative_to(d) for path in needed)]


def prepare_mounts(state: Path, needed: list[Path]) -> None:
    """Gives the node a `/run`, a resolver and kernel settings of its own, all gone with its mount namespace."""
    shell("mount", "--make-rprivate", "/")
    kubelet = str(state / "kubelet")
    shell("mount", "--bind", kubelet, kubelet)
    shell("mount", "--make-rshared", kubelet)  # volumes mounted by the kubelet have to show up in containers
    for directory in [Path("/run"), *hideable(needed)]:
        shell("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", str(directory))
    for own in ("/run/tmp", "/run/lock", "/run/kernel"):
        Path(own).mkdir(parents=True)
    resolver = Path("/run/resolv.conf")
    resolver.write_text(f"nameserver {layout.DNS_SERVICE_IP}\n")
    with contextlib.suppress(subprocess.CalledProcessError):
        shell("mount", "--bind", str(resolver), str(Path("/etc/resolv.conf").resolve()))
    for setting, value in KERNEL_SETTINGS.items():
        real = Path("/proc/sys") / setting
        if real.exists():
            shown = Path("/run/kernel") / real.name
            shown.write_text(value + "\n")
            shell("mount", "--bind", str(shown), str(real))


def prepare_network() -> None:
    """Brings up the node's address and lets its own processes reach Service addresses; no default route."""
    shell("ip", "link", "set", "lo", "up")
    shell("ip", "link", "add", "node0", "type", "bridge")
    shell("ip", "address", "add", f"{layout.NODE_IP}/32", "dev", "node0")
    shell("ip", "link", "set", "node0", "up")
    shell("ip", "route", "add", layout.SERVICE_CIDR, "dev", "lo", "src", layout.NODE_IP)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    Path("/proc/sys/net/bridge/bridge-nf-call-iptables").write_text("1")


def answers(port: int) -> bool:
    """Tells whether something listens on the node's loopback."""
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Supervisor:
    """Starts each component when what it needs is there, and again when it has ended."""

    def __init__(self, components: list[dict[str, object]], logs: Path) -> None:
        self.waiting = {str(component["name"]): 0.0 for component in components}
        self.components = {str(component["name"]): component for component in components}
        self.running: dict[int, tuple[str, subprocess.Popen[bytes]]] = {}
        self.started: dict[str, float] = {}
        self.delays_s: dict[str, float] = {}
        self.logs = logs
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": "/run",
            "TMPDIR": "/run/tmp",
            "LANG": "C.UTF-8",
            "GOGC": "300",  # a quarter of the API server's time went into collecting garbage from a small heap
        }

    def start_ready(self, now: float) -> None:
        """Starts every waiting component whose time has come and whose needs are met."""
        for name, not_before in list(self.waiting.items()):
            component = self.components[name]
            port, path = component["needs_port"], str(component["needs_path"])
            if now < not_before or (port and not answers(int(str(port)))) or (path and not Path(path).exists()):
                continue
            argv, inherits = component["argv"], component["inherits"]
            assert isinstance(argv, list) and isinstance(inherits, list)  # noqa: S101, PT018 - the file is ours
            with (self.logs / f"{name}.log").open("a") as log:
                process = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=self.environment,
                    pass_fds=inherits,
                    start_new_session=True,
                )
            self.running[process.pid] = (name, process)
            self.started[name] = now
            del self.waiting[name]
            print(f"{time.strftime('%H:%M:%S')} started {name}, pid {process.pid} here", flush=True)

    def reap(self, now: float) -> None:
        """Collects every process that has ended, also containers' orphans, which fall to process 1."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid not in self.running:
                continue
            name, process = self.running.pop(pid)
            process.returncode = os.waitstatus_to_exitcode(status)  # so that subprocess does not wait for it again
            print(
                f"{time.strftime('%H:%M:%S')} {name} ended with {process.returncode}; it is started again", flush=True
            )
            self.waiting[name] = now + self._delay_s(name, now)

    def _delay_s(self, name: str, now: float) -> float:
        """Half a second at first, twice as much after each early end, so that a broken component fills no disk."""
        delay_s = RESTART_AFTER_S
        if now - self.started[name] < STABLE_AFTER_S:
            delay_s = min(2 * self.delays_s.get(name, RESTART_AFTER_S / 2), RESTART_AT_MOST_AFTER_S)
        self.delays_s[name] = delay_s
        return delay_s


def main(specification: Path) -> None:
    """Prepares the node, then supervises until killed."""
    wake, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    node = json.loads(specification.read_text())
    prepare_mounts(Path(node["state"]), [Path(path) for path in node["needed"]])
    prepare_network()
    supervisor = Supervisor(node["components"], Path(node["logs"]))
    while True:
        supervisor.reap(time.monotonic())
        supervisor.start_ready(time.monotonic())
        tick_s = TICK_S if supervisor.waiting else IDLE_TICK_S
        if select.select([wake], [], [], tick_s)[0]:
            os.read(wake, 4096)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
