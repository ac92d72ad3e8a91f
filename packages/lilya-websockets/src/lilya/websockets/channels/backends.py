"""For who writes a backend of channels: the interface, and the values that go through it."""

from ._backend import Backend, History, Id, Status, Wishes, presence_event, presence_of

__all__ = ["Backend", "History", "Id", "Status", "Wishes", "presence_event", "presence_of"]
