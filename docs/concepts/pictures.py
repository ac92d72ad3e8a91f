"""Draws the pictures of the pages: how messages go, where they wait, and what somebody sees of them.

    python docs/concepts/pictures.py

writes the files of the folder `pictures` beside this file. A test compares them with what the code says now:
limits and times are the defaults of the package, and the words of the chat are those of its page. Everything
is drawn in `currentColor`, so that it reads on a light and on a dark page, and is narrow enough for a phone.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from html import escape
from pathlib import Path

from lilya.websockets import WebSocket
from lilya.websockets.channels import Channels
from lilya.websockets.draining import drain

FOLDER = Path(__file__).parent / "pictures"
CHAT = Path(__file__).parents[2] / "docs_src" / "guides" / "chat" / "chat.html"
WIDTH = 360  # of every picture: what a phone shows without making letters smaller


def default(function: Callable[..., object], name: str) -> float:
    """The default of an option of the package."""
    value = inspect.signature(function).parameters[name].default
    assert isinstance(value, int | float)
    return value


def picture(name: str, title: str, said: Iterable[str], height: float, *shapes: str) -> str:
    """An SVG element with a title, and a description for those who do not see it."""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" role="img" '
            f'aria-label="{escape(title)}" class="picture" style="max-width: 23rem">',
            f"<title>{escape(title)}</title>",
            f"<desc>{escape(' '.join(said))}</desc>",
            f'<defs><marker id="{name}-tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" '
            'markerHeight="7" orient="auto"><path d="M0 0 10 5 0 10z" fill="currentColor"/></marker></defs>',
            *(shape.replace("#tip", f"#{name}-tip") for shape in shapes),
            "</svg>\n",
        ]
    )


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "middle") -> str:
    """A line of text; `kind` is a class of the style sheet."""
    of = f' class="{kind}"' if kind else ""
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}"{of}>{escape(words)}</text>'


def box(x: float, y: float, width: float, height: float, *lines: str, kind: str = "") -> str:
    """A box with its name in the first line, and more about it in smaller ones below."""
    middle = y + height / 2 + 4.5 - (len(lines) - 1) * 7.5
    said = [
        text(x + width / 2, middle + 15 * number, line, "note" if number else "name")
        for number, line in enumerate(lines)
    ]
    of = f' class="{kind}"' if kind else ""
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6"{of}/>' + "".join(said)


def arrow(*points: tuple[float, float], kind: str = "") -> str:
    """A line through some points, with a tip at its end."""
    path = " L".join(f"{x:g} {y:g}" for x, y in points)
    of = f' class="{kind}"' if kind else ""
    return f'<path d="M{path}" fill="none" stroke="currentColor" marker-end="url(#tip)"{of}/>'


def cells(x: float, y: float, number: int, full: int, size: float = 13) -> str:
    """A queue: so many places, the last of which are taken."""
    taken = ["", ' class="taken"']
    return "".join(
        f'<rect x="{x + place * size:g}" y="{y:g}" width="{size:g}" height="{size + 5:g}"'
        f"{taken[place >= number - full]}/>"
        for place in range(number)
    )


def channels() -> str:
    """From `publish` to the clients."""
    history, age = default(Channels.__init__, "history"), default(Channels.__init__, "max_age")
    messages = default(Channels.join, "max_messages")
    shapes = [
        box(80, 6, 200, 44, "publish", "a handler, a thread, a script"),
        arrow((180, 50), (180, 80)),
        box(50, 80, 260, 60, "broker", f"keeps the last {history:,} events, {age:g} s", "memory, or Redis"),
    ]
    for left, name, full in ((6, "process 1", 1), (186, "process 2", 5)):
        middle = left + 84
        shapes += [
            arrow((middle, 140), (middle, 172)),
            f'<rect x="{left}" y="172" width="168" height="178" rx="6" class="frame"/>',
            text(middle, 190, name, "name"),
            text(middle, 206, "encodes each event once", "note"),
        ]
        for column, taken in ((left + 14, 1), (left + 89, full)):
            shapes += [
                arrow((column + 32, 212), (column + 32, 232)),
                cells(column, 232, 5, taken),
                text(column + 32, 266, "outbox", "note"),
                arrow((column + 32, 272), (column + 32, 292)),
                arrow((column + 32, 336), (column + 32, 376)),
                box(column, 376, 65, 26, "client", kind="slow" if taken == 5 else ""),
            ]
        shapes.append(box(left + 14, 292, 140, 44, "writer", "sends to each in turn"))
    shapes += [
        text(6, 424, f"A slow client fills its own outbox, {messages:,} messages by", "note", "start"),
        text(6, 439, "default. Nobody else waits for it.", "note", "start"),
    ]
    return picture(
        "channels",
        "From publish to the clients",
        (
            "A handler, a thread or a script publishes an event to the broker, which is memory or Redis and "
            f"keeps the last {history:,} events of a channel for {age:g} seconds.",
            "Each process receives the event once and encodes it once.",
            f"It puts the event into the outbox of each of its clients, which holds {messages:,} messages.",
            "A writer sends what is in the outboxes. A slow client fills its own outbox only.",
        ),
        446,
        *shapes,
    )


def block() -> str:
    """Who receives and who sends, in a block with a reader."""
    messages, size = default(WebSocket.open, "buffer_messages"), default(WebSocket.open, "buffer_bytes")
    shapes = [
        box(6, 6, 348, 34, "server"),
        arrow((80, 40), (80, 76)),
        text(88, 62, "receives at once", "note", "start"),
        box(20, 76, 120, 34, "reader"),
        arrow((80, 110), (80, 138)),
        cells(41, 138, 6, 3),
        text(80, 172, f"inbox: {messages:g} messages", "note"),
        text(80, 187, f"or {size / 2**20:g} MiB", "note"),
        arrow((80, 194), (80, 238)),
        text(88, 220, "receive_text()", "note", "start"),
        box(6, 238, 348, 34, "your handler"),
        arrow((290, 238), (290, 40)),
        text(282, 220, "send_text()", "note", "end"),
        arrow((140, 93), (284, 93), kind="dashed"),
        text(212, 86, "client left:", "note"),
        text(212, 109, "the next send raises", "note"),
        text(6, 294, "If the inbox is full, the reader stops. The server then", "note", "start"),
        text(6, 309, "stops reading from the client, too.", "note", "start"),
    ]
    return picture(
        "block",
        "The reader of a block",
        (
            "In a block, a reader receives from the server at once, and puts messages into the inbox, which "
            f"holds {messages:g} messages or {size / 2**20:g} MiB.",
            "Your handler receives from the inbox, and sends to the server directly.",
            "When the client has left, the reader knows, and the handler's next send raises.",
            "If the inbox is full, the reader stops, and the server stops reading from the client.",
        ),
        316,
        *shapes,
    )


def draining() -> str:
    """The number of open connections while a server is stopped."""
    within, batch, interval = (default(drain, name) for name in ("within", "batch", "interval"))
    code = default(drain, "code")
    bottom, left, right = 150, 30, 350
    stairs = [(60, 30), *((60 + 24 * step, 30 + 21 * (step + half)) for step in range(5) for half in (0, 1))]
    line = [(left, 30), *stairs[1:], (250, stairs[-1][1]), (250, bottom), (right, bottom)]
    path = " L".join(f"{x:g} {y:g}" for x, y in line)
    marks = ((60, "1"), (120, "2"), (250, "3"), (310, "4"))
    legend = (
        ("1", "SIGTERM: new connections are refused with 503."),
        ("2", f"Batches of {batch:g} are closed with {code:g}, {interval:g} s apart."),
        ("3", f"After {within - 1:g} s, what is still open is dropped."),
        ("4", f"After {within:g} s at the latest, the server stops."),
    )
    shapes = [
        f'<path d="M{left} 16 V{bottom} H{right}" fill="none" stroke="currentColor" class="axis"/>',
        f'<path d="M{path}" fill="none" stroke="currentColor" class="line"/>',
        text(left + 6, 14, "open connections", "note", "start"),
        text(right, bottom + 30, "time (not to scale)", "note", "end"),
        *(
            f'<path d="M{x} 24 V{bottom}" fill="none" stroke="currentColor" class="dashed"/>'
            + text(x, bottom + 15, number, "name")
            for x, number in marks
        ),
        *(
            text(6, 206 + 18 * row, number, "name", "start")
            + text(22, 206 + 18 * row, words, "note", "start")
            for row, (number, words) in enumerate(legend)
        ),
    ]
    return picture(
        "drain", "Draining over time", (f"{number}. {words}" for number, words in legend), 268, *shapes
    )


KEPT = 4  # how many events the history of the picture keeps
PUBLISHED = 8
SEEN = {"Nothing is missing": 5, "Two events are gone": 2}


def received(seen: int) -> list[str]:
    """What a client gets that comes back after so many events, as the picture shows it."""
    first = PUBLISHED - KEPT + 1
    kept = [str(number) for number in range(max(seen + 1, first), PUBLISHED + 1)]
    return (["Gap"] if seen + 1 < first else []) + kept


def gap() -> str:
    """What a client gets that comes back: everything, or a gap and the rest."""
    side, shapes, said = 38, [], []
    for row, (title, seen) in enumerate(SEEN.items()):
        top = 14 + row * 152
        got = received(seen)
        shapes.append(text(6, top, title, "name", "start"))
        for number in range(1, PUBLISHED + 1):
            kind = "seen" if number <= seen else "lost" if str(number) not in got else "taken"
            shapes.append(box(6 + (number - 1) * 43.5, top + 34, side, 28, str(number), kind=kind))
        start = 6 + (PUBLISHED - KEPT) * 43.5
        shapes += [
            f'<path d="M{start} {top + 30} v-6 H{WIDTH - 12} v6" fill="none" stroke="currentColor"/>',
            text((start + WIDTH - 6) / 2, top + 18, f"history={KEPT}", "note"),
            text(6, top + 80, f"The client saw 1 to {seen}, and was away.", "note", "start"),
            text(6, top + 110, f"since={seen}", "name", "start"),
            arrow((66, top + 106), (96, top + 106)),
        ]
        place = 100.0
        for item in got:
            width = 46 if item == "Gap" else side
            shapes.append(box(place, top + 92, width, 28, item, kind="gap" if item == "Gap" else "taken"))
            place += width + 6
        said.append(
            f"{title}: the history keeps the last {KEPT} of {PUBLISHED} events. A client that saw 1 to "
            f"{seen} comes back with since={seen}, and gets {', '.join(got)}."
        )
    return picture("gap", "Coming back with since", said, 290, *shapes)


def shown(pattern: str) -> str:
    """Words that the page of the chat shows."""
    found = re.search(pattern, CHAT.read_text(encoding="utf-8"))
    assert found is not None, f"the chat's page shows nothing like {pattern}"
    return found[1]


# The picture of the chat: what happens, and then for each of the two windows its status and its messages. A
# message is who has sent it, its text, and whether it is waiting.
Message = tuple[str, str, bool]
HELLO, LUNCH = ("ann", "Hello, Bob!", False), ("ann", "Lunch at one?", False)
LATE = ("bob", "My train is late.", False)
WAITING = (*LATE[:2], True)
STEPS: tuple[tuple[str, tuple[bool, list[Message]], tuple[bool, list[Message]]], ...] = (
    ("1. Both are connected.", (True, [HELLO]), (True, [HELLO])),
    ("2. Bob's connection breaks, and both write.", (True, [HELLO, LUNCH]), (False, [HELLO, WAITING])),
    ("3. Bob is connected again.", (True, [HELLO, LUNCH, LATE]), (True, [HELLO, LUNCH, LATE])),
)


def chat() -> str:
    """The chat in two windows, while one of them loses its connection and gets it back."""
    connected, lost = shown(r'say\("(Connected\.)"\)'), shown(r"say\(`(Connection lost\.)")
    waiting = shown(r'content: ", (waiting to be sent)"')
    shapes: list[str] = []
    said: list[str] = []
    top = 14.0
    for title, *windows in STEPS:
        shapes.append(text(6, top, title, "name", "start"))
        said.append(title)
        height = 38 + 42 * max(len(messages) for _, messages in windows)
        for left, owner, (online, messages) in zip((6, 186), ("ann", "bob"), windows, strict=True):
            status = connected if online else lost
            shapes += [
                f'<rect x="{left}" y="{top + 12:g}" width="168" height="{height}" rx="6" class="window"/>',
                text(left + 10, top + 30, owner, "name", "start"),
                text(left + 158, top + 30, status, "note", "end"),
                f'<path d="M{left} {top + 40:g} h168" fill="none" stroke="currentColor"/>',
            ]
            for number, (sender, words, is_waiting) in enumerate(messages):
                place = left + (20 if sender == owner else 8)
                kind = "slow" if is_waiting else "taken" if sender == owner else ""
                label = f"{sender}, {waiting}" if is_waiting else sender
                shapes.append(box(place, top + 48 + 42 * number, 140, 36, words, label, kind=kind))
            seen = ", ".join(
                f"{words!r} of {sender}{f', {waiting}' * is_waiting}"
                for sender, words, is_waiting in messages
            )
            said.append(f"The window of {owner} says {status!r} and shows {seen}.")
        top += height + 38
    return picture("chat", "The chat in two windows", said, top - 16, *shapes)


def pictures() -> dict[Path, str]:
    """Every file that this script writes, and its content."""
    drawn = {"channels": channels, "block": block, "drain": draining, "gap": gap, "chat": chat}
    return {FOLDER / f"{name}.svg": draw() for name, draw in drawn.items()}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for path, content in pictures().items():
        path.write_text(content, encoding="utf-8")
