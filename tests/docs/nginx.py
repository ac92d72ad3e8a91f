"""A real nginx that runs the configuration shown on the page *Deploying*, on a free port of loopback.

    with nginx(tmp_path, [port]) as address: ...

The page's own text is run. Only what a test must choose is replaced: ports, paths, and what the caller names.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.docs.browser import LIMIT, wait_for
from tests.lilya_websockets.redis_server import free_port

__all__ = ["needs_nginx", "nginx", "shown_configuration"]

PAGE = Path(__file__).parents[2] / "docs" / "guides" / "deploying.md"
# Debian has it where only root's PATH looks.
BINARY = shutil.which("nginx", path=os.pathsep.join([*os.get_exec_path(), "/usr/sbin", "/usr/local/sbin"]))

needs_nginx = pytest.mark.skipif(
    BINARY is None, reason="nginx is not installed: the page's configuration cannot be run"
)


def shown_configuration() -> str:
    """The configuration on the page, as it is."""
    text: str
    (text,) = re.findall(r"^```nginx\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return text


def configured(
    folder: Path, port: int, upstreams: Sequence[int], replaced: Mapping[str, str], locations: str
) -> str:
    """A whole configuration file around the page's text.

    Raises:
        ValueError: The page no longer contains a text that is to be replaced.
    """
    text = shown_configuration()
    for old, new in {
        **replaced,
        "listen 8000": f"listen 127.0.0.1:{port}",
        "127.0.0.1:8001": f"127.0.0.1:{upstreams[0]}",
        "127.0.0.1:8002": f"127.0.0.1:{upstreams[-1]}",
        "    location / {": f"{locations}\n    location / {{",
    }.items():
        if old not in text:
            raise ValueError(f"{PAGE.name}: the configuration for nginx does not contain {old!r}")
        text = text.replace(old, new)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    return "\n".join(
        [
            # Root's nginx would serve as another user, who must not read the folders of pytest.
            "user root;" if hasattr(os, "geteuid") and os.geteuid() == 0 else "",
            "daemon off;",
            "worker_processes 1;",
            f"pid {folder}/pid;",
            "events { worker_connections 256; }",
            "http {",
            "access_log off;",
            *(f"{kind}_temp_path {folder}/{kind};" for kind in kinds),
            f"{text}}}\n",
        ]
    )


@contextlib.contextmanager
def nginx(
    folder: Path,
    upstreams: Sequence[int],
    *,
    replaced: Mapping[str, str] | None = None,
    locations: str = "",
) -> Iterator[int]:
    """Run nginx with the page's configuration, and stop it in the end.

    Args:
        folder: For its files; a test's `tmp_path`.
        upstreams: The ports of one or two servers on 127.0.0.1.
        replaced: Texts of the page's configuration, and what takes their places. Each must be there.
        locations: More `location` blocks, put before the page's own.

    Yields:
        The port of 127.0.0.1 on which it listens; it does so already.
    """
    assert BINARY is not None, "mark the test with `needs_nginx`"
    port = free_port()
    file, log = folder / "nginx.conf", folder / "nginx.log"
    file.write_text(configured(folder, port, upstreams, replaced or {}, locations))
    process = subprocess.Popen([BINARY, "-p", str(folder), "-c", str(file), "-e", str(log)])

    def listens() -> bool:
        assert process.poll() is None, f"nginx has ended:\n{log.read_text()}"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return True
        return False

    try:
        wait_for(listens)
        yield port
    finally:
        process.terminate()
        process.wait(LIMIT)
