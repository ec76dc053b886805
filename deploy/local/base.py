"""buildah, and the image that the others start from: from a registry when one answers, else made with debootstrap."""

import shutil
import subprocess
import tarfile
from pathlib import Path

import layout
import life
from layout import Layout
from progress import Refusal, say, step

SUITE = "bookworm"
PACKAGES = ("ca-certificates", "iptables", "python3", "python3-venv")
UPSTREAM = f"debian:{SUITE}-slim"
ANSWER_WITHIN_S = 3
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


def ensure(where: Layout) -> str:
    """The base image's name; it is made when buildah does not have it.

    Raises:
        Refusal: no registry answers and debootstrap failed.
    """
    name = f"localhost/serinus-base:{key()}"
    if buildah(where, "inspect", "--type", "image", name, check=False).returncode == 0:
        return name
    empty = where.cache / "context" / "base"
    shutil.rmtree(empty, ignore_errors=True)
    empty.mkdir(parents=True)
    tar = where.cache / f"base-{key()}.tar"
    if not tar.exists() and _registry_answers(where):
        with step(f"base image from {UPSTREAM}"):
            build(where, "base", name, empty, [f"--build-arg=BASE={UPSTREAM}"], pull="missing")
        return name
    if not tar.exists():
        say("  no registry answers: making the base image with debootstrap")
        with step("debootstrap (about a minute)"):
            _debootstrap(where, tar)
    with step("base image"):
        (empty / "Dockerfile").write_text(f'FROM scratch\nADD {tar.name} /\nCMD ["/bin/sh"]\n')
        (empty / tar.name).hardlink_to(tar)
        _bud(where, empty / "Dockerfile", ["-t", name], empty)
        shutil.rmtree(empty)
    return name


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


def build(where: Layout, stage: str, name: str, context: Path, options: list[str], pull: str = "never") -> None:
    """Builds a target of `deploy/Dockerfile` from a context, with buildah's layers kept.

    Raises:
        Refusal: the build failed; the sentence ends with what buildah said last.
    """
    how = ["--target", stage, "-t", name, f"--pull={pull}" if pull != "never" else "--pull-never", *options]
    _bud(where, layout.CHECKOUT / "deploy" / "Dockerfile", how, context)


def _bud(where: Layout, dockerfile: Path, options: list[str], context: Path) -> None:
    buildah(where, "bud", "--isolation", "chroot", "--layers", "-f", str(dockerfile), *options, str(context))


def push(where: Layout, name: str, tar: Path) -> None:
    """Writes an image that buildah has into a docker archive.

    Raises:
        Refusal: buildah has no such image.
    """
    tar.parent.mkdir(parents=True, exist_ok=True)
    part = tar.with_name(f"{tar.name}.part")
    part.unlink(missing_ok=True)
    buildah(where, "push", "-q", name, f"docker-archive:{part}:{name}")
    part.replace(tar)


def buildah(where: Layout, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Runs buildah on a storage of our own in the cache."""
    (where.cache / "tmp").mkdir(parents=True, exist_ok=True)
    ran = subprocess.run(
        _command(where, *arguments), capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    if check and ran.returncode != 0:
        raise Refusal(f"buildah {arguments[0]} failed: {ran.stderr.strip()[-600:]}")
    return ran


def _command(where: Layout, *arguments: str) -> list[str]:
    driver = "vfs" if life.snapshotter(where.cache) == "native" else "overlay"
    storage = ["--root", str(where.cache / "buildah"), "--runroot", str(where.cache / "buildah-run")]
    return ["buildah", *storage, "--storage-driver", driver, *arguments]
