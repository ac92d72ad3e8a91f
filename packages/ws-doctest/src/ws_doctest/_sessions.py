"""A transcript that a page shows: in a file beside its app, or in the page itself, below its app."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ws_doctest import _apps, transcript
from ws_doctest._pages import Fence, PageError, read_page
from ws_doctest._project import Project
from ws_doctest.transcript import Transcript


@dataclass(frozen=True)
class Session:
    """A transcript, and the app that it is replayed with.

    Args:
        project: the pages and examples.
        path: the file of the transcript, or the page that it stands in.
        name: how it is called in the names of tests.
        example: the app.
        fence: its place among the fences of the page, if it stands there.
    """

    project: Project = field(compare=False)
    path: Path
    name: str
    example: Path | _apps.Code
    fence: int | None = None

    @property
    def app(self) -> Path:
        """The file that has the app, an example or the page."""
        return self.example.path if isinstance(self.example, _apps.Code) else self.example

    @property
    def shown_at(self) -> Sequence[str]:
        """The places of the pages that show it, unless it stands there itself."""
        return self.project.shown.get(self.path, ()) if self.fence is None else ()

    def read(self) -> Transcript:
        """Read it.

        Raises:
            PageError: it is not a transcript, or its app is missing.
        """
        name = self.project.name(self.path)
        if not self.app.is_file():
            raise PageError(f"{name}:1: a transcript without its app {self.app.name}")
        try:
            if self.fence is None:
                return transcript.parse(self.path.read_text(encoding="utf-8"), name)
            fence = self._fence()
            return transcript.parse(fence.source, name, above=fence.line)
        except transcript.TranscriptError as exc:
            raise PageError(str(exc)) from None

    def write(self, text: str) -> None:
        """Replace it; the rest of a page stays as it is."""
        if self.fence is not None:
            fence = self._fence()
            lines = self.path.read_text(encoding="utf-8").split("\n")
            new = [
                (fence.prefix + line).rstrip() if not line else fence.prefix + line
                for line in text.split("\n")
            ]
            lines[fence.line : fence.end - 1] = new[:-1]
            text = "\n".join(lines)
        self.path.write_text(text, encoding="utf-8", newline="\n")

    def _fence(self) -> Fence:
        # Read anew: an update may have moved it.
        assert self.fence is not None
        return read_page(self.path, self.project.root).fences[self.fence]


def in_page(project: Project, path: Path) -> list[Session]:
    """Return the transcripts that stand in a page itself."""
    page = project.page(path)
    found = []
    for index, fence, app in project.sessions(page):
        example = app if isinstance(app, Path) else _apps.Code(path, app.source, app.line)
        found.append(Session(project, path, f"transcript:{fence.line}", example, index))
    return found


def in_file(project: Project, path: Path) -> Session:
    """Return the transcript in a file of its own."""
    return Session(project, path, project.name(path), _apps.example_of(path))
