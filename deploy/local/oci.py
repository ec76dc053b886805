"""The images that were built, as one OCI layout in the cache, in which they share their layers.

Source of the format: the OCI image layout specification, 1.0.0. What goes to a cluster is a tar of the same layout with
one image in it; layers that the cluster has already may be left out, so a change of code moves some hundred kilobytes.
"""

import io
import json
import tarfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

REFERENCE = "org.opencontainers.image.ref.name"
CONTAINERD_NAME = "io.containerd.image.name"


class Layout:
    """An OCI layout on disk; its references are `<target>-<hash of inputs>`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def _index(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self.directory / "index.json").read_text())
        except FileNotFoundError:
            return {"schemaVersion": 2, "manifests": []}
        return found

    def _descriptor(self, reference: str) -> dict[str, Any] | None:
        listed = self._index()["manifests"]
        return next((d for d in listed if d.get("annotations", {}).get(REFERENCE) == reference), None)

    def has(self, reference: str) -> bool:
        """Tells whether the image is there."""
        return self._descriptor(reference) is not None

    def _manifest(self, descriptor: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._blob(descriptor["digest"]).read_text())
        return found

    def _blob(self, digest: str) -> Path:
        return self.directory / "blobs" / digest.replace(":", "/")

    def blobs(self, reference: str) -> list[str]:
        """The digests of an image: its manifest, its configuration, its layers."""
        descriptor = self._descriptor(reference)
        return [] if descriptor is None else self._blobs(descriptor)

    def _blobs(self, descriptor: dict[str, Any]) -> list[str]:
        manifest = self._manifest(descriptor)
        return [descriptor["digest"], manifest["config"]["digest"], *(layer["digest"] for layer in manifest["layers"])]

    def export(self, reference: str, name: str, target: Path, without: Collection[str] = ()) -> None:
        """Writes one image to a tar, under the name that pods use.

        Args:
            reference: an image of the layout.
            name: what the image is to be called in the cluster.
            target: the tar.
            without: digests that the receiver has and that are left out.

        Raises:
            KeyError: there is no such image.
        """
        descriptor = self._descriptor(reference)
        if descriptor is None:
            raise KeyError(reference)
        named = {**descriptor, "annotations": {CONTAINERD_NAME: name, REFERENCE: name.rpartition(":")[2]}}
        index = {"schemaVersion": 2, "manifests": [named]}
        with tarfile.open(target, "w") as archive:
            for path, value in (("oci-layout", {"imageLayoutVersion": "1.0.0"}), ("index.json", index)):
                text = json.dumps(value).encode()
                entry = tarfile.TarInfo(path)
                entry.size = len(text)
                archive.addfile(entry, io.BytesIO(text))
            for digest in dict.fromkeys(self._blobs(descriptor)):
                if digest not in without:
                    archive.add(self._blob(digest), arcname=f"blobs/{digest.replace(':', '/')}")

    def forget_older(self, target: str, keep: int = 2) -> None:
        """Keeps the newest images of a target, so that going back and forth between two changes costs nothing."""
        index = self._index()
        hashed = [
            d for d in index["manifests"] if d.get("annotations", {}).get(REFERENCE, "").rpartition("-")[0] == target
        ]
        dropped = hashed[:-keep]
        if not dropped:
            return
        index["manifests"] = [d for d in index["manifests"] if d not in dropped]  # another may have the same digest
        part = self.directory / "index.json.part"
        part.write_text(json.dumps(index))
        part.replace(self.directory / "index.json")
        needed = {digest for descriptor in index["manifests"] for digest in self._blobs(descriptor)}
        for blob in (self.directory / "blobs" / "sha256").iterdir():
            if f"sha256:{blob.name}" not in needed:
                blob.unlink()
