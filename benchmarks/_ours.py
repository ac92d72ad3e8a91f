"""Our package where `lilya.websockets` is upstream's."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from benchmarks._report import ROOT

__all__ = ["load_ours"]


def load_ours(checkout: Path = ROOT) -> ModuleType:
    """The package of a checkout, under a name of its own."""
    folder = checkout / "packages/lilya-websockets/src/lilya/websockets"
    spec = importlib.util.spec_from_file_location(
        "lilya_websockets", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"no package at {folder}")
    module = sys.modules["lilya_websockets"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
