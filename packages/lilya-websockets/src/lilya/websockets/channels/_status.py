"""How far each process is behind in its channels. The processes are asked when an operator wants to know.

No process stores its positions, so this costs nothing while nobody asks. The rules of this file:

- A question is pushed like an event, on a name that is not a channel. On the connection of each process, it
  comes after the events that were pushed before. A process answers when it has handed out all of these. So
  the time until the answer arrives shows how far the process is behind.
- A process that hangs does not answer. The broker knows how many processes listen to a channel, so missing
  answers are counted.
- A question names channels. A process answers for those of them that it listens to.
- Questions and answers that cannot be read are ignored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

import anyio

from ._backend import Id

__all__ = ["ANSWERS", "QUESTIONS", "Answers", "answer_to", "question"]

QUESTIONS: Final = "\0ask"
"""The name on which questions are pushed. It starts with a NUL, so it cannot be a channel of the app."""

ANSWERS: Final = "\0answer:"
"""The start of the name on which the answers to a question are pushed. The question's random word follows."""


def question(word: str, channels: list[str]) -> bytes:
    """The question how far each process is in some channels."""
    return json.dumps({"to": word, "channels": channels}).encode()


def answer_to(question: bytes, process: str, positions: Mapping[str, str]) -> tuple[str, bytes] | None:
    """The word of a question, and the answer of a process; `None` if it listens to none of the channels."""
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
    """The answers of the processes.

    Args:
        expected: By channel, the number of processes that listen to it.
    """

    def __init__(self, expected: Mapping[str, int]) -> None:
        self.found: dict[str, dict[str, tuple[float, Id]]] = {channel: {} for channel in expected}
        """By channel and process: the seconds until the process answered, and its position."""
        self.done = anyio.Event()  # set when no answer is missing
        self._missing = sum(expected.values())
        self.begin()

    def begin(self) -> None:
        """Measure the time from now on."""
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
