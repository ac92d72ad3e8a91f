"""Where the Redis of a URL or a client is: one server, one that sentinels name, or a cluster."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal
from urllib.parse import parse_qs, unquote, urlencode, urlsplit, urlunsplit

import redis
from redis import Redis, RedisCluster, Sentinel
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode
from redis.connection import parse_url as parse_url_synchronously
from redis.retry import Retry as SynchronousRetry

__all__ = ["Address", "Place"]

Address = tuple[str, int]
Kind = Literal["server", "sentinel", "cluster"]

_EXPECTED: Final = (
    "redis://user:password@host:port/db, rediss://… or unix:///path; "
    "redis+sentinel://host:port,host:port/service/db; or redis+cluster://host:port,host:port"
)
# The ports of URLs that name none.
_PORTS: Final[dict[Kind, int]] = {"server": 6379, "sentinel": 26379, "cluster": 6379}
# The oldest redis-py with which no test lost an event while slots moved; 5.0.1 did.
_FOR_A_CLUSTER: Final = (5, 2, 1)
# The options of a URL that are for sentinels: their names there, and as arguments of a connection.
_OF_SENTINELS: Final = {"sentinel_username": "username", "sentinel_password": "password"}


def _version() -> tuple[int, ...]:
    """The version of redis-py, without parts that are not numbers: `8.1.0b2` gives 8 and 1."""
    parts = redis.__version__.split(".")
    return tuple(int(part) for part in parts[:3] if part.isdecimal())


@dataclass(frozen=True)
class Place:
    """A server, or several.

    Args:
        kind: How a server is found.
        arguments: The arguments of redis-py's connection to a server, other than its address.
        addresses: The addresses of the sentinels, of some nodes of a cluster, or of the single server.
        where: The same as text, without the password.
        database: The number of the database.
        service: The name that the sentinels have for the primary.
        url: The URL in a form that redis-py reads, with the first of the addresses. Empty for a client.
        credentials: Provides the user and the password, instead of the URL.
        sentinel_arguments: The arguments of a connection to a sentinel.
    """

    kind: Kind
    arguments: dict[str, Any]
    addresses: tuple[Address, ...]
    where: str
    database: int
    service: str = ""
    url: str = ""
    credentials: Any = None
    sentinel_arguments: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, url: str, credentials: Any = None) -> Place:
        """The place of a URL.

        Raises:
            ValueError: It is not a URL of Redis, or the credentials are given twice.
            ImportError: It is a cluster, and redis-py is too old for that.
        """
        try:
            # Errors are replaced by one without details, because these may contain parts of the password.
            kind, hosts, service, options, plain = _parts(url)
            arguments: dict[str, Any] = dict(parse_url(plain))
            path = urlsplit(plain).path.strip("/")
            addresses = tuple(_address(host, _PORTS[kind]) for host in hosts)
        except ValueError:
            scheme = url.partition("://")[0]
            # Nothing else than a scheme is shown: what is before `://` by mistake may be a password.
            got = f", got {scheme}://…" if "://" in url and scheme.replace("+", "").isalpha() else ""
            raise ValueError(
                f"not a URL of Redis{got}: expected {_EXPECTED}, with `/`, `#`, `?` and `%` in a password "
                "encoded as `%2F`, `%23`, `%3F` and `%25`"
            ) from None
        if "path" not in arguments and path and not path.isdecimal():
            raise ValueError(f"not a URL of Redis: the database must be a number, got {path[:80]!r}")
        database = int(arguments.get("db") or 0)
        if kind == "cluster" and _version() < _FOR_A_CLUSTER:
            raise ImportError(
                f"a cluster of Redis needs redis-py {'.'.join(map(str, _FOR_A_CLUSTER))} or newer, and "
                f"{redis.__version__} is installed: with older ones events were lost while slots moved"
            )
        if kind == "cluster" and database:
            raise ValueError(f"a cluster of Redis has one database, 0: the URL names {database}")
        if kind == "sentinel" and not service:
            raise ValueError(
                "the URL names no service: expected redis+sentinel://host:port,host:port/service, with the "
                "name that the sentinels have for the primary"
            )
        if credentials is not None:
            if arguments.keys() & {"username", "password"}:
                raise ValueError("give the password in the URL or by `credentials`, not both")
            arguments["credential_provider"] = credentials
        if "path" in arguments:
            where = arguments["path"]
        else:
            where = ",".join(f"{host}:{port}" for host, port in addresses) + (service and f"/{service}")
            if kind == "server":
                addresses = (_address_of(arguments),)
        of_sentinels = {
            key: value for key, value in arguments.items() if key.startswith(("ssl", "connection_class"))
        }
        return cls(
            kind,
            _ours(arguments),
            addresses,
            where,
            database,
            service,
            plain,
            credentials,
            _ours({**of_sentinels, **options}),
        )

    @classmethod
    def of_client(cls, url: str, client: Any, credentials: Any = None) -> Place:
        """The place to which a client connects. The client itself is not used.

        Raises:
            TypeError: It is not an asyncio client of redis-py, or it is one for sentinels or a cluster.
            ValueError: The URL has an address, too, or there are credentials.
        """
        if url not in ("redis://", "valkey://") or credentials is not None:
            raise ValueError(
                "with `client`, the URL is 'redis://' and there are no `credentials`: it has them"
            )
        pool = client.connection_pool if isinstance(client, AsyncRedis) else None
        if pool is None or isinstance(pool, SentinelConnectionPool):
            raise TypeError(
                f"client must be a redis.asyncio.Redis of one server, got {type(client).__name__}. For "
                "sentinels and clusters give a URL"
            )
        arguments = {**pool.connection_kwargs, "connection_class": pool.connection_class}
        host, port = _address_of(arguments)
        where = arguments.get("path") or f"{host}:{port}"
        return cls("server", _ours(arguments), ((host, port),), where, int(arguments.get("db") or 0))

    def synchronous_client(self, timeout: float) -> Any:
        """A client of the same place for code without an event loop; not connected yet.

        Args:
            timeout: Seconds for connecting, and for each answer.
        """
        arguments: dict[str, Any] = {
            "decode_responses": False,
            "protocol": 2,
            "retry": SynchronousRetry(NoBackoff(), 0),
            "socket_connect_timeout": timeout,
            "socket_timeout": timeout,
        }
        if self.credentials is not None:
            arguments["credential_provider"] = self.credentials
        if self.kind == "server":
            return Redis.from_url(self.url, retry_on_error=[], **arguments)
        arguments = {**parse_url_synchronously(self.url), **arguments}  # type: ignore[no-untyped-call]
        for name in ("host", "port", "connection_class"):
            arguments.pop(name, None)
        arguments["ssl"] = self.url.startswith("rediss:")
        if self.kind == "cluster":
            arguments.pop("db", None)
            if _version() < (6,):
                # Otherwise, it sends a command up to four times, each with the whole time limit, and raises
                # only the last error. `Publisher` needs each, and sends again by itself. Newer versions have
                # this number from `retry`.
                arguments["cluster_error_retry_attempts"] = 0
            nodes = [ClusterNode(*address) for address in self.addresses]  # type: ignore[no-untyped-call]
            return RedisCluster(startup_nodes=nodes, **arguments)
        of_sentinels = {
            **{key: value for key, value in self.sentinel_arguments.items() if key in _OF_SENTINELS.values()},
            **{key: value for key, value in arguments.items() if key.startswith(("ssl", "socket_"))},
        }
        sentinels: Any = Sentinel
        return sentinels(list(self.addresses), sentinel_kwargs=of_sentinels, **arguments).master_for(
            self.service
        )


def _parts(url: str) -> tuple[Kind, list[str], str, dict[str, str], str]:
    """The kind of a URL, its hosts, its service, the options for sentinels, and a URL that redis-py reads."""
    parts = urlsplit(url)
    scheme, _, suffix = parts.scheme.partition("+")
    scheme = {"valkey": "redis", "valkeys": "rediss"}.get(scheme, scheme)
    credentials, at, hosts = parts.netloc.rpartition("@")
    path, query = parts.path, parts.query
    if not suffix:
        return "server", [hosts], "", {}, f"{scheme}{url[len(parts.scheme) :]}"
    if suffix not in ("sentinel", "cluster"):
        raise ValueError
    kind: Kind = "sentinel" if suffix == "sentinel" else "cluster"
    service = ""
    options: dict[str, str] = {}
    if kind == "sentinel":
        service, _, path = path.strip("/").partition("/")
        given = parse_qs(query)
        options = {ours: given.pop(name)[0] for name, ours in _OF_SENTINELS.items() if name in given}
        query = urlencode(given, doseq=True)
    every = hosts.split(",")
    plain = urlunsplit((scheme, f"{credentials}{at}{every[0]}", path, query, parts.fragment))
    return kind, every, unquote(service), options, plain


def _address(text: str, port: int) -> Address:
    parts = urlsplit(f"//{text}")
    return parts.hostname or "localhost", parts.port or port


def _address_of(arguments: dict[str, Any]) -> Address:
    return arguments.get("host", "localhost"), int(arguments.get("port", _PORTS["server"]))


def _ours(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a connection, without the time limits and retries of redis-py: `_link` has its own.

    Options for maintenance notifications are left out, because these need RESP3.
    """
    return {
        **{name: value for name, value in arguments.items() if "maint_notifications" not in name},
        "decode_responses": False,
        "health_check_interval": 0,
        "protocol": 2,
        "retry": Retry(NoBackoff(), 0),
        "retry_on_error": [],
        "retry_on_timeout": False,
        "socket_connect_timeout": None,
        "socket_timeout": None,
    }
