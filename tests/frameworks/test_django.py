"""The page *Django* with a database: who is signed in by Django's own cookie gets in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("django", reason="they have an environment of their own: nox -s tests")

ROOT = Path(__file__).parents[2]

# Django is set up once in a process, so this is one of its own.
SCRIPT = """
import logging

import django

django.setup()
from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connections
from django.test import Client

from docs_src.guides.django.access import app
from lilya.websockets.testing import TestClient, WebSocketDenialResponse

call_command("migrate", verbosity=0)


def signed_in(name, **fields):
    client = Client()
    client.force_login(User.objects.create_user(name, password="p", **fields))
    return {"cookie": f"{settings.SESSION_COOKIE_NAME}={client.cookies[settings.SESSION_COOKIE_NAME].value}"}


def seen(headers):
    try:
        with TestClient(app).websocket_connect("/", headers=headers) as session:
            return session.receive_text()
    except WebSocketDenialResponse as refused:
        return refused.status_code


print(seen(signed_in("ann", is_staff=True)))
print(seen(signed_in("bob")))
print(seen({"cookie": f"{settings.SESSION_COOKIE_NAME}=nobody"}))
print(seen({}))
connections.close_all()
"""


def test_the_user_of_djangos_session(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT],
        cwd=ROOT,
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.frameworks.django_settings",
            "DJANGO_TEST_DATABASE": str(tmp_path / "db.sqlite3"),
            "PYTHONPATH": str(ROOT),
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout.splitlines(), done.stderr) == (["Hello, ann.", "403", "401", "401"], "")
