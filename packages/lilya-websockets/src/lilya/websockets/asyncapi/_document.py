"""Makes the document: channels, messages, operations, security.

The document describes the app, so "receive" is what its clients send. Each `WebSocket[In, Out]` is a channel:
`In` is what the app receives there, and `Out` is what it sends. A message with a `CallId` is a request if a
message of the other direction has a `ReplyTo`. Requests have an operation of their own, with the reply.
"""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any, Final
from urllib.parse import urlsplit

from ..typed._kinds import (
    CALL_ID,
    REPLY_TO,
    Library,
    discriminator_of,
    is_model,
    is_object,
    marked_fields,
    members_of,
    name_in_message,
    name_of,
    unwrapped,
)
from ..typed._typed import Typed
from ._handlers import Conversation, Parameter, Scheme
from ._schemas import Asked, Schema, component_of, schemas_of

__all__ = ["Channel", "Message", "channels_of", "document_of", "server_of"]

_PROTOCOLS: Final = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}


class Message:
    """A message of a channel.

    Args:
        type_: The member of `In` or `Out`.
        typed: The types of the channel.
        is_sent: Whether the app sends it.
        required: See `Asked`.
    """

    def __init__(self, type_: Any, typed: Typed, is_sent: bool, required: str | None) -> None:
        self.type = type_
        self.is_sent = is_sent
        self.library: Library = typed.libraries[is_sent]
        self.codec = typed.codec
        self.asked = Asked(type_, self.library, is_sent, required)
        self.id = self._marked(CALL_ID)
        self.reply_to = self._marked(REPLY_TO)
        # Without the modules, which are nobody's business.
        self.name = (
            "null" if type_ is type(None) else re.sub(r"(?:[\w<>]+\.)+", "", name_of(unwrapped(type_)))
        )
        self.key = ""
        self.schema: Schema = {}
        self.examples: list[Any] = []

    def _marked(self, mark: Any) -> str | None:
        """The name in messages of the field that is marked."""
        fields = list(marked_fields(self.type, mark).values())
        return name_in_message(unwrapped(self.type), fields[0], is_sent=self.is_sent) if fields else None

    @cached_property
    def typed(self) -> Typed:
        """What decodes messages of this type alone."""
        return Typed(self.type, self.type, self.codec, self.library)

    def object(self, summary: str) -> dict[str, Any]:
        """The message in the document."""
        identified = self.id or self.reply_to
        return _without_nothing(
            {
                "name": self.name,
                "summary": summary,
                "contentType": self.codec.content_type,
                "payload": self.schema,
                "correlationId": identified and {"location": f"$message.payload#/{_escaped(identified)}"},
                "examples": [{"payload": value} for value in self.examples],
                # AsyncAPI has no word for it, and the page has to know.
                "x-websocket-binary": self.codec.binary,
            }
        )


@dataclasses.dataclass
class Channel:
    """A channel, and the messages of both directions."""

    key: str
    conversation: Conversation
    received: list[Message]
    sent: list[Message]
    query: list[Schema] = dataclasses.field(default_factory=list)
    headers: list[Schema] = dataclasses.field(default_factory=list)

    @cached_property
    def matches(self) -> Any:
        """Says whether a path leads to this channel."""
        parts = re.split(r"\{(\w+)\}", self.conversation.address)
        parameters = self.conversation.parameters
        pattern = "".join(
            (".+" if "slashes" in parameters[part].get("description", "") else "[^/]+")
            if number % 2
            else re.escape(part)
            for number, part in enumerate(parts)
        )
        return re.compile(pattern).fullmatch


def channels_of(conversations: Iterable[Conversation]) -> tuple[list[Channel], dict[str, Schema]]:
    """The channels, and the schemas that they refer to, by name.

    Raises:
        TypeError: A type has no JSON Schema.
    """
    channels: list[Channel] = []
    keys: set[str] = set()
    for conversation in conversations:
        typed = conversation.typed
        key = _unlike(_key(conversation.address) or "root", keys)
        keys.add(key)
        received = [] if typed is None else list(_messages(typed, is_sent=False))
        sent = [] if typed is None else list(_messages(typed, is_sent=True))
        channels.append(Channel(key, conversation, received, sent))
    waiting = [message for channel in channels for message in (*channel.received, *channel.sent)]
    fields = [
        (found, field)
        for channel in channels
        for found, listed in (
            (channel.query, channel.conversation.query),
            (channel.headers, channel.conversation.headers),
        )
        for field in listed
    ]
    asked = [
        *(message.asked for message in waiting),
        *(Asked(field.type, field.library, False) for _, field in fields),
    ]
    schemas, components = schemas_of(asked)
    for message, schema in zip(waiting, schemas, strict=False):
        message.schema = schema
    for (found, _), schema in zip(fields, schemas[len(waiting) :], strict=True):
        found.append(schema)
    for channel in channels:
        _name(channel)
    return channels, components


