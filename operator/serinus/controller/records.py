"""Writes the records of runs into the cluster, part by part, and takes the oldest ones away.

A record is worth less than a release: what cannot be written is kept here, said once, and tried again after a while.
"""

import asyncio
from contextlib import suppress

import structlog

from serinus.api.names import LABEL_OWNER, LABEL_RECORD, LABEL_RUN
from serinus.delivery.model import Meta
from serinus.delivery.recording import END
from serinus.kube import kinds
from serinus.kube.client import Kube
from serinus.kube.errors import Conflict, KubeError, NotFound
from serinus.kube.requests import Object

log = structlog.get_logger()

RUNS = 10
"""So many runs of a Canary are kept."""
RETRY_S = 30.0
_MOST_PENDING = 20
"""Parts of one Canary that wait for an API server that refuses them; the oldest are given up beyond that."""


class Records:
    """Creates parts that are not there yet. What this process has seen to exist it does not ask for again."""

    def __init__(self, kube: Kube):
        self._kube = kube
        self._seen: dict[str, frozenset[str]] = {}
        self._pending: dict[str, dict[str, Object]] = {}
        self._not_before: dict[str, float] = {}

    async def keep(self, meta: Meta, parts: tuple[Object, ...]) -> bool:
        """Create the parts that do not exist; returns whether all of them do now."""
        owner, names = f"{meta.namespace}/{meta.name}", frozenset(part["metadata"]["name"] for part in parts)
        if meta.deleted_at:
            self.forget(owner)
            return True
        pending = self._pending.pop(owner, {})
        pending |= {
            part["metadata"]["name"]: part
            for part in parts
            if part["metadata"]["name"] not in self._seen.get(owner, frozenset())
        }
        if pending and asyncio.get_running_loop().time() >= self._not_before.get(owner, 0.0):
            await self._write(meta, owner, pending)
        self._seen[owner] = names - pending.keys()
        if pending:
            self._pending[owner] = dict(list(pending.items())[-_MOST_PENDING:])
        return not pending

    def forget(self, owner: str) -> None:
        """Forget a Canary that is gone."""
        for known in (self._seen, self._pending, self._not_before):
            known.pop(owner, None)

    async def _write(self, meta: Meta, owner: str, pending: dict[str, Object]) -> None:
        """Write what is pending; what was written is taken out of it."""
        try:
            for name, part in list(pending.items()):
                ended = await self._create(meta, part) and part["metadata"]["labels"][LABEL_RECORD] == END
                del pending[name]
                if ended:
                    await self._prune(meta)
        except KubeError as problem:
            if owner not in self._not_before:
                log.warning("the record of a run cannot be written; it is tried again", error=problem.message)
            self._not_before[owner] = asyncio.get_running_loop().time() + RETRY_S
        else:
            self._not_before.pop(owner, None)

    async def _create(self, meta: Meta, part: Object) -> bool:
        """Create a part; returns False when it was there."""
        try:
            await self._kube.create(kinds.CONFIG_MAP, part, meta.namespace)
        except Conflict as problem:
            if not problem.exists:
                raise
            return False
        return True

    async def _prune(self, meta: Meta) -> None:
        """Delete the records of all runs but the newest ``RUNS``.

        Each run is found by its first part, or by its last one when it has no other.
        """
        of_ours = f"{LABEL_OWNER}={meta.name}"
        found = await self._kube.list(
            kinds.CONFIG_MAP, meta.namespace, labels=f"{of_ours},{LABEL_RECORD} in (1,{END}),{LABEL_RUN}"
        )
        begun: dict[str, str] = {}
        for part in found:
            run, at = part["metadata"]["labels"][LABEL_RUN], part["metadata"].get("creationTimestamp") or ""
            begun[run] = min(at, begun.get(run, at))
        for run in sorted(begun, key=lambda run: (begun[run], run), reverse=True)[RUNS:]:
            old = await self._kube.list(kinds.CONFIG_MAP, meta.namespace, labels=f"{of_ours},{LABEL_RUN}={run}")
            for part in sorted(old, key=_is_first):  # the first one last, so that what is left is found next time
                await self._delete(meta, part)

    async def _delete(self, meta: Meta, part: Object) -> None:
        name, uid = part["metadata"]["name"], part["metadata"]["uid"]
        with suppress(NotFound):
            await self._kube.delete(kinds.CONFIG_MAP, name, meta.namespace, uid=uid)


def _is_first(part: Object) -> bool:
    return part["metadata"]["labels"][LABEL_RECORD] in ("1", END)
