"""Tables whose rows are sentences: what is seen, and the phase, reason and words that follow from it."""

from typing import NamedTuple

import pytest

from serinus.api.release import Phase
from serinus.api.status import Reason
from serinus.delivery.model import Snapshot

from .world import is_stalled, look, reason_of


class Case(NamedTuple):
    """One row: what is seen, and what follows; ``words`` are parts of the message, ``stage`` is the run's."""

    sentence: str
    snapshot: Snapshot
    phase: Phase | None
    reason: Reason
    words: tuple[str, ...] = ()
    stage: str | None = None
    weight: int | None = None
    stalled: bool = False


def table(*cases: Case) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=[case.sentence for case in cases])


def check(case: Case) -> None:
    decision = look(case.snapshot)
    assert (decision.status.phase, reason_of(decision)) == (case.phase, case.reason), decision.status.message
    for words in case.words:
        assert words in decision.status.message
    run = decision.status.run
    if case.stage is not None:
        assert run is not None
        assert run.stage == case.stage
    if case.weight is not None:
        assert run is not None
        assert run.weight == case.weight
    assert is_stalled(decision) is case.stalled
