"""The buttons need a built site that has them, which `nox -s buttons` makes."""

from __future__ import annotations

import os

collect_ignore_glob = [] if "BUTTONS_SITE" in os.environ else ["test_*.py"]
