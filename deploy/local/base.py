"""buildah, and the image that the others start from: from a registry when one answers, else made with debootstrap."""

import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import layout
import life
from layout import Layout
from progress import Refusal, say, step

SUITE = "bookworm"
PACKAGES = ("ca-certificates", "iptables", "python3", "python3-venv")
UPSTREAM = f"debian:{SUITE}-slim"
ANSWER_WITHIN_S = 3
APART = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs tmpfs /var/lib/containers 2>/dev/null; exec "$@"', "sh"]
"""buildah's mounts end with it, also when it is interrupted, and what it keeps for other storages is not written."""

UNWANTED = (
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/info",
    "var/cache/apt",
    "var/lib/apt/lists",
)


def key() -> str:
    """A hash over what the base image is made of."""
    return layout.digest([SUITE.encode(), *(package.encode() for package in PACKAGES)])[:12]


def has(where: Layout, name: str) -> bool:
    """Tells whether buildah's storage has an image."""
    return buildah(where, "inspect", "--type", "image", name, check=False).returncode == 0


def ensure(where: Layout) -> str:
    """The base image's name; it is made when buildah does not have it.

    Raises:
        Refusal: no registry answers and debootstrap failed.
    """
    name = f"localhost/serinus-base:{key()}"
    if has(where, name):
        return name
    tar = where.cache / f"base-{key()}.tar"
    if not tar.exists() and _registry_answers(where):
        with step(f"base image from {UPSTREAM}"):
            buildah(where, "pull", "-q", UPSTREAM)
            build(where, "base", name, lambda _: None, [f"BASE={UPSTREAM}"])
        return name
    if not tar.exists():
        say("  no registry answers: making the base image with debootstrap")
        with step("debootstrap (about a minute)"):
            _debootstrap(where, tar)
    with step("base image"), _context(where) as context:
        (context / tar.name).hardlink_to(tar)
        (context / "Dockerfile").write_text(f'FROM scratch\nADD {tar.name} /\nCMD ["/bin/sh"]\n')
        _bud(where, context / "Dockerfile", ["-t", name], context)
    return name


@contextmanager
def _context(where: Layout) -> Iterator[Path]:
    (where.cache / "context").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=where.cache / "context") as folder:
        yield Path(folder)


def _registry_answers(where: Layout) -> bool:
    try:
        command = _command(where, "manifest", "inspect", f"docker.io/library/{UPSTREAM}")
        return subprocess.run(command, capture_output=True, timeout=ANSWER_WITHIN_S, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def _debootstrap(where: Layout, tar: Path) -> None:
    root = where.cache / "debootstrap"
    shutil.rmtree(root, ignore_errors=True)
    command = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(root)]
    ran = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if ran.returncode != 0:
        last = " ".join(ran.stdout.strip().splitlines()[-3:])
        raise Refusal(f"debootstrap failed ({last}): its log is {root}/debootstrap/debootstrap.log.")
    for directory in UNWANTED:
        shutil.rmtree(root / directory, ignore_errors=True)
        (root / directory).mkdir(parents=True)
    part = tar.with_name(f"{tar.name}.part")
    with tarfile.open(part, "w") as archive:
        archive.add(root, arcname=".")
    part.replace(tar)
    shutil.rmtree(root)


def build(where: Layout, stage: str, name: str, put: Callable[[Path], None], arguments: list[str]) -> None:
    """Builds a target of `deploy/Dockerfile`, with buildah's layers kept for the next time.

    Args:
        where: its cache has buildah's storage.
        stage: the target.
        name: what the image is called there, or `oci:DIRECTORY:REFERENCE` for an image in an OCI layout.
        put: puts the files that the target copies into the build context.
        arguments: `NAME=value` for the Dockerfile's arguments.

    Raises:
        Refusal: the build failed; the sentence ends with what buildah said last.
    """
    options = ["--target", stage, "-t", name, *(f"--build-arg={argument}" for argument in arguments)]
    if stage == "shop":
        options.append("--no-cache")  # buildah 1.28 takes an ENV that names an argument from the cache as it was
    with _context(where) as context:
        put(context)
        _bud(where, layout.CHECKOUT / "deploy" / "Dockerfile", options, context)


def _bud(where: Layout, dockerfile: Path, options: list[str], context: Path) -> None:
    how = ["--isolation", "chroot", "--layers", "--pull-never", "-f", str(dockerfile)]
    buildah(where, "bud", *how, *options, str(context))


def save(where: Layout, name: str, tar: Path) -> None:
    """Writes an image that buildah has, in our storage or in its own, into a docker archive.

    Raises:
        Refusal: neither has such an image.
    """
    tar.parent.mkdir(parents=True, exist_ok=True)
    push = ["push", "-q", name, f"docker-archive:{tar}:{name}"]
    if has(where, name):
        buildah(where, *push)
    elif subprocess.run(["buildah", *push], capture_output=True, stdin=subprocess.DEVNULL, check=False).returncode != 0:
        raise Refusal(f"{name} is neither a file nor an image that buildah has.")


def buildah(where: Layout, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Runs buildah on a storage of our own in the cache."""
    scratch = where.cache / "tmp"
    scratch.mkdir(parents=True, exist_ok=True)
    ran = subprocess.run(
        _command(where, *arguments),
        env={**os.environ, "TMPDIR": str(scratch)},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if check and ran.returncode != 0:
        raise Refusal(f"buildah {arguments[0]} failed: {ran.stderr.strip()[-600:]}")
    return ran


def _command(where: Layout, *arguments: str) -> list[str]:
    driver = "vfs" if life.snapshotter(where.cache) == "native" else "overlay"
    storage = ["--root", str(where.cache / "buildah"), "--runroot", str(where.cache / "buildah-run")]
    return [*APART, "buildah", *storage, "--storage-driver", driver, *arguments]
