"""The figures of channels as the page *Performance of channels* has them.

    python -m benchmarks._channels_report

writes the page's tables again, from the committed figures. A test compares them.
"""

from __future__ import annotations

import sys

from benchmarks import _report
from benchmarks._report import Results, Row, number

__all__ = [
    "FILES",
    "PAGE",
    "PEERS",
    "as_text",
    "blocks",
    "blocks_of_channels",
    "blocks_of_redis",
    "blocks_of_scale",
    "figures",
    "progress",
    "write",
]

PAGE = _report.ROOT / "docs" / "project" / "channels-performance.md"
FILES = ("channels", "redis", "scale")

OURS = "channels"
MANY = 50  # processes, for what one Redis carries

# By kind, as `benchmarks.scale` has them.
PEERS = {
    "ours": "**channels**",
    "plain": "redis-py, plain pub/sub",
    "litestar-pubsub": "Litestar, `RedisChannelsPubSubBackend`",
    "litestar-streams": "Litestar, `RedisChannelsStreamBackend`",
    "channels-redis": "channels_redis, `RedisChannelLayer`",
    "channels-redis-pubsub": "channels_redis, `RedisPubSubChannelLayer`",
    "broadcaster": "broadcaster",
    "socketio": "python-socketio, `AsyncRedisManager`",
}


def write(**results: Results) -> None:
    """Commit figures, by the name of the run, and make the page from all there are."""
    for name, found in results.items():
        _report.save(found, _report.FOLDER / f"{name}.json")
    page = _report.with_blocks(PAGE.read_text(encoding="utf-8"), blocks(figures()))
    PAGE.write_text(page, encoding="utf-8")


def figures() -> dict[str, Results]:
    """The committed figures, by the name of the run. What was never measured has none."""
    return {name: _report.read(name) for name in FILES if (_report.FOLDER / f"{name}.json").exists()}


def blocks(figures: dict[str, Results]) -> dict[str, str]:
    """Everything on the page that is made from figures, by name."""
    made = blocks_of_channels(figures["channels"]) | blocks_of_redis(figures["redis"])
    return made | blocks_of_scale(figures.get("scale", {}))


def blocks_of_channels(found: Results) -> dict[str, str]:
    """The part of one file, or of a run that measured some of it."""
    made = {"channels-run": _run("channels", found, f"{found['rounds']} rounds")}
    if "fan-out" in found:
        made["fan-out"] = _fan_out(found["fan-out"])
    if "growth" in found:
        made["growth"] = _growth(found["growth"])
    if "stalled" in found:
        made["stalled"] = _stalled(found["stalled"])
    return made


def blocks_of_redis(found: Results) -> dict[str, str]:
    """The same for the other file."""
    length = f"{found['server']}, {found['rounds']} rounds of {found['seconds']:g} seconds"
    made = {"redis-run": _run("redis", found, length)}
    if "restarts" in found:
        made["restarts"] = _restarts(found["restarts"])
    if "load" in found:
        made["load"] = _load(found["load"])
        made["on-paper"] = _on_paper(found)
    return made


def blocks_of_scale(found: Results) -> dict[str, str]:
    """The same for the file of channels at scale, or for none of it."""
    command = "`python3 noxfile.py -s bench -- scale --write`"
    made = dict.fromkeys(("scale-run", "many", "busy", "storm", "slow", "outage"), "Not measured yet.")
    if not found:
        return {**made, "scale-run": f"Not measured yet: {command} does it."}
    rounds = found["rounds"]
    length = f"{found['server']}, {rounds} round{'s'[: rounds > 1]}"
    made["scale-run"] = f"{command} measured this ([`scale.json`](performance/scale.json)). " + _run(
        "scale", found, length
    )
    makers = {"many": _many, "busy": _busy, "storm": _storm, "slow": _slow, "outage": _outage}
    for name, make in makers.items():
        if name in found:
            made[name] = make(found[name])
    return made


def as_text(blocks: dict[str, str]) -> str:
    """For the terminal."""
    return "\n".join(f"{text}\n" for text in blocks.values())


