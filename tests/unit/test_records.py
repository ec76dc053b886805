"""Records of runs: which objects a status implies, how they are written, and how many are kept."""

import json
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from typing import Any

import pytest
import structlog

from serinus.analysis import runlog
from serinus.analysis.replay import replay
from serinus.api.names import LABEL_RUN
from serinus.api.release import CanaryStatus, Phase, RunStatus
from serinus.cli import records
from serinus.controller.records import RETRY_S, RUNS, Records
from serinus.delivery import recording
from serinus.delivery.model import Decision, Snapshot
from serinus.delivery.project import project
from serinus.kube.errors import Rejected

from .cluster import FAILING, REVISIONS, Cluster
from .recorded import META, Maps, Run, spec_of
from .world import a_snapshot, a_spec

VirtualTime = Callable[[Coroutine[Any, Any, Any]], Any]
OWNER = {"kind": "Canary", "name": "cart", "uid": "uid-cart"}


@pytest.fixture(scope="module")
def run() -> RunStatus:
    """A run with one full chunk and some rows."""
    return Run(spec_of(), failing=0.08).play(190).status()


def parts(run: RunStatus, phase: Phase, **changes: Any) -> tuple[dict[str, Any], ...]:
    return recording.parts(replace(META, **changes), CanaryStatus(phase=phase, run=run), OWNER)


# What a status implies


def test_a_full_chunk_is_projected_while_the_run_goes_on(run: RunStatus) -> None:
    (chunk,) = parts(run, Phase.ANALYSING)
    assert chunk["metadata"]["name"] == "cart-rev-1-1"
    assert chunk["immutable"] is True
    assert chunk["metadata"]["ownerReferences"] == [OWNER]
    assert len(runlog.unpack(chunk["binaryData"]["rows"])) == runlog.ROWS


def test_nothing_is_projected_before_the_first_chunk_is_full() -> None:
    assert parts(Run(spec_of()).play(20).status(), Phase.ANALYSING) == ()


@pytest.mark.parametrize("phase", [Phase.READY, Phase.FAILED])
def test_the_end_of_a_run_has_the_other_rows_and_all_that_a_verdict_is_computed_from(
    run: RunStatus, phase: Phase
) -> None:
    chunk, end = parts(run, phase)
    assert end["metadata"]["name"] == "cart-rev-1-end"
    ending = json.loads(end["data"]["run.json"])
    rows = [row for part in (chunk, end) for row in runlog.unpack(part["binaryData"]["rows"])]
    found = replay(ending | {"rows": rows, "missing": []})
    assert (found.differences, found.off, found.scrapes) == ((), 0.0, 190)
    assert ending["run"]["verdict"] == "Harm"


def test_a_run_that_is_suspended_has_not_ended(run: RunStatus) -> None:
    status = CanaryStatus(phase=Phase.SUSPENDED, suspended_phase=Phase.WAITING, run=run)
    assert len(recording.parts(META, status, OWNER)) == 1


def test_nothing_is_recorded_of_a_canary_that_is_being_deleted(run: RunStatus) -> None:
    assert parts(run, Phase.READY, deleted_at="2026-05-04T12:00:00Z") == ()


def test_a_spec_that_was_edited_after_the_run_does_not_change_its_record(run: RunStatus) -> None:
    before = project(a_snapshot(CanaryStatus(phase=Phase.READY, run=run), spec=a_spec()))
    after = project(a_snapshot(CanaryStatus(phase=Phase.READY, run=run), spec=a_spec({"weight": 7})))
    assert before.record == after.record
    assert len(before.record) == 2


def test_a_part_fits_into_a_configmap_by_far(run: RunStatus) -> None:
    assert all(len(json.dumps(part)) < 40_000 for part in parts(run, Phase.READY))


# How they are written


def of_run(number: int, chunks: int = 2) -> tuple[dict[str, Any], ...]:
    def part(name: str) -> dict[str, Any]:
        run = RunStatus(id=f"run-{number:02}", revision="rev", started_at="2026-05-04T12:00:00.000Z")
        return recording._part(META, run, name, runlog.pack([]), OWNER)

    return *(part(str(index)) for index in range(1, chunks + 1)), part("end")


async def test_a_part_is_created_once() -> None:
    kube = Maps()
    writer = Records(kube)  # type: ignore[arg-type]
    for _ in range(3):
        assert await writer.keep(META, of_run(1))
    assert [asked for asked in kube.asked if asked.startswith("create")] == [
        "create cart-run-01-1",
        "create cart-run-01-2",
        "create cart-run-01-end",
    ]


async def test_a_new_process_is_content_with_what_it_finds() -> None:
    kube = Maps()
    await Records(kube).keep(META, of_run(1))  # type: ignore[arg-type]
    again = Records(kube)  # type: ignore[arg-type]
    assert await again.keep(META, of_run(1))
    assert len(kube.maps) == 3


async def test_the_last_ten_runs_are_kept_and_older_ones_go_with_all_their_parts() -> None:
    kube = Maps()
    writer = Records(kube)  # type: ignore[arg-type]
    other = recording._part(replace(META, name="web"), RunStatus(id="x", revision="", started_at=""), "end", "", OWNER)
    await writer.keep(replace(META, name="web"), (other,))
    for number in range(1, RUNS + 4):
        await writer.keep(META, of_run(number))
    kept = {one["metadata"]["labels"][LABEL_RUN] for one in kube.maps.values()}
    assert kept == {f"run-{number:02}" for number in range(4, RUNS + 4)} | {"x"}
    assert len(kube.maps) == 3 * RUNS + 1


