"""Whether a release has come to its end, and to which; out of the Canary and its target as they stand."""

from dataclasses import dataclass

from serinus.cli.session import Exit, Object
from serinus.delivery.revision import revision_of


@dataclass(frozen=True, slots=True)
class Verdict:
    """The end of a release: the exit status and a sentence."""

    status: Exit
    sentence: str


def verdict(canary: Object, target: Object | None = None, run: str = "") -> Verdict | None:
    """Return the end that a release has come to; None while it goes on, or is about to begin.

    Args:
        canary: the Canary as the API server returned it.
        target: its Deployment, so that a template that is held, and not yet seen by the operator, counts as begun.
        run: the run that is meant; when another has taken its place, that one was superseded.
    """
    status, meta = canary.get("status") or {}, canary["metadata"]
    own, stable = status.get("run") or {}, status.get("stable") or {}
    if run and own.get("id") != run:
        return Verdict(Exit.REFUSED, f"run {run} ended: another one, {own.get('id', 'unknown')}, took its place")
    if status.get("observedGeneration", 0) < meta.get("generation", 1) or _about_to_begin(status, target):
        return None
    conditions = {condition["type"]: condition for condition in status.get("conditions") or []}
    message = status.get("message") or ""
    if _holds(conditions, "Stalled"):
        failed = status.get("phase") == "Failed"
        return Verdict(Exit.REFUSED, _not_promoted(own, message) if failed else message)
    if status.get("phase") != "Ready" or not _holds(conditions, "Ready"):
        return None
    revision = own.get("revision")
    if revision and revision != stable.get("revision"):
        return Verdict(Exit.REFUSED, _not_promoted(own, message))
    return Verdict(Exit.DONE, f"revision {revision} is promoted and serves" if revision else message)


def _holds(conditions: dict[str, Object], kind: str) -> bool:
    return (conditions.get(kind) or {}).get("status") == "True"


def _not_promoted(run: Object, message: str) -> str:
    return f"revision {run.get('revision')} was not promoted: {run.get('causeMessage') or message}"


def _about_to_begin(status: Object, target: Object | None) -> bool:
    """Whether the target holds a template that the operator has not taken up yet."""
    spec = (target or {}).get("spec") or {}
    if status.get("phase") not in ("Ready", "Failed") or not spec.get("paused"):
        return False
    known = {status.get("rejected"), (status.get("stable") or {}).get("revision")}
    return revision_of(spec["template"]) not in known
