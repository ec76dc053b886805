"""Faults of TrafficPolicies: which may be in force now, since when and until when, and why not. Pure."""

import json
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256

from serinus.api.base import seconds
from serinus.api.fault import Fault, FaultStatus, Injection
from serinus.api.matching import SAFE_METHODS
from serinus.api.names import ANNOTATION_FAULTS, ANNOTATION_FAULTS_HOURS, ANNOTATION_FAULTS_MOST
from serinus.delivery.model import stamp

ALLOWED, STOPPED = "allowed", "stopped"
"""Values of the annotation ``serinus.dev/faults`` on a namespace."""

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_DAY = f"({'|'.join(_DAYS)})"
_HOURS = re.compile(rf"^(?:{_DAY}(?:-{_DAY})? )?([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)$")


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a namespace says of faults in it. ``hours`` and ``most`` are as they were written."""

    namespace: str
    faults: str = ""
    most: str = ""
    hours: str = ""

    def refusal(self, fault: Injection, now: datetime) -> str:
        """Return why this fault may not be injected now, in a sentence that says what to do; empty when it may."""
        name = self.namespace
        if self.faults == STOPPED:
            return (
                f"faults are stopped in namespace {name}; to allow them again: kubectl annotate namespace {name}"
                f" {ANNOTATION_FAULTS}={ALLOWED} --overwrite"
            )
        if self.faults != ALLOWED:
            return (
                f"namespace {name} does not allow faults; to allow them: kubectl annotate namespace {name}"
                f" {ANNOTATION_FAULTS}={ALLOWED} --overwrite"
            )
        return self._too_much(fault) or self._too_early(now)

    def _too_much(self, fault: Injection) -> str:
        if not self.most:
            return ""
        where = f"the annotation {ANNOTATION_FAULTS_MOST} of namespace {self.namespace}"
        try:
            most = float(self.most)
        except ValueError:
            return f'{where} says "{self.most}"; write a number from 0 to 100'
        if fault.percentage <= most:
            return ""
        return f"{fault.percentage:g} % of the requests is more than the {most:g} % of {where}; write at most {most:g}"

    def _too_early(self, now: datetime) -> str:
        if not self.hours:
            return ""
        where = f"the annotation {ANNOTATION_FAULTS_HOURS} of namespace {self.namespace}"
        found = _HOURS.match(self.hours)
        if found is None:
            return f'{where} says "{self.hours}"; write hours of UTC, for example "Mon-Fri 09:00-17:00"'
        first, last, *times = found.groups()
        begin, end = (60 * int(times[each]) + int(times[each + 1]) for each in (0, 2))
        days = {_DAYS.index(first)} if first and not last else set(range(7))
        if first and last:
            length = (_DAYS.index(last) - _DAYS.index(first)) % 7
            days = {(_DAYS.index(first) + each) % 7 for each in range(length + 1)}
        minute = 60 * now.hour + now.minute
        if now.weekday() in days and begin <= minute < end:
            return ""
        return f"it is outside of the hours of {where}, {self.hours} UTC; it begins within them"


def allowance(namespace: str, annotations: dict[str, str]) -> Allowance:
    """Return what a namespace's annotations say."""
    return Allowance(
        namespace,
        annotations.get(ANNOTATION_FAULTS, ""),
        annotations.get(ANNOTATION_FAULTS_MOST, ""),
        annotations.get(ANNOTATION_FAULTS_HOURS, ""),
    )


def fingerprint(fault: Injection) -> str:
    """Return what tells a fault apart from a changed one."""
    spec = fault.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:10]


def standing(fault: Fault, before: FaultStatus | None, allowed: Allowance, now: datetime) -> FaultStatus:
    """Return how a policy's fault stands now.

    It begins when the namespace allows it, and ends by its ``ttl`` or when it is not allowed any more. One that has
    ended stays so until it is changed.

    Args:
        fault: what the policy says.
        before: what its status said.
        allowed: what its namespace allows.
        now: in UTC.
    """
    mark = fingerprint(fault)
    known = before if before and before.print == mark and before.since else None
    if known and known.state == "Ended":
        return known
    refusal = allowed.refusal(fault, now)
    since = datetime.fromisoformat(known.since) if known else now
    until = since + timedelta(seconds=seconds(fault.ttl))
    if known is None and refusal:
        return FaultStatus(state="Refused", print=mark, message=f"nothing is injected: {refusal}")
    stands = FaultStatus(state="Active", print=mark, since=stamp(since), until=stamp(until))
    if refusal or now >= until:
        return ended(stands, refusal if now < until else f"its ttl of {fault.ttl} is over", min(now, until))
    return stands.model_copy(update={"message": f"{words(fault)}, until {_clock(until)}"})


def ended(fault: FaultStatus, why: str, at: datetime) -> FaultStatus:
    """Return the status of a fault that ends at ``at``; ``why`` is a part of a sentence."""
    message = f"the fault ended at {_clock(at)}: {why}; take it out of the policy, or change it to begin anew"
    return fault.model_copy(update={"state": "Ended", "until": stamp(at), "message": message, "proxies": 0})


def words(fault: Fault) -> str:
    """Return in words what a fault does, and to which requests."""
    methods = tuple(fault.match.methods or (() if fault.allow_unsafe else SAFE_METHODS))
    which = f" {', '.join(methods)}" if methods else ""
    routes = f" on {', '.join(fault.routes)}" if fault.routes else ""
    who = ", ".join(fault.from_) if fault.from_ else "all callers"
    return f"{effect_words(fault)} for {fault.percentage:g} % of the{which} requests{routes} of {who}"


def effect_words(fault: Injection) -> str:
    """Return in words what happens to a request that is hit."""
    parts = [f"delay of {fault.delay}"] if fault.delay else []
    if fault.abort:
        status = fault.abort.http_status
        parts.append(f"answer {status}" if status else f"gRPC status {fault.abort.grpc_status}")
    if fault.reset:
        parts.append("broken connection")
    return " and ".join(parts)


def accounts(fault: Fault, namespace: str) -> frozenset[tuple[str, str]] | None:
    """Return the service accounts that a fault is about, by namespace and name; None for all."""
    if fault.from_ is None:
        return None
    pairs = (name.rpartition("/") for name in fault.from_)
    return frozenset((place or namespace, name) for place, _, name in pairs)


def _clock(moment: datetime) -> str:
    return f"{moment:%H:%M:%S} UTC"
