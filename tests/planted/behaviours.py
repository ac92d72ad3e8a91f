"""Changes of behaviour of the WebSocket class that a reader of the pages would notice, one at a time.

Written from the source, before anybody looked which of them the pages hold. `__main__.py` counts how many
`pytest docs` notices.
"""

# ruff: noqa: E501 - what is planted are lines of the source

from __future__ import annotations

from tests.planted.planting import Fault, change

SOURCE = "packages/lilya-websockets/src/lilya/websockets/"
WEBSOCKET = SOURCE + "_websocket.py"
BLOCK = SOURCE + "_conversation.py"
INBOX = SOURCE + "_inbox.py"
MESSAGES = SOURCE + "_messages.py"
VALUES = SOURCE + "datastructures.py"
STATE = SOURCE + "_state.py"
OPTIONS = SOURCE + "_options.py"
READER = SOURCE + "_reader.py"
SCOPE = SOURCE + "_connection.py"


def behaviour(name: str, file: str, old: str, new: str) -> Fault:
    """One change."""
    return Fault(name, (change(file, old, new),))


BEHAVIOURS = [
    # What a request says
    behaviour(
        "a query parameter has its last value",
        VALUES,
        "        super().__init__(MultiDict(pairs))\n",
        "        super().__init__(MultiDict(pairs))\n\n    def __getitem__(self, name):\n"
        "        return self.getall(name)[-1]\n",
    ),
    behaviour(
        "getlist has the first value only",
        VALUES,
        "return list(self.getall(name, []))",
        "return list(self.getall(name, []))[:1]",
    ),
    behaviour(
        "a header is found by its exact name only",
        VALUES,
        'return name.encode("latin-1").lower()',
        'return name.encode("latin-1")',
    ),
    behaviour(
        "a blank query parameter is dropped",
        VALUES,
        'for name, _, value in [field.partition("=") for field in text.split("&") if field]\n        ]',
        'for name, _, value in [field.partition("=") for field in text.split("&") if field]\n'
        "            if value\n        ]",
    ),
    behaviour(
        "of two cookies of one name the first counts",
        VALUES,
        "        cookies[name] = value\n",
        "        cookies.setdefault(name, value)\n",
    ),
    behaviour(
        "the URL has no query",
        VALUES,
        'rest = f"{path}?{_quoted_query(query)}" if query else path',
        "rest = path",
    ),
    behaviour(
        "parts of a URL are replaced by keyword in a plain str",
        VALUES,
        "return type(self)(urlunsplit(components))",
        "return urlunsplit(components)",
    ),
    # Accepting and denying
    behaviour(
        "any subprotocol is accepted",
        WEBSOCKET,
        "        if subprotocol is not None:\n            subprotocol = self._checked_subprotocol(subprotocol)\n"
        "        if self._client_state",
        "        if self._client_state",
    ),
    behaviour(
        "the client's order of subprotocols counts",
        WEBSOCKET,
        "            if selected is None and preference in offered:\n                selected = preference\n",
        "            if preference in offered and (\n"
        "                selected is None or offered.index(preference) < offered.index(selected)\n"
        "            ):\n                selected = preference\n",
    ),
    behaviour(
        "close before accept is an error",
        STATE,
        '        "websocket.close": DISCONNECTED,\n        "http.response.start": RESPONSE,',
        '        "http.response.start": RESPONSE,',
    ),
    behaviour(
        "a denial without the extension closes silently",
        WEBSOCKET,
        '        self._after("http.response.start")\n        # A response may read',
        '        if DENIAL not in (self.scope.get("extensions") or ()):\n            await self.close()\n'
        "            return\n"
        '        self._after("http.response.start")\n        # A response may read',
    ),
    behaviour(
        "deny without the extension is an error",
        WEBSOCKET,
        "            await self.close()\n            return\n        self._after(",
        "            self._after('http.response.start')\n        self._after(",
    ),
    # Receiving
    behaviour(
        "receive_text decodes a binary message",
        WEBSOCKET,
        '        raise WebSocketDataError(message, f"expected {_EXPECTED[key]}, got {describe(message)}")\n\n'
        "    async def _send_otherwise",
        "        other = message.get('bytes' if key == 'text' else 'text')\n"
        "        return other.decode() if key == 'text' else other.encode()\n\n    async def _send_otherwise",
    ),
    behaviour(
        "JSON that is none raises its own error",
        WEBSOCKET,
        "        except (ValueError, RecursionError) as error:\n            problem",
        "        except RecursionError as error:\n            problem",
    ),
    behaviour(
        "NaN is taken for JSON",
        MESSAGES,
        '    raise ValueError(f"{name} is not JSON")',
        "    return float('nan')",
    ),
    behaviour(
        "an unknown mode of JSON is text",
        WEBSOCKET,
        "    raise WebSocketRuntimeError(f\"the mode must be 'text' or 'binary', got {mode!r}\")",
        "    return False",
    ),
    behaviour(
        "an iteration raises at its end",
        WEBSOCKET,
        "        except WebSocketDisconnect:\n            raise StopAsyncIteration from None",
        "        except StopAsyncIteration:\n            raise",
    ),
    behaviour(
        "a receive after the time limit loses the connection",
        BLOCK,
        '    raise TimeoutError(f"{call.__name__} took longer than {seconds:g} seconds")',
        "    raise WebSocketDisconnect(1006)",
    ),
    behaviour(
        "a receive before accept is the client's leaving",
        WEBSOCKET,
        "        if self._application_state is not CONNECTED:\n            raise WebSocketRuntimeError(",
        "        if self._application_state is not CONNECTED:\n            raise WebSocketDisconnect(1006)\n"
        "            raise WebSocketRuntimeError(",
    ),
    # Sending
    behaviour(
        "JSON has blanks after colons and commas",
        MESSAGES,
        'encode_basestring, None, ":", ",",',
        'encode_basestring, None, ": ", ", ",',
    ),
    behaviour(
        "send_text takes anything",
        WEBSOCKET,
        '            raise TypeError(f"text must be str, got {describe_argument(data)}") from None',
        "            data = str(data)",
    ),
    behaviour(
        "a send after the client has left is silent",
        WEBSOCKET,
        '        await self._deliver(message, self._after("websocket.send"))',
        "        if self._client_state is not DISCONNECTED:\n"
        '            await self._deliver(message, self._after("websocket.send"))',
    ),
    # The end
    behaviour(
        "a second close is silent",
        WEBSOCKET,
        "            if left and self._ended not in (_BY_APP, _BY_RESPONSE):\n"
        "                self._move(DISCONNECTED, DISCONNECTED)\n                return\n"
        '            self._after("websocket.close")',
        "            if left:\n"
        "                self._move(DISCONNECTED, DISCONNECTED)\n                return\n"
        '            self._after("websocket.close")',
    ),
    behaviour(
        "a reason may be as long as it likes",
        MESSAGES,
        "    if size > _REASON_LIMIT:",
        "    if size > 10 * _REASON_LIMIT:",
    ),
    behaviour(
        "the client's close counts as the server's",
        WEBSOCKET,
        'return None if self._ended is None else _CLOSED_BY.get(self._ended, "server")',
        'return None if self._ended is None else "server"',
    ),
    behaviour(
        "cleanups run in the other order",
        WEBSOCKET,
        "for callback in callbacks or ():",
        "for callback in (callbacks or [])[::-1]:",
    ),
    behaviour(
        "asynchronous cleanups are not awaited",
        WEBSOCKET,
        "                if isawaitable(result):\n                    await result\n",
        "                if isawaitable(result):\n                    result.close()\n",
    ),
    # A block
    behaviour(
        "a block that raises closes with 1000",
        BLOCK,
        "        if close is None:\n            await self._close_with(1011)",
        "        if close is None:\n            await self._close_with(1000)",
    ),
    behaviour(
        "a block that is cancelled closes with 1001",
        BLOCK,
        "await self._close_with(1012 if is_stop(failure, self._server[1]) else 1011)",
        "await self._close_with(1012 if is_stop(failure, self._server[1]) else 1001)",
    ),
    behaviour(
        "the buffer holds twice as much",
        INBOX,
        "len(self.items) >= limits.messages or self._held >= limits.bytes",
        "len(self.items) >= 2 * limits.messages or self._held >= 2 * limits.bytes",
    ),
]
"""The list that is counted."""

