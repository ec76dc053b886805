"""Conditions as kstatus reads them, and every reason that a condition or an Event of ours can carry."""

from enum import StrEnum
from typing import Literal

from serinus.api.base import Lenient


class Reason(StrEnum):
    """Why a condition has its status, or why an Event was posted. Users and alerts match on these words."""

    PROMOTED = "Promoted"  # the target serves the revision that was judged, or was never changed
    ADOPTED = "Adopted"  # a new Canary has taken a Deployment under its care
    IN_FORCE = "InForce"  # every sidecar has the TrafficPolicy
    PREPARING = "Preparing"  # the candidate's pods start
    ANALYSING = "Analysing"  # the candidate serves a share and is judged
    WAITING = "Waiting"  # a pause, an approval, proxies or enough requests are waited for
    WATCHING = "Watching"  # the candidate has passed, and is watched while the stable version stands by
    PROMOTING = "Promoting"  # the candidate becomes the stable version
    RESTORING = "Restoring"  # routes and helpers are being put back
    ROLLING_BACK = "RollingBack"  # the candidate leaves the traffic
    ROLLED_BACK = "RolledBack"  # the candidate was refused; the target stays held until the template changes
    ABORTED = "Aborted"  # the run ended without a verdict: template set back, or a person's wish
    SUPERSEDED = "Superseded"  # another template arrived; the run starts afresh with it
    SUSPENDED = "Suspended"  # spec.suspend is true: nothing moves
    PAUSED = "Paused"  # a person asked to stay at the present step
    DEADLINE = "DeadlineExceeded"  # the run took longer than spec.deadline
    PROGRESS_DEADLINE = "ProgressDeadlineExceeded"  # the candidate's pods did not become ready in time
    METRICS_UNAVAILABLE = "MetricsUnavailable"  # a metrics source does not answer; no verdict is drawn from that
    NO_TRAFFIC = "NoTraffic"  # too few requests to judge by
    REJECTED_BY_PROXY = "RejectedByProxy"  # a sidecar refused the configuration; nothing is promoted
    BYPASSED = "Bypassed"  # the target changed past the hold; we did not judge it
    RELEASED = "Released"  # a held template needs no run: equal to stable, promoted before, or nothing serves
    INVALID_SPEC = "InvalidSpec"  # the spec says something that cannot be done
    TARGET_NOT_FOUND = "TargetNotFound"
    SERVICE_NOT_FOUND = "ServiceNotFound"
    SERVICE_UNUSABLE = "ServiceUnusable"  # the Service cannot carry a canary: no selector, ExternalName, headless
    CONFLICT = "Conflict"  # an older Canary or TrafficPolicy has the same target
    QUOTA_EXCEEDED = "QuotaExceeded"  # the namespace has no room for the candidate's pods
    FAULT = "Fault"  # a fault began or ended
    FAULT_GATE = "FaultGate"  # an experiment passed, failed, or ended without a verdict
    FAULT_REFUSED = "FaultRefused"  # a fault may not be injected; nothing is
    COMMAND = "Command"  # a person's request was carried out, or could not be
    DELETED = "Deleted"  # the Canary is being deleted; what it left in the target is said
    REPAIRED = "Repaired"  # somebody changed an object of ours; it was put back
    ERROR = "Error"  # an error of ours or of the API server; tried again


class Condition(Lenient):
    """One condition, as `meta/v1.Condition`."""

    type: Literal["Ready", "Reconciling", "Stalled"]
    """Name of the condition."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    reason: str
    """One word for why, from a fixed set."""
    message: str = ""
    """A sentence for people, with the numbers."""
    observed_generation: int = 0
    """The generation of the spec that this condition is about."""
    last_transition_time: str = ""
    """When status, reason or message last changed, RFC 3339."""
