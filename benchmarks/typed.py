"""What typed messages cost: one message decoded, validated, encoded and sent back, beside the same by hand.

    python3 noxfile.py -s bench -- typed                 40 rounds
    python3 noxfile.py -s bench -- typed --instructions  counted by valgrind, not timed
    python3 noxfile.py -s bench -- typed --check         fails if a goal is missed

The message is the JSON object of `MESSAGE`, in a text message. As in `core`, no event loop takes part, the
server is two functions that wait for nothing, and every round runs every implementation once.

"by hand" is a raw ASGI app with `json.loads` and `json.dumps`, which validate nothing; with `validate_json`
and `dump_json` of a pydantic `TypeAdapter`; with `decode` and `encode` of msgspec.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Annotated, Any, Literal, Union

import msgspec
import pydantic

from benchmarks import _instructions
from benchmarks._ours import load_ours

MESSAGE = (
    '{"type":"say","id":"01JDWZ5K3M8Q","room":"general","author":{"id":4711,"name":"Ada Lovelace"},'
    '"text":"The engine weaves algebraical patterns.","at":1764460800.25'
    ',"tags":["maths","loom"]}'
)
MESSAGES = 5000


class Author(pydantic.BaseModel):
    id: int
    name: str


class Say(pydantic.BaseModel):
    type: Literal["say"] = "say"
    id: str
    room: str
    author: Author
    text: str
    at: float
    tags: list[str]


class Leave(pydantic.BaseModel):
    type: Literal["leave"] = "leave"


Message = Annotated[Union[Say, Leave], pydantic.Field(discriminator="type")]  # noqa: UP007


class AuthorStruct(msgspec.Struct):
    id: int
    name: str


class SayStruct(msgspec.Struct, tag="say"):
    id: str
    room: str
    author: AuthorStruct
    text: str
    at: float
    tags: list[str]


class LeaveStruct(msgspec.Struct, tag="leave"):
    pass


def by_hand(decode: Callable[[str], Any], encode: Callable[[Any], str]) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept", "subprotocol": None, "headers": []})
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                return
            await send({"type": "websocket.send", "text": encode(decode(message["text"]))})

    return app


def typed(cls: Any) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        websocket = cls(scope, receive, send)
        await websocket.accept()
        async for message in websocket.iter_messages():
            await websocket.send_message(message)

    return app


def apps() -> dict[str, Any]:
    ours = load_ours().WebSocket
    adapter: Any = pydantic.TypeAdapter(Message)
    decoder = msgspec.json.Decoder(SayStruct | LeaveStruct)
    encoder = msgspec.json.Encoder()
    return {
        "json by hand": by_hand(json.loads, json.dumps),
        "msgspec by hand": by_hand(decoder.decode, lambda message: encoder.encode(message).decode()),
        "msgspec, typed": typed(ours[SayStruct | LeaveStruct]),
        "pydantic by hand": by_hand(
            adapter.validate_json, lambda message: adapter.dump_json(message, by_alias=True).decode()
        ),
        "pydantic, typed": typed(ours[Say | Leave]),
    }


GOALS = {("msgspec, typed", "json by hand"): 0.35, ("pydantic, typed", "pydantic by hand"): 1.10}


def run(app: Any, count: int) -> None:
    sent = -1
    message = {"type": "websocket.receive", "text": MESSAGE}

    async def receive() -> Any:
        nonlocal sent
        sent += 1
        if sent == 0:
            return {"type": "websocket.connect"}
        return message if sent <= count else {"type": "websocket.disconnect", "code": 1000}

    async def send(message: Any) -> None:
        pass

    coroutine: Coroutine[Any, Any, None] = app(
        {"type": "websocket", "path": "/", "headers": []}, receive, send
    )
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise RuntimeError("the app waited for something")


def command(name: str, count: int) -> list[str]:
    return ["-m", "benchmarks.typed", "--run", name, str(count)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.typed")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--instructions", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--run", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        run(apps()[arguments.run[0]], int(arguments.run[1]))
        return
    made = apps()
    results: dict[str, list[float]] = {name: [] for name in made}
    if arguments.instructions:
        for name in made:
            count = _instructions.per_operation(partial(command, name), 500, 3500)
            results[name].append(count)
    else:
        for app in made.values():
            run(app, MESSAGES)
        for _ in range(arguments.rounds):
            for name, app in made.items():
                began = time.perf_counter()
                run(app, MESSAGES)
                results[name].append((time.perf_counter() - began) / MESSAGES * 1e6)
    unit = "instructions" if arguments.instructions else "µs"
    print(f"A message of {len(MESSAGE)} bytes, decoded and encoded:")
    for name, values in results.items():
        print(f"  {name:20} {statistics.median(values):10.2f} {unit}")
    missed = False
    for (name, base), goal in GOALS.items():
        ratio = statistics.median(a / b for a, b in zip(results[name], results[base], strict=True))
        missed |= ratio > goal
        print(f"  {name} / {base}: {ratio:.3f} (goal: at most {goal})")
    if arguments.check and missed:
        sys.exit("a goal is missed")


if __name__ == "__main__":
    main()
