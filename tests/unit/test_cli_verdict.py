"""When a release has come to its end, and to which."""

from typing import Any

import pytest

from serinus.cli.session import Exit
from serinus.cli.verdict import verdict
from serinus.delivery.revision import revision_of

TEMPLATE = {"metadata": {"labels": {"app": "cart"}}, "spec": {"containers": [{"name": "a", "image": "cart:2"}]}}
HELD = revision_of(TEMPLATE)
READY = [{"type": "Ready", "status": "True"}]
STALLED = [{"type": "Stalled", "status": "True"}, {"type": "Ready", "status": "False"}]
MOVING = [{"type": "Reconciling", "status": "True"}, {"type": "Ready", "status": "Unknown"}]


def canary(phase: str | None, conditions: list[dict[str, str]], **status: Any) -> dict[str, Any]:
    own = {"phase": phase, "conditions": conditions, "observedGeneration": 1, "message": "how it stands"}
    return {"metadata": {"name": "cart", "generation": 1}, "status": own | status}


def target(*, paused: bool) -> dict[str, Any]:
    return {"spec": {"template": TEMPLATE, "paused": paused}}


STABLE = {"stable": {"revision": "old"}}
RUN = {"run": {"id": "r1", "revision": "new", "causeMessage": "too many errors"}}


@pytest.mark.parametrize(
    ("stands", "at", "run", "expected"),
    [
        pytest.param(canary(None, []), None, "", None, id="nobody has looked at it yet"),
        pytest.param(canary("Analysing", MOVING, **STABLE, **RUN), None, "r1", None, id="a run is under way"),
        pytest.param(
            canary("Ready", READY, stable={"revision": "new"}, **RUN),
            None,
            "r1",
            (Exit.DONE, "revision new is promoted and serves"),
            id="promoted",
        ),
        pytest.param(
            canary("Ready", MOVING, stable={"revision": "new"}, **RUN), None, "r1", None, id="nearly promoted"
        ),
        pytest.param(
            canary("Failed", STALLED, **STABLE, **RUN),
            None,
            "r1",
            (Exit.REFUSED, "revision new was not promoted: too many errors"),
            id="rolled back",
        ),
        pytest.param(
            canary("Ready", READY, **STABLE, **RUN),
            None,
            "",
            (Exit.REFUSED, "revision new was not promoted: too many errors"),
            id="aborted, and the template set back",
        ),
        pytest.param(canary("Ready", READY, **STABLE), None, "", (Exit.DONE, "how it stands"), id="never had a run"),
        pytest.param(
            canary("Ready", STALLED, **STABLE, **RUN),
            None,
            "",
            (Exit.REFUSED, "how it stands"),
            id="stalled by a bad spec, long after a run",
        ),
        pytest.param(
            canary("Ready", READY, observedGeneration=0, **STABLE), None, "", None, id="a spec that nobody has read"
        ),
        pytest.param(
            canary("Analysing", MOVING, **STABLE, **RUN),
            None,
            "r0",
            (Exit.REFUSED, "run r0 ended: another one, r1, took its place"),
            id="another run took its place",
        ),
        pytest.param(
            canary("Ready", READY, **STABLE), target(paused=True), "", None, id="a template is held and not yet seen"
        ),
        pytest.param(
            canary("Ready", READY, **STABLE),
            target(paused=False),
            "",
            (Exit.DONE, "how it stands"),
            id="nothing is held",
        ),
        pytest.param(
            canary("Failed", STALLED, rejected=HELD, **STABLE, **RUN),
            target(paused=True),
            "",
            (Exit.REFUSED, "revision new was not promoted: too many errors"),
            id="the template that is held is the one that was rejected",
        ),
        pytest.param(
            canary("Failed", STALLED, rejected="other", **STABLE, **RUN),
            target(paused=True),
            "",
            None,
            id="after a rejected template another one is held",
        ),
        pytest.param(canary("Suspended", MOVING, **STABLE, **RUN), None, "r1", None, id="suspended"),
    ],
)
def test_the_end_of_a_release(
    stands: dict[str, Any], at: dict[str, Any] | None, run: str, expected: tuple[Exit, str] | None
) -> None:
    found = verdict(stands, at, run)
    assert (found and (found.status, found.sentence)) == expected
