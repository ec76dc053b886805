"""``serinus faults try``: a fault for a time, in a TrafficPolicy of its own or in the one that the Service has."""

import asyncio
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from serinus.api import check_policy, problems
from serinus.api.names import API_VERSION
from serinus.api.trafficpolicy import TrafficPolicySpec
from serinus.cli import session
from serinus.cli.session import Exit, Object, Place, Stop
from serinus.kube.errors import NotFound
from serinus.kube.kinds import SERVICE, TRAFFIC_POLICY

if TYPE_CHECKING:
    from serinus.kube.client import Kube

_LOOK_S = 0.5
_TAKEN_UP_S = 10.0


async def attempt(place: Place, service: str, fault: dict[str, Any]) -> int:
    """Inject ``fault``, a fault as a TrafficPolicy has it, for its ``ttl``; return the exit status.

    Raises:
        Stop: it is not one, there is no such Service, or the Service has a fault already.
    """
    spec = {"targetRef": {"name": service}, "fault": fault}
    wrong = problems(TrafficPolicySpec, spec) or check_policy(TrafficPolicySpec.model_validate(spec))
    if wrong:
        raise Stop("\n".join(wrong), Exit.USAGE)
    async with session.cluster(place) as (kube, namespace):
        try:
            await kube.get(SERVICE, service, namespace)
        except NotFound as problem:
            raise Stop(f"There is no Service {service} in namespace {namespace}.") from problem
        name, made = await _put(kube, namespace, service, spec)
        try:
            return await _followed(kube, namespace, name)
        finally:
            with suppress(NotFound):  # somebody else has taken it out
                if made:
                    await kube.delete(TRAFFIC_POLICY, name, namespace)
                else:
                    await kube.patch(TRAFFIC_POLICY, name, namespace, {"spec": {"fault": None}})
            sys.stdout.write("The fault is taken out.\n")


async def _put(kube: "Kube", namespace: str, service: str, spec: Object) -> tuple[str, bool]:
    """Put the fault into the policy that counts for the Service; return its name, and whether it was made for it."""
    of_service = [
        policy
        for policy in await kube.list(TRAFFIC_POLICY, namespace)
        if policy["spec"]["targetRef"]["name"] == service
    ]
    if not of_service:
        name = f"{service}-fault"
        meta = {"name": name, "namespace": namespace}
        await kube.create(
            TRAFFIC_POLICY, {"apiVersion": API_VERSION, "kind": "TrafficPolicy", "metadata": meta, "spec": spec}
        )
        return name, True
    first = min(of_service, key=lambda policy: (policy["metadata"]["creationTimestamp"], policy["metadata"]["name"]))
    name = first["metadata"]["name"]
    if first["spec"].get("fault"):
        raise Stop(f"TrafficPolicy {name} has a fault already; take that out first.", Exit.REFUSED)
    await kube.patch(TRAFFIC_POLICY, name, namespace, {"spec": {"fault": spec["fault"]}})
    return name, False


async def _followed(kube: "Kube", namespace: str, name: str) -> int:
    """Tell how the fault goes until it has ended."""
    said, waited = "", 0.0
    while True:
        try:
            policy = await kube.get(TRAFFIC_POLICY, name, namespace)
        except NotFound as problem:
            raise Stop(f"TrafficPolicy {name} was deleted meanwhile.", Exit.REFUSED) from problem
        status = policy.get("status") or {}
        current = status.get("observedGeneration") == policy["metadata"]["generation"]
        fault = (status.get("fault") or {}) if current else {}
        state = fault.get("state", "")
        line = f"{state}, in {fault.get('proxies', 0)} sidecars: {fault.get('message', '')}" if state else ""
        if line and line != said:
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()
            said = line
        if state in ("Refused", "Ended"):
            return Exit.DONE if state == "Ended" else Exit.REFUSED
        waited += _LOOK_S
        if not state and waited > _TAKEN_UP_S:
            conditions = status.get("conditions") or []
            why = next((each["message"] for each in conditions if each["type"] == "Stalled"), "the operator is silent")
            raise Stop(f"The fault is not injected: {why}.", Exit.TIMEOUT)
        await asyncio.sleep(_LOOK_S)
