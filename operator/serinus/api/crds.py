"""``python -m serinus.api.crds`` writes ``crds/*.yaml`` out of the models; with ``--check`` it only compares.

Exit status 1 means that a file is not what the models say.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from serinus.api.canary import CanarySpec
from serinus.api.names import GROUP, VERSION
from serinus.api.release import CanaryStatus
from serinus.api.rules import MAX_NAME_LENGTH, NAME_MESSAGE
from serinus.api.schema import Schema, structural
from serinus.api.trafficpolicy import TrafficPolicySpec, TrafficPolicyStatus

_HEADER = "# Written by `python -m serinus.api.crds` out of operator/serinus/api; change it there.\n"


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource of ours: its names, its models, and the columns of ``kubectl get``."""

    kind: str
    plural: str
    short: str
    description: str
    spec: type[BaseModel]
    status: type[BaseModel]
    columns: tuple[dict[str, Any], ...]


def _column(name: str, path: str, kind: str = "string", priority: int = 0) -> dict[str, Any]:
    return {"name": name, "type": kind, "jsonPath": path} | ({"priority": priority} if priority else {})


_READY = _column("Ready", '.status.conditions[?(@.type=="Ready")].status')
_REASON = _column("Reason", '.status.conditions[?(@.type=="Ready")].reason')
_AGE = _column("Age", ".metadata.creationTimestamp", "date")

RESOURCES = (
    Resource(
        "Canary",
        "canaries",
        "cny",
        "A Canary ships every new version of a Deployment step by step: a new version gets a share of the requests, is"
        " compared with the one that serves, and is promoted or rolled back on what the callers' sidecars measured.",
        CanarySpec,
        CanaryStatus,
        (
            _column("Target", ".spec.targetRef.name"),
            _READY,
            _column("Phase", ".status.phase"),
            _column("Weight", ".status.weight", "integer"),
            _column("Step", ".status.step"),
            _column("Message", ".status.message", priority=1),
            _REASON,
            _AGE,
        ),
    ),
    Resource(
        "TrafficPolicy",
        "trafficpolicies",
        "tp",
        "A TrafficPolicy says how the sidecars of all callers treat requests to one Service: time-outs, retries,"
        " routes for requests that are treated apart, and faults on purpose.",
        TrafficPolicySpec,
        TrafficPolicyStatus,
        (
            _column("Service", ".spec.targetRef.name"),
            _READY,
            _column("Proxies", ".status.proxies", "integer"),
            _column("Acknowledged", ".status.acknowledged", "integer"),
            _column("Fault", ".status.fault.state"),
            _AGE,
        ),
    ),
)


def definition(resource: Resource) -> dict[str, Any]:
    """Return the CustomResourceDefinition of one resource."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{resource.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": resource.kind,
                "listKind": f"{resource.kind}List",
                "plural": resource.plural,
                "singular": resource.kind.lower(),
                "shortNames": [resource.short],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": list(resource.columns),
                    "schema": {"openAPIV3Schema": _root(resource)},
                }
            ],
        },
    }


def _root(resource: Resource) -> Schema:
    return {
        "description": resource.description,
        "type": "object",
        "properties": {
            "apiVersion": {"description": f"`{GROUP}/{VERSION}`.", "type": "string"},
            "kind": {"description": f"`{resource.kind}`.", "type": "string"},
            "metadata": {"type": "object"},
            "spec": structural(resource.spec),
            "status": structural(resource.status, with_defaults=False),
        },
        "required": ["spec"],
        "x-kubernetes-validations": [
            {"rule": f"size(self.metadata.name) <= {MAX_NAME_LENGTH}", "message": NAME_MESSAGE}
        ],
    }


class _Plain(yaml.SafeDumper):
    """Writes equal parts out each time, so that a reader meets no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def render(resource: Resource) -> str:
    """Return the file's text."""
    return _HEADER + yaml.dump(definition(resource), Dumper=_Plain, sort_keys=False, width=110, allow_unicode=True)


def main(arguments: list[str]) -> int:
    """Write the files, or compare them with ``--check``; return the exit status."""
    folder = Path(__file__).parents[3] / "crds"
    stale = []
    for resource in RESOURCES:
        path = folder / f"{resource.plural}.yaml"
        text = render(resource)
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(path.name)
        if "--check" not in arguments:
            folder.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
    if "--check" in arguments and stale:
        sys.stderr.write(f"Not what the models say: {', '.join(stale)}. Run `python -m serinus.api.crds`.\n")
        return 1
    sys.stdout.write("".join(f"{name} written\n" for name in stale))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
