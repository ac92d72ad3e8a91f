"""Doctest for WebSockets: what a page shows is run, and what it shows is compared.

The parts that a project touches:

- `ws_doctest.plugin`: the gate, a plugin of pytest, on when ``ws_doctest_pages`` is configured;
- `ws_doctest.transcript`: the grammar of transcripts;
- `ws_doctest.markdown`: the include directive, an extension of Python-Markdown;
- `ws_doctest.site`: the comparison of the built site with what was executed;
- `ws_doctest.buttons`: the buttons that run examples in the reader's browser;
- `ws_doctest.serve`: the site and the examples live, on one port;
- ``python -m ws_doctest``: the command line.

What ``__all__`` names, here and in these modules, is public. Modules that start with an underscore are not.
"""

from ws_doctest.transcript import Transcript, TranscriptError, parse

__all__ = ["Transcript", "TranscriptError", "parse"]

__version__ = "0.1.0"
