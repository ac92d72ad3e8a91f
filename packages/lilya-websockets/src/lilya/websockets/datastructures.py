"""Values: what a scope says, in types that are pleasant to read.

All of it is input from outside. So the rules of this file: nothing here raises because of what a client sent,
and everything is done in time linear in the size of the input.
"""

from __future__ import annotations

import re
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, Sequence, ValuesView
from functools import lru_cache
from ipaddress import IPv6Address
from typing import TYPE_CHECKING, Any, Final, NamedTuple, SupportsIndex, overload
from urllib.parse import SplitResult, quote, urlencode, urlsplit, urlunsplit

from multidict import CIMultiDict, MultiDict, MultiDictProxy, MultiMapping

from .types import Scope

__all__ = ["URL", "Address", "Header", "QueryParam", "State", "parse_cookies"]


class Address(NamedTuple):
    """One end of the connection."""

    host: str
    """A host name, an IP address, or the path of a Unix socket."""
    port: int | None
    """0 to 65535; `None` for a Unix socket."""

    @classmethod
    def of(cls, value: Iterable[Any] | None) -> Address | None:
        """An address as a scope has it: a pair, or a longer tuple, as Python has for IPv6."""
        return cls(*(*value, None, None)[:2]) if value else None


class State:
    """Attribute access to a dictionary, which it shares and does not copy.

    Args:
        state: The dictionary to read and write. Default: a new one.
    """

    __slots__ = ("_state",)
    _state: dict[str, Any]

    def __init__(self, state: dict[str, Any] | None = None) -> None:
        object.__setattr__(self, "_state", {} if state is None else state)

    def __getattr__(self, name: str) -> Any:
        # Never through `self._state`: an instance that copy or pickle made without `__init__` has no
        # `_state`, and asking for it would come back here for ever.
        if name != "_state":
            try:
                return self._state[name]
            except KeyError:
                pass
        raise AttributeError(f"the state has no {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        self._state[name] = value

    def __delattr__(self, name: str) -> None:
        try:
            del self._state[name]
        except KeyError:
            raise AttributeError(f"the state has no {name!r}") from None

    def __getitem__(self, name: str) -> Any:
        return self._state[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self._state[name] = value

    def __delitem__(self, name: str) -> None:
        del self._state[name]

    def __contains__(self, name: object) -> bool:
        return name in self._state

    def __iter__(self) -> Iterator[str]:
        return iter(self._state)

    def __len__(self) -> int:
        return len(self._state)

    def __copy__(self) -> State:
        return State(dict(self._state))

    def copy(self) -> State:
        """A state over a shallow copy of the dictionary."""
        return self.__copy__()

    def __getstate__(self) -> dict[str, Any]:
        return self._state

    def __setstate__(self, state: dict[str, Any]) -> None:
        object.__setattr__(self, "_state", state)

    def __repr__(self) -> str:
        return f"State({self._state!r})"


# Headers and query parameters


class _Pairs:
    """Upstream's names for reading a multidict; `getall` and `getone` of multidict's own are there too."""

    if TYPE_CHECKING:

        def getall(self, name: str, default: list[str]) -> list[str]: ...

        def items(self) -> ItemsView[str, str]: ...

    def getlist(self, name: str) -> list[str]:
        """All values of a name, in wire order; `[]` if there are none."""
        return list(self.getall(name, []))

    get_all = getlist

    def multi_items(self) -> Iterator[tuple[str, str]]:
        """All pairs, in wire order, duplicates included."""
        return iter(self.items())

    def get_multi_items(self) -> list[tuple[str, str]]:
        """`multi_items()` as a list."""
        return list(self.items())

    def dump(self) -> dict[str, str]:
        """A plain dictionary. The last duplicate counts."""
        return dict(self.items())


_MISSING: Final[Any] = object()


@lru_cache(maxsize=256)
def _on_the_wire(name: str) -> bytes:
    """A header's name, lower-cased, as bytes."""
    try:
        return name.encode("latin-1").lower()
    except UnicodeEncodeError:
        return b"\r\n"  # no header is named so, and none can be named like this


class Header(MultiMapping[str], _Pairs):
    """Headers: a read-only, case-insensitive multidict of `str`, in their order and with duplicates.

    `headers["name"]` is the first value, and `headers.getall("name")` returns all of them. Bytes are decoded
    as latin-1 (RFC 9110 section 5.5), so no byte raises an exception.

    Args:
        value: Pairs or a mapping, of `bytes` or `str`. It is read only once, so it may be an iterator. A list
            of `bytes`, as in a scope, is not copied.
    """

    __slots__ = ("_pairs", "_table")
    _pairs: Sequence[tuple[bytes, bytes]]
    _table: CIMultiDict[str] | None

    def __init__(
        self,
        value: Mapping[Any, Any] | Iterable[tuple[bytes | str, bytes | str]] | None = None,
    ) -> None:
        self._table = None
        if type(value) is list and value and type(value[0][0]) is bytes:
            # As servers give them. Nothing is decoded before it is asked for: one look through the pairs
            # costs a fraction of a table of them.
            self._pairs = value
            return
        pairs = value.items() if isinstance(value, Mapping) else value or ()
        self._pairs = [(_as_bytes(name), _as_bytes(text)) for name, text in pairs]

    @classmethod
    def from_scope(cls, scope: Scope) -> Header:
        """The headers of a scope."""
        return cls(scope.get("headers"))

    def _built(self) -> CIMultiDict[str]:
        table = self._table
        if table is None:
            table = self._table = CIMultiDict(
                [(name.decode("latin-1"), text.decode("latin-1")) for name, text in self._pairs]
            )
        return table

    def __getitem__(self, name: str) -> str:
        if self._table is not None:
            return self._table[name]
        wanted = _on_the_wire(name)
        size = len(wanted)
        for key, text in self._pairs:
            if len(key) == size and key.lower() == wanted:
                return text.decode("latin-1")
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.get(name) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self._built())

    def __len__(self) -> int:
        return len(self._pairs)

    def keys(self) -> KeysView[str]:
        """The names, in wire order. multidict 6 repeats that of a duplicate, multidict 7 does not."""
        return self._built().keys()

    def values(self) -> ValuesView[str]:
        """The values, in wire order."""
        return self._built().values()

    def items(self) -> ItemsView[str, str]:
        """The pairs, in wire order, duplicates included."""
        return self._built().items()

    def get(self, name: str, default: Any = None) -> Any:
        """The first value of a name, or the default."""
        try:
            return self[name]
        except KeyError:
            return default

    def getone(self, name: str, default: Any = _MISSING) -> Any:
        """The first value of a name.

        Raises:
            KeyError: There is none, and no default.
        """
        return self[name] if default is _MISSING else self.get(name, default)

    def getall(self, name: str, default: Any = _MISSING) -> Any:
        """All values of a name, in wire order.

        Raises:
            KeyError: There is none, and no default.
        """
        wanted = _on_the_wire(name)
        size = len(wanted)
        texts = [
            text.decode("latin-1") for key, text in self._pairs if len(key) == size and key.lower() == wanted
        ]
        if not texts and default is _MISSING:
            raise KeyError(name)
        return texts or default

    def __eq__(self, other: object) -> bool:
        return self._built() == (other._built() if isinstance(other, Header) else other)

    __hash__ = None  # type: ignore[assignment]  # as every mapping that is equal to others

    def __getattr__(self, name: str) -> str:
        """`headers.user_agent`: all values of `user-agent`, joined by commas; `""` if there are none."""
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return ",".join(self.getall(name.rstrip("_").replace("_", "-"), []))

    def encoded_multi_items(self) -> Iterator[tuple[bytes, bytes]]:
        """All pairs in the form of ASGI: `bytes`, with lower-case names."""
        return ((name.lower(), text) for name, text in self._pairs)

    def get_encoded_multi_items(self) -> list[tuple[bytes, bytes]]:
        """`encoded_multi_items()` as a list."""
        return list(self.encoded_multi_items())

    def __repr__(self) -> str:
        shown = [(name, "********" if name.lower() in _SECRET else value) for name, value in self.items()]
        return f"Header({shown!r})"


# What may hold a token: not shown by `repr`, which ends in logs.
_SECRET: Final = frozenset(("authorization", "proxy-authorization", "cookie", "sec-websocket-protocol"))


class QueryParam(MultiDictProxy[str], _Pairs):
    """Query parameters: an immutable multidict of `str`, in their order and with duplicates.

    `query_params["name"]` is the first value, and `query_params.getall("name")` returns all of them.
    Percent-escapes and bytes that are not UTF-8 become U+FFFD. An invalid escape (`%zz`) is kept unchanged,
    and so are blank values.

    Args:
        value: A query string (`bytes` as in a scope, or `str`) without its `?`, pairs, or a mapping.
    """

    def __init__(
        self,
        value: str | bytes | Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
    ) -> None:
        if value is None:
            pairs: Any = ()
        elif isinstance(value, (str, bytes)):
            pairs = _parse_query(value)
        elif isinstance(value, Mapping):
            pairs = value.items()
        else:
            pairs = value
        super().__init__(MultiDict(pairs))

    def __reduce__(self) -> Any:
        return type(self), (list(self.items()),)  # a proxy of multidict's cannot be copied

    def __str__(self) -> str:
        return urlencode(list(self.items()))

    def __repr__(self) -> str:
        return f"QueryParam({str(self)!r})"


_HEX: Final = {
    (high + low).encode(): bytes([int(high + low, 16)])
    for high in "0123456789abcdefABCDEF"
    for low in "0123456789abcdefABCDEF"
}


def _percent_decode(data: bytes) -> str:
    # Not `urllib.parse.unquote`: for input made of many short escapes it costs three times as much, and a
    # hostile query is just that.
    if b"%" in data:
        first, *rest = data.split(b"%")
        parts = [first]
        for part in rest:
            byte = _HEX.get(part[:2])
            if byte is None:
                parts += (b"%", part)
            else:
                parts += (byte, part[2:])
        data = b"".join(parts)
    return data.decode("utf-8", "replace")


def _parse_query(query: str | bytes) -> list[tuple[str, str]]:
    data = query.encode("utf-8", "replace") if isinstance(query, str) else query
    if b"+" in data:
        data = data.replace(b"+", b" ")
    if b"%" not in data:
        # All at once: `&` and `=` are ASCII, and the decoder never takes ASCII for a part of something else.
        text = data.decode("utf-8", "replace")
        return [
            (name, value) for name, _, value in [field.partition("=") for field in text.split("&") if field]
        ]
    return [
        (_percent_decode(name), _percent_decode(value) if value else "")
        for name, _, value in [field.partition(b"=") for field in data.split(b"&") if field]
    ]


# Cookies

_COOKIE_ESCAPE: Final = re.compile(r"\\(?:([0-3][0-7][0-7])|(.))", re.DOTALL)


def parse_cookies(header: str) -> dict[str, str]:
    """The cookies of one `Cookie` header, read as browsers write them rather than as RFC 6265 wants.

    A value in double quotes is unquoted (`\\"` and octal escapes), percent-escapes are decoded. A cookie
    without `=` has the name `""`. Of duplicates, the last. The time is linear in the length, which
    `http.cookies` does not promise on every Python.

    Args:
        header: The header's value.
    """
    cookies = {}
    for cookie in header.split(";"):
        name, separator, value = cookie.partition("=")
        if not separator:
            name, value = "", name
        name, value = name.strip(), value.strip()
        if not name and not value:
            continue
        if len(value) > 1 and value[0] == '"' == value[-1]:
            value = value[1:-1]
            if "\\" in value:
                value = _COOKIE_ESCAPE.sub(_unescape_cookie, value)
        if "%" in value:
            value = _percent_decode(value.encode("utf-8", "replace"))
        cookies[name] = value
    return cookies


def _unescape_cookie(match: re.Match[str]) -> str:
    octal: str | None = match[1]
    return chr(int(octal, 8)) if octal else match[2]


# URL

# RFC 3986 section 3.3: what a path may hold unescaped.
_PATH_SAFE: Final = "/:@!$&'()*+,;=-._~"
_PATH_IS_SAFE: Final = re.compile(r"[A-Za-z0-9/:@!$&'()*+,;=\-._~]*").fullmatch
_PATH_LIMIT: Final = 256
# A query is passed on as the client escaped it. What would end it (`#`) or what a parser drops (blanks,
# control characters) is escaped.
_QUERY_SAFE: Final = "".join(map(chr, range(0x21, 0x7F))).replace("#", "")


def _quoted_path(path: str) -> str:
    if not _PATH_IS_SAFE(path):
        path = quote(path, safe=_PATH_SAFE, errors="surrogatepass")
    # without its slash the path's first segment would run into the authority
    return f"/{path}" if path and path[0] != "/" else path


def _without_authority(path: str) -> str:
    """A path for a URL that has no authority. What follows two slashes would be read as one, by browsers even
    after `ws://`; the second slash is escaped, and means the same."""
    return f"/%2F{path[2:]}" if path.startswith("//") else path


# Most connections go to a few paths.
_known_path: Final = lru_cache(maxsize=256)(_quoted_path)


def _quoted_query(query: bytes) -> str:
    if query.isascii():
        text = query.decode()
        # Printable ASCII is what is safe, with the blank and `#`. A regular expression takes twice as long.
        if text.isprintable() and " " not in text and "#" not in text:
            return text
    return quote(query, safe=_QUERY_SAFE)


# RFC 9112 section 3.2, less what no server is called: no user information, no sub-delimiters, no escapes.
_HOST: Final = re.compile(
    r"(?P<host>[A-Za-z0-9._-]{1,255}|\[(?P<ipv6>[0-9A-Fa-f:.]{2,45})\])(?::(?P<port>[0-9]{0,5}))?"
).fullmatch

_HOST_LIMIT: Final = 255 + len(":65535")

# A server's own address, unless it is the path of a Unix socket.
_SERVER: Final = re.compile(
    r"[A-Za-z0-9._-]+|\[?(?P<ipv6>[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*)(?:%(?P<zone>[A-Za-z0-9._~-]+))?\]?"
).fullmatch


@lru_cache(maxsize=256)
def _well_formed(host: bytes) -> str | None:
    """The `Host` header as an authority, or `None` if it is not a well-formed `host[:port]`."""
    match = _HOST(host.decode("latin-1"))
    if match is None:
        return None
    if match["ipv6"] and not _is_ipv6(match["ipv6"]):
        return None
    if not match["port"]:
        return str(match["host"])
    return match[0] if int(match["port"]) <= 65535 else None


def _is_ipv6(address: str) -> bool:
    try:
        IPv6Address(address)
    except ValueError:
        return False
    return True


_DEFAULT_PORTS: Final = {"ws": 80, "http": 80, "wss": 443, "https": 443}


def _authority(scope: Scope, scheme: str) -> str:
    for name, value in scope.get("headers") or ():
        if name == b"host" or (len(name) == 4 and _as_bytes(name).lower() == b"host"):
            if len(value) > _HOST_LIMIT:  # asked first, since what was checked is kept
                break
            authority = _well_formed(value if type(value) is bytes else _as_bytes(value))
            if authority is not None:
                return authority
            break
    address = Address.of(scope.get("server"))
    if address is None or address.port is None:  # a Unix socket has no authority
        return ""
    host, port = address
    match = _SERVER(host) if isinstance(host, str) else None
    if match is None or (match["ipv6"] and not _is_ipv6(match["ipv6"])):
        return ""
    if match["ipv6"]:
        zone = f"%25{match['zone']}" if match["zone"] else ""  # RFC 6874
        host = f"[{match['ipv6']}{zone}]"
    return host if port == _DEFAULT_PORTS.get(scheme) else f"{host}:{port}"


def _as_bytes(value: bytes | str) -> bytes:
    # Not `bytes(value)`, which makes zeros of a number.
    return value.encode("latin-1", "replace") if isinstance(value, str) else memoryview(value).tobytes()


class URL(str):
    """A URL: a `str` with attributes for its parts.

    Args:
        url: The URL as text. Default: put together from `parts`.
        parts: `scheme`, `netloc`, `path`, `query`, `fragment`, `username`, `password`, `hostname`, `port`.

    Raises:
        TypeError: A part of another name.
    """

    __slots__ = ("_parsed",)
    _parsed: SplitResult

    def __new__(cls, url: str = "", **parts: Any) -> URL:
        """Make a URL from text, from parts, or from text with some parts replaced."""
        self = str.__new__(cls, url)
        return self.replace(**parts) if parts else self

    @classmethod
    def from_scope(cls, scope: Scope) -> URL:
        """The URL of a connection, as the server sees it.

        The path is the scope's, quoted. The authority is the `Host` header's if that is a well-formed
        `host[:port]`, otherwise the server's; a connection that has neither (a Unix socket) gives a URL
        without authority. Never raises because of what a client sent.

        Args:
            scope: An ASGI connection scope.
        """
        scheme = scope.get("scheme") or "ws"
        authority = _authority(scope, scheme)
        path = scope["path"]
        # The length is asked first, since what was quoted is kept.
        path = _known_path(path) if len(path) <= _PATH_LIMIT else _quoted_path(path)
        query = scope.get("query_string")
        rest = f"{path}?{_quoted_query(query)}" if query else path
        if authority:
            return str.__new__(cls, f"{scheme}://{authority}{rest}")
        return str.__new__(cls, _without_authority(rest))

    build_from_scope = from_scope

    @property
    def components(self) -> SplitResult:
        """The parts, as `urllib.parse.urlsplit` gives them; parsed once.

        Raises:
            ValueError: The text is not a URL. Never for a URL made from a scope.
        """
        try:
            return self._parsed
        except AttributeError:
            self._parsed = urlsplit(str.__str__(self))
            return self._parsed

    @property
    def scheme(self) -> str:
        """`ws` or `wss`, as the server reports it; `""` for a URL without authority."""
        return self.components.scheme

    @property
    def netloc(self) -> str:
        """The authority: user information, host and port as written; `""` if there is none."""
        return self.components.netloc

    @property
    def path(self) -> str:
        """The path, percent-escaped."""
        return self.components.path

    @property
    def query(self) -> str:
        """The query without its `?`, as the client escaped it."""
        return self.components.query

    @property
    def fragment(self) -> str:
        """What follows a `#`; always `""` for a URL made from a scope."""
        return self.components.fragment

    @property
    def username(self) -> str | None:
        """The user name, percent-escaped, or `None`."""
        return self.components.username

    @property
    def password(self) -> str | None:
        """The password, percent-escaped, or `None`."""
        return self.components.password

    @property
    def hostname(self) -> str | None:
        """The host in lower case, an IPv6 address without its brackets; `None` without authority."""
        return self.components.hostname

    @property
    def port(self) -> int | None:
        """The port as written, 0 to 65535; `None` if there is no port, or an invalid one."""
        try:
            return self.components.port
        except ValueError:
            return None

    @property
    def is_secure(self) -> bool:
        """Whether the scheme is one over TLS: `wss` or `https`."""
        return self.scheme in ("wss", "https")

    @overload
    def replace(self, old: str, new: str, count: SupportsIndex = ..., /) -> str: ...

    @overload
    def replace(self, **parts: Any) -> URL: ...

    def replace(self, *args: Any, **parts: Any) -> str:
        """Replace text, as `str.replace` does, or parts of the URL by keyword.

        Args:
            args: `old, new[, count]`, as for `str.replace`.
            parts: `scheme`, `netloc`, `path`, `query`, `fragment`, `username`, `password`, `hostname`,
                `port`. `None` removes the part.

        Returns:
            A `str` for text, a `URL` for parts.

        Raises:
            TypeError: Both at once, or a part of another name.
        """
        if args:
            return str.replace(self, *args, **parts)
        unknown = parts.keys() - _URL_PARTS
        if unknown:
            raise TypeError(f"a URL has no part {sorted(unknown)[0]!r}; it has {', '.join(_URL_PARTS)}")
        components = self.components
        authority: dict[str, Any] = {name: parts.pop(name) for name in _AUTHORITY_PARTS if name in parts}
        if authority:
            base = URL(f"//{parts.pop('netloc')}") if "netloc" in parts else self
            parts["netloc"] = base._netloc_with(authority)
        components = components._replace(**{name: part or "" for name, part in parts.items()})
        if not components.netloc:
            components = components._replace(path=_without_authority(components.path))
        return type(self)(urlunsplit(components))

    def _netloc_with(self, authority: dict[str, Any]) -> str:
        user_information, _, host_and_port = self.netloc.rpartition("@")
        username, separator, password = user_information.partition(":")
        # The host as written: `hostname` would lower its case.
        host = re.sub(r":[0-9]*\Z", "", host_and_port)
        username = authority.get("username", username) or ""
        secret = authority.get("password", password if separator else None)
        host = authority.get("hostname", host) or ""
        port = authority.get("port", self.port)
        if ":" in host and not host.startswith("["):
            host = f"[{host}]"
        user = username if secret is None else f"{username}:{secret}"
        if user:
            user += "@"
        return f"{user}{host}" if port is None else f"{user}{host}:{port}"

    def __repr__(self) -> str:
        try:
            shown: str = self.replace(password="********") if self.password else self
        except ValueError:  # not a URL, which is no reason to show what looks like a password
            shown = re.sub(r"//.*@", "//********@", self, count=1, flags=re.DOTALL)
        return f"URL({str.__repr__(shown)})"


_AUTHORITY_PARTS: Final = ("username", "password", "hostname", "port")
_URL_PARTS: Final = dict.fromkeys(("scheme", "netloc", "path", "query", "fragment", *_AUTHORITY_PARTS))
