"""`python -m lilya.websockets channels`: look into channels from a shell, publish, and close sockets."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import anyio

from .._options import checked_count, checked_number
from . import Channels, ChannelsError, Dropped, Event, Gap, Presence
from .backends import Status

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    url = os.environ.get("CHANNELS_URL")  # a password on the command line is seen by all users of the machine
    parser.add_argument(
        "--url",
        required=url is None,
        default=url,
        help="where the channels are, such as redis://localhost (default: the environment's CHANNELS_URL)",
    )
    parser.add_argument("--prefix", default="lilya", help="what the keys start with (default: lilya)")
    parser.add_argument("--json", action="store_true", help="write one JSON object a line")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    publish = actions.add_parser("publish", help="publish an event; write its id")
    publish.add_argument("channel")
    publish.add_argument("data", nargs="?", help="the text; without it, what is on standard input")
    # As the app has them: with less, this publish removes what the app would keep.
    absent = argparse.SUPPRESS
    publish.add_argument(
        "--history", type=int, default=absent, help="the events to keep, as for Channels (default: 1000)"
    )
    publish.add_argument(
        "--max-age", type=_seconds, default=absent, help="the seconds to keep them, or none (default: 3600)"
    )
    publish.add_argument(
        "--expire", type=float, default=absent, help="the seconds to keep the channel (default: 86400)"
    )
    listing = actions.add_parser(
        "list", help="write the channels that have events or members, with members, lag and memory"
    )
    listing.add_argument("pattern", nargs="?", default="", help="only names that contain this")
    listing.add_argument(
        "--within",
        type=float,
        default=1.0,
        help="seconds in which a process must answer how far it is (default: 1)",
    )
    members = actions.add_parser("members", help="write who is in a channel")
    members.add_argument("channel")
    members.add_argument("--count", action="store_true", help="only how many they are")
    tail = actions.add_parser("tail", help="write the events of channels as they come")
    tail.add_argument("channels", nargs="+", metavar="channel")
    tail.add_argument("--history", type=int, default=0, help="begin with so many events of each (default: 0)")
    tail.add_argument("--presence", action="store_true", help="write joins and leaves, too")
    tail.add_argument("--count", type=int, default=0, help="end after so many lines (default: go on)")
    close = actions.add_parser("close", help="close sockets that have joined a channel, in all processes")
    close.add_argument("channel")
    close.add_argument("--member", help="only that of this member; default: all")
    close.add_argument("--code", type=int, default=1000, help="the close code (default: 1000)")
    close.add_argument("--reason", help="at most 123 bytes")


def _seconds(text: str) -> float | None:
    return None if text == "none" else float(text)


def run(options: argparse.Namespace) -> int:
    """Run the command. Returns the exit status."""
    try:
        if options.action == "publish" and options.data is None:
            # Read before the event loop runs: inside it, the user could not interrupt the read.
            options.data = "" if sys.stdin is None else sys.stdin.read()
        return anyio.run(_run, options)
    except (ChannelsError, ImportError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except asyncio.CancelledError:  # what Ctrl+C becomes on Python 3.10
        raise KeyboardInterrupt from None


async def _run(options: argparse.Namespace) -> int:
    actions: dict[str, Callable[[Channels, argparse.Namespace], Awaitable[None]]] = {
        "publish": _publish,
        "list": _list,
        "members": _members,
        "tail": _tail,
        "close": _close,
    }
    given = vars(options) if options.action == "publish" else {}
    kept: dict[str, Any] = {name: given[name] for name in ("history", "max_age", "expire") if name in given}
    async with Channels(options.url, prefix=options.prefix, **kept) as channels:
        await actions[options.action](channels, options)
    return 0


def _write(options: argparse.Namespace, line: str, **fields: Any) -> None:
    text = json.dumps(fields, ensure_ascii=False) if options.json else line
    sys.stdout.write(f"{_printable(text)}\n")
    sys.stdout.flush()


def _printable(line: str) -> str:
    """A line that is safe for a terminal: line ends and control characters from events are escaped."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    if line.isprintable() and _encodes(line, encoding):
        return line
    return "".join(
        each if each.isprintable() and _encodes(each, encoding) else json.dumps(each)[1:-1] for each in line
    )


