"""`call`: requests and answers, in either direction, while other messages come and go."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Literal, Union

import anyio
import msgspec
import pydantic
import pytest
from typing_extensions import NotRequired, TypedDict

from lilya.websockets import WebSocket, WebSocketDataError, WebSocketDisconnect, WebSocketRuntimeError
from lilya.websockets.testing import TestClient, connect
from lilya.websockets.typed import CallId, ReplyTo

from .server import Server, disconnect, text

pytestmark = pytest.mark.anyio


class Ask(pydantic.BaseModel):
    type: Literal["ask"] = "ask"
    id: CallId = None
    question: str = ""


class Answer(pydantic.BaseModel):
    type: Literal["answer"] = "answer"
    reply_to: ReplyTo = None
    text: str = ""


class Note(pydantic.BaseModel):
    type: Literal["note"] = "note"
    text: str = ""


class AskStruct(msgspec.Struct, tag="ask"):
    id: CallId = None
    question: str = ""


class AnswerStruct(msgspec.Struct, tag="answer"):
    reply_to: ReplyTo = None
    text: str = ""


class NoteStruct(msgspec.Struct, tag="note"):
    text: str = ""


@dataclasses.dataclass(frozen=True)
class AskData:
    type: Literal["ask"] = "ask"
    id: CallId = None
    question: str = ""


@dataclasses.dataclass(frozen=True)
class AnswerData:
    type: Literal["answer"] = "answer"
    reply_to: ReplyTo = None
    text: str = ""


@dataclasses.dataclass(frozen=True)
class NoteData:
    type: Literal["note"] = "note"
    text: str = ""


class AskDict(TypedDict, total=False):
    type: Literal["ask"]
    id: CallId
    question: str


class AnswerDict(TypedDict, total=False):
    type: Literal["answer"]
    reply_to: ReplyTo
    text: str


class NoteDict(TypedDict, total=False):
    type: Literal["note"]
    text: str


Typed: Any = WebSocket[Ask | Answer | Note, Ask | Answer | Note]

KINDS: dict[str, tuple[Any, Any, Any]] = {
    "pydantic": (Ask, Answer, Note),
    "msgspec": (AskStruct, AnswerStruct, NoteStruct),
    "dataclass": (AskData, AnswerData, NoteData),
    "dict": (AskDict, AnswerDict, NoteDict),
}


def answer(id: str, words: str = "yes") -> Any:
    return text(json.dumps({"type": "answer", "reply_to": id, "text": words}))


def note(words: str) -> Any:
    return text(json.dumps({"type": "note", "text": words}))


async def until_sent(server: Server, count: int) -> list[Any]:
    while len(server.sent) < count:  # noqa: ASYNC110 - what is waited for has no event
        await anyio.sleep(0.001)
    return [json.loads(message["text"]) for message in server.sent]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_call_gets_its_answer_and_keeps_what_else_comes(kind: str) -> None:
    ask, answers, notes = KINDS[kind]
    union: Any = ask | answers | notes
    cls: Any = WebSocket[union]
    server = Server(note("before"), answer("1"), note("after"), disconnect())
    websocket: Any = await server.accepted(cls)
    got = await websocket.call(ask(type="ask", question="?") if kind == "dict" else ask(question="?"))
    assert got == (
        answers(type="answer", reply_to="1", text="yes")
        if kind == "dict"
        else answers("1", "yes")
        if kind == "msgspec"
        else answers(reply_to="1", text="yes")
    )
    assert json.loads(server.sent[0]["text"]) == {"type": "ask", "id": "1", "question": "?"}
    rest = [message async for message in websocket.iter_messages()]
    assert [each["text"] if kind == "dict" else each.text for each in rest] == ["before", "after"]


async def test_while_another_task_receives() -> None:
    server = Server()
    websocket: Any = await server.accepted(Typed)
    notes = []

    async def read() -> None:
        async for message in websocket.iter_messages():
            notes.append(message.text)  # noqa: PERF401 - what is there is looked at meanwhile

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        await server.waiting.wait()
        results = {}

        async def ask(name: str) -> None:
            results[name] = (await websocket.call(Ask(question=name))).text

        group.start_soon(ask, "a")
        group.start_soon(ask, "b")
        sent = await until_sent(server, 2)
        ids = {each["question"]: each["id"] for each in sent}
        assert len(set(ids.values())) == 2
        server.push(note("1"), answer(ids["b"], "to b"), note("2"), answer(ids["a"], "to a"), note("3"))
        while len(notes) < 3 or len(results) < 2:  # noqa: ASYNC110
            await anyio.sleep(0.001)
        assert notes == ["1", "2", "3"]
        assert results == {"a": "to a", "b": "to b"}
        server.push(disconnect())


async def test_a_receive_goes_on_when_the_call_that_read_for_it_has_its_answer() -> None:
    server = Server()
    websocket: Any = await server.accepted(Typed)
    async with anyio.create_task_group() as group:
        got: list[Any] = []

        async def call() -> None:
            got.append(await websocket.call(Ask()))

        async def receive() -> None:
            got.append(await websocket.receive_message())

        group.start_soon(call)
        await server.waiting.wait()
        group.start_soon(receive)
        await anyio.wait_all_tasks_blocked()
        server.push(answer("1"))
        while not got:  # noqa: ASYNC110
            await anyio.sleep(0.001)
        server.push(note("a"))
    assert got == [Answer(reply_to="1", text="yes"), Note(text="a")]


async def test_answers_that_are_late_double_or_to_nobody_harm_nothing() -> None:
    server = Server(answer("7"), answer(""), answer("1", "early"))
    websocket: Any = await server.accepted(Typed)
    with pytest.raises(TimeoutError):
        await websocket.call(Ask(id="x"), timeout=0.01)
    server.push(answer("x", "late"), answer("1", "first"), answer("1", "double"), note("a"))
    assert (await websocket.call(Ask())).text == "first"
    assert await websocket.receive_message() == Note(text="a")
    server.push(answer("1", "again"), answer("2", "no call"), disconnect())
    assert [message async for message in websocket.iter_messages()] == []


async def test_an_answer_that_names_nobody_is_a_message() -> None:
    server = Server(text('{"type": "answer", "text": "a"}'))
    websocket: Any = await server.accepted(Typed)
    assert await websocket.receive_message() == Answer(text="a")


async def test_the_client_calls() -> None:
    server = Server(text('{"type": "ask", "id": "c1", "question": "?"}'))
    websocket: Any = await server.accepted(Typed)
    request = await websocket.receive_message()
    await websocket.send_message(Answer(reply_to=request.id, text="42"))
    assert json.loads(server.sent[0]["text"]) == {"type": "answer", "reply_to": "c1", "text": "42"}


async def test_an_invalid_message_during_a_call_is_raised_by_the_next_receive() -> None:
    server = Server(text("{"), answer("1"))
    websocket: Any = await server.accepted(Typed)
    assert (await websocket.call(Ask())).text == "yes"
    with pytest.raises(WebSocketDataError):
        await websocket.receive_message()


async def test_invalid_messages_are_answered_after_the_call() -> None:
    server = Server(text("{"), answer("1"), disconnect())
    websocket: Any = await server.accepted(Typed)
    await websocket.call(Ask())
    assert [message async for message in websocket.iter_messages(on_error="answer")] == []
    assert json.loads(server.sent[1]["text"])["type"] == "error"


async def test_the_end_ends_every_call() -> None:
    server = Server()
    websocket: Any = await server.accepted(Typed)
    ended = []

    async def call() -> None:
        try:
            await websocket.call(Ask())
        except WebSocketDisconnect as left:
            ended.append(left.code)

    async with anyio.create_task_group() as group:
        group.start_soon(call)
        group.start_soon(call)
        await until_sent(server, 2)
        server.push(note("a"), disconnect(4000))
    assert ended == [4000, 4000]
    assert await websocket.receive_message() == Note(text="a")
    with pytest.raises(WebSocketDisconnect):
        await websocket.receive_message()


async def test_a_flood_does_not_grow_and_the_call_times_out() -> None:
    server = Server(*(note(str(number)) for number in range(100)), answer("1"))
    websocket: Any = await server.accepted(Typed)
    with pytest.raises(TimeoutError):
        await websocket.call(Ask(), timeout=0.05)
    assert len(server.events) == 101 - 64
    assert (await websocket.receive_message()).text == "0"


async def test_a_call_reads_on_when_there_is_room() -> None:
    server = Server(*(note(str(number)) for number in range(100)), answer("1"))
    websocket: Any = await server.accepted(Typed)
    async with anyio.create_task_group() as group:

        async def call() -> None:
            assert (await websocket.call(Ask())).text == "yes"
            server.push(disconnect())

        group.start_soon(call)
        await anyio.wait_all_tasks_blocked()
        notes = [message.text async for message in websocket.iter_messages()]
    assert notes == [str(number) for number in range(100)]


async def test_a_cancelled_call_loses_no_message() -> None:
    server = Server()
    websocket: Any = await server.accepted(Typed)
    with anyio.move_on_after(0.01):
        await websocket.call(Ask(), timeout=None)
    server.push(note("a"))
    assert await websocket.receive_message() == Note(text="a")


async def test_a_cancelled_receive_lets_a_call_read_on() -> None:
    server = Server()
    websocket: Any = await server.accepted(Typed)
    got = []
    scope = anyio.CancelScope()

    async def receive() -> None:
        with scope:
            await websocket.receive_message()

    async def call() -> None:
        got.append(await websocket.call(Ask()))

    async with anyio.create_task_group() as group:
        group.start_soon(receive)
        await server.waiting.wait()
        group.start_soon(call)
        await until_sent(server, 1)
        scope.cancel()
        server.push(answer("1"))
    assert got == [Answer(reply_to="1", text="yes")]


async def test_two_receives_at_the_same_time() -> None:
    server = Server()
    websocket: Any = await server.accepted(Typed)
    async with anyio.create_task_group() as group:
        group.start_soon(websocket.receive_message)
        await server.waiting.wait()
        with pytest.raises(WebSocketRuntimeError, match="cannot receive a message: another task"):
            await websocket.receive_message()
        server.push(note("a"))


async def test_an_id_of_the_app() -> None:
    server = Server(answer("mine"))
    websocket: Any = await server.accepted(Typed)
    assert (await websocket.call(Ask(id="mine"))).text == "yes"
    async with anyio.create_task_group() as group:
        group.start_soon(websocket.call, Ask(id="twice"))
        await until_sent(server, 2)
        with pytest.raises(ValueError, match="a call with the id 'twice' is under way"):
            await websocket.call(Ask(id="twice"))
        group.start_soon(websocket.call, Ask(id="1"))
        await until_sent(server, 3)
        group.start_soon(websocket.call, Ask())  # not "1"
        assert [each["id"] for each in await until_sent(server, 4)] == ["mine", "twice", "1", "2"]
        server.push(answer("twice"), answer("1"), answer("2"))


async def test_the_request_is_not_changed() -> None:
    server = Server(answer("1"))
    websocket: Any = await server.accepted(Typed)
    request = Ask(question="?")
    await websocket.call(request)
    assert request.id is None


class AskLouder(Ask):
    volume: int = 11


@dataclasses.dataclass(frozen=True)
class AskLouderData(AskData):
    volume: int = 11


class AskLouderStruct(AskStruct):
    volume: int = 11


@pytest.mark.parametrize(
    ("request_", "answers"),
    [(AskLouder(), Answer), (AskLouderData(), AnswerData), (AskLouderStruct(), AnswerStruct)],
    ids=["pydantic", "dataclass", "msgspec"],
)
async def test_a_request_of_a_subclass(request_: Any, answers: Any) -> None:
    server = Server(answer("1"))
    asked: Any = type(request_).__mro__[1]
    cls: Any = WebSocket[answers, asked]
    websocket: Any = await server.accepted(cls)
    assert (await websocket.call(request_)).text == "yes"
    assert json.loads(server.sent[0]["text"]) == {"type": "ask", "id": "1", "question": ""}


class PartAsk(TypedDict):
    type: Literal["ask"]
    id: NotRequired[CallId]


class PartAnswer(TypedDict):
    type: Literal["answer"]
    reply_to: NotRequired[ReplyTo]
    text: str


class OtherAsk(TypedDict):
    type: Literal["other"]
    ident: NotRequired[CallId]


@pytest.mark.parametrize("library", ["pydantic", "msgspec"])
async def test_fields_of_dictionaries_that_may_be_left_out(library: Any) -> None:
    class Parts(WebSocket[PartAnswer, PartAsk], library=library):
        pass

    server = Server(answer("1"))
    websocket: Any = await server.accepted(Parts)
    assert (await websocket.call({"type": "ask"}))["text"] == "yes"
    assert json.loads(server.sent[0]["text"]) == {"type": "ask", "id": "1"}


def test_fields_of_dictionaries_have_one_name() -> None:
    with pytest.raises(TypeError, match="CallId must have one name in every TypedDict"):
        WebSocket[PartAnswer, Union[PartAsk, OtherAsk]]  # noqa: UP007


@pytest.mark.parametrize("request_", [Note(text="a"), Answer(), 5])
async def test_what_is_no_request(request_: Any) -> None:
    server = Server()
    websocket: Any = await server.accepted(Typed)
    with pytest.raises(TypeError, match=f"cannot call with {type(request_).__name__}"):
        await websocket.call(request_)
    assert server.sent == []


@pytest.mark.parametrize("types", [(Note, Ask), (Answer, Note), (Note, Note)])
async def test_types_without_the_fields(types: Any) -> None:
    server = Server()
    websocket: Any = await server.accepted(WebSocket[types])
    with pytest.raises(TypeError, match="a model of Out must have a field of the type CallId"):
        await websocket.call(types[1]())
    assert server.sent == []


# The test client


async def app(scope: Any, receive: Any, send: Any) -> None:
    websocket = WebSocket[Ask | Answer | Note, Ask | Answer | Note](scope, receive, send)
    async with websocket:
        async for message in websocket.iter_messages():
            match message:
                case Ask(id=id, question="ask me"):
                    got = await websocket.call(Ask(question="your turn"))
                    await websocket.send_message(Note(text="meanwhile"))
                    await websocket.send_message(Answer(reply_to=id, text=got.text))  # type: ignore[union-attr]
                case Ask(id=id, question=question):
                    await websocket.send_message(Answer(reply_to=id, text=question))
                case Answer() | Note():
                    await websocket.send_text("{")


async def test_the_test_client() -> None:
    async with connect(app) as session:
        messages = session.typed(WebSocket[Ask | Answer | Note, Ask | Answer | Note])
        assert await messages.call(Ask(question="a")) == Answer(reply_to="1", text="a")
        await messages.send_message(Ask(id="x", question="ask me"))
        request = await messages.receive_message()
        assert request == Ask(id="1", question="your turn")
        await messages.send_message(Answer(reply_to="1", text="mine"))
        assert await messages.receive_message() == Note(text="meanwhile")
        assert await messages.receive_message() == Answer(reply_to="x", text="mine")
        await messages.send_message(Note(text="bad"))
        with pytest.raises(WebSocketDataError) as raised:
            await messages.receive_message()
        assert raised.value.message["type"] == "websocket.send"
        with pytest.raises(TypeError, match="a message must be "):
            await messages.send_message("a")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"types must be the app's WebSocket\[In, Out\], got"):
            session.typed(WebSocket)


class Packed(WebSocket[NoteStruct]):
    pass


async def packed(scope: Any, receive: Any, send: Any) -> None:
    async with Packed(scope, receive, send) as websocket:
        async for message in websocket.iter_messages():
            await websocket.send_message(message)


def test_the_test_client_in_a_thread() -> None:
    with TestClient(app).websocket_connect("/") as session:
        messages = session.typed(WebSocket[Ask | Answer | Note, Ask | Answer | Note])
        assert messages.call(Ask(question="a")).text == "a"  # type: ignore[union-attr]
        messages.send_message(Ask(id="y", question="b"))
        assert messages.receive_message() == Answer(reply_to="y", text="b")
    with TestClient(packed).websocket_connect("/") as session:
        notes = session.typed(Packed)
        notes.send_message(NoteStruct("a"))
        assert notes.receive_message(timeout=5) == NoteStruct("a")
