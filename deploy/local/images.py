"""Images: what each is made of, a hash over that, and a tar in the cache that is named after the hash.

An image whose inputs did not change is neither built nor imported again. Where the images go: into the local cluster;
with KUBECONFIG set to a kind or k3d cluster, into that.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import base
import inputs
import layout
import life
from inputs import Inputs
from layout import Layout
from progress import Refusal, say, step

PREFIX = os.environ.get("SERINUS_IMAGE_PREFIX") or "localhost/serinus-"
KUBECTL = layout.CHECKOUT / ".venv" / "bin" / "kubectl"


@dataclass(frozen=True)
class Target:
    """One image.

    Attributes:
        name: its name after the prefix, with the tag.
        stage: the target in `deploy/Dockerfile`.
        gather: gives what the image is made of.
        arguments: build arguments.
    """

    name: str
    stage: str
    gather: Callable[[Layout], Inputs]
    arguments: tuple[str, ...] = ()


def _shop(tag: str, *defect: str) -> Target:
    return Target(f"shop:{tag}", "shop", inputs.shop, (f"VERSION={tag}", *defect))


TARGETS = {
    "pause": Target("pause:dev", "pause", inputs.pause),
    "operator": Target("operator:dev", "operator", inputs.operator),
    "proxy": Target("proxy:dev", "proxy", inputs.proxy),
    "prometheus": Target("prometheus:dev", "prometheus", inputs.nothing),
    "shop": _shop("dev"),
    "shop-v1": _shop("v1"),
    "shop-v2": _shop("v2"),
    "shop-v3-errors": _shop("v3-errors", "ERROR_RATE=0.3"),
    "shop-v4-slow": _shop("v4-slow", "LATENCY=400ms"),
}


@dataclass(frozen=True)
class Built:
    """An image as a file: its full name and its docker archive, whose name ends with the hash of its inputs."""

    name: str
    tar: Path


def build(where: Layout, name: str) -> Built:
    """Builds one of TARGETS unless the cache has it.

    Raises:
        Refusal: no such target, or the build failed.
    """
    if name not in TARGETS:
        raise Refusal(f"There is no image {name}; there are {', '.join(TARGETS)}.")
    target = TARGETS[name]
    made_of = target.gather(where)
    dockerfile = (layout.CHECKOUT / "deploy" / "Dockerfile").read_bytes()
    needs_base = target.stage not in ("pause", "shop")
    parts = [made_of.key, target.name, *target.arguments, base.key() if needs_base else ""]
    key = layout.digest([dockerfile, PREFIX.encode(), *(part.encode() for part in parts)])[:16]
    built = Built(f"{PREFIX}{target.name}", where.cache / "images" / f"{name}-{key}.tar")
    if built.tar.exists():
        return built
    base_name = base.ensure(where) if needs_base else "scratch"
    with step(f"image {built.name}"):
        context = where.cache / "context" / name
        shutil.rmtree(context, ignore_errors=True)
        context.mkdir(parents=True)
        made_of.put(context)
        options = [f"--build-arg={argument}" for argument in (f"BASE={base_name}", *target.arguments)]
        if target.arguments:
            options.append("--no-cache")  # buildah 1.28 takes an ENV that names an argument from the cache as it was
        base.build(where, target.stage, built.name, context, options)
        base.push(where, built.name, built.tar)
    _forget_older(built.tar, name)
    return built


def _forget_older(tar: Path, name: str) -> None:
    """Keeps the newest two archives of an image, so that going back and forth between two changes costs nothing."""
    length = len(tar.name) - len(name)
    siblings = [p for p in tar.parent.glob(f"{name}-*.tar") if len(p.name) - len(name) == length]
    for old in sorted(siblings, key=lambda path: path.stat().st_mtime)[:-2]:
        old.unlink()


def build_and_load(where: Layout, names: list[str]) -> None:
    """Builds the named images, or all, and loads those that the cluster does not have."""
    built = [build(where, name) for name in names or [name for name in TARGETS if name != "pause"]]
    given = os.environ.get("KUBECONFIG")
    if given and Path(given).absolute() != where.kubeconfig:
        _load_into_given(where, built)
    elif life.first_process(where) is None:
        say("The images are built; no cluster is up to load them into.")
    else:
        import_into_node(where, built)


def import_into_node(where: Layout, built: list[Built]) -> None:
    """Imports the images that the node does not have yet."""
    record = where.state / "images.json"
    known: dict[str, str] = json.loads(record.read_text()) if record.exists() else {}
    for image in built:
        if known.get(image.name) != image.tar.name:
            with step(f"loading {image.name}"):
                _import(where, image.tar)
            known[image.name] = image.tar.name
            record.write_text(json.dumps(known, indent=2))


def load(where: Layout, image: str) -> None:
    """Imports any image into the node: a tar (docker or OCI archive), or a name that buildah knows.

    Raises:
        Refusal: no cluster, no such image, or containerd would not have it.
    """
    path = Path(image)
    if path.is_file():
        with step(f"loading {path.name}"):
            _import(where, path)
        return
    tar = where.cache / "images" / "given.tar"
    with step(f"loading {image}"):
        base.push(where, image, tar)
        try:
            _import(where, tar)
        finally:
            tar.unlink()


def _import(where: Layout, tar: Path) -> None:
    how = ["-n", "k8s.io", "images", "import", "--snapshotter", life.snapshotter(where.state), "-"]
    with tar.open("rb") as file:
        ran = subprocess.run(
            [*life.enter(where, "-m"), "ctr", *how], stdin=file, capture_output=True, text=True, check=False
        )
    if ran.returncode != 0:
        raise Refusal(f"containerd did not take {tar}: {ran.stderr.strip()[-300:]}")


def loader(context: str, tar: Path) -> list[str] | None:
    """The command that brings an archive into the cluster of a kubeconfig context; None when it is neither's."""
    if context.startswith("kind-"):
        return ["kind", "load", "image-archive", str(tar), "--name", context.removeprefix("kind-")]
    if context.startswith("k3d-"):
        return ["k3d", "image", "import", str(tar), "--cluster", context.removeprefix("k3d-")]
    return None


def _load_into_given(where: Layout, built: list[Built]) -> None:
    asked = subprocess.run([KUBECTL, "config", "current-context"], capture_output=True, text=True, check=False)
    context = asked.stdout.strip()
    for image in built:
        command = loader(context, image.tar)
        if command is None:
            say(
                f"The context {context or '(none)'} is neither kind nor k3d, so nothing was loaded: push the images "
                f"({where.cache}/images/*.tar) to a registry that the cluster pulls from and set SERINUS_IMAGE_PREFIX "
                f"to its prefix (now {PREFIX})."
            )
            return
        if shutil.which(command[0]) is None:
            raise Refusal(f"The context {context} asks for {command[0]}, which is not on the PATH: install it.")
        with step(f"loading {image.name} into {context}"):
            ran = subprocess.run(command, capture_output=True, text=True, check=False)
        if ran.returncode != 0:
            raise Refusal(f"{' '.join(command)} failed: {ran.stderr.strip()[-300:]}")
