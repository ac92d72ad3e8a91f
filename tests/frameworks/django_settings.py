"""The settings of the page, with a database for a test."""

import os

from docs_src.guides.django.settings import *  # noqa: F403

DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["DJANGO_TEST_DATABASE"]}}
