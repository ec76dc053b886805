"""Answer an AdmissionReview (``admission.k8s.io/v1``) about a pod with the patch that gives it a sidecar. Pure."""

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any

Inject = Callable[[Mapping[str, Any]], list[dict[str, Any]]]
"""From a pod to its JSON patch; the pod's ``metadata.namespace`` is filled in."""


def review(admission_review: Mapping[str, Any], inject: Inject) -> dict[str, Any]:
    """Return the AdmissionReview to answer with.

    Only the creation of a pod is patched; all else is allowed as it is. A ``ValueError`` from ``inject`` refuses the
    pod with its text: a pod that was to be in the mesh must not run outside of it unseen.

    Raises:
        ValueError: ``admission_review`` is not one, or has no request.
    """
    request = admission_review.get("request")
    if admission_review.get("kind") != "AdmissionReview" or not isinstance(request, Mapping) or "uid" not in request:
        raise ValueError("this is not an AdmissionReview of admission.k8s.io/v1 with a request")
    response: dict[str, Any] = {"uid": request["uid"], "allowed": True}
    if _creates_a_pod(request):
        pod = dict(request["object"])
        pod["metadata"] = {**(pod.get("metadata") or {}), "namespace": request.get("namespace", "")}
        try:
            patch = inject(pod)
        except ValueError as error:
            message = f"Serinus cannot give this pod a sidecar: {error}"
            response |= {"allowed": False, "status": {"code": 422, "reason": "Invalid", "message": message}}
        else:
            if patch:
                encoded = base64.b64encode(json.dumps(patch, separators=(",", ":")).encode()).decode()
                response |= {"patchType": "JSONPatch", "patch": encoded}
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}


def _creates_a_pod(request: Mapping[str, Any]) -> bool:
    kind = request.get("kind") or {}
    return (
        request.get("operation") == "CREATE"
        and kind.get("group", "") == ""
        and kind.get("kind") == "Pod"
        and not request.get("subResource")
        and bool(request.get("object"))
    )
