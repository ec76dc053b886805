"""TrafficPolicies: hand them to the feed, and say in their status how many sidecars have them and why not.

A fault begins when the status that says so is written, and not before; it ends at once, whatever can be written.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from serinus.api import check_policy, parse_live
from serinus.api.fault import FaultStatus
from serinus.api.status import Condition, Reason
from serinus.api.trafficpolicy import TrafficPolicySpec, TrafficPolicyStatus
from serinus.controller.faults import Faults
from serinus.controller.feed import Feed, Policy, unusable
from serinus.controller.workqueue import Result
from serinus.delivery.faulting import ended, standing
from serinus.delivery.model import stamp
from serinus.kube import kinds
from serinus.kube.client import Kube
from serinus.kube.errors import NotFound
from serinus.kube.requests import Object


@dataclass(frozen=True, slots=True)
class _Stand:
    """How far a policy is: the condition that holds, and why. ``in_force``: it is sent to the sidecars."""

    condition: str
    reason: Reason
    message: str
    waits: bool = False
    proxies: int = 0
    acknowledged: int = 0
    in_force: bool = False


class Policies:
    """Keeps what is known of every TrafficPolicy, and reconciles one at a time.

    ``post`` posts an Event about a policy: reason, sentence, and whether it is a warning.
    """

    def __init__(
        self,
        kube: Kube,
        feed: Feed,
        faults: Faults,
        post: Callable[[Object, Reason, str, bool], None] = lambda *_: None,
    ):
        self._kube = kube
        self._feed = feed
        self._faults = faults
        self._post = post
        self._known: dict[str, tuple[str, Policy]] = {}
        """By ``namespace/name`` of the policy: the key of its Service, and the policy. Unreadable ones are not here."""

    def see(self, body: Object, *, deleted: bool = False) -> None:
        """Take note of a policy as it is now. One that cannot be read keeps nothing in force."""
        meta = body["metadata"]
        key = f"{meta['namespace']}/{meta['name']}"
        before = self._known.pop(key, None)
        spec, _ = read_policy(body)
        if spec is not None and not deleted and not meta.get("deletionTimestamp"):
            service = f"{meta['namespace']}/{spec.target_ref.name}"
            self._known[key] = (service, Policy(meta.get("creationTimestamp", ""), meta["name"], spec))
        after = self._known.get(key)
        if before and (after is None or after[1].spec.fault != before[1].spec.fault or after[0] != before[0]):
            self._faults.close(f"policy:{key}")
        for service in {entry[0] for entry in (before, after) if entry}:
            self._hand_over(service)

    def keys(self) -> set[str]:
        """Return the keys of all policies that could be read."""
        return set(self._known)

    def drop(self, key: str) -> None:
        """Forget a policy that is gone."""
        before = self._known.pop(key, None)
        self._faults.close(f"policy:{key}")
        if before:
            self._hand_over(before[0])

    def _hand_over(self, service: str) -> None:
        self._feed.set_policies(service, [policy for other, policy in self._known.values() if other == service])

    def of_service(self, service_key: str) -> list[str]:
        """Return the keys of the policies on a Service."""
        return [key for key, (service, _) in self._known.items() if service == service_key]

    async def reconcile(self, namespace: str, name: str) -> Result:
        """Write one policy's status, if it changed.

        Raises:
            KubeError: the API server did not answer; the caller tries again.
        """
        try:
            body = await self._kube.get(kinds.TRAFFIC_POLICY, name, namespace)
        except NotFound:
            return Result()
        self.see(body)
        key = f"{namespace}/{name}"
        status, waits = self._status(body)
        fault = status.fault if status.fault and status.fault.state == "Active" else None
        if fault is None:
            self._faults.close(f"policy:{key}")
        dumped = status.model_dump(mode="json", by_alias=True, exclude_none=True)
        if dumped != (body.get("status") or {}):
            version = body["metadata"]["resourceVersion"]
            await self._kube.replace_status(kinds.TRAFFIC_POLICY, name, namespace, dumped, resource_version=version)
            self._tell(body, status.fault)
        if fault is None:
            return Result(5.0 if waits else None)
        service, policy = self._known[key]
        assert policy.spec.fault is not None  # noqa: S101 - its status says that it is active
        until = datetime.fromisoformat(fault.until)
        self._faults.open(f"policy:{key}", service, policy.spec.fault, until)
        return Result(min(2.0, max(0.05, (until - datetime.now(UTC)).total_seconds())))

    def _tell(self, body: Object, fault: FaultStatus | None) -> None:
        """Post an Event where a fault began, ended or is refused."""
        before = parse_live(TrafficPolicyStatus, body.get("status") or {}).fault
        if fault is None or (before and (before.state, before.print) == (fault.state, fault.print)):
            return
        reason = Reason.FAULT_REFUSED if fault.state == "Refused" else Reason.FAULT
        self._post(body, reason, fault.message, fault.state != "Ended")

    def of_namespace(self, namespace: str) -> list[str]:
        """Return the keys of the policies of a namespace that have a fault."""
        return [
            key
            for key, (_, policy) in self._known.items()
            if key.startswith(f"{namespace}/") and policy.spec.fault is not None
        ]

    def _status(self, body: Object) -> tuple[TrafficPolicyStatus, bool]:
        """Return a policy's status, and whether something in it is waited for."""
        before = parse_live(TrafficPolicyStatus, body.get("status") or {})
        spec, _ = read_policy(body)
        stand = self._stand(body)
        told = before.model_copy(update={"proxies": stand.proxies, "acknowledged": stand.acknowledged})
        fault = self._fault(body, spec, before.fault, in_force=stand.in_force)
        told = told.model_copy(update={"fault": fault})
        if fault is None or not stand.in_force:
            return _said(body, told, stand.condition, stand.reason, stand.message), stand.waits
        message = f"{stand.message}; {fault.message}"
        if fault.state == "Refused":
            return _said(body, told, "Stalled", Reason.FAULT_REFUSED, message), True
        return _said(body, told, stand.condition, stand.reason, message), stand.waits

    def _fault(
        self, body: Object, spec: TrafficPolicySpec | None, before: FaultStatus | None, *, in_force: bool
    ) -> FaultStatus | None:
        if spec is None or spec.fault is None:
            return None
        now = datetime.now(UTC)
        if not in_force:
            return ended(before, "the policy is not in force", now) if before and before.state == "Active" else before
        meta = body["metadata"]
        fault = standing(spec.fault, before, self._faults.allowance(meta["namespace"]), now)
        injecting = self._faults.injecting(f"policy:{meta['namespace']}/{meta['name']}")
        return fault.model_copy(update={"proxies": injecting})

    def _stand(self, body: Object) -> _Stand:
        """Return how far a policy is, its fault apart."""
        meta = body["metadata"]
        spec, problems = read_policy(body)
        if spec is None:
            return _Stand("Stalled", Reason.INVALID_SPEC, "; ".join(problems))
        service_key = f"{meta['namespace']}/{spec.target_ref.name}"
        service = self._feed.services.get(service_key)
        if service is None:
            message = f"there is no Service {spec.target_ref.name}; create it, or name another in spec.targetRef.name"
            return _Stand("Stalled", Reason.SERVICE_NOT_FOUND, message, waits=True)
        if unusable(service):
            return _Stand("Stalled", Reason.SERVICE_UNUSABLE, unusable(service))
        counts = self._feed.policy(service_key)
        if counts and counts.name != meta["name"]:
            message = f"TrafficPolicy {counts.name} is older and has the same Service; delete one of the two"
            return _Stand("Stalled", Reason.CONFLICT, message)
        refusal = self._feed.refusal(service_key)
        if refusal:
            return _Stand(
                "Stalled", Reason.INVALID_SPEC, f"{refusal}; until then the sidecars keep what they had before"
            )
        facts = self._feed.facts(service_key)
        stand = _Stand(
            "Ready",
            Reason.IN_FORCE,
            f"in force in {facts.acknowledged} of {facts.connected} sidecars",
            proxies=facts.connected,
            acknowledged=facts.acknowledged,
            in_force=True,
        )
        if facts.rejections:
            message = f"a sidecar refused it, the configuration before it serves on: {facts.rejections[0]}"
            return replace(stand, condition="Stalled", reason=Reason.REJECTED_BY_PROXY, message=message)
        if facts.acknowledged < facts.connected:
            return replace(stand, condition="Reconciling", reason=Reason.WAITING, waits=True)
        return stand


