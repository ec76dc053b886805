"""What people ask for is done once, at the place that it is about, and answered in a sentence."""

from dataclasses import replace
from typing import NamedTuple

import pytest

from serinus.api.release import HandledCommand, Phase
from serinus.delivery import plan
from serinus.delivery.model import Snapshot
from serinus.delivery.moves import PUSH_S

from .world import (
    ANALYSING,
    FAILED,
    PREPARING,
    PROMOTING,
    READY,
    ROLLING_BACK,
    V2,
    WAITING,
    a_snapshot,
    a_spec,
    a_target,
    adopted,
    analysing,
    failed,
    look,
    meta,
    ordered,
    promoting,
    rolling_back,
)

ASKED = {"token": "t1", "run": "run-1"}


class Asked(NamedTuple):
    sentence: str
    snapshot: Snapshot
    phase: Phase
    answer: str
    step: int | None = None


REQUESTS = (
    Asked(
        "promote passes the present step",
        analysing(meta=meta(annotations=ordered("promote", step=0, **ASKED))),
        ANALYSING,
        "step 1 is passed",
        1,
    ),
    Asked(
        "promote for a step that is over does nothing",
        analysing(meta=meta(annotations=ordered("promote", step=0, **ASKED)), run_step=1),
        ANALYSING,
        "nothing to do: it was meant for step 1, and the run is at step 2",
        1,
    ),
    Asked(
        "promote for another run does nothing",
        analysing(meta=meta(annotations=ordered("promote", token="t1", run="run-0", step=0))),
        ANALYSING,
        "nothing to do: it was meant for run run-0, and run-1 is under way",
        0,
    ),
    Asked(
        "promote ends a pause",
        analysing(phase=WAITING, run_paused=True, meta=meta(annotations=ordered("promote", step=0, **ASKED))),
        ANALYSING,
        "step 1 is passed",
        1,
    ),
    Asked(
        "promote at the last step promotes",
        analysing(run_step=2, run_weight=50, meta=meta(annotations=ordered("promote", step=2, **ASKED))),
        PROMOTING,
        "step 3 is passed",
        3,
    ),
    Asked(
        "promote --full passes every step",
        analysing(meta=meta(annotations=ordered("promote", step=0, full=True, **ASKED))),
        PROMOTING,
        "all remaining steps are passed",
        3,
    ),
    Asked(
        "promote does not pass pods that are not ready",
        analysing(
            plan.SCALE,
            phase=PREPARING,
            run_weight=0,
            meta=meta(annotations=ordered("promote", step=0, full=True, **ASKED)),
        ),
        PREPARING,
        "pods are not ready yet",
        0,
    ),
    Asked(
        "promote while promoting does nothing",
        promoting(plan.SHIFT, meta=meta(annotations=ordered("promote", **ASKED))),
        PROMOTING,
        "nothing to do: the phase is Promoting, which goes on by itself",
        3,
    ),
    Asked(
        "promote without a run does nothing",
        a_snapshot(meta=meta(annotations=ordered("promote"))),
        READY,
        "nothing to do: no run is under way, the phase is Ready",
    ),
    Asked(
        "abort rolls back",
        analysing(meta=meta(annotations=ordered("abort", **ASKED))),
        ROLLING_BACK,
        "the run is rolled back",
        0,
    ),
    Asked(
        "abort works while pods start",
        analysing(plan.SCALE, phase=PREPARING, run_weight=0, meta=meta(annotations=ordered("abort", **ASKED))),
        ROLLING_BACK,
        "the run is rolled back",
    ),
    Asked(
        "abort works until the target adopts the candidate",
        promoting(plan.OPEN, meta=meta(annotations=ordered("abort", **ASKED))),
        ROLLING_BACK,
        "the run is rolled back",
    ),
    Asked(
        "abort after that says that it is too late",
        adopted(plan.RELEASE, meta=meta(annotations=ordered("abort", **ASKED))),
        PROMOTING,
        "cannot be undone",
    ),
    Asked(
        "abort while rolling back does nothing",
        rolling_back(meta=meta(annotations=ordered("abort", **ASKED))),
        ROLLING_BACK,
        "nothing to do: the run is being rolled back",
    ),
    Asked(
        "pause keeps the step",
        analysing(meta=meta(annotations=ordered("pause", **ASKED))),
        ANALYSING,
        "the run stays at step 1, 10 %",
        0,
    ),
    Asked(
        "pause twice is once",
        analysing(run_paused=True, phase=WAITING, meta=meta(annotations=ordered("pause", **ASKED))),
        WAITING,
        "nothing to do: the run is paused",
    ),
    Asked(
        "resume goes on",
        analysing(run_paused=True, phase=WAITING, meta=meta(annotations=ordered("resume", **ASKED))),
        WAITING,
        "the run goes on from step 1, 10 %",
    ),
    Asked(
        "resume of a run that is not paused does nothing",
        analysing(meta=meta(annotations=ordered("resume", **ASKED))),
        ANALYSING,
        "nothing to do: the run is not paused",
    ),
    Asked(
        "approve passes the approval",
        analysing(
            phase=WAITING,
            spec=a_spec({"approval": "?"}, {"weight": 50}),
            run_weight=0,
            meta=meta(annotations=ordered("approve", step=0, **ASKED)),
        ),
        ANALYSING,
        "step 1 is approved",
        1,
    ),
    Asked(
        "approve before the approval is reached does not count later",
        analysing(
            spec=a_spec({"weight": 10}, {"approval": "?"}), meta=meta(annotations=ordered("approve", step=0, **ASKED))
        ),
        ANALYSING,
        "nothing to do: step 1 waits for no approval",
        0,
    ),
    Asked(
        "approve for the step to come does nothing",
        analysing(
            spec=a_spec({"weight": 10}, {"approval": "?"}), meta=meta(annotations=ordered("approve", step=1, **ASKED))
        ),
        ANALYSING,
        "nothing to do: it was meant for step 2",
        0,
    ),
    Asked(
        "retry begins a new run",
        failed(meta=meta(annotations=ordered("retry"))),
        PREPARING,
        f"a new run with revision {V2} begins",
    ),
    Asked(
        "retry of what was not refused does nothing",
        analysing(meta=meta(annotations=ordered("retry"))),
        ANALYSING,
        "nothing to do: nothing was rolled back",
    ),
    Asked(
        "retry after the template was set back does nothing",
        failed(target=a_target("v1", paused=True), meta=meta(annotations=ordered("retry"))),
        FAILED,
        "nothing to do: the target holds no other template",
    ),
    Asked(
        "an unknown verb is refused with the list of verbs",
        analysing(meta=meta(annotations=ordered("explode"))),
        ANALYSING,
        'nothing done: "explode" is not one of promote, abort',
    ),
    Asked(
        "a request that cannot be read is answered too",
        analysing(meta=meta(annotations={"command.serinus.dev/t1": '{"verb": ["abort"], "at": 5}'})),
        ANALYSING,
        "nothing done",
    ),
)


