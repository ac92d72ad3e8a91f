"""Servers to measure, one tiny file each. All of them answer at these paths:

/echo      every message is sent back
/join      the connection is of the group; what it sends is not answered
/publish   every message is sent to the group, one connection after the other
/flood     512 messages of 64 KiB are sent, as fast as they are taken

The apps of frameworks (`starlette.py`, …) have `/echo` only: they are about what a framework costs.
"""
