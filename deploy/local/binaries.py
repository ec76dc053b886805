"""The node's programs: from the cache, else from the projects' release sites, else built from Go modules."""

from collections.abc import Callable
from pathlib import Path

import layout
import releases
import toolchain
from layout import Layout
from progress import say, step

NODE_PROGRAMS = ("etcd", *releases.KUBERNETES)
MODULES = {"node": "kubernetes-node", "dns": "coredns"}
"""Folder below `go/` → the name of what it builds. `kubernetes-node` is all of NODE_PROGRAMS in one."""


def link_flags(module: str) -> str:
    """How a module of MODULES is linked: without symbols, and Kubernetes with the version that it is."""
    if module != "node":
        return "-s -w"
    version = releases.module_version("node", "k8s.io/kubernetes")
    major, minor, _ = version[1:].split(".", 2)
    fields = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    return " ".join(["-s -w", *(f"-X k8s.io/component-base/version.{key}={value}" for key, value in fields.items())])


def target_of(where: Layout, folder: Path, name: str, flags: str = "") -> Path:
    """Where the build of a Go program lies; its name carries a hash of sources and flags, so a change builds anew."""
    sources = [path for path in [*folder.glob("*.go"), *folder.glob("go.*")] if not path.name.endswith("_test.go")]
    key = layout.digest([flags.encode(), layout.digest_of_files(folder, sources).encode()])[:12]
    return where.cache / "bin" / f"{name}-{key}-{releases.architecture()}"


def cached(where: Layout, module: str) -> Path:
    """Where the build of one of MODULES lies."""
    return target_of(where, layout.HERE / "go" / module, MODULES[module], link_flags(module))


def ensure(where: Layout, fetch: Callable[[releases.Release, Path], bool] = releases.fetch) -> dict[str, Path]:
    """Every program's path.

    Raises:
        Refusal: one could be neither fetched nor built.
    """
    found = {
        **{name: cached(where, "node") for name in NODE_PROGRAMS},
        "coredns": cached(where, "dns"),
    }
    official = where.cache / "bin" / f"kubernetes-{releases.module_version('node', 'k8s.io/kubernetes')}"
    lacking = [release for release in releases.releases(releases.architecture()) if not found[release.binary].exists()]
    for release in lacking:
        target = official / f"{release.binary}-{releases.architecture()}"
        if not target.exists() and not fetch(release, target):
            say("  the release sites do not answer: building from Go modules")
            break
        found[release.binary] = target
    for module, programs in (("node", NODE_PROGRAMS), ("dns", ("coredns",))):
        if not all(found[name].exists() for name in programs):
            target = cached(where, module)
            with step(f"building {target.name} (about ten minutes for the first time)"):
                toolchain.build(where, layout.HERE / "go" / module, target, link_flags(module))
            found |= dict.fromkeys(programs, target)
    return found
