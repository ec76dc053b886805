"""What unit and end-to-end tests share: in which order they begin."""

import gc

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long ones begin first, so that none is still under way when all others have ended."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


def pytest_collection_finish() -> None:
    """What was imported and collected stays, so that Python need not look through it for garbage again and again."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
