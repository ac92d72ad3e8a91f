"""For authors of backends for channels: the interface, and the values it works with."""

from ._backend import Backend, History, Id, Status, Wishes, presence_event, presence_of

__all__ = ["Backend", "History", "Id", "Status", "Wishes", "presence_event", "presence_of"]
