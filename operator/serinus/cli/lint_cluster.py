"""``serinus lint --cluster``: what stands in a Canary's way in the cluster as it is, with the object's name."""

import re
from typing import TYPE_CHECKING

from serinus.api import parse_live
from serinus.api.canary import CanarySpec
from serinus.cli import session
from serinus.cli.lint import Document, Found
from serinus.cli.session import Object, Place
from serinus.controller.feed import unusable
from serinus.kube.errors import NotFound
from serinus.kube.kinds import CANARY, DEPLOYMENT, POD_DISRUPTION_BUDGET, RESOURCE_QUOTA, SERVICE, Kind

if TYPE_CHECKING:
    from serinus.kube.client import Kube

Labels = dict[str, str]

_SCALE = {
    "": 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18,
    "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50, "Ei": 2.0**60,
}  # fmt: skip


async def lint_cluster(place: Place, documents: list[Document]) -> list[Found]:
    """Return what in the cluster would keep the Canaries among the documents from releasing.

    Raises:
        KubeError: the cluster does not answer, or one may not read in it.
    """
    found: list[Found] = []
    async with session.cluster(place) as (kube, default):
        for document in documents:
            if document.kind != "Canary" or document.trouble:
                continue
            try:
                spec = parse_live(CanarySpec, document.raw["spec"])
            except (ValueError, KeyError):
                continue  # told without a cluster already
            found += await _canary(kube, document.namespace or default, document, spec)
    return found


async def _canary(kube: "Kube", namespace: str, document: Document, spec: CanarySpec) -> list[Found]:
    found = [Found(document.where, sentence) for sentence in await _rivals(kube, namespace, document, spec)]
    name = spec.target_ref.name
    target = await _get(kube, DEPLOYMENT, name, namespace)
    if target is None:
        words = f"spec.targetRef.name: there is no Deployment {name} in {namespace}; create it or write another name"
        return [*found, Found(document.where, words)]
    template: Object = target["spec"]["template"]
    labels: Labels = (template.get("metadata") or {}).get("labels") or {}
    found += [Found(document.where, s) for s in await _services(kube, namespace, spec, labels)]
    found += [Found(document.where, s, hint=True) for s in await _budgets(kube, namespace, spec, labels)]
    quotas = await kube.list(RESOURCE_QUOTA, namespace)
    replicas = int(target["spec"].get("replicas", 1))
    return found + [Found(document.where, s) for quota in quotas for s in short_of(quota, template, replicas)]


async def _get(kube: "Kube", kind: Kind, name: str, namespace: str) -> Object | None:
    try:
        return await kube.get(kind, name, namespace)
    except NotFound:
        return None


async def _rivals(kube: "Kube", namespace: str, document: Document, spec: CanarySpec) -> list[str]:
    try:
        others = await kube.list(CANARY, namespace)
    except NotFound:
        return [session.NOT_INSTALLED]
    names = [
        other["metadata"]["name"]
        for other in others
        if other["spec"]["targetRef"]["name"] == spec.target_ref.name and other["metadata"]["name"] != document.name
    ]
    return [
        f"spec.targetRef.name: Canary {name} in {namespace} has the same target; delete it or drop this one"
        for name in names
    ]


async def _services(kube: "Kube", namespace: str, spec: CanarySpec, labels: Labels) -> list[str]:
    name = spec.service or spec.target_ref.name
    services = {service["metadata"]["name"]: service for service in await kube.list(SERVICE, namespace)}
    found = []
    if name not in services:
        found.append(f"spec.service: there is no Service {name} in {namespace}; create it or write another name")
    elif why := unusable(services[name]):
        found.append(f"spec.service: {why}")
    for other, service in services.items():
        own: Object = service.get("spec") or {}
        if other != name and own.get("publishNotReadyAddresses") and _selects(own.get("selector"), labels):
            found.append(
                f"spec.targetRef.name: Service {other} selects the target's pods and publishes not-ready addresses, so"
                " it would serve the candidate; drop publishNotReadyAddresses from it, or narrow its selector"
            )
    return found


async def _budgets(kube: "Kube", namespace: str, spec: CanarySpec, labels: Labels) -> list[str]:
    """Return the budgets that count the candidate's pods, which are not ready to the cluster, as unhealthy."""
    kept = {key: value for key, value in labels.items() if key not in spec.candidate.without_labels}
    found = []
    for budget in await kube.list(POD_DISRUPTION_BUDGET, namespace):
        own = budget.get("spec") or {}
        percent = str(own.get("minAvailable", "")).endswith("%")
        if ("maxUnavailable" in own or percent) and _selects((own.get("selector") or {}).get("matchLabels"), kept):
            what = "has maxUnavailable" if "maxUnavailable" in own else f"is in percent ({own['minAvailable']})"
            found.append(
                f"spec.candidate: PodDisruptionBudget {budget['metadata']['name']} {what}: it counts the candidate's"
                " pods as unhealthy and may block evictions during a run; write minAvailable as a number there, or name"
                " one of its labels in spec.candidate.withoutLabels"
            )
    return found


def _selects(selector: Labels | None, labels: Labels) -> bool:
    return bool(selector) and (selector or {}).items() <= labels.items()


def short_of(quota: Object, template: Object, replicas: int) -> list[str]:
    """Return what a quota has too little of for the candidate's pods: as many as the target's, at the end."""
    status = quota.get("status") or {}
    hard, used = status.get("hard") or (quota.get("spec") or {}).get("hard") or {}, status.get("used") or {}
    found = []
    for resource, per_pod in _per_pod(template).items():
        names = [name for name in (resource, resource.removeprefix("requests."), f"count/{resource}") if name in hard]
        for name in names:
            left = amount(hard[name]) - amount(used.get(name, "0"))
            if per_pod * replicas > left + 1e-9:
                found.append(
                    f"spec.strategy: ResourceQuota {quota['metadata']['name']} leaves {left:g} of {name}; the"
                    f" candidate's {replicas} pods need {per_pod * replicas:g} at the end of the plan; raise the quota"
                )
    return found


def _per_pod(template: Object) -> dict[str, float]:
    spec: Object = template.get("spec") or {}
    sidecars = [c for c in spec.get("initContainers") or [] if c.get("restartPolicy") == "Always"]
    total = {"pods": 1.0}
    for container in (spec.get("containers") or []) + sidecars:
        for group in ("requests", "limits"):
            for name, quantity in ((container.get("resources") or {}).get(group) or {}).items():
                key = f"{group}.{name}"
                total[key] = total.get(key, 0.0) + amount(quantity)
    return total


def amount(quantity: str | float) -> float:
    """Return a quantity such as ``500m``, ``2`` or ``1Gi`` as a number.

    Raises:
        ValueError: it is none.
    """
    match = re.fullmatch(r"([0-9.]+(?:[eE][+-]?[0-9]+)?)([A-Za-z]*)", str(quantity))
    if not match or match[2] not in _SCALE:
        raise ValueError(f"{quantity} is not a quantity")
    return float(match[1]) * _SCALE[match[2]]