@pytest.mark.parametrize("asked", REQUESTS, ids=[asked.sentence for asked in REQUESTS])
def test_requests(asked: Asked) -> None:
    decision = look(asked.snapshot)
    handled = decision.status.commands[0]
    assert asked.answer in handled.result
    assert decision.status.phase is asked.phase
    if asked.step is not None:
        assert decision.status.run is not None
        assert decision.status.run.step == asked.step
    assert any(handled.result in event.message for event in decision.events)
    run = decision.status.run
    ordered = asked.phase is ANALYSING and run is not None and run.stage == plan.SHIFT
    assert decision.after_s == (PUSH_S if ordered else 0)


def test_a_request_that_was_dealt_with_is_not_dealt_with_again():
    snapshot = analysing(meta=meta(annotations=ordered("promote", step=0, **ASKED)))
    first = look(snapshot)
    again = look(replace(snapshot, status=first.status))
    assert len(again.status.commands) == 1
    assert again.status.run is not None
    assert again.status.run.step == 1


def test_two_requests_for_the_same_step_pass_it_once():
    both = {
        **ordered("promote", token="t1", run="run-1", step=0),
        **ordered("promote", token="t2", run="run-1", step=0),
    }
    snapshot = analysing(phase=WAITING, meta=meta(annotations=both))
    first = look(snapshot)
    second = look(replace(snapshot, status=first.status))
    assert second.status.run is not None
    assert second.status.run.step == 1
    assert [command.result.startswith("nothing to do") for command in second.status.commands] == [True, False]


def test_requests_are_remembered_as_long_as_their_annotations_stand():
    waiting = {key: value for n in range(30) for key, value in ordered("pause", token=f"t{n:02}", run="run-0").items()}
    snapshot = analysing(meta=meta(annotations=waiting))
    for _ in range(30):
        snapshot = replace(snapshot, status=look(snapshot).status)
    assert len({command.token for command in snapshot.status.commands}) == 30
    cleared = replace(snapshot, meta=meta(annotations=ordered("pause", token="t99", run="run-0")))
    assert len(look(cleared).status.commands) == 10


def test_a_handled_request_keeps_its_author_and_time():
    handled = look(analysing(meta=meta(annotations=ordered("abort", **ASKED)))).status.commands[0]
    assert isinstance(handled, HandledCommand)
    assert (handled.token, handled.verb, handled.by) == ("t1", "abort", "ada")
    assert handled.at
