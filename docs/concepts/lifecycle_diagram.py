"""Draws the state diagrams of the page *Lifecycle* from the tables of the code.

    python docs/concepts/lifecycle_diagram.py

writes `lifecycle-receive.svg` and `lifecycle-send.svg` beside this file. A test compares them with what the
tables say now. Everything is drawn in `currentColor`, so that it reads on a light and on a dark page.
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import NamedTuple

from lilya.websockets._state import RECEIVE, SEND, WebSocketState, after_receive, after_send

FOLDER = Path(__file__).parent
WIDTH, HEIGHT = 132, 40  # of a state
LETTER = 8.5  # the width of a letter of a label
LEVELS = {
    WebSocketState.CONNECTING: 40,
    WebSocketState.CONNECTED: 180,
    WebSocketState.RESPONSE: 180,
    WebSocketState.DISCONNECTED: 320,
}
ASIDE = 222  # how far to the right of the others RESPONSE stands


class Edge(NamedTuple):
    """A legal step."""

    before: WebSocketState
    message: str
    after: WebSocketState
    note: str = ""

    @property
    def label(self) -> str:
        """The message as the diagram names it: without the prefix that most of them share."""
        return self.message.removeprefix("websocket.")


def receive_edges() -> list[Edge]:
    """The legal steps of `client_state`."""
    return [
        Edge(before, message, after_receive(before, message))
        for before, messages in RECEIVE.items()
        for message in messages
    ]


def send_edges() -> list[Edge]:
    """The legal steps of `application_state`."""
    edges = []
    for before, messages in SEND.items():
        for message in messages:
            more = after_send(before, message, more_body=True)
            last = after_send(before, message, more_body=False)
            if more is last:
                edges.append(Edge(before, message, last))
            else:
                edges.append(Edge(before, message, more, "more to come"))
                edges.append(Edge(before, message, last, "the last part"))
    return edges


def draw(name: str, title: str, edges: list[Edge]) -> str:
    """One diagram, as an SVG element."""
    states = [state for state in WebSocketState if any(state in (edge.before, edge.after) for edge in edges)]
    detours = [edge for edge in edges if _is_detour(edge)]
    column = 28 + max((len(edge.label) * LETTER for edge in detours), default=0) + WIDTH / 2
    aside = WebSocketState.RESPONSE in states
    width = column + WIDTH / 2 + (ASIDE + 84 if aside else 120)
    height = max(LEVELS[state] for state in states) + HEIGHT / 2 + 8
    sentences = " ".join(
        f"{edge.before.name}: {edge.message}{f' ({edge.note})' if edge.note else ''} "
        f"leads to {edge.after.name}."
        for edge in edges
    )
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" role="img" '
        f'aria-label="{escape(title)}" class="lifecycle" style="max-width: {width:g}px">',
        f"<title>{escape(title)}</title>",
        f"<desc>{escape(sentences)}</desc>",
        f'<defs><marker id="{name}-arrow" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" '
        'markerHeight="8" orient="auto"><path d="M0 0 10 5 0 10z" fill="currentColor"/></marker></defs>',
    ]
    lines += [_draw_edge(name, edge, column) for edge in edges]
    lines += [_draw_state(state, column) for state in states]
    return "\n".join([*lines, "</svg>"]) + "\n"


def _centre(state: WebSocketState, column: float) -> tuple[float, float]:
    return column + (ASIDE if state is WebSocketState.RESPONSE else 0), LEVELS[state]


def _is_detour(edge: Edge) -> bool:
    """Whether the step passes by a state that stands between the two."""
    return WebSocketState.RESPONSE not in edge[::2] and abs(LEVELS[edge.before] - LEVELS[edge.after]) > 140


def _draw_state(state: WebSocketState, column: float) -> str:
    x, y = _centre(state, column)
    return (
        f'<g data-state="{state.name}">'
        f'<rect x="{x - WIDTH / 2:g}" y="{y - HEIGHT / 2:g}" width="{WIDTH}" height="{HEIGHT}" rx="8"/>'
        f'<text class="state" x="{x:g}" y="{y + 5:g}" text-anchor="middle">{state.name}</text></g>'
    )


def _draw_edge(name: str, edge: Edge, column: float) -> str:
    (x1, y1), (x2, y2) = _centre(edge.before, column), _centre(edge.after, column)
    half, up = WIDTH / 2, HEIGHT / 2
    anchor = "middle"
    if edge.before is edge.after:
        path = f"M{x1 + half:g} {y1 - 9:g} h14 q10 0 10 9 t-10 9 h-14"
        label_x, label_y, anchor = x1 + half + 32, y1 + 5, "start"
        if edge.before is WebSocketState.RESPONSE:  # beside it there is no room
            label_x, label_y, anchor = x1 + half + 80, y1 + up + 24, "end"
    elif _is_detour(edge):
        label_x, label_y = x1 - half - 14 - len(edge.label) * LETTER / 2, (y1 + y2) / 2 + 5
        path = f"M{x1 - half:g} {y1:g} C{label_x:g} {y1:g} {label_x:g} {y1 + 20:g} {label_x:g} {y1 + 60:g} "
        path += f"V{y2 - 60:g} C{label_x:g} {y2 - 20:g} {label_x:g} {y2:g} {x2 - half:g} {y2:g}"
    elif edge.after is WebSocketState.RESPONSE:
        path = f"M{x1 + half:g} {y1:g} H{x2 - 24:g} q24 0 24 24 V{y2 - up:g}"
        label_x, label_y = x2, (y1 + y2) / 2 + 5
    elif edge.before is WebSocketState.RESPONSE:
        turn = x1 - half + 18
        path = f"M{turn:g} {y1 + up:g} V{y2 - 24:g} q0 24 -24 24 H{x2 + half:g}"
        label_x, label_y = turn, (y1 + y2) / 2 + 26
    else:
        path = f"M{x1:g} {y1 + up:g} V{y2 - up:g}"
        label_x, label_y = x1, (y1 + y2) / 2 + 5
    text = f'<text x="{label_x:g}" y="{label_y:g}" text-anchor="{anchor}">{escape(edge.label)}</text>'
    if edge.note:
        text += (
            f'<text class="note" x="{label_x:g}" y="{label_y + 16:g}" text-anchor="{anchor}">'
            f"({escape(edge.note)})</text>"
        )
    return (
        f'<g data-before="{edge.before.name}" data-message="{escape(edge.message)}" '
        f'data-after="{edge.after.name}">'
        f'<path d="{path}" marker-end="url(#{name}-arrow)"/>{text}</g>'
    )


def diagrams() -> dict[Path, str]:
    """Every file that this script writes, and its content."""
    return {
        FOLDER / "lifecycle-receive.svg": draw(
            "receive", "What may be received: the states of websocket.client_state", receive_edges()
        ),
        FOLDER / "lifecycle-send.svg": draw(
            "send", "What may be sent: the states of websocket.application_state", send_edges()
        ),
    }


if __name__ == "__main__":
    for path, content in diagrams().items():
        path.write_text(content, encoding="utf-8")
