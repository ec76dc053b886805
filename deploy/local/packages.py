"""What has to be installed on the machine: looked for by file, installed with apt where that is possible."""

import os
import platform
import shutil
import subprocess
from pathlib import Path

from progress import NO_CLUSTER_HERE, Refusal, say, step

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CNI_DIRECTORIES = (Path("/usr/lib/cni"), Path("/opt/cni/bin"), Path("/usr/libexec/cni"))
CNI_PLUGINS = ("bridge", "host-local", "portmap", "loopback")

DEBIAN_KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

PROVIDERS = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "buildah": "buildah",
    "debootstrap": "debootstrap",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "mount": "mount",
    "openssl": "openssl",
}
"""Command → the Debian package that has it. What the local cluster calls, and nothing else."""


def which(command: str) -> str | None:
    """The command's path, also where a user's PATH leaves out the administrator's directories."""
    return shutil.which(command, path=f"{SEARCH_PATH}:{os.environ.get('PATH', '')}")


def cni_directory() -> Path | None:
    """The directory that has all the network plugins we use."""
    return next((d for d in CNI_DIRECTORIES if all((d / plugin).exists() for plugin in CNI_PLUGINS)), None)


def missing() -> list[str]:
    """Debian's names of the packages that this machine lacks."""
    lacking = {package for command, package in PROVIDERS.items() if which(command) is None}
    if cni_directory() is None:
        lacking.add("containernetworking-plugins")
    if not DEBIAN_KEYS.exists():
        lacking.add("debian-archive-keyring")  # Ubuntu does not have the keys that debootstrap checks Debian with
    return sorted(lacking)


def require_possible() -> None:
    """Checks that this machine can have a cluster at all.

    Raises:
        Refusal: with exit code 3; its sentence says what is in the way.
    """
    if platform.system() != "Linux":
        raise Refusal(
            f"The local cluster needs Linux and this is {platform.system()}: set KUBECONFIG to a cluster of yours "
            "(kind or k3d will do).",
            NO_CLUSTER_HERE,
        )
    if os.geteuid() != 0:
        raise Refusal(
            "The local cluster needs root for its namespaces: run as root, or set KUBECONFIG to a cluster of yours "
            "(kind or k3d will do).",
            NO_CLUSTER_HERE,
        )
    if platform.machine() not in ("x86_64", "aarch64"):
        raise Refusal(f"The local cluster runs on x86_64 and aarch64, not on {platform.machine()}.", NO_CLUSTER_HERE)


def is_debian_like(os_release: str) -> bool:
    """Tells from the text of `/etc/os-release` whether apt and Debian's package names can be counted on."""
    fields = dict(line.split("=", 1) for line in os_release.splitlines() if "=" in line)
    words = f"{fields.get('ID', '')} {fields.get('ID_LIKE', '')}".replace('"', "").split()
    return bool({"debian", "ubuntu"} & set(words))


def install_missing() -> None:
    """Installs what is missing.

    Raises:
        Refusal: with exit code 3 where it cannot: not Debian or Ubuntu, or apt failed.
    """
    lacking = missing()
    if not lacking:
        return
    release = Path("/etc/os-release")
    if which("apt-get") is None or not is_debian_like(release.read_text() if release.exists() else ""):
        raise Refusal(
            f"This machine lacks what Debian packages as {', '.join(lacking)}: install these, then try again.",
            NO_CLUSTER_HERE,
        )
    say(f"  missing Debian packages: {', '.join(lacking)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for label, command in (
        ("apt-get update", ["apt-get", "update", "-q"]),
        ("apt-get install", ["apt-get", "install", "-q", "-y", "--no-install-recommends", *lacking]),
    ):
        with step(label):
            ran = subprocess.run(
                command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
            )
        if ran.returncode != 0:
            last = (ran.stderr.strip() or ran.stdout.strip()).splitlines()[-1:]
            raise Refusal(f"{label} failed: {' '.join(last)}. Install {', '.join(lacking)} by hand.", NO_CLUSTER_HERE)
    left = missing()
    if left:
        raise Refusal(f"apt installed everything and yet this machine lacks {', '.join(left)}.", NO_CLUSTER_HERE)