async def test_a_run_whose_end_was_never_written_is_counted_and_goes_in_its_turn() -> None:
    kube = Maps()
    writer = Records(kube)  # type: ignore[arg-type]
    await writer.keep(META, of_run(1)[:-1])
    for number in range(2, RUNS + 2):
        await writer.keep(META, of_run(number, chunks=0))
    assert "cart-run-01-1" not in kube.maps
    assert len(kube.maps) == RUNS


def test_a_cluster_that_refuses_is_asked_again_after_a_while_and_nothing_is_lost(in_virtual_time: VirtualTime) -> None:
    import asyncio

    async def scenario() -> None:
        kube = Maps()
        kube.trouble = Rejected("create configmaps shop/cart-run-01-1: you may not (403)", status=403)
        writer = Records(kube)  # type: ignore[arg-type]
        with structlog.testing.capture_logs() as logs:
            assert not await writer.keep(META, of_run(1)[:1])
            assert not await writer.keep(META, of_run(1)[1:2])  # the status has moved on to the next chunk
            assert len(kube.asked) == 1
            await asyncio.sleep(RETRY_S)
            assert not await writer.keep(META, of_run(1)[1:2])
        assert [entry["event"] for entry in logs] == ["the record of a run cannot be written; it is tried again"]
        kube.trouble = None
        await asyncio.sleep(RETRY_S)
        assert await writer.keep(META, of_run(1)[1:])
        assert sorted(kube.maps) == ["cart-run-01-1", "cart-run-01-2", "cart-run-01-end"]

    in_virtual_time(scenario())


# A whole release


class Recording(Cluster):
    """A cluster in which records are written, too."""

    kube: Maps

    def _writes(self, snapshot: Snapshot, decision: Decision, rv: int) -> Iterator[Callable[[], bool]]:
        yield from super()._writes(snapshot, decision, rv)
        yield lambda: self._record(replace(snapshot, status=self.status))

    def _record(self, persisted: Snapshot) -> bool:
        for part in project(persisted).record:
            name = part["metadata"]["name"]
            made = {"uid": name, "creationTimestamp": self.now.isoformat()}
            known = self.kube.maps.setdefault(name, {**part, "metadata": {**part["metadata"], **made}})
            assert known["binaryData"] == part["binaryData"], "a part never changes"
            assert known.get("data") == part.get("data"), "a part never changes"
        return False

    def canary(self) -> dict[str, Any]:
        status = self.status.model_dump(mode="json", by_alias=True, exclude_none=True)
        return {"metadata": {"namespace": "shop", "name": "web"}, "spec": {}, "status": status}


def released(version: str, looks: int, *, dying: bool) -> Recording:
    cluster = Recording(a_spec({"weight": 10, "for": "2m"}, {"weight": 50}))
    cluster.kube = Maps()
    cluster.settle()
    cluster.set_template(version)
    for number in range(looks):
        if dying and number % 7 == 3:
            cluster.calm()
            cluster.reconcile(dies_after=number % 5)
            cluster.tick(2.0)
        cluster.proceed(1)
    cluster.settle()
    return cluster


@pytest.mark.parametrize("dying", [False, True], ids=["one process", "many processes"])
@pytest.mark.parametrize(
    ("version", "outcome", "verdict"), [("v2", "Promoted", "Safe"), (FAILING, "RolledBack", "Harm")]
)
async def test_a_release_is_recorded_and_its_verdict_comes_out_again(
    version: str, outcome: str, verdict: str, *, dying: bool
) -> None:
    cluster = released(version, 70, dying=dying)
    run = cluster.status.run
    assert run is not None
    for canary in (cluster.canary(), {**cluster.canary(), "status": {}}):  # with its status, and long after
        record = await records.record(cluster.kube, canary, run.id)  # type: ignore[arg-type]
        assert (record["run"]["outcome"], record["run"]["verdict"]) == (outcome, verdict)
        assert record["run"]["revision"] == REVISIONS[version]
        found = replay(record)
        assert (found.differences, found.off) == ((), 0.0)
        assert found.scrapes >= 3


async def test_a_run_that_goes_on_can_be_replayed_as_far_as_it_has_come() -> None:
    cluster = Recording(a_spec({"weight": 10, "for": "10m"}))
    cluster.kube = Maps()
    cluster.settle()
    cluster.set_template("v2")
    cluster.proceed(200)
    run = cluster.status.run
    assert run is not None
    record = await records.record(cluster.kube, cluster.canary(), run.id[:8])  # type: ignore[arg-type]
    assert (record["chunks"], record["run"]["outcome"]) == (1, "")
    found = replay(record)
    assert (found.differences, found.off) == ((), 0.0)


async def test_rows_that_somebody_deleted_are_missed() -> None:
    cluster = Recording(a_spec({"weight": 10, "for": "15m"}))
    cluster.kube = Maps()
    cluster.settle()
    cluster.set_template("v2")
    cluster.proceed(380)
    run = cluster.status.run
    assert run is not None
    del cluster.kube.maps[recording.part_name("web", run.id, "1")]
    record = await records.record(cluster.kube, cluster.canary(), run.id)  # type: ignore[arg-type]
    assert record["missing"] == [1]
    assert "rows are missing: chunk 1 of 2 is not there" in replay(record).differences