def _messages(typed: Typed, *, is_sent: bool) -> Iterator[Message]:
    """The messages of one direction; none if nothing is known of them."""
    type_ = typed.sent if is_sent else typed.received
    members = [member for member in members_of(type_) if unwrapped(member) is not Any]
    models = [unwrapped(member) for member in members if is_object(unwrapped(member))]
    told = discriminator_of(models) if len(models) > 1 and all(map(is_model, models)) else None
    for member in members:
        model = unwrapped(member)
        required = (
            name_in_message(model, told[0], is_sent=is_sent) if told is not None and model in models else None
        )
        yield Message(member, typed, is_sent, required)


def _name(channel: Channel) -> None:
    """Name the messages of a channel. The same one in both directions has one name."""
    named: dict[str, Message] = {}
    for message in (*channel.received, *channel.sent):
        name = component_of(message.schema) or _key(message.name) or "message"
        before = named.get(name)
        if before is not None and (before.schema, before.id, before.reply_to) == (
            message.schema,
            message.id,
            message.reply_to,
        ):
            message.examples = before.examples
        else:
            name = _unlike(name, named)
            named[name] = message
        message.key = name


def document_of(
    channels: list[Channel], components: dict[str, Schema], info: dict[str, Any], servers: dict[str, Any]
) -> dict[str, Any]:
    """The document."""
    schemes = _SecuritySchemes()
    operations: dict[str, Any] = {}
    for channel in channels:
        operations |= _operations(channel, schemes.of(channel.conversation))
    return _without_nothing(
        {
            "asyncapi": "3.0.0",
            "info": info,
            "servers": servers,
            "channels": {channel.key: _channel(channel, components) for channel in channels},
            "operations": operations,
            "components": _without_nothing(
                {"schemas": components, "securitySchemes": dict(sorted(schemes.found.items()))}
            ),
        }
    )


def _channel(channel: Channel, components: dict[str, Schema]) -> dict[str, Any]:
    conversation = channel.conversation
    messages: dict[str, Any] = {}
    for message in (*channel.received, *channel.sent):
        schema = components.get(component_of(message.schema) or "", message.schema)
        described = schema.get("description", "") if isinstance(schema, dict) else ""
        messages.setdefault(message.key, message.object(described.partition("\n")[0]))
    binding = _without_nothing(
        {
            "query": _parameters(conversation.query, channel.query, components),
            "headers": _with_cookies(
                _parameters(conversation.headers, channel.headers, components), conversation.cookies
            ),
        }
    )
    return _without_nothing(
        {
            "address": conversation.address,
            "title": conversation.title,
            "description": conversation.description,
            "tags": _tags(conversation),
            "parameters": conversation.parameters,
            "bindings": binding and {"ws": {"method": "GET", **binding, "bindingVersion": "0.1.0"}},
            "messages": messages,
        }
    )


def _parameters(fields: list[Parameter], schemas: list[Schema], components: dict[str, Schema]) -> Schema:
    """The parameters in the query, or in the headers, as an object."""
    if not fields:
        return None
    if len(fields) == 1 and is_model(model := unwrapped(fields[0].type)):  # FastAPI's models of parameters
        (schema,) = schemas
        if fields[0].reads_as_header:
            return _as_headers(components.get(component_of(schema) or "", schema), model)
        return schema
    names = [field.name for field in fields]
    required = [field.name for field in fields if field.required]
    return {
        "type": "object",
        "properties": dict(zip(names, schemas, strict=True)),
        **({"required": required} if required else {}),
    }


def _with_cookies(headers: Schema, cookies: list[Parameter]) -> Schema:
    """The headers, and the one that has the cookies: AsyncAPI has no other place for them."""
    if not cookies:
        return headers
    named = [
        f"`{each.name}`{' (required)' if each.required else ''}"
        + (f": {each.description}" if each.description else "")
        for each in cookies
    ]
    made = headers or {"type": "object"}
    cookie = {"type": "string", "description": f"Cookies: {'; '.join(named)}"}
    made = {**made, "properties": {**made.get("properties", {}), "Cookie": cookie}}
    if any(each.required for each in cookies):
        made["required"] = [*made.get("required", ()), "Cookie"]
    return made


def _as_headers(schema: Schema, model: Any) -> Schema:
    """The schema of a model of headers: FastAPI reads `x-token` for a field `x_token` without an alias."""
    names = {name: name.replace("_", "-") for name, each in model.model_fields.items() if each.alias is None}
    made = {**schema, "properties": {names.get(key, key): each for key, each in schema["properties"].items()}}
    if "required" in schema:
        made["required"] = [names.get(name, name) for name in schema["required"]]
    return made


def _tags(conversation: Conversation) -> list[dict[str, str]]:
    tags = [{"name": tag} for tag in conversation.tags]
    if conversation.deprecated is not None:
        # AsyncAPI has the word for schemas only.
        tags.append(_without_nothing({"name": "deprecated", "description": conversation.deprecated}))
    return tags


