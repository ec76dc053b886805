"""Logs: one JSON object a line for machines, coloured lines on a terminal; both say which Canary and which run.

Everything goes through structlog, Kopf's and other libraries' lines too. What ``reconciling`` and ``name_run`` bind
stands in every line that is logged within, whoever logs it.
"""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import structlog
from structlog.typing import Processor

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
_NOISY = {"kopf.objects": "WARNING", "aiohttp.access": "WARNING", "urllib3": "WARNING", "asyncio": "WARNING"}


def configure(stream: TextIO | None = None, level: str | None = None) -> None:
    """Send all logs to ``stream`` (standard error), from ``level`` on (the variable SERINUS_LOG_LEVEL, else ``INFO``).

    Raises:
        ValueError: the level is none; the sentence names those that are.
    """
    out = stream or sys.stderr
    wanted = (level or os.environ.get("SERINUS_LOG_LEVEL") or "INFO").upper()
    if wanted not in LEVELS:
        raise ValueError(f'SERINUS_LOG_LEVEL is "{wanted}"; write one of {", ".join(LEVELS)}')
    number = logging.getLevelNamesMapping()[wanted]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, _kopf_object],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_rendering(out.isatty())],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(number)
    for name, floor in _NOISY.items():
        logging.getLogger(name).setLevel(max(number, logging.getLevelNamesMapping()[floor]))


@contextmanager
def reconciling(canary: str) -> Iterator[None]:
    """Bind ``canary`` (``namespace/name``) to every line logged within, and the run once ``name_run`` tells it."""
    with structlog.contextvars.bound_contextvars(canary=canary):
        try:
            yield
        finally:
            structlog.contextvars.unbind_contextvars("run")


def name_run(run: str) -> None:
    """Bind ``run`` to every line logged until ``reconciling`` ends."""
    structlog.contextvars.bind_contextvars(run=run)


def _rendering(terminal: bool) -> list[Processor]:
    """Return how lines end. Tracebacks come without local variables, which may hold secrets."""
    if terminal:
        return [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]


def _kopf_object(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Name the object that Kopf logs about, which it carries beside the message."""
    ref = getattr(event.get("_record"), "k8s_ref", None)
    if isinstance(ref, dict) and "canary" not in event:
        event["object"] = f"{ref.get('kind', '')} {ref.get('namespace') or ''}/{ref.get('name', '')}".strip()
    return event