def progress(what: str = "") -> None:
    """On a terminal, what is being measured, in place of what was said before."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{what}{' …' if what else ''}", end="", file=sys.stderr, flush=True)


def _run(name: str, found: Results, length: str) -> str:
    said = _report.about(found, f"{length}, {found['minutes']:g} minutes")
    return f"{said}\n\n{_report.quiet({name: found})}"


def spread(row: Row) -> str:
    """A median with what it was scattered over."""
    return f"{number(row['value'])} ({number(row['least'])} to {number(row['most'])})"


def _fan_out(columns: dict[str, dict[str, Row]]) -> str:
    names = next(iter(columns.values()))
    heads = [f"`{name}`" if name.startswith(_report.OURS) else name for name in columns]
    return _report.table(
        ["", *heads],
        [
            [
                f"**{name}**" if name == OURS else name,
                *(f"{number(rows[name]['value'])} ({rows[name]['ratio']:.2f})" for rows in columns.values()),
            ]
            for name in names
        ],
    )


def _growth(found: dict[str, dict[str, Row]]) -> str:
    return "\n\n".join(
        _report.table(
            [title, *(f"{int(count):,}" for count in rows)],
            [["µs", *(number(row["value"]) for row in rows.values())]],
        )
        for title, rows in (
            ("sockets on one channel", found["sockets"]),
            ("channels that 1,000 sockets are spread over", found["channels"]),
        )
    )


def _stalled(found: Results) -> str:
    difference, noise = found["difference"], found["noise"]
    inside = abs(difference["value"]) <= noise["most"]
    verdict = "no more than runs of the same kind" if inside else "**more than runs of the same kind**"
    others = found["sockets"] - 1
    lines = [
        f"* {found['sockets']} sockets, one of which does not read, and {found['published']:,} messages in "
        f"{found['pairs']} runs of {found['seconds']:g} seconds: the other {others} sockets received "
        f"{found['received']:,} of {found['expected']:,}.",
        f"* The latency of the other sockets, medians of the runs (least to most). p50: "
        f"{spread(found['p50']['without'])} µs without the stalled socket, {spread(found['p50']['with'])} µs "
        f"with it. p99: {spread(found['p99']['without'])} µs without it, {spread(found['p99']['with'])} µs "
        "with it.",
        f"* The p99 of two consecutive runs of the same kind differed by {spread(noise)} µs. The p99 of two "
        f"consecutive runs with and without the stalled socket differed by {spread(difference)} µs: "
        f"{verdict}.",
    ]
    for size, counted in found["memory"].items():
        (few, first), (many, last) = counted.items()
        lines.append(
            f"* After {int(few):,} messages of {int(size):,} bytes, {first['messages']} messages waited for "
            f"the stalled socket, and {first['bytes']:,} bytes of memory were freed when it left. After "
            f"{int(many):,} messages, it was {last['messages']} messages and {last['bytes']:,} bytes."
        )
    return "\n".join(lines)


# On Redis


def _restarts(found: Results) -> str:
    processes = found["processes"]
    names = {
        "acknowledged": "acknowledged",
        "received": "received, from both",
        "lost": "lost",
        "doubled": "received twice",
        "out of order": "out of order",
        "gaps": "gaps",
        "outages logged": "outages in the log",
        "recoveries logged": "recoveries in the log",
    }
    return _report.table(
        [
            f"{found['cycles']} restarts",
            *(f"process {place}" for place, _ in enumerate(processes, 1)),
        ],
        [[name, *(f"{process[key]:,}" for process in processes)] for key, name in names.items()],
    )


def _load(load: Results) -> str:
    columns = {
        "full delivered": "delivered per second",
        "full missing": "never received",
        "full broker": "broker, µs",
        "full process": "process, µs",
        "low p50": "p50, ms",
        "low p99": "p99, ms",
        "low broker": "broker at the low rate, µs",
    }
    return _report.table(
        ["processes", "", *columns.values()],
        [
            [
                processes,
                {"ours": "**channels**", "litestar": "Litestar"}[kind],
                *(
                    number(row[key]["value"]) if key == "full missing" else spread(row[key])
                    for key in columns
                ),
            ]
            for processes, kinds in load.items()
            for kind, row in kinds.items()
        ],
    )


# At scale


def _many(found: Results) -> str:
    columns = {
        "processor": "process, % of a core",
        "broker": "Redis, % of a core",
        "p50": "p50, ms",
        "p99": "p99, ms",
        "one more": "joining and leaving one more, µs",
        "joined": "joining all, s",
        "missing": "never received",
    }
    return _report.table(
        ["channels", "", *columns.values()],
        [
            [
                f"{int(count):,}",
                PEERS[kind],
                *(
                    number(rows[count][key]["value"]) if key == "missing" else spread(rows[count][key])
                    for key in columns
                ),
            ]
            for count in found["ours"]
            for kind, rows in found.items()
        ],
    )


def _busy(found: Results) -> str:
    names = {"pushed": "pushed", "XREAD BLOCK": "`XREAD BLOCK`"}
    table = _report.table(
        ["Redis, µs per message", *names.values(), "ratio"],
        [
            [
                load,
                *(spread(kinds[kind]) for kind in names),
                number(kinds["pushed"]["value"] / kinds["XREAD BLOCK"]["value"]),
            ]
            for load, kinds in found["loads"].items()
        ],
    )
    others = "Other programs ran during the measurement. They affect the times little, and the ratio less."
    return f"{table}\n\n{others if found['disturbed'] else 'No other programs ran during the measurement.'}"


def _storm(found: Results) -> str:
    runs = found["runs"]
    rows = {
        "publishes to another channel, p50, ms": "p50",
        "publishes to another channel, p99, ms": "p99",
        "publishes to another channel that failed": "errors",
        "peak memory growth, MB": "memory",
    }
    with_it = runs["with"]
    return "\n\n".join(
        [
            _report.table(
                ["", "without the storm", "with it"],
                [
                    [name, *(spread(runs[run][figure]) for run in ("without", "with"))]
                    for name, figure in rows.items()
                ],
            ),
            f"Clients were sent {with_it['received']['least']:,.0f} of "
            f"{found['sockets'] * found['missed']:,} events. The last client had all of its events "
            f"{spread(with_it['caught up'])} seconds after the storm had begun.",
        ]
    )


def _slow(found: Results) -> str:
    names = {"live": "published now", "history": "published before"}
    return _report.table(
        [
            "events",
            "link, MB/s",
            "received",
            "seconds",
            "at least needed",
            "traffic, times their size",
            "outages",
        ],
        [
            [
                f"{names[what]}: {row['expected']:,} of {row['size'] // 1000:,} kB",
                number(row["rate"] / 1e6),
                f"{row['received']:,}",
                number(row["seconds"]),
                number(row["needed"]),
                number(row["carried"]),
                f"{row['outages']:,}",
            ]
            for what, row in found.items()
        ],
    )


def _outage(found: Results) -> str:
    counts = {
        "acknowledged": "acknowledged",
        "failed": "failed",
        "lost": "lost",
        "doubled": "received twice",
        "out of order": "out of order",
    }
    times = {"p50": "p50, ms", "p99": "p99, ms", "broker": "Redis, µs"}
    rows = []
    absent = []
    for kind, row in found["peers"].items():
        if "missing" in row:
            absent.append(f"{PEERS[kind]}: {row['missing']}")
            continue
        cells = [*(f"{row[key]:,}" for key in counts), "yes" if row["raised"] else "no"]
        cells += [number(row[key]) for key in times]
        rows.append([PEERS[kind], *cells])
    said = [_report.table(["", *counts.values(), "raises", *times.values()], rows)]
    if absent:
        said.append(f"Not measured: {'; '.join(absent)}.")
    return "\n\n".join(said)


def carried(load: Results, processes: int) -> tuple[float, float]:
    """What a message costs one Redis with so many processes, in µs, and how many it carries per second.

    A straight line through the cost at the least and at the most processes that were measured.
    """
    (few, first), (many, last) = (
        (int(count), load[count]["ours"]["full broker"]["value"]) for count in (min(load), max(load))
    )
    each = max(0.0, (last - first) / (many - few))
    cost = last + each * (processes - many)
    return cost, 1e6 / cost


def _on_paper(found: Results) -> str:
    load = found["load"]
    most = int(max(load))
    cost, full = carried(load, most)
    each = carried(load, most + 1)[0] - cost
    many = carried(load, MANY)[1]
    quiet = [kinds["ours"]["low broker"]["value"] for kinds in load.values()]
    busy = [kinds["ours"]["full process"]["value"] for kinds in load.values()]
    kept = 1000 * found["event"]
    return "\n".join(
        [
            f"* Redis uses one core for commands. At {number(cost)} µs for each message, one Redis server "
            f"reaches its limit at {_rough(full)} messages per second with {most} processes. "
            + (
                f"Each further process adds {number(each)} µs per message: with {MANY} processes, the limit "
                f"is about {_rough(many)}. Plan for half of that."
                if each
                else "The cost of a further process was too small to measure. Plan for half of that."
            ),
            f"* At a low rate, messages reach Redis one at a time, and each costs it {number(min(quiet))} to "
            f"{number(max(quiet))} µs. At higher rates, several arrive together, and each costs less.",
            f"* A process reaches its limit earlier. It needs {number(min(busy))} to {number(max(busy))} µs "
            "for each message that it receives, including its share of publishing. So it can receive "
            f"{_rough(1e6 / max(busy))} to {_rough(1e6 / min(busy))} messages per second, and fewer if it "
            "sends them to sockets. More processes help if they read different channels.",
            f"* An event of 200 bytes takes {number(found['event'])} bytes of memory. With the default "
            f"`history` of 1,000, a busy channel takes {number(kept / 1e6)} MB, and 1,000 of them "
            f"{number(kept / 1e6)} GB.",
        ]
    )


def _rough(value: float) -> str:
    """Two digits: it is an estimate."""
    return f"{float(f'{value:.2g}'):,.0f}"


if __name__ == "__main__":
    write()
