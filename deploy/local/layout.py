"""Where everything of the local cluster lies, and the addresses that it uses inside its own namespaces.

Two directories: the state (gone after `down`) and the cache (outlives a clean checkout). What has to differ between
two checkouts on one machine, the cgroup's name and the port, is derived from the state directory's path.
"""

import hashlib
import os
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parent.parent

NODE_NAME = "node1"
NODE_IP = "198.18.255.2"  # 198.18.0.0/15 is the benchmarking range (RFC 2544): it clashes with no real network
POD_CIDR = "198.18.0.0/17"
NODE_POD_CIDR = "198.18.0.0/20"
SERVICE_CIDR = "198.19.0.0/16"
API_SERVICE_IP = "198.19.0.1"
DNS_SERVICE_IP = "198.19.0.10"
API_PORT = 6443
FIRST_PORT = 16443
PORTS_TRIED = 50


@dataclass(frozen=True)
class Layout:
    """The two directories and every path in them that more than one module needs."""

    state: Path
    cache: Path

    @property
    def cgroup(self) -> str:
        """Name of the cgroup that holds the node's pods; one per state directory."""
        return f"serinus-{digest([str(self.state).encode()])[:8]}"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig, for the host."""
        return self.state / "kubeconfig"

    @property
    def pki(self) -> Path:
        """Certificates and keys."""
        return self.state / "pki"

    @property
    def logs(self) -> Path:
        """One file per component, and the pods' logs."""
        return self.state / "log"

    @property
    def node_file(self) -> Path:
        """`<pid> <start time>` of the process that is the node."""
        return self.state / "node.pid"

    @property
    def port_file(self) -> Path:
        """The port on 127.0.0.1 at which the host reaches the API server."""
        return self.state / "port"

    @property
    def dns_file(self) -> Path:
        """Exists once CoreDNS may read from the API server; started before, it would wait longer than it has to."""
        return self.state / "dns-may-start"

    @classmethod
    def from_environment(cls) -> "Layout":
        """`SERINUS_STATE` and `SERINUS_CACHE`, else `.state` in the checkout and `serinus` in the user's cache."""
        state = os.environ.get("SERINUS_STATE") or str(CHECKOUT / ".state")
        cache = os.environ.get("SERINUS_CACHE") or str(Path.home() / ".cache" / "serinus")
        return cls(Path(state).absolute(), Path(cache).absolute())


def digest(parts: Iterable[bytes]) -> str:
    """A hash over byte strings in their order, each with its length, so that no two lists share one by chance."""
    total = hashlib.sha256()
    for part in parts:
        total.update(len(part).to_bytes(8, "big"))
        total.update(part)
    return total.hexdigest()


def digest_of_files(root: Path, paths: Iterable[Path]) -> str:
    """A hash over the names (relative to `root`), execute bits and contents of files, whatever order they come in."""
    parts: list[bytes] = []
    for path in sorted(paths):
        executable = b"x" if path.stat().st_mode & 0o100 else b"-"
        parts += [str(path.relative_to(root)).encode(), executable, path.read_bytes()]
    return digest(parts)


def can_listen(port: int) -> bool:
    """Tells whether this process could listen on 127.0.0.1:`port` now."""
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def choose_port(recorded: int | None, free: Callable[[int], bool] = can_listen) -> int | None:
    """The recorded port if it is free, else the first free one from 16443 on; None when all that are tried are taken.

    A recorded port comes first because kubeconfig files that others copied name it.
    """
    wished = [] if recorded is None else [recorded]
    return next((port for port in [*wished, *range(FIRST_PORT, FIRST_PORT + PORTS_TRIED)] if free(port)), None)
