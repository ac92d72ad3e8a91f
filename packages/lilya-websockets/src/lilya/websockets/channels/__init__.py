"""Channels: publish to any number of sockets, in one process or in many."""

from ._backend import (
    BrokerError,
    ChannelsError,
    Event,
    Gap,
    Member,
)
from ._channels import Channels
from ._membership import Membership
from ._outbox import Dropped, OutboxFull, Presence
from ._publisher import Publisher
from ._serve import Grant, serve
from ._serve_messages import SUBPROTOCOL, Refused
from ._subscription import Subscription

__all__ = [
    "SUBPROTOCOL",
    "BrokerError",
    "Channels",
    "ChannelsError",
    "Dropped",
    "Event",
    "Gap",
    "Grant",
    "Member",
    "Membership",
    "OutboxFull",
    "Presence",
    "Publisher",
    "Refused",
    "Subscription",
    "serve",
]
