"""The projects' own released binaries, fetched when their site answers at once, their checksums verified."""

import hashlib
import platform
import re
import tarfile
import threading
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import layout
from progress import Meter, Refusal

ANSWER_WITHIN_S = 3.0
STALL_S = 30.0
KUBERNETES = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet")


@dataclass(frozen=True)
class Release:
    """One file to fetch.

    Attributes:
        binary: what it is called here.
        url: where it is.
        checksums: address of the text that has its SHA-256.
        member: its name inside the archive; empty when the file is the binary itself.
    """

    binary: str
    url: str
    checksums: str
    member: str = ""


def module_version(module: str, requirement: str) -> str:
    """The version (`v1.2.3`) that a go.mod of ours requires, so that a release and a build are of the same one."""
    text = (layout.HERE / "go" / module / "go.mod").read_text()
    found = re.search(rf"^\s*(?:require )?{re.escape(requirement)} (v\S+)", text, re.MULTILINE)
    if found is None:
        raise Refusal(f"deploy/local/go/{module}/go.mod does not require {requirement}.")
    return found[1]


def architecture() -> str:
    """This machine's architecture in Go's words."""
    return {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]


def releases(arch: str) -> list[Release]:
    """Every file of a node, for an architecture in Go's words."""
    kubernetes = module_version("node", "k8s.io/kubernetes")
    etcd = module_version("node", "go.etcd.io/etcd/server/v3")
    dns = module_version("dns", "github.com/coredns/coredns")
    official = f"https://dl.k8s.io/{kubernetes}/bin/linux/{arch}"
    etcd_folder = f"https://github.com/etcd-io/etcd/releases/download/{etcd}"
    etcd_name = f"etcd-{etcd}-linux-{arch}"
    dns_url = f"https://github.com/coredns/coredns/releases/download/{dns}/coredns_{dns[1:]}_linux_{arch}.tgz"
    return [
        *(Release(name, f"{official}/{name}", f"{official}/{name}.sha256") for name in KUBERNETES),
        Release("etcd", f"{etcd_folder}/{etcd_name}.tar.gz", f"{etcd_folder}/SHA256SUMS", f"{etcd_name}/etcd"),
        Release("coredns", dns_url, f"{dns_url}.sha256", "coredns"),
    ]


def within(seconds: float, get: Callable[[], str]) -> str | None:
    """The result of `get`, or None when it fails or takes longer; a name that resolves slowly counts as longer."""
    results: list[str] = []

    def attempt() -> None:
        try:
            results.append(get())
        except OSError:  # urllib's errors are OSErrors: no way out, or no such file
            return

    thread = threading.Thread(target=attempt, daemon=True, name="does it answer")
    thread.start()
    thread.join(seconds)
    return results[0] if results else None


def text_at(url: str) -> str:
    """The text at an address."""
    with urllib.request.urlopen(url, timeout=ANSWER_WITHIN_S) as answer:  # noqa: S310 - the addresses are above
        return bytes(answer.read(1 << 20)).decode()


def checksum_in(text: str, file_name: str) -> str | None:
    """The SHA-256 for a file in a checksum text: a bare sum, or lines of sum and name."""
    for line in text.splitlines():
        fields = line.split()
        if fields and re.fullmatch(r"[0-9a-f]{64}", fields[0]) and (len(fields) == 1 or fields[-1].endswith(file_name)):
            return fields[0]
    return None


def fetch(release: Release, target: Path) -> bool:
    """Fetches one file, verifies it and puts the binary at `target`.

    Returns:
        False when the site does not answer within 3 s or has no such file.

    Raises:
        Refusal: what came does not have the published checksum.
    """
    name = release.url.rsplit("/", 1)[1]
    sums = within(ANSWER_WITHIN_S, lambda: text_at(release.checksums))
    wanted = checksum_in(sums, name) if sums else None
    if wanted is None:
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    try:
        found = _download(release.url, part, f"fetching {release.binary}")
    except OSError:
        part.unlink(missing_ok=True)
        return False
    if found != wanted:
        part.unlink()
        raise Refusal(f"{release.url} has the SHA-256 {found}, its checksum file says {wanted}: not used.")
    if release.member:
        with tarfile.open(part) as archive:
            content = archive.extractfile(release.member)
            if content is None:
                raise Refusal(f"{release.url} has no file {release.member}.")
            binary = content.read()
        part.write_bytes(binary)
    part.chmod(0o755)
    part.replace(target)
    return True


def _download(url: str, target: Path, label: str) -> str:
    meter, total, done = Meter(label), hashlib.sha256(), 0
    with urllib.request.urlopen(url, timeout=STALL_S) as answer, target.open("wb") as file:  # noqa: S310
        size = int(answer.headers.get("Content-Length") or 0)
        while chunk := answer.read(1 << 20):
            file.write(chunk)
            total.update(chunk)
            done += len(chunk)
            meter.tell(done, size)
    return total.hexdigest()
