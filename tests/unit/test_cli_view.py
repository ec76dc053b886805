"""How a release looks on a terminal, in a log, and in a list."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console

from serinus.cli.view import HEADINGS, WIDE, age, line, row, table, tree
from serinus.cli.watching import Lines

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)


def at(seconds: float) -> str:
    return (NOW - timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


SUCCESS = {
    "name": "success-rate",
    "verdict": "Safe",
    "candidate": 99.9,
    "stable": 99.95,
    "limit": "98.9 % (stable 99.9 % \u2212 1)",
    "message": "success rate 99.9 % of 1,240 requests",
}
LATENCY = {"name": "latency", "verdict": "Harm", "candidate": 488.2, "limit": "250 ms", "message": "p99 is too slow"}
QUERY = {"name": "errors", "verdict": "Undecided", "outcome": "Empty", "message": "errors: the query gave nothing"}


def canary(phase: str = "Analysing", run: dict[str, Any] | None = None, **status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "cart", "namespace": "shop", "creationTimestamp": at(7200)},
        "spec": {
            "targetRef": {"name": "cart"},
            "strategy": {
                "steps": [{"weight": 5}, {"weight": 10, "for": "30s"}, {"approval": "look at sales"}, {"weight": 50}]
            },
        },
        "status": {
            "phase": phase,
            "message": "step 2 of 4: 38 more requests are needed",
            "weight": 10,
            "step": "2/4",
            "stable": {"revision": "aaaa", "at": at(3600)},
            "run": {
                "id": "r1",
                "revision": "bbbb",
                "startedAt": at(180),
                "step": 1,
                "weight": 10,
                "replicas": 2,
                "acknowledgedAt": at(14),
                "measuredWeight": 9.8,
                "verdict": "Undecided",
                "metrics": [SUCCESS, LATENCY, QUERY],
            }
            | (run or {}),
            "conditions": [{"type": "Ready", "status": "Unknown", "reason": "Analysing"}],
        }
        | status,
    }


def shown(what: dict[str, Any]) -> str:
    console = Console(width=200, force_terminal=False, color_system=None)
    with console.capture() as capture:
        console.print(tree(what, NOW))
    return capture.get()


@pytest.mark.parametrize(
    "words",
    [
        "Canary shop/cart  Analysing",
        "waits for  step 2 of 4: 38 more requests are needed",
        "stable     revision aaaa, stable for 60m",
        "candidate  revision bbbb, 2 pods, run began 3m ago",
        "step       2 of 4",
        "weight 5 % (passed)",
        "weight 10 % for at least 30s (now)",
        "approval: look at sales",
        "weight     asked 10 %, acknowledged by every sidecar 14s ago, measured 9.8 %",
        "Safe  success-rate: 99.9 %, stable 99.95 %, limit 98.9 % (stable 99.9 % \u2212 1)",
        "Harm  latency: 488 ms, limit 250 ms",
        "p99 is too slow",
        "Undecided  errors: Empty",
        "errors: the query gave nothing",
    ],
)
def test_the_tree_shows(words: str) -> None:
    assert words in shown(canary())


def test_a_weight_that_some_sidecar_lacks_is_not_in_force() -> None:
    text = shown(canary(run={"acknowledgedAt": "", "measuredWeight": None}))
    assert "asked 10 %, not in force on every sidecar yet" in text
    assert "measured" not in text


def test_a_paused_run_says_so() -> None:
    assert "run began 3m ago, paused" in shown(canary(run={"paused": True}))


def test_between_runs_only_the_stable_revision_is_shown() -> None:
    text = shown(canary("Ready", message="revision bbbb serves"))
    assert "says       revision bbbb serves" in text
    assert "candidate" not in text


def test_a_release_that_was_rolled_back_shows_its_cause_and_its_numbers() -> None:
    stalled = {"type": "Stalled", "status": "True", "reason": "RolledBack", "message": "p99 is too slow"}
    text = shown(canary("Failed", {"cause": "RolledBack", "causeMessage": "p99 is too slow"}, conditions=[stalled]))
    assert "cause      RolledBack: p99 is too slow" in text
    assert "stalled    RolledBack: p99 is too slow" in text
    assert "Harm  latency: 488 ms" in text
    assert "asked" not in text


def test_a_canary_that_nobody_looked_at_asks_for_the_operator() -> None:
    text = shown(canary() | {"status": {}})
    assert "not seen yet" in text
    assert "kubectl get pods -n serinus-system" in text


def test_what_users_wrote_is_never_taken_for_markup() -> None:
    assert "[bold]not bold[/]" in shown(canary(message="[bold]not bold[/]"))


def test_a_line_tells_phase_step_weight_and_message() -> None:
    assert line(canary()) == (
        "Analysing; step 2/4; weight 10 %, measured 9.8 %: step 2 of 4: 38 more requests are needed"
    )


def test_a_line_marks_a_weight_that_is_not_in_force() -> None:
    assert "weight 10 % (asked)" in line(canary(run={"acknowledgedAt": "", "measuredWeight": None}))


def test_a_log_gets_one_line_per_change_and_not_one_per_number() -> None:
    written: list[str] = []
    now = [NOW]
    lines = Lines(written.append, lambda: now[0])
    for seconds, needed in ((0, 40), (2, 39), (4, 38), (16, 30), (17, 29)):
        now[0] = NOW + timedelta(seconds=seconds)
        lines.show(canary(message=f"{needed} more requests are needed"))
    lines.show(canary(message="the sidecars are waited for"))
    lines.show(canary("Ready", message="the sidecars are waited for"))
    assert [text.partition(": ")[2] for text in written] == [
        "40 more requests are needed",
        "30 more requests are needed",
        "the sidecars are waited for",
        "the sidecars are waited for",
    ]
    assert all(text[2] == ":" and text[5] == ":" for text in written)


def test_a_new_weight_is_a_new_line_even_with_the_same_words() -> None:
    written: list[str] = []
    lines = Lines(written.append, lambda: NOW)
    lines.show(canary(message="waiting"))
    lines.show(canary(run={"weight": 50}, message="waiting"))
    assert len(written) == 2


def test_a_list_has_a_row_for_each_canary() -> None:
    text = table([[*HEADINGS, *WIDE], row(canary(), NOW, wide=True)])
    heading, cells = text.splitlines()
    assert heading.split() == [*HEADINGS, *WIDE]
    assert cells.split()[:9] == ["cart", "cart", "Unknown", "Analysing", "10", "%", "2/4", "Analysing", "2h"]
    assert cells.endswith("aaaa     bbbb        step 2 of 4: 38 more requests are needed")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (119, "119s"), (120, "2m"), (7199, "119m"), (7200, "2h"), (86400 * 3, "3d")]
)
def test_an_age_is_short(seconds: int, text: str) -> None:
    assert age(at(seconds), NOW) == text


def test_an_age_of_nothing_is_empty() -> None:
    assert age(None, NOW) == ""
