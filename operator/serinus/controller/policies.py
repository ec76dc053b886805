"""TrafficPolicies: hand them to the feed, and say in their status how many sidecars have them and why not."""

from datetime import UTC, datetime

from serinus.api import check_policy, parse_live
from serinus.api.status import Condition, Reason
from serinus.api.trafficpolicy import TrafficPolicySpec, TrafficPolicyStatus
from serinus.controller.feed import Feed, Policy, unusable
from serinus.controller.workqueue import Result
from serinus.delivery.model import stamp
from serinus.kube import kinds
from serinus.kube.client import Kube
from serinus.kube.errors import NotFound
from serinus.kube.requests import Object


class Policies:
    """Keeps what is known of every TrafficPolicy, and reconciles one at a time."""

    def __init__(self, kube: Kube, feed: Feed):
        self._kube = kube
        self._feed = feed
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
        for service in {entry[0] for entry in (before, after) if entry}:
            self._hand_over(service)

    def keys(self) -> set[str]:
        """Return the keys of all policies that could be read."""
        return set(self._known)

    def drop(self, key: str) -> None:
        """Forget a policy that is gone."""
        before = self._known.pop(key, None)
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
        status, waits = self._status(body)
        dumped = status.model_dump(mode="json", by_alias=True, exclude_none=True)
        if dumped != (body.get("status") or {}):
            version = body["metadata"]["resourceVersion"]
            await self._kube.replace_status(kinds.TRAFFIC_POLICY, name, namespace, dumped, resource_version=version)
        return Result(5.0 if waits else None)

    def _status(self, body: Object) -> tuple[TrafficPolicyStatus, bool]:
        meta = body["metadata"]
        before = parse_live(TrafficPolicyStatus, body.get("status") or {})
        spec, problems = read_policy(body)
        if spec is None:
            return _said(body, before, "Stalled", Reason.INVALID_SPEC, "; ".join(problems)), False
        service_key = f"{meta['namespace']}/{spec.target_ref.name}"
        service = self._feed.services.get(service_key)
        if service is None:
            message = f"there is no Service {spec.target_ref.name}; create it, or name another in spec.targetRef.name"
            return _said(body, before, "Stalled", Reason.SERVICE_NOT_FOUND, message), True
        if unusable(service):
            return _said(body, before, "Stalled", Reason.SERVICE_UNUSABLE, unusable(service)), False
        counts = self._feed.policy(service_key)
        if counts and counts.name != meta["name"]:
            message = f"TrafficPolicy {counts.name} is older and has the same Service; delete one of the two"
            return _said(body, before, "Stalled", Reason.CONFLICT, message), False
        refusal = self._feed.refusal(service_key)
        if refusal:
            message = f"{refusal}; until then the sidecars keep what they had before"
            return _said(body, before, "Stalled", Reason.INVALID_SPEC, message), False
        facts = self._feed.facts(service_key)
        before = before.model_copy(update={"proxies": facts.connected, "acknowledged": facts.acknowledged})
        if facts.rejections:
            message = f"a sidecar refused it, the configuration before it serves on: {facts.rejections[0]}"
            return _said(body, before, "Stalled", Reason.REJECTED_BY_PROXY, message), False
        message = f"in force in {facts.acknowledged} of {facts.connected} sidecars"
        if facts.acknowledged < facts.connected:
            return _said(body, before, "Reconciling", Reason.WAITING, message), True
        return _said(body, before, "Ready", Reason.IN_FORCE, message), False


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
