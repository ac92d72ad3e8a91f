"""The values: state, headers, query parameters, cookies, URLs."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from lilya.websockets import URL, Address, Header, QueryParam, State
from lilya.websockets.datastructures import parse_cookies

WIRE = [
    (b"Host", b"example.org"),
    (b"x-d", b"4"),
    (b"X-C", b"3"),
    (b"x-b", b"2"),
    (b"x-a", b"1"),
    (b"X-B", b"5"),
]
TEXT = [(name.decode(), value.decode()) for name, value in WIRE]
# More than the headers that are searched one by one, so that the other way is taken.
MANY = [(b"n%d" % number, b"v") for number in range(100)]


class TestAddress:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            (None, None),
            ((), None),
            (("192.0.2.1", 80), ("192.0.2.1", 80)),
            (["192.0.2.1", 80], ("192.0.2.1", 80)),
            (("/run/app.sock", None), ("/run/app.sock", None)),
            (("/run/app.sock",), ("/run/app.sock", None)),
            (("fe80::1", 80, 0, 2), ("fe80::1", 80)),
        ],
    )
    @pytest.mark.contract("scope-url-odd-servers")
    def test_of(self, value: Any, expected: object) -> None:
        address = Address.of(value)
        assert address == expected
        assert address is None or (address.host, address.port) == expected


class TestState:
    def test_it_shares_the_dictionary(self) -> None:
        shared: dict[str, Any] = {"a": 1}
        state = State(shared)
        state.b = 2
        state["c"] = 3
        del state.a
        assert shared == {"b": 2, "c": 3}
        assert (state.b, state["c"], "b" in state, "a" in state, list(state), len(state)) == (
            *(2, 3, True, False),
            *(["b", "c"], 2),
        )
        del state["b"]
        assert shared == {"c": 3}
        assert repr(state) == "State({'c': 3})"

    @pytest.mark.parametrize("name", ["missing", "_state_", "__len"])
    def test_what_is_missing_is_an_attribute_error(self, name: str) -> None:
        state = State()
        with pytest.raises(AttributeError, match=f"no '{name}'"):
            getattr(state, name)
        with pytest.raises(AttributeError, match=f"no '{name}'"):
            delattr(state, name)
        with pytest.raises(KeyError):
            state[name]
        assert getattr(state, name, None) is None

    @pytest.mark.parametrize(
        "copied",
        [copy.copy, copy.deepcopy, State.copy, lambda state: pickle.loads(pickle.dumps(state))],
        ids=["copy", "deepcopy", "method", "pickle"],
    )
    def test_a_copy_is_independent(self, copied: Any) -> None:
        state = State({"a": 1})
        other = copied(state)
        other.a = 2
        assert (type(other), state.a, other.a) == (State, 1, 2)

    def test_an_instance_without_a_dictionary_does_not_recurse(self) -> None:
        with pytest.raises(AttributeError):
            State.__new__(State)._state  # noqa: B018  # asking is the point


@pytest.mark.contract("scope-headers-view")
class TestHeader:
    @pytest.fixture(params=["scope", "many", "iterator", "text", "text in scope", "built"])
    def headers(self, request: pytest.FixtureRequest) -> Header:
        """The same headers in each form that they can have inside."""
        if request.param == "scope":
            return Header.from_scope({"headers": list(WIRE)})
        if request.param == "many":
            return Header.from_scope({"headers": WIRE + MANY})
        if request.param == "iterator":
            return Header.from_scope({"headers": iter(WIRE)})
        if request.param == "text in scope":  # not as ASGI wants it, and no reason to fail
            return Header.from_scope({"headers": list(TEXT)})
        if request.param == "text":
            return Header(TEXT)
        headers = Header(WIRE)
        list(headers)
        return headers

    def test_names_are_found_whatever_their_case(self, headers: Header) -> None:
        for name in ("host", "Host", "HOST", "hOsT"):
            assert headers[name] == headers.get(name) == headers.getone(name) == "example.org"
            assert name in headers

    def test_order_and_duplicates_are_kept(self, headers: Header) -> None:
        size = len(TEXT)
        assert list(headers.items())[:size] == TEXT
        # Whether the name of a duplicate comes twice depends on the version of multidict.
        distinct = list(dict.fromkeys(name.lower() for name in headers.keys()))  # noqa: SIM118
        assert distinct == list(dict.fromkeys(name.lower() for name in headers))
        assert distinct[:5] == ["host", "x-d", "x-c", "x-b", "x-a"]
        assert list(headers.values())[:size] == [value for _, value in TEXT]
        assert headers["x-b"] == "2"
        assert headers.getall("x-B") == headers.getlist("x-b") == headers.get_all("X-B") == ["2", "5"]
        assert headers.get_multi_items()[:size] == list(headers.multi_items())[:size] == TEXT
        assert headers.get_encoded_multi_items()[:size] == [(name.lower(), value) for name, value in WIRE]
        assert len(headers) == len(list(headers.items()))

    def test_what_is_missing(self, headers: Header) -> None:
        for name in ("missing", "", "€", "ho", "host "):
            assert name not in headers
            assert headers.get(name) is None
            assert headers.get(name, "a") == headers.getone(name, "a") == headers.getall(name, "a") == "a"
            assert headers.getlist(name) == []
            for method in (headers.__getitem__, headers.getone, headers.getall):
                with pytest.raises(KeyError):
                    method(name)
        assert 5 not in headers  # type: ignore[comparison-overlap]

    @pytest.mark.contract("scope-headers-view")
    def test_a_name_that_no_byte_stands_for(self) -> None:
        headers = Header([(bytes([byte]), b"a") for byte in range(256)])
        assert headers["?"] == headers["\xff"] == "a"
        for name in ("€", "\ud800"):
            assert (headers.get(name), headers.getlist(name)) == (None, [])

    def test_equality(self, headers: Header) -> None:
        assert headers == Header(headers)
        assert headers != Header()
        with pytest.raises(TypeError, match="unhashable"):
            hash(headers)

    def test_attributes(self, headers: Header) -> None:
        assert headers.host == "example.org"
        assert headers.x_b == "2,5"
        assert headers.missing == ""
        with pytest.raises(AttributeError):
            headers._missing  # noqa: B018  # asking is the point

    def test_a_plain_dictionary(self, headers: Header) -> None:
        plain = dict(headers)
        assert plain["Host"] == "example.org"
        assert all(isinstance(part, str) for item in plain.items() for part in item)
        assert headers.dump()["X-B"] == "5"

    @pytest.mark.parametrize("fill", [[], MANY])
    def test_any_byte_is_latin_1(self, fill: list[tuple[bytes, bytes]]) -> None:
        every = bytes(range(256))
        headers = Header.from_scope({"headers": [(b"x", every), (every, b"x"), *fill]})
        assert headers["x"] == every.decode("latin-1")
        assert headers[every.decode("latin-1")] == "x"
        assert list(headers.items())[:2] == [("x", every.decode("latin-1")), (every.decode("latin-1"), "x")]

    def test_a_mapping_and_nothing(self) -> None:
        assert list(Header({"a": "1", b"b": b"2"}).items()) == [("a", "1"), ("b", "2")]
        assert list(Header().items()) == list(Header.from_scope({"headers": None}).items()) == []
        assert list(Header.from_scope({}).items()) == []

    def test_repr(self) -> None:
        assert repr(Header([("A", "1")])) == "Header([('A', '1')])"

    def test_its_repr_shows_no_token(self) -> None:
        for name in ("Authorization", "proxy-authorization", "COOKIE", "Sec-WebSocket-Protocol"):
            headers = Header([("a", "1"), (name, "secret")])
            assert repr(headers) == f"Header([('a', '1'), ('{name}', '********')])"
            assert headers[name] == "secret"

    def test_a_number_is_no_value(self) -> None:
        with pytest.raises(TypeError):
            Header({"a": 5})  # it would be read as five zeros

    def test_it_is_read_only(self, headers: Header) -> None:
        with pytest.raises(TypeError):
            headers["a"] = "b"  # type: ignore[operator]


@pytest.mark.contract("scope-query")
class TestQueryParam:
    @pytest.mark.parametrize(
        ("query", "pairs"),
        [
            (b"", []),
            (b"a=1&b=2&c=3&d=4&a=5", [("a", "1"), ("b", "2"), ("c", "3"), ("d", "4"), ("a", "5")]),
            (b"a", [("a", "")]),
            (b"a=", [("a", "")]),
            (b"=a", [("", "a")]),
            (b"&&a=1&", [("a", "1")]),
            (b"a=b=c", [("a", "b=c")]),
            (b"a+b=c+d", [("a b", "c d")]),
            (b"a%20b=%41%c3%a9", [("a b", "Aé")]),
            (b"a=%26%3D%2B", [("a", "&=+")]),
            (b"a=\xc3\xa9", [("a", "é")]),
            (b"a=\xff%FF", [("a", "\ufffd\ufffd")]),
            (b"\xc3&\xa9=\xc3", [("\ufffd", ""), ("\ufffd", "\ufffd")]),
            (b"a=%zz%4", [("a", "%zz%4")]),
            (b"%=%", [("%", "%")]),
            (b"a=%c3\xa9", [("a", "é")]),
            (b"a;b=1", [("a;b", "1")]),
            ("a=é&b=%C3%A9", [("a", "é"), ("b", "é")]),
            ("a=\ud800", [("a", "?")]),
            (None, []),
            ({"a": "1", "b": "2"}, [("a", "1"), ("b", "2")]),
            ([("a", "1"), ("a", "2")], [("a", "1"), ("a", "2")]),
        ],
    )
    def test_pairs(self, query: Any, pairs: list[tuple[str, str]]) -> None:
        params = QueryParam(query)
        assert list(params.items()) == list(params.multi_items()) == params.get_multi_items() == pairs

    def test_reading(self) -> None:
        params = QueryParam(b"a=1&b=2&a=3")
        assert params["a"] == "1"
        assert params.getall("a") == params.getlist("a") == params.get_all("a") == ["1", "3"]
        assert params.getlist("c") == []
        assert params.dump() == {"a": "3", "b": "2"}
        assert str(params) == "a=1&b=2&a=3"
        assert repr(QueryParam("a=é b")) == "QueryParam('a=%C3%A9+b')"

    def test_it_cannot_be_changed(self) -> None:
        params = QueryParam(b"a=1")
        with pytest.raises(TypeError):
            params["a"] = "2"  # type: ignore[index]
        assert not hasattr(params, "add")


@pytest.mark.contract("scope-cookies")
@pytest.mark.parametrize(
    ("header", "cookies"),
    [
        ("", {}),
        (";; ;", {}),
        ("a=1; b=2;c=3 ; d = 4 ", {"a": "1", "b": "2", "c": "3", "d": "4"}),
        ("a=1; a=2", {"a": "2"}),
        ("a", {"": "a"}),
        ("a=", {"a": ""}),
        ("=a", {"": "a"}),
        ("a=b=c", {"a": "b=c"}),
        ('a="b c"', {"a": "b c"}),
        (r'a="\"b\\"', {"a": '"b\\'}),
        (r'a="\101\054\377"', {"a": "A,\xff"}),
        (r'a="\400\8\x"', {"a": "4008x"}),
        (r'a="\"', {"a": "\\"}),
        ('a="', {"a": '"'}),
        ('a=""', {"a": ""}),
        ('a=b"c"', {"a": 'b"c"'}),
        ("a=%41%c3%a9", {"a": "Aé"}),
        ("a=%ff%zz%", {"a": "\ufffd%zz%"}),
        ("a=\xe9", {"a": "\xe9"}),
        ("a=\xe9%20", {"a": "\xe9 "}),
    ],
)
def test_cookies(header: str, cookies: dict[str, str]) -> None:
    assert parse_cookies(header) == cookies


FULL = "wss://user:secret@example.org:8443/a%20b?x=1&y=2#top"


class TestURL:
    @pytest.mark.contract("scope-url")
    def test_it_is_a_str_with_parts(self) -> None:
        url = URL(FULL)
        assert isinstance(url, str)
        assert url == FULL
        assert {FULL: 1}[url] == 1
        assert url + "" == f"{url}" == str(url) == FULL
        assert {
            "scheme": url.scheme,
            "netloc": url.netloc,
            "hostname": url.hostname,
            "port": url.port,
            "path": url.path,
            "query": url.query,
            "fragment": url.fragment,
            "username": url.username,
            "password": url.password,
            "is_secure": url.is_secure,
        } == {
            "scheme": "wss",
            "netloc": "user:secret@example.org:8443",
            "hostname": "example.org",
            "port": 8443,
            "path": "/a%20b",
            "query": "x=1&y=2",
            "fragment": "top",
            "username": "user",
            "password": "secret",
            "is_secure": True,
        }
        assert url.components is url.components

    @pytest.mark.parametrize(
        ("url", "secure"), [("ws://a", False), ("http://a", False), ("https://a", True), ("/a", False)]
    )
    def test_is_secure(self, url: str, secure: bool) -> None:
        assert URL(url).is_secure is secure

    @pytest.mark.parametrize("protocol", range(2, 6))
    def test_pickle_and_copy(self, protocol: int) -> None:
        url = URL(FULL)
        for parsed in (False, True):
            if parsed:
                assert url.port == 8443
            for other in (pickle.loads(pickle.dumps(url, protocol)), copy.copy(url), copy.deepcopy(url)):
                assert (type(other), other, other.port) == (URL, FULL, 8443)

    @pytest.mark.parametrize("port", ["99999", "abc", "-1"])
    def test_a_port_that_is_none(self, port: str) -> None:
        assert URL(f"ws://example.org:{port}/").port is None

    @pytest.mark.contract("scope-url-replace")
    @pytest.mark.parametrize(
        ("parts", "expected"),
        [
            ({"scheme": "ws"}, "ws://user:secret@example.org:8443/a%20b?x=1&y=2#top"),
            ({"netloc": "a:1"}, "wss://a:1/a%20b?x=1&y=2#top"),
            ({"hostname": "a"}, "wss://user:secret@a:8443/a%20b?x=1&y=2#top"),
            ({"hostname": "::1"}, "wss://user:secret@[::1]:8443/a%20b?x=1&y=2#top"),
            ({"port": 1}, "wss://user:secret@example.org:1/a%20b?x=1&y=2#top"),
            ({"port": None}, "wss://user:secret@example.org/a%20b?x=1&y=2#top"),
            ({"username": "a"}, "wss://a:secret@example.org:8443/a%20b?x=1&y=2#top"),
            ({"username": None, "password": None}, "wss://example.org:8443/a%20b?x=1&y=2#top"),
            ({"password": None}, "wss://user@example.org:8443/a%20b?x=1&y=2#top"),
            ({"password": "b"}, "wss://user:b@example.org:8443/a%20b?x=1&y=2#top"),
            ({"netloc": "a:1", "port": 2, "username": "c"}, "wss://c@a:2/a%20b?x=1&y=2#top"),
            ({"path": "/z"}, "wss://user:secret@example.org:8443/z?x=1&y=2#top"),
            ({"query": None, "fragment": ""}, "wss://user:secret@example.org:8443/a%20b"),
            ({"hostname": None}, "wss://user:secret@:8443/a%20b?x=1&y=2#top"),
            ({}, FULL),
        ],
    )
    def test_replace_parts(self, parts: dict[str, Any], expected: str) -> None:
        replaced = URL(FULL).replace(**parts)
        assert replaced == expected
        assert type(replaced) is URL
        assert URL(FULL, **parts) == expected

    @pytest.mark.contract("scope-url-replace")
    def test_the_host_is_kept_as_written(self) -> None:
        assert URL("ws://[::1]:80/").replace(port=81) == "ws://[::1]:81/"
        assert URL("ws://Example.ORG/").replace(port=81) == "ws://Example.ORG:81/"
        assert URL("ws://user@a/").replace(port=81) == "ws://user@a:81/"

    @pytest.mark.contract("scope-url-replace")
    def test_replace_text(self) -> None:
        replaced = URL("ws://a/a").replace("a", "b")
        assert (replaced, type(replaced)) == ("ws://b/b", str)
        assert URL("ws://a/a").replace("a", "b", 1) == "ws://b/a"

    @pytest.mark.contract("scope-url-replace")
    def test_replace_what_is_no_part(self) -> None:
        with pytest.raises(TypeError, match="a URL has no part 'hast'; it has scheme, netloc"):
            URL(FULL).replace(hast="a")
        with pytest.raises(TypeError):
            URL(FULL).replace("a", "b", path="/")  # type: ignore[call-overload]
        with pytest.raises(TypeError, match="no part 'x'"):
            URL(x=1)

    def test_from_parts(self) -> None:
        assert URL(scheme="ws", hostname="a", port=1, path="/b", query="c") == "ws://a:1/b?c"
        assert URL(scheme="ws", netloc="a:1", path="/b") == "ws://a:1/b"
        assert URL() == ""

    @pytest.mark.contract("scope-url-host")
    @pytest.mark.parametrize("path", ["//evil.com", "//evil.com/x", "///x", "//"])
    @pytest.mark.parametrize("parts", [{"query": "a"}, {"scheme": ""}, {"scheme": "wss"}, {"netloc": None}])
    def test_a_path_never_becomes_an_authority(self, path: str, parts: dict[str, Any]) -> None:
        for headers in ([], [(b"host", b"a")]):
            url = URL.from_scope({"path": path, "headers": headers}).replace(**{"netloc": None} | parts)
            assert (url.netloc, url.path) == ("", "/%2F" + path[2:])
            assert str(url).removeprefix(f"{url.scheme}://").startswith("/%2F")
        assert url.replace(query="b", fragment="c") == f"{url.replace(query=None)}?b#c"

    @pytest.mark.contract("scope-url-repr")
    @pytest.mark.parametrize(
        ("url", "shown"),
        [
            ("ws://user:secret@a/b", "URL('ws://user:********@a/b')"),
            ("ws://user:secret@A:81/b?c#d", "URL('ws://user:********@A:81/b?c#d')"),
            ("ws://:secret@a/", "URL('ws://:********@a/')"),
            ("ws://user@a/b", "URL('ws://user@a/b')"),
            ("ws://a/b", "URL('ws://a/b')"),
            ("ws://[::1", "URL('ws://[::1')"),
            ("ws://user:secret@[::1", "URL('ws://********@[::1')"),
            ("ws://user:sec@ret\n@[::1", "URL('ws://********@[::1')"),
            ("", "URL('')"),
        ],
    )
    def test_repr_hides_a_password(self, url: str, shown: str) -> None:
        assert repr(URL(url)) == shown


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_query_parameters_can_be_copied(again: Any) -> None:
    params = QueryParam(b"a=1&b=%ff&a=2")
    copied = again(params)
    assert type(copied) is QueryParam
    assert list(copied.items()) == list(params.items()) == [("a", "1"), ("b", "\ufffd"), ("a", "2")]