def read_policy(body: Object) -> tuple[TrafficPolicySpec | None, list[str]]:
    """Return a policy's spec, or None and what is wrong with it in sentences."""
    try:
        spec = parse_live(TrafficPolicySpec, body.get("spec") or {})
    except ValueError as problem:
        return None, [str(problem)]
    problems = check_policy(spec)
    return (None if problems else spec), problems


def _said(body: Object, before: TrafficPolicyStatus, kind: str, reason: Reason, message: str) -> TrafficPolicyStatus:
    generation = body["metadata"].get("generation", 1)
    wanted = {"Ready": [("Ready", "True")], "Stalled": [("Stalled", "True"), ("Ready", "False")]}.get(
        kind, [(kind, "True"), ("Ready", "Unknown")]
    )
    old: dict[str, Condition] = {condition.type: condition for condition in before.conditions}
    conditions = []
    for name, value in wanted:
        known = old.get(name)
        same = known and (known.status, known.reason, known.message) == (value, reason.value, message)
        conditions.append(
            Condition(
                type=name,  # type: ignore[arg-type]
                status=value,  # type: ignore[arg-type]
                reason=reason.value,
                message=message,
                observed_generation=generation,
                last_transition_time=known.last_transition_time if known and same else stamp(datetime.now(UTC)),
            )
        )
    return before.model_copy(update={"observed_generation": generation, "message": message, "conditions": conditions})
