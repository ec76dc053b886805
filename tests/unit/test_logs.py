"""Logs: what a line holds, whoever wrote it."""

import io
import json
import logging

import pytest
import structlog

from serinus.controller import logs


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _restored():
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def lines(out: io.StringIO) -> list[dict]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_a_line_is_one_json_object_with_level_time_and_name():
    out = io.StringIO()
    logs.configure(out)
    structlog.get_logger("serinus.test").info("persisted", phase="Ready")
    [line] = lines(out)
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "persisted", "level": "info", "logger": "serinus.test", "phase": "Ready"}


def test_each_line_within_a_reconcile_names_the_canary_and_the_run_whoever_wrote_it():
    out = io.StringIO()
    logs.configure(out)
    with logs.reconciling("demo/shop"):
        structlog.get_logger().info("gathered")
        logs.name_run("r1")
        structlog.get_logger().info("persisted")
        logging.getLogger("kopf.objects").warning("odd %s", "thing")
    structlog.get_logger().info("idle")
    assert [(line["event"], line.get("canary"), line.get("run")) for line in lines(out)] == [
        ("gathered", "demo/shop", None),
        ("persisted", "demo/shop", "r1"),
        ("odd thing", "demo/shop", "r1"),
        ("idle", None, None),
    ]


def test_a_line_of_kopf_names_its_object():
    out = io.StringIO()
    logs.configure(out)
    ref = {"kind": "Canary", "namespace": "demo", "name": "shop"}
    logging.getLogger("kopf.objects").warning("Handler failed", extra={"k8s_ref": ref})
    assert lines(out)[0]["object"] == "Canary demo/shop"


@pytest.mark.parametrize("writer", [structlog.get_logger, logging.getLogger], ids=["ours", "a library's"])
def test_a_traceback_stays_on_one_line_and_shows_no_local_variable(writer):
    out = io.StringIO()
    logs.configure(out)
    password = "hunter2"  # noqa: F841 - must not appear
    try:
        raise ValueError("broken")
    except ValueError:
        writer("x").exception("reconcile failed")
    [line] = lines(out)
    assert "Traceback" in line["exception"]
    assert "ValueError: broken" in line["exception"]
    assert "hunter2" not in out.getvalue()


def test_a_terminal_gets_readable_lines():
    out = Terminal()
    logs.configure(out)
    structlog.get_logger().info("persisted", phase="Ready")
    assert "persisted" in out.getvalue()
    assert not out.getvalue().startswith("{")


@pytest.mark.parametrize(
    ("variable", "seen"),
    [
        pytest.param(None, ["info", "error"], id="info by default"),
        pytest.param("debug", ["debug", "info", "error"], id="everything on demand"),
        pytest.param("ERROR", ["error"], id="errors only"),
    ],
)
def test_the_level_comes_from_the_environment(monkeypatch, variable, seen):
    monkeypatch.delenv("SERINUS_LOG_LEVEL", raising=False)
    if variable:
        monkeypatch.setenv("SERINUS_LOG_LEVEL", variable)
    out = io.StringIO()
    logs.configure(out)
    for write in (structlog.get_logger(), logging.getLogger("kopf")):
        for level in ("debug", "info", "error"):
            getattr(write, level)("x")
    assert [line["level"] for line in lines(out)] == seen * 2


def test_a_level_that_is_none_is_refused_with_those_that_are():
    with pytest.raises(ValueError, match='SERINUS_LOG_LEVEL is "LOUD"; write one of DEBUG, INFO, WARNING, ERROR'):
        logs.configure(io.StringIO(), "loud")
