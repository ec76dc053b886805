"""Locate the data files that are shipped beside the code: ``crds/`` and ``templates/``.

A wheel carries them inside the package; an editable install and a checkout find them at the repository's root.
"""

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

_CHECKOUT = Path(__file__).parents[2]


def data(name: str) -> Traversable:
    """Return the folder ``name`` (``crds`` or ``templates``), from the package or from the checkout."""
    packaged = files("serinus") / name
    return packaged if packaged.is_dir() else _CHECKOUT / name