def _operations(channel: Channel, security: list[dict[str, Any]]) -> dict[str, Any]:
    """What the app does in a channel: it receives and sends, answers requests, and makes them."""
    here = {"$ref": f"#/channels/{channel.key}"}
    conversation = channel.conversation

    def operation(action: str, messages: list[Message], replies: list[Message] | None = None) -> Any:
        return _without_nothing(
            {
                "action": action,
                "channel": here,
                "tags": _tags(conversation),
                "security": security,
                "messages": references(messages),
                "reply": replies and {"channel": here, "messages": references(replies)},
            }
        )

    def references(messages: list[Message]) -> list[dict[str, str]]:
        keys = dict.fromkeys(message.key for message in messages)
        return [{"$ref": f"{here['$ref']}/messages/{key}"} for key in keys]

    if conversation.typed is None:  # nothing is known of the messages
        return {
            f"receive_{channel.key}": operation("receive", []),
            f"send_{channel.key}": operation("send", []),
        }
    asked = [message for message in channel.received if message.id]
    answers = [message for message in channel.sent if message.reply_to]
    calls = [message for message in channel.sent if message.id]
    returns = [message for message in channel.received if message.reply_to]
    if not (asked and answers):
        asked, answers = [], []
    if not (calls and returns):
        calls, returns = [], []
    received = [message for message in channel.received if message not in (*asked, *returns)]
    sent = [message for message in channel.sent if message not in (*calls, *answers)]
    made = {}
    if received:
        made[f"receive_{channel.key}"] = operation("receive", received)
    if asked:
        made[f"answer_{channel.key}"] = operation("receive", asked, answers)
    if sent:
        made[f"send_{channel.key}"] = operation("send", sent)
    if calls:
        made[f"call_{channel.key}"] = operation("send", calls, returns)
    return made


class _SecuritySchemes:
    """The security schemes of an app, in the words of AsyncAPI."""

    def __init__(self) -> None:
        self.found: dict[str, Any] = {}

    def of(self, conversation: Conversation) -> list[dict[str, Any]]:
        """What the operations of a conversation say: alternatives."""
        return [self._together([self._one(each) for each in needed]) for needed in conversation.security]

    def _one(self, scheme: Scheme) -> tuple[str, dict[str, Any]]:
        """Its name, and what refers to it; the scopes that are needed are in the scheme there."""
        described = _scheme(scheme.described)
        name = re.sub(r"[^\w.-]", "_", scheme.name)
        if self.found.setdefault(name, described) != described:
            name = _unlike(name, self.found)
            self.found[name] = described
        if scheme.scopes and described["type"] in ("oauth2", "openIdConnect"):
            return name, {**described, "scopes": list(scheme.scopes)}
        return name, {"$ref": f"#/components/securitySchemes/{name}"}

    def _together(self, needed: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
        """Schemes that are all needed. AsyncAPI has no word for that: the first one names the others."""
        (name, entry), *others = needed
        if not others:
            return entry
        described = {**self.found[name], **({} if "$ref" in entry else entry)}
        together = f"Required together with {' and '.join(other for other, _ in others)}."
        description = " ".join(filter(None, (described.get("description"), together)))
        return {**described, "description": description, "x-required-with": [each for _, each in others]}


def _scheme(described: dict[str, Any]) -> dict[str, Any]:
    """A security scheme of OpenAPI as one of AsyncAPI."""
    scheme = copy.deepcopy(described)
    if scheme["type"] == "apiKey":
        scheme["type"] = "httpApiKey"
    for flow in scheme.get("flows", {}).values():
        flow["availableScopes"] = flow.pop("scopes", {})
    return scheme


def server_of(url: Any, description: str = "") -> dict[str, Any]:
    """A server in the document.

    Raises:
        TypeError: It is no text.
        ValueError: It is no address of a server.
    """
    if not isinstance(url, str):
        raise TypeError(f"a server must be an address such as 'wss://example.com/api', got {url!r}")
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  # raises if the port is invalid
    except ValueError:
        parts = urlsplit("")
    host = parts.netloc.rpartition("@")[2]
    if parts.scheme not in _PROTOCOLS or not host:
        raise ValueError(f"a server must be an address such as 'wss://example.com/api', got {url!r}")
    return _without_nothing(
        {
            "host": host,
            "protocol": _PROTOCOLS[parts.scheme],
            "pathname": parts.path.rstrip("/"),
            "description": description,
        }
    )


def _key(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]+", "_", name).strip("_")


def _unlike(name: str, taken: Any) -> str:
    """A name that is not taken."""
    number = 1
    found = name
    while found in taken:
        number += 1
        found = f"{name}_{number}"
    return found


def _escaped(name: str) -> str:
    """A name in a JSON pointer."""
    return name.replace("~", "~0").replace("/", "~1")


def _without_nothing(found: dict[str, Any]) -> dict[str, Any]:
    """What there is to say. A schema is left alone: one of a payload that may be anything is empty."""
    return {key: value for key, value in found.items() if value or key == "payload"}
