"""Images: what each is made of, a hash over that, and an image in the cache that is named after the hash.

An image whose inputs did not change is neither built nor imported again. Where the images go: into the local cluster;
with KUBECONFIG set to a kind or k3d cluster, into that.
"""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import base
import inputs
import layout
import life
import oci
from inputs import Inputs
from layout import Layout
from progress import Refusal, say, step

PREFIX = os.environ.get("SERINUS_IMAGE_PREFIX") or "localhost/serinus-"
STAGES_FROM_NOTHING = ("pause", "shop")
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
    "shop-v1": _shop("v1", "FALLBACK=true"),
    "shop-v2": _shop("v2", "FALLBACK=true"),
    "shop-v3-errors": _shop("v3-errors", "ERROR_RATE=0.3"),
    "shop-v4-slow": _shop("v4-slow", "LATENCY=400ms"),
    "shop-v5-no-fallback": _shop("v5-no-fallback"),
}


@dataclass(frozen=True)
class Built:
    """An image in the cache: the name that pods use, and its reference in the OCI layout, which has a hash."""

    name: str
    reference: str


def store(where: Layout) -> oci.Layout:
    """The built images."""
    return oci.Layout(where.cache / "oci")


def build(where: Layout, name: str) -> Built:
    """Builds one of TARGETS unless the cache has it.

    Raises:
        Refusal: no such target, or the build failed.
    """
    if name not in TARGETS:
        raise Refusal(f"There is no image {name}; there are {', '.join(TARGETS)}.")
    target = TARGETS[name]
    made_of = target.gather(where)
    built = Built(f"{PREFIX}{target.name}", f"{name}-{_key(made_of, target)}")
    if store(where).has(built.reference):
        return built
    arguments = list(target.arguments)
    if target.stage not in STAGES_FROM_NOTHING:
        arguments.append(f"BASE={base.ensure(where)}")
    if target.stage == "operator":
        arguments.append(f"DEPENDENCIES={_dependencies(where, arguments)}")
    with step(f"image {built.name}"):
        output = f"oci:{store(where).directory}:{built.reference}"
        try:
            base.build(where, target.stage, output, made_of.put, arguments)
        except Refusal:  # buildah 1.28 writes an image whose layers it had all, then misses it in its own storage
            if not store(where).has(built.reference):
                raise
    store(where).forget_older(name)
    return built


def _key(made_of: Inputs, target: Target) -> str:
    dockerfile = (layout.CHECKOUT / "deploy" / "Dockerfile").read_text()
    inherited = "" if target.stage in STAGES_FROM_NOTHING else base.key()
    if target.stage == "operator":
        inherited += inputs.dependencies_key()
    parts = [dockerfile, PREFIX, made_of.key, target.name, *target.arguments, inherited]
    return layout.digest(part.encode() for part in parts)[:16]


def _dependencies(where: Layout, arguments: list[str]) -> str:
    """The name of the image with the operator's dependencies, which buildah keeps for the next change of code."""
    made_of = inputs.dependencies(where)
    name = f"localhost/serinus-dependencies:{layout.digest([made_of.key.encode(), base.key().encode()])[:16]}"
    if not base.has(where, name):
        with step("the operator's dependencies"):
            base.build(where, "dependencies", name, made_of.put, arguments)
    return name


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
    """Imports the images that the node does not have yet, and of each only the layers that it does not have."""
    record = where.state / "images.json"
    known: dict[str, dict[str, Any]] = json.loads(record.read_text()) if record.exists() else {}
    for image in built:
        if known.get(image.name, {}).get("reference") == image.reference:
            continue
        had = {digest for other in known.values() for digest in other["blobs"]}
        with step(f"loading {image.name}"), tempfile.NamedTemporaryFile(dir=where.state, suffix=".tar") as tar:
            store(where).export(image.reference, image.name, Path(tar.name), had)
            if _import(where, Path(tar.name)).returncode != 0:
                store(where).export(image.reference, image.name, Path(tar.name))
                _must_import(where, Path(tar.name))
        known[image.name] = {"reference": image.reference, "blobs": store(where).blobs(image.reference)}
        record.write_text(json.dumps(known, indent=2))


def load(where: Layout, image: str) -> None:
    """Imports any image into the node: a tar (docker or OCI archive), or a name that buildah knows.

    Raises:
        Refusal: no cluster, no such image, or containerd would not have it.
    """
    path = Path(image)
    if path.is_file():
        with step(f"loading {path.name}"):
            _must_import(where, path)
        return
    with step(f"loading {image}"), tempfile.TemporaryDirectory(dir=where.cache) as folder:
        base.save(where, image, Path(folder) / "image.tar")
        _must_import(where, Path(folder) / "image.tar")


def _must_import(where: Layout, tar: Path) -> None:
    ran = _import(where, tar)
    if ran.returncode != 0:
        raise Refusal(f"containerd did not take {tar}: {ran.stderr.strip()[-300:]}")


def _import(where: Layout, tar: Path) -> "subprocess.CompletedProcess[str]":
    how = ["-n", "k8s.io", "images", "import", "--snapshotter", life.snapshotter(where.state), "-"]
    with tar.open("rb") as file:
        return subprocess.run(
            [*life.enter(where, "-m"), "ctr", *how], stdin=file, capture_output=True, text=True, check=False
        )


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
        with tempfile.NamedTemporaryFile(dir=where.cache, suffix=".tar") as tar:
            command = loader(context, Path(tar.name))
            if command is None:
                say(
                    f"The context {context or '(none)'} is neither kind nor k3d, so nothing was loaded: push the "
                    f"images ({where.cache}/oci is an OCI layout that has them) to a registry that the cluster pulls "
                    f"from, and set SERINUS_IMAGE_PREFIX to its prefix (now {PREFIX})."
                )
                return
            if shutil.which(command[0]) is None:
                raise Refusal(f"The context {context} asks for {command[0]}, which is not on the PATH: install it.")
            with step(f"loading {image.name} into {context}"):
                store(where).export(image.reference, image.name, Path(tar.name))
                ran = subprocess.run(command, capture_output=True, text=True, check=False)
            if ran.returncode != 0:
                raise Refusal(f"{' '.join(command)} failed: {ran.stderr.strip()[-300:]}")