def _encodes(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


async def _publish(channels: Channels, options: argparse.Namespace) -> None:
    id = await channels.publish(options.channel, options.data)
    _write(options, id, channel=options.channel, id=id)


async def _list(channels: Channels, options: argparse.Namespace) -> None:
    within = checked_number("within", options.within)
    names = sorted(name for name in await channels.backend.names() if options.pattern in name)
    found = await channels.backend.status(names, within)
    rows = [_HEADS, *(_row(status, within) for status in found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    if not found:
        sys.stderr.write(f"{_nothing(options)}\n")
    elif not options.json:
        sys.stdout.write(f"{_line(_HEADS, widths)}\n")
    for status, row in zip(found, rows[1:], strict=True):
        _write(
            options,
            _line(row, widths),
            channel=status.channel,
            members=status.members,
            processes=status.listeners,
            lag=status.lag,
            lags=dict(status.lags),
            silent=status.silent,
            behind=status.behind,
            events=status.events,
            newest=status.newest,
            age=status.age,
            bytes=status.bytes,
        )


def _nothing(options: argparse.Namespace) -> str:
    pattern = f" and with {options.pattern!r} in their names" if options.pattern else ""
    said = f"no channels with the prefix {options.prefix!r}{pattern}"
    if options.url.startswith("memory:"):
        said += ". Channels in memory are seen only by their own process"
    return said


_HEADS: Final = ("MEMBERS", "PROCESSES", "LAG", "BEHIND", "EVENTS", "AGE", "BYTES", "CHANNEL")


def _row(status: Status, within: float) -> tuple[str, ...]:
    """The row of a channel in the table."""
    lag = "" if status.lag is None else f"{status.lag:.3f}s"
    if status.silent:
        lag = f">{within:g}s ({status.silent} silent)"
    cells = (status.members, status.listeners, lag, status.behind, status.events)
    age = None if status.age is None else f"{status.age:.0f}s"
    return tuple("" if cell is None else f"{cell}" for cell in (*cells, age, status.bytes, status.channel))


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    """A line of the table. The name is last, because it may contain spaces and be long."""
    *columns, name = cells
    aligned = (cell.rjust(width) for cell, width in zip(columns, widths, strict=False))
    return f"{'  '.join(aligned)}  {name}"


async def _members(channels: Channels, options: argparse.Namespace) -> None:
    if options.count:
        count = await channels.count(options.channel)
        _write(options, f"{count}", channel=options.channel, count=count)
        return
    for member in await channels.members(options.channel):
        _write(options, f"{member.id} {member.info}", id=member.id, info=member.json())


async def _tail(channels: Channels, options: argparse.Namespace) -> None:
    written, most = 0, checked_count("count", options.count)
    async with channels.subscribe(
        *options.channels, history=options.history, presence=options.presence, policy="drop_oldest"
    ) as subscription:
        async for item in subscription:
            line, fields = _told(item)
            _write(options, line, **fields)
            written += 1
            if written == most:
                return


def _told(item: Event | Gap | Dropped | Presence) -> tuple[str, dict[str, Any]]:
    """The line for an item, and its fields."""
    if isinstance(item, Event):
        kind, data = ("text", item.data) if isinstance(item.data, str) else ("hex", item.data.hex())
        return f"{item.channel} {item.id} {data}", {"channel": item.channel, "id": item.id, kind: data}
    if isinstance(item, Presence):
        member = item.member
        fields = {"channel": item.channel, item.type: member.id, "info": member.json()}
        return f"{item.channel} {item.type} {member.id} {member.info}", fields
    if isinstance(item, Gap):
        return f"{item.channel} gap {item.since} {item.id}", {"channel": item.channel, "gap": item.id}
    return f"dropped {item.count}", {"dropped": item.count}


async def _close(channels: Channels, options: argparse.Namespace) -> None:
    await channels.close(options.channel, member=options.member, code=options.code, reason=options.reason)
