"""Where code is waiting: from a suspended coroutine or a list of frames to file, line and source."""

from __future__ import annotations

import linecache
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Final

__all__ = ["describe_frames", "frames_of"]

# Code that is not the app's own: the standard library, what is installed, and this package.
_FOREIGN: Final = (
    *(Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
    Path(__file__).parents[1],
)


def frames_of(awaited: object) -> list[FrameType]:
    """The frames of a suspended coroutine and of what it awaits, the innermost last."""
    frames = []
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
        if isinstance(frame, FrameType):
            frames.append(frame)
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)
    return frames


def describe_frames(frames: Sequence[FrameType], root: Path | None = None, prefer: Path | None = None) -> str:
    """Where frames stand: the innermost one of the app's own code.

    Args:
        frames: The frames, the innermost last.
        root: The folder of the app's own code, to which paths are shown relative. Default: the current
            folder is what paths are relative to, and what is not installed is the app's own.
        prefer: A file whose frames count before all others.

    Returns:
        The file and the number of the line, and the line itself.
    """

    def own(frame: FrameType) -> bool:
        path = Path(frame.f_code.co_filename)
        return not any(path.is_relative_to(folder) for folder in _FOREIGN) and (
            root is None or path.is_relative_to(root)
        )

    preferred = [frame for frame in frames if prefer and frame.f_code.co_filename == str(prefer)]
    candidates = preferred or [frame for frame in frames if own(frame)] or frames
    if not candidates:
        return "a place that cannot be seen from outside"
    frame = candidates[-1]
    file = Path(frame.f_code.co_filename)
    base = root or Path.cwd()
    shown = file.relative_to(base).as_posix() if file.is_relative_to(base) else str(file)
    line = linecache.getline(str(file), frame.f_lineno).strip()
    return f"{shown}:{frame.f_lineno}" + (f", `{line}`" if line else "")
