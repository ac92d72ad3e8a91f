"""How far the processes that listen are behind: they are asked, at the moment when somebody wants to know.

No process writes down where it is, so nothing is paid for as long as nobody asks. The rules of this file:

- A question is pushed as events are, on a name that no channel has. It stands in one line with them on the
  connection of each process. A process answers it when it has handed out everything that was pushed before.
  So the time until the answer comes is how far the process is behind.
- A process that stands still does not answer. How many listen to a channel is known from the broker, so who
  is missing is counted.
- A question names channels, and a process answers for those of them that it listens to.
- What cannot be read is nobody's question, or nobody's answer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

import anyio

from ._backend import Id

__all__ = ["ANSWERS", "QUESTIONS", "Answers", "answer_to", "question"]

QUESTIONS: Final = "\0ask"
"""What questions are pushed on, as if it was a channel. Users cannot name it."""

ANSWERS: Final = "\0answer:"
"""What the answers to one question are pushed on, with the word that the question has chosen."""


def question(word: str, channels: list[str]) -> bytes:
    """Ask how far each process is in some channels."""
    return json.dumps({"to": word, "channels": channels}).encode()


def answer_to(question: bytes, process: str, positions: Mapping[str, str]) -> tuple[str, bytes] | None:
    """The word of a question, and what a process says; nothing if it listens to none of the channels."""
    try:
        asked = json.loads(question)
        found = {name: positions[name] for name in asked["channels"] if name in positions}
        word = asked["to"]
    except (KeyError, RecursionError, TypeError, ValueError):
        return None
    if not found or not isinstance(word, str) or not word.isalnum():
        return None
    return word, json.dumps({"process": process, "positions": found}).encode()


class Answers:
    """What the processes have answered.

    Args:
        expected: By channel, how many listen to it.
    """

    def __init__(self, expected: Mapping[str, int]) -> None:
        self.found: dict[str, dict[str, tuple[float, Id]]] = {channel: {} for channel in expected}
        """By channel and process: how many seconds it took to answer, and where the process is."""
        self.done = anyio.Event()
        self._missing = sum(expected.values())
        self.begin()

    def begin(self) -> None:
        """The processes are asked from now on."""
        self._asked_at = anyio.current_time()

    def hear(self, answer: bytes) -> None:
        """Take an answer."""
        took = anyio.current_time() - self._asked_at
        try:
            told = json.loads(answer)
            process, positions = str(told["process"]), dict(told["positions"])
            where = {name: Id.parse(position) for name, position in positions.items()}
        except (KeyError, RecursionError, TypeError, ValueError):
            return
        for name, at in where.items():
            if name in self.found and process not in self.found[name]:
                self.found[name][process] = took, at
                self._missing -= 1
        if self._missing <= 0:
            self.done.set()
