"""The few requests that `up` and `status` make of the API server, with nothing but the standard library."""

import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from progress import Refusal

TIMEOUT_S = 5.0
PLURALS = {"ClusterRole": "clusterroles", "ClusterRoleBinding": "clusterrolebindings"}


class Api:
    """An administrator's view of the API server at 127.0.0.1:`port`."""

    def __init__(self, pki: Path, port: int) -> None:
        self.base = f"https://127.0.0.1:{port}"
        self.context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        self.context.load_cert_chain(pki / "admin.crt", pki / "admin.key")

    def request(self, path: str, method: str = "GET", body: object = None) -> bytes:
        """One request.

        Raises:
            OSError: no answer, or one that is not a success (`urllib.error.HTTPError`).
        """
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/apply-patch+yaml"} if data else {}
        request = urllib.request.Request(self.base + path, data, headers, method=method)  # noqa: S310 - https above
        with urllib.request.urlopen(request, timeout=TIMEOUT_S, context=self.context) as answer:  # noqa: S310
            return bytes(answer.read())

    def get(self, path: str) -> dict[str, object]:
        """An object or a list."""
        found = json.loads(self.request(path))
        assert isinstance(found, dict)  # noqa: S101 - the API's answers are objects
        return found

    def apply(self, thing: dict[str, object]) -> None:
        """Server-side apply of one object."""
        self.request(f"{path_of(thing)}?fieldManager=serinus-local&force=true", "PATCH", thing)


def path_of(thing: dict[str, object]) -> str:
    """The API path of an object, from what it says of itself."""
    group, kind = str(thing["apiVersion"]), str(thing["kind"])
    metadata = thing["metadata"]
    assert isinstance(metadata, dict)  # noqa: S101 - objects of ours
    root = f"/apis/{group}" if "/" in group else f"/api/{group}"
    if "namespace" in metadata:
        root += f"/namespaces/{metadata['namespace']}"
    return f"{root}/{PLURALS.get(kind, kind.lower() + 's')}/{metadata['name']}"


def node_ready(api: Api, name: str) -> bool:
    """Tells whether the node's `Ready` condition is true."""
    status = api.get(f"/api/v1/nodes/{name}")["status"]
    assert isinstance(status, dict)  # noqa: S101
    return any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", []))


Condition = Callable[[], bool]


def wait_until(holds: Condition, within_s: float, what: str, alive: Callable[[], bool], logs: Path) -> None:
    """Asks again and again until it holds; no answer counts as not yet.

    Raises:
        Refusal: it did not hold in time, or the node ended meanwhile.
    """
    end = time.monotonic() + within_s
    while True:
        try:
            if holds():
                return
        except OSError:
            pass
        if not alive():
            raise Refusal(f"The node ended while we waited until {what}: {logs}/node.log says why.")
        if time.monotonic() > end:
            raise Refusal(f"After {within_s:.0f} s it still was not so that {what}: look into {logs}.")
        time.sleep(0.1)
