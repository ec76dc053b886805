"""Which pod template is which: a revision is a hash of the template as the API server returns it.

It does not depend on our own version, so that upgrading the operator starts nothing.
"""

import copy
import hashlib
import json
from typing import Any

from serinus.api.names import LABEL_HASH, LABEL_TRACK, READINESS_GATE

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""Kubernetes' own for such hashes: no vowels, so no words; no 0, 1, 3, so no mistaking."""


def revision_of(template: dict[str, Any]) -> str:
    """Return ten letters that stand for a pod template, given as the API server returns it.

    What the Deployment controller and we add to a template is left out, so that a ReplicaSet's template has the
    revision of the Deployment's template that it was made from.
    """
    plain = plain_template(template)
    digest = hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()).digest()
    number = int.from_bytes(digest[:8], "big")
    letters = []
    for _ in range(10):
        number, index = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[index])
    return "".join(letters)


def plain_template(template: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of a template without the hash label, our track label and our readiness gate."""
    plain = copy.deepcopy(template)
    metadata = plain.setdefault("metadata", {})
    metadata.pop("creationTimestamp", None)
    labels = metadata.get("labels") or {}
    labels.pop(LABEL_HASH, None)
    labels.pop(LABEL_TRACK, None)
    spec = plain.setdefault("spec", {})
    gates = [gate for gate in spec.get("readinessGates") or [] if gate.get("conditionType") != READINESS_GATE]
    if gates:
        spec["readinessGates"] = gates
    else:
        spec.pop("readinessGates", None)
    return plain


def twin_name(target: str, pod_hash: str) -> str:
    """Return the name of the ReplicaSet that carries a candidate."""
    return f"{target[:230]}-{pod_hash}"


def twin_template(template: dict[str, Any], pod_hash: str, without_labels: list[str]) -> dict[str, Any]:
    """Return the pod template of a candidate: the target's, gated, tracked, and with its own hash label."""
    twin = plain_template(template)
    labels = {k: v for k, v in (twin["metadata"].get("labels") or {}).items() if k not in without_labels}
    twin["metadata"]["labels"] = {**labels, LABEL_HASH: pod_hash, LABEL_TRACK: "candidate"}
    twin["spec"]["readinessGates"] = [*twin["spec"].get("readinessGates", []), {"conditionType": READINESS_GATE}]
    return twin


def adopted_template(template: dict[str, Any], pod_hash: str) -> dict[str, Any]:
    """Return the template that the target's controller takes for its own: the twin's, plain, plus the hash label."""
    plain = plain_template(template)
    plain["metadata"]["labels"] = {**(plain["metadata"].get("labels") or {}), LABEL_HASH: pod_hash}
    return plain
