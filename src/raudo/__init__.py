"""raudo: the fastest deployment of a trained detector that is proven to detect as well."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raudo.detector import Detector, load
    from raudo.pipeline import optimize

__all__ = ["Detector", "load", "optimize"]
__version__ = "0.1.0"

_HOMES = {"Detector": "raudo.detector", "load": "raudo.detector", "optimize": "raudo.pipeline"}


def __getattr__(name: str) -> object:
    """Import the public names on first use, so that `import raudo` stays instant."""
    if name not in _HOMES:
        raise AttributeError(f"module 'raudo' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
