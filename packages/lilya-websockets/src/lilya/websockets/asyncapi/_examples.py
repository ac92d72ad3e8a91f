"""Messages of transcripts as examples: each is of the direction and of the model that it validates as."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ..typed._kinds import name_of
from ..typed._typed import Typed
from ._document import Channel, Message
from ._schemas import is_data

try:
    from ws_doctest.transcript import Bytes, Close, Connect, Step, Text, has_names, parse
except ModuleNotFoundError as error:
    raise ImportError("examples from transcripts need ws-doctest: install it") from error

__all__ = ["add_examples"]


def add_examples(channels: Sequence[Channel], transcripts: Iterable[str | PathLike[str]]) -> None:
    """Give the messages of channels their examples.

    Args:
        channels: The channels.
        transcripts: Files.

    Raises:
        ImportError: ws-doctest is not installed.
        ValueError: A transcript connects to none of the channels, or has a message that validates as none of
            the channel's. It names file and line.
    """
    for file in transcripts:
        steps = parse(Path(file).read_text("utf-8"), fspath(file)).steps
        places: dict[str, Channel] = {}  # by the name of the client
        for index, step in enumerate(steps):
            if isinstance(step.event, Connect):
                path = unquote(step.event.path.partition("?")[0])
                found = next((each for each in channels if each.matches(path)), None)
                if found is None:
                    raise ValueError(f"{fspath(file)}:{step.line}: no channel of the document is at {path}")
                places[step.name] = found
            elif isinstance(step.event, (Text, Bytes)):
                channel = places[step.name]
                typed = channel.conversation.typed
                # A value that changes on every run has a name in its place, which is no example of it.
                if typed is not None and not has_names(step.event):
                    _add(channel, typed, step, _next(steps, index), fspath(file))


def _add(channel: Channel, typed: Typed, step: Step, then: Step | None, file: str) -> None:
    if step.client:
        messages, type_, decode = channel.received, typed.received, typed.decode
    else:
        messages, type_, decode = channel.sent, typed.sent, typed.swapped.decode
    payload = step.event.data  # type: ignore[union-attr]  # a text or bytes
    if not messages:  # anything may be sent
        return
    if isinstance(payload, bytes) == typed.codec.binary:
        try:
            decode(payload)
        except typed.failures + typed.swapped.failures:
            pass
        else:
            message = next(each for each in messages if _is_one(each, payload))
            value = typed.codec.decode(payload)
            if value not in message.examples and is_data(value):
                message.examples.append(value)
            return
    if _is_refusal(step, typed) if not step.client else then is not None and _is_refusal(then, typed):
        return
    raise ValueError(
        f"{file}:{step.line}: this is no {name_of(type_)}, which the "
        f"{'client' if step.client else 'app'} of {channel.conversation.address} sends: {step}"
    )


def _is_one(message: Message, payload: str | bytes) -> bool:
    try:
        message.typed.decode(payload)
    except message.typed.failures:
        return False
    return True


def _next(steps: Sequence[Step], index: int) -> Step | None:
    """What the client of a step sees next."""
    mine = (step for step in steps[index + 1 :] if step.name == steps[index].name and not step.client)
    return next(mine, None)


def _is_refusal(step: Step, typed: Typed) -> bool:
    """Whether it tells a client that its message was wrong: what `on_error` answers, or closes with."""
    if isinstance(step.event, Close):
        return step.event.code == 1007
    if not isinstance(step.event, (Text, Bytes)):
        return False
    try:
        value: Any = typed.codec.decode(step.event.data)
    except Exception:  # a codec may raise whatever it likes
        return False
    return isinstance(value, dict) and value.get("type") == "error" and isinstance(value.get("errors"), list)
