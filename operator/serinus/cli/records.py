"""Records of runs, out of the cluster: a list of them, and one put together from its parts."""

import json
from typing import TYPE_CHECKING

from serinus.analysis import runlog
from serinus.api import parse_live
from serinus.api.names import LABEL_OWNER, LABEL_RECORD, LABEL_RUN
from serinus.api.release import CanaryStatus, RunStatus
from serinus.cli.session import Exit, Object, Stop
from serinus.delivery import plan, recording
from serinus.delivery.model import Meta
from serinus.kube.kinds import CONFIG_MAP

if TYPE_CHECKING:
    from serinus.kube.client import Kube


async def runs(kube: "Kube", canary: Object) -> list[Object]:
    """Return what ``serinus.delivery.recording.ending`` says of each run, newest first.

    A run that is under way is among them. Of one whose end was not recorded only ``run.id`` and ``run.startedAt`` are
    known.

    Raises:
        KubeError: the cluster does not answer, or does not let the user list ConfigMaps.
    """
    meta = canary["metadata"]
    labels = f"{LABEL_OWNER}={meta['name']},{LABEL_RECORD} in (1,{recording.END})"
    found: dict[str, Object] = {}
    for part in await kube.list(CONFIG_MAP, meta["namespace"], labels=labels):
        own = part["metadata"]["labels"]
        if own.get(LABEL_RECORD) == recording.END:
            found[own[LABEL_RUN]] = _ending(part)
        else:
            first: Object = {"run": {"id": own[LABEL_RUN], "startedAt": part["metadata"].get("creationTimestamp", "")}}
            found.setdefault(own[LABEL_RUN], first)
    if present := _present(canary):
        found[present[0].id] = present[1]
    return sorted(found.values(), key=lambda ending: str(ending["run"]["startedAt"]), reverse=True)


async def record(kube: "Kube", canary: Object, run: str) -> Object:
    """Return the whole record of a run, with its rows, as ``serinus.analysis.replay`` takes it.

    Args:
        kube: the cluster.
        canary: the Canary.
        run: the run's id, or as much of its beginning as tells it from the others.

    Raises:
        Stop: there is no such run, or nothing was recorded of it.
        KubeError: the cluster does not answer.
    """
    meta, run = canary["metadata"], await _whole_id(kube, canary, run)
    parts = {
        part["metadata"]["labels"][LABEL_RECORD]: part
        for part in await kube.list(
            CONFIG_MAP, meta["namespace"], labels=f"{LABEL_OWNER}={meta['name']},{LABEL_RUN}={run}"
        )
    }
    end, chunks = parts.pop(recording.END, None), {int(number): _rows(part) for number, part in parts.items()}
    present = _present(canary)
    if present and present[0].id == run:
        status, ending = present
        notes = status.evidence.get("notes") or {}
        if chunk := notes.get(runlog.CHUNK):
            chunks[int(chunk["number"])] = runlog.unpack(chunk["rows"])
        last = list(notes.get(runlog.LOG) or [])
    elif end:
        ending, last = _ending(end), _rows(end)
    else:
        raise Stop(f"The end of run {run} was not recorded, so there is nothing to compare with.", Exit.REFUSED)
    numbers = range(1, int(ending["chunks"]) + 1)
    rows = [row for number in numbers for row in chunks.get(number, ())]
    return ending | {"rows": rows + last, "missing": [number for number in numbers if number not in chunks]}


async def _whole_id(kube: "Kube", canary: Object, run: str) -> str:
    known = [str(ending["run"]["id"]) for ending in await runs(kube, canary)]
    meant = [name for name in known if name == run] or [name for name in known if name.startswith(run)]
    if len(meant) == 1:
        return meant[0]
    name = canary["metadata"]["name"]
    if meant:
        raise Stop(f"Several runs of {name} begin with {run}: {', '.join(meant)}.", Exit.USAGE)
    others = f"There are: {', '.join(known)}." if known else "There is none at all."
    raise Stop(f"There is no record of a run {run} of {name}. {others}")


def _present(canary: Object) -> tuple[RunStatus, Object] | None:
    """Return the run in the Canary's status, and what is known of it."""
    status = parse_live(CanaryStatus, canary.get("status") or {})
    if status.run is None:
        return None
    meta = Meta(canary["metadata"]["namespace"], canary["metadata"]["name"])
    ended = plan.effective_phase(status) not in plan.ACTIVE
    return status.run, recording.ending(meta, status.run, ended=ended)


def _ending(part: Object) -> Object:
    ending: Object = json.loads(part["data"][recording.ENDING])
    if ending.get("format") not in (recording.PLAIN, recording.WITH_EXPERIMENTS):
        raise Stop(f"{part['metadata']['name']} was written by a newer Serinus; update this command.", Exit.REFUSED)
    return ending


def _rows(part: Object) -> list[str]:
    return runlog.unpack(part["binaryData"][recording.ROWS])