MORE_BEHAVIOURS = [
    behaviour(
        "a plus in a query is a plus",
        VALUES,
        'data = data.replace(b"+", b" ")',
        'data = data.replace(b"+", b"+")',
    ),
    behaviour(
        "a header has its last value",
        VALUES,
        "        for key, text in self._pairs:\n            if len(key) == size and key.lower() == wanted:\n",
        "        for key, text in reversed(self._pairs):\n"
        "            if len(key) == size and key.lower() == wanted:\n",
    ),
    behaviour(
        "a cookie is not unescaped",
        VALUES,
        '        if "%" in value:\n            value = _percent',
        '        if "%%" in value:\n            value = _percent',
    ),
    behaviour(
        "the Host header is ignored",
        VALUES,
        "            if authority is not None:\n                return authority\n",
        "            if authority is None:\n                return authority\n",
    ),
    behaviour(
        "is_secure is always true",
        SCOPE,
        'return self.scope.get("scheme") in ("wss", "https")',
        'return self.scope.get("scheme") in ("wss", "https", "ws")',
    ),
    behaviour(
        "the state is a copy",
        SCOPE,
        "            self._state = State(state)\n",
        "            self._state = State(dict(state))\n",
    ),
    behaviour(
        "a password is shown",
        VALUES,
        'self.replace(password="********") if self.password else self',
        "self",
    ),
    behaviour(
        "accepting twice is silent",
        WEBSOCKET,
        '        else:\n            self._after("websocket.accept")\n        self._application_state = CONNECTED',
        "        elif self._application_state is CONNECTED:\n            return\n"
        '        else:\n            self._after("websocket.accept")\n        self._application_state = CONNECTED',
    ),
    behaviour(
        "the accepted subprotocol is not kept",
        WEBSOCKET,
        "        if subprotocol is not None:\n            self.accepted_subprotocol = subprotocol\n",
        "",
    ),
    behaviour(
        "a denial has no content type",
        WEBSOCKET,
        'if isinstance(content, str) and content and b"content-type" not in names:',
        "if False:",
    ),
    behaviour(
        "receive_json reads both kinds",
        WEBSOCKET,
        '        return self._decode(await self.receive_text(), "text")',
        "        message = await self.receive()\n"
        '        if message["type"] == "websocket.disconnect":\n            raise self._disconnect()\n'
        '        return self._decode(message.get("text") or message["bytes"], "text")',
    ),
    behaviour(
        "two tasks may receive",
        WEBSOCKET,
        '        if self._receiving:\n            raise self._refused_receive("receive text")\n',
        "",
    ),
    behaviour(
        "a client's close without a code is 1000",
        WEBSOCKET,
        "            code = 1005  # RFC 6455",
        "            code = 1000  # RFC 6455",
    ),
    behaviour(
        "non-ASCII is escaped in JSON",
        MESSAGES,
        "    parts_of = make_encoder(None, _encoder.default, encode_basestring,",
        "    parts_of = make_encoder(None, _encoder.default, json.encoder.encode_basestring_ascii,",
    ),
    behaviour(
        "NaN is sent as JSON",
        MESSAGES,
        '":", ",", False, False, False)',
        '":", ",", False, False, True)',
    ),
    behaviour(
        "send_bytes encodes a text",
        MESSAGES,
        "    if type(data) is bytes:\n        return data\n    try:",
        "    if type(data) is bytes:\n        return data\n    if isinstance(data, str):\n"
        "        return data.encode()\n    try:",
    ),
    behaviour(
        "a raw message may carry both payloads",
        MESSAGES,
        "    if (text is None) is (data is None):",
        "    if text is None and data is None:",
    ),
    behaviour(
        "a code that must not be sent is sent",
        MESSAGES,
        "frozenset({*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)})",
        "frozenset({*range(1000, 1016), *range(3000, 5000)})",
    ),
    behaviour(
        "codes from 3000 are refused",
        MESSAGES,
        "*range(3000, 5000)})",
        "*range(4000, 5000)})",
    ),
    behaviour(
        "a close after the client has left raises",
        WEBSOCKET,
        "            if left and self._ended not in (_BY_APP, _BY_RESPONSE):\n",
        "            if False:\n",
    ),
    behaviour(
        "the first cleanup that raises is the last",
        WEBSOCKET,
        "                # The first is raised, but what is more",
        "                if failure is None:\n                    raise\n"
        "                # The first is raised, but what is more",
    ),
    behaviour(
        "a cleanup is taken after the end",
        WEBSOCKET,
        '            raise self._closed("add a cleanup")',
        "            return",
    ),
    behaviour(
        "a block that is left closes with 1001",
        BLOCK,
        "                await self._close_with(1000)\n",
        "                await self._close_with(1001)\n",
    ),
    behaviour(
        "an exception of a framework closes with 1011",
        BLOCK,
        "        close = close_of(failure)\n        if close is None:",
        "        close = None\n        if close is None:",
    ),
    behaviour(
        "a message that is too big closes with 1008",
        INBOX,
        'Breach(1009, "message too big"',
        'Breach(1008, "message too big"',
    ),
    behaviour(
        "too many messages close with 1013",
        INBOX,
        "                return Breach(\n                    1008,",
        "                return Breach(\n                    1013,",
    ),
    behaviour(
        "the rate has no first burst",
        INBOX,
        "self._tokens = 0.0 if limits.rate is None else max(limits.rate, 1.0)",
        "self._tokens = 1.0",
    ),
    behaviour(
        "a buffer of none reads nothing",
        INBOX,
        "(len(self.items) >= limits.messages or self._held >= limits.bytes) and limits.messages > 0",
        "len(self.items) >= limits.messages or self._held >= limits.bytes",
    ),
    behaviour(
        "the end cancels nothing",
        BLOCK,
        "        if self._body is not None and not self._websocket._ended_by_app:\n            self._body.cancel()\n",
        "",
    ),
    behaviour(
        "the client's leaving raises out of a block",
        BLOCK,
        "            failure = await self._close(self._without_the_end(failure))",
        "            failure = await self._close(failure)",
    ),
]
"""As many again, for whoever mends the pages with the first list at hand."""
