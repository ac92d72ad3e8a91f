"""How many examples a property is tried with."""

from __future__ import annotations

import os

from hypothesis import settings

__all__ = ["SHARE", "examples"]

SHARE = float(os.environ.get("EXAMPLES", "1"))
"""Which share of them. They are the same ones on every Python, so `nox -s matrix` tries a fifth of them."""


def examples(count: int) -> settings:
    """Settings for a property that is tried with so many, in `nox -s tests`."""
    return settings(max_examples=max(10, round(count * SHARE)))
