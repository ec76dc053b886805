"""The record of a run, outside its status: what a verdict is computed again from, long after.

A run's scrapes are kept chunk by chunk, each in a ConfigMap of its own that belongs to the Canary and never changes; at
the end of the run the remaining rows follow, with the verdict and everything that it was computed from. The samples of
the fault gate's experiments are rows among the others, and what came of each stands beside the verdict. All of that
stands in the status first (``serinus.analysis.runlog``), so a restart at any point projects the same again.
"""

import json
from typing import Any

from serinus import __version__
from serinus.analysis import runlog
from serinus.api.names import LABEL_OWNER, LABEL_RECORD, LABEL_RUN
from serinus.api.release import CanaryStatus, ExperimentStatus, MetricStatus, RunStatus
from serinus.delivery import evidence, plan
from serinus.delivery.model import Meta

END = "end"
"""Value of the record label on the last part of a run; on the others it is their number, from 1 on."""
ROWS, ENDING = "rows", "run.json"
"""Keys in a ConfigMap: ``binaryData`` with compressed rows, and ``data`` with the rest."""
PLAIN, WITH_EXPERIMENTS = 1, 2
"""Formats of the last part. Only a record that an older reader would misread has the newer one."""
PROMOTED = "Promoted"


def parts(meta: Meta, status: CanaryStatus, owner: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    """Return the ConfigMaps that must exist, as far as the status knows them: the last full chunk, and the run's end.

    Args:
        meta: the Canary's.
        status: the persisted one.
        owner: the owner reference.
    """
    run = status.run
    if run is None or meta.deleted_at:  # what a Canary owns goes with it
        return ()
    found, notes = [], _notes(run)
    if chunk := notes.get(runlog.CHUNK):
        found.append(_part(meta, run, str(chunk["number"]), chunk["rows"], owner))
    if plan.effective_phase(status) not in plan.ACTIVE:
        last = _part(meta, run, END, runlog.pack(notes.get(runlog.LOG) or []), owner)
        found.append({**last, "data": {ENDING: json.dumps(ending(meta, run), ensure_ascii=False)}})
    return tuple(found)


def part_name(canary: str, run: str, part: str) -> str:
    """Return the name of the ConfigMap with one part of a run's record."""
    return f"{canary[:200]}-{run}-{part}"


def ending(meta: Meta, run: RunStatus, *, ended: bool = True) -> dict[str, Any]:
    """Return all that a verdict is computed from but the rows, and what came of it.

    Args:
        meta: the Canary's.
        run: the run.
        ended: whether it has come to its end.
    """
    notes = _notes(run)
    outcome = run.cause or PROMOTED
    return {
        "format": WITH_EXPERIMENTS if run.experiments else PLAIN,
        "serinus": __version__,
        "namespace": meta.namespace,
        "canary": meta.name,
        "run": {
            "id": run.id,
            "revision": run.revision,
            "startedAt": run.started_at,
            "endedAt": run.stage_since if ended else "",
            "outcome": outcome if ended else "",
            "message": run.cause_message,
            "verdict": run.verdict,
            "metrics": [_plain(metric) for metric in run.metrics],
            "experiments": [_plain(experiment) for experiment in run.experiments],
        },
        "spec": notes.get(runlog.SPEC) or {},
        "tests": notes.get("tests"),
        "users": notes.get("users") or {},
        "queries": notes.get("queries") or {},
        "total": evidence.load(run.evidence).dump()["total"],
        "chunks": runlog.closed_chunks(notes),
    }


def _plain(part: MetricStatus | ExperimentStatus) -> dict[str, Any]:
    return part.model_dump(mode="json", by_alias=True, exclude_defaults=True)


def _notes(run: RunStatus) -> dict[str, Any]:
    return run.evidence.get("notes") or {}


def _part(meta: Meta, run: RunStatus, part: str, rows: str, owner: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "namespace": meta.namespace,
            "name": part_name(meta.name, run.id, part),
            "labels": {LABEL_OWNER: meta.name, LABEL_RUN: run.id, LABEL_RECORD: part},
            "ownerReferences": [owner],
        },
        "immutable": True,
        "binaryData": {ROWS: rows},
    }
