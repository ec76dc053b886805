"""Requests to the API server as data: built here by pure functions, performed by ``serinus.kube.client``."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import quote

from serinus.api.names import FIELD_MANAGER
from serinus.kube.kinds import Kind

Object = dict[str, Any]
"""An object of Kubernetes, as JSON."""

Change = Object | list[Object]
"""A patch: an object that is merged or applied, or a list of JSON patch operations."""


class PatchType(StrEnum):
    """How a patch is to be read; the value is its media type."""

    MERGE = "application/merge-patch+json"
    JSON = "application/json-patch+json"
    STRATEGIC = "application/strategic-merge-patch+json"
    APPLY = "application/apply-patch+yaml"


@dataclass(frozen=True, slots=True)
class Request:
    """One request. ``verb`` is Kubernetes' word for it (``get``, ``list``, ``apply`` …), ``method`` HTTP's."""

    verb: str
    kind: Kind
    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    content_type: str = "application/json"
    body: Change | None = None

    @property
    def writes(self) -> bool:
        """Whether the request changes something."""
        return self.method != "GET"

    @property
    def doing(self) -> str:
        """The request for people: ``patch deployments demo/shop``."""
        rest = self.path.removeprefix(self.kind.root).removeprefix("/namespaces/").split("/")
        where = "/".join(part for part in rest if part and part != self.kind.plural)
        return f"{self.verb} {self.kind.plural} {where}".rstrip()


def path_of(kind: Kind, namespace: str | None, name: str = "", subresource: str = "") -> str:
    """Return the URL's path of an object, or of the collection when ``name`` is empty.

    Raises:
        ValueError: an object of a namespaced kind is named without its namespace.
    """
    if not kind.namespaced:
        namespace = None
    elif name and not namespace:
        raise ValueError(f"{kind.name} {name} lives in a namespace; say in which")
    parts = [kind.root]
    if namespace:
        parts += ["namespaces", quote(namespace, safe="")]
    parts.append(kind.plural)
    if name:
        parts.append(quote(name, safe=""))
    if subresource:
        parts.append(subresource)
    return "/".join(parts)


def placed(body: Object) -> tuple[str | None, str]:
    """Return namespace and name out of a manifest.

    Raises:
        ValueError: the manifest has no name.
    """
    meta = body.get("metadata") or {}
    name = meta.get("name")
    if not name:
        raise ValueError(f"a {body.get('kind', 'manifest')} without metadata.name cannot be written")
    return meta.get("namespace"), str(name)


def stamped(kind: Kind, body: Object) -> Object:
    """Return the manifest with its ``apiVersion`` and ``kind``, which lists and hand-made bodies lack."""
    return {"apiVersion": kind.api_version, "kind": kind.name, **body}


def get(kind: Kind, name: str, namespace: str | None) -> Request:
    """Ask for one object."""
    return Request("get", kind, "GET", path_of(kind, namespace, name))


def list_page(kind: Kind, namespace: str | None, labels: str, fields: str, limit: int, continue_token: str) -> Request:
    """Ask for one page of a list; of all namespaces when ``namespace`` is ``None``."""
    query = {"labelSelector": labels, "fieldSelector": fields, "limit": str(limit or ""), "continue": continue_token}
    asked = tuple((key, value) for key, value in query.items() if value)
    return Request("list", kind, "GET", path_of(kind, namespace), asked)


def create(kind: Kind, body: Object, namespace: str | None, subresource: str) -> Request:
    """Create an object; with ``subresource``, something of it (an eviction, a token)."""
    meta = body.get("metadata") or {}
    where = meta.get("namespace") or namespace
    if kind.namespaced and not where:
        raise ValueError(f"{kind.name} {meta.get('name', '')} lives in a namespace; say in which")
    path = path_of(kind, where, str(meta.get("name", "")) if subresource else "", subresource)
    return Request("create", kind, "POST", path, (("fieldManager", FIELD_MANAGER),), body=stamped(kind, body))


def apply(kind: Kind, body: Object, force: bool, subresource: str) -> Request:
    """Server-side apply: we own exactly the fields that ``body`` names."""
    namespace, name = placed(body)
    query = (("fieldManager", FIELD_MANAGER), ("force", "true" if force else "false"))
    path = path_of(kind, namespace, name, subresource)
    meta = {key: value for key, value in body["metadata"].items() if key != "managedFields"}
    clean = {**stamped(kind, body), "metadata": meta}
    return Request("apply", kind, "PATCH", path, query, PatchType.APPLY, clean)


def patch(
    kind: Kind,
    name: str,
    namespace: str | None,
    change: Change,
    patch_type: PatchType | None,
    subresource: str,
) -> Request:
    """Patch: a dict is a merge patch and a list a JSON patch unless ``patch_type`` says otherwise."""
    if patch_type is None:
        patch_type = PatchType.JSON if isinstance(change, list) else PatchType.MERGE
    if isinstance(change, list) != (patch_type is PatchType.JSON):
        raise ValueError("a JSON patch is a list of operations; every other patch is an object")
    path = path_of(kind, namespace, name, subresource)
    return Request("patch", kind, "PATCH", path, (("fieldManager", FIELD_MANAGER),), patch_type, change)


def replace(kind: Kind, body: Object, subresource: str) -> Request:
    """Write the whole object; guarded by the ``resourceVersion`` in it."""
    namespace, name = placed(body)
    path = path_of(kind, namespace, name, subresource)
    return Request("update", kind, "PUT", path, (("fieldManager", FIELD_MANAGER),), body=stamped(kind, body))


def replace_status(kind: Kind, name: str, namespace: str | None, status: Object, resource_version: str) -> Request:
    """Make ``status`` the whole status. The version is written as a field, which the server compares: 409 if stale."""
    change: list[Object] = [
        {"op": "replace", "path": "/metadata/resourceVersion", "value": resource_version},
        {"op": "add", "path": "/status", "value": status},
    ]
    return patch(kind, name, namespace, change, PatchType.JSON, "status")


def merge_status(kind: Kind, name: str, namespace: str | None, status: Object, resource_version: str | None) -> Request:
    """Merge ``status`` into the status, from this version only if one is given."""
    change: Object = {"status": status}
    if resource_version:
        change["metadata"] = {"resourceVersion": resource_version}
    return patch(kind, name, namespace, change, PatchType.MERGE, "status")


def delete(
    kind: Kind, name: str, namespace: str | None, propagation: str, uid: str | None, resource_version: str | None
) -> Request:
    """Delete one object, only this very one (``uid``) or only this version of it, when given."""
    options: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
    preconditions = {"uid": uid, "resourceVersion": resource_version}
    asked = {key: value for key, value in preconditions.items() if value}
    if asked:
        options["preconditions"] = asked
    return Request("delete", kind, "DELETE", path_of(kind, namespace, name), body=options)
