"""The one table of what the stack consists of.

It feeds the plain-process runner, `status`, `endpoints.json`, the scrape targets and the stack's tests.
"""

import signal
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from compose.model import Command, Component, Finished, Http, Metrics, Redis, StackError, Var

POSTGRES_URL = "postgresql://yardstick:{postgres_password}@{host}:{postgres.sql}/yardstick"
REDIS_URL = "redis://:{redis_password}@{host}:{redis.redis}/0"
OTLP_GRPC = "http://{host}:{otelcol.grpc}"

_SETTINGS = ("APP_", "DATABASE_", "REDIS_", "QUEUE_", "OUTBOX_", "WORKER_", "TELEMETRY_")


def _ports(**ports: int) -> Mapping[str, int]:
    return MappingProxyType(ports)


def _service(log: str) -> tuple[Var, ...]:
    return (
        Var("DATABASE_URL", POSTGRES_URL),
        Var("REDIS_URL", REDIS_URL),
        Var("TELEMETRY_OTLP_ENDPOINT", OTLP_GRPC, when="otelcol"),
        Var("TELEMETRY_LOG_SINK", "file"),
        Var("TELEMETRY_LOG_FILE", "{logs}/service/" + log),
    )


COMPONENTS: tuple[Component, ...] = (
    Component(
        name="postgres",
        program="postgres",
        about="PostgreSQL",
        required=True,
        ports=_ports(sql=5432),
        arguments=(
            "-D", "{data}/cluster", "-h", "{host}", "-p", "{postgres.sql}",
            "-c", "unix_socket_directories=", "-c", "max_connections=200",
        ),
        ready=Command(("{program_dir}/pg_isready", "-q", "-t", "1", "-h", "{host}", "-p", "{postgres.sql}")),
        endpoints=MappingProxyType({"postgres": POSTGRES_URL}),
        stop_signal=signal.SIGINT,  # a fast shutdown; SIGTERM would wait for every client to leave
        stop_seconds=30,
    ),
    Component(
        name="redis",
        program="redis",
        about="Redis",
        config="redis",
        required=True,
        ports=_ports(redis=6379),
        arguments=("{config}/redis.conf", "--port", "{redis.redis}", "--bind", "{host}", "--dir", "{data}"),
        ready=Redis("redis"),
        endpoints=MappingProxyType({"redis": REDIS_URL}),
    ),
    Component(
        name="migrate",
        program="python",
        about="database schema",
        required=True,
        needs=("postgres",),
        arguments=("-m", "service.db", "upgrade"),
        ready=Finished(),
        environment=(Var("DATABASE_URL", POSTGRES_URL), Var("REDIS_URL", REDIS_URL)),
        inherit=_SETTINGS,
        watch=("service/db",),
    ),
)  # fmt: skip


def by_name(table: Iterable[Component] = COMPONENTS) -> dict[str, Component]:
    """The components of `table` by name, in the table's order."""
    return {component.name: component for component in table}


def closure(names: Iterable[str], table: Iterable[Component] = COMPONENTS) -> tuple[Component, ...]:
    """The named components and everything they need, in the table's order.

    Raises:
        StackError: for a name that the table does not hold.
    """
    known = by_name(table)
    wanted: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in known:
            raise StackError(f"there is no component {name!r}; there are: {', '.join(known)}")
        if name not in wanted:
            wanted.add(name)
            waiting.extend(known[name].needs)
    return tuple(component for component in known.values() if component.name in wanted)


def order(table: Iterable[Component] = COMPONENTS) -> tuple[Component, ...]:
    """The components so that each one stands after all that it needs.

    Raises:
        StackError: if components need each other in a circle, or need one that is not in the table.
    """
    known = by_name(table)
    placed: dict[str, Component] = {}
    while len(placed) < len(known):
        free = [c for c in known.values() if c.name not in placed and all(n in placed for n in c.needs)]
        if not free:
            rest = ", ".join(name for name in known if name not in placed)
            raise StackError(
                f"these components need each other in a circle, or one that is not there: {rest}"
            )
        placed.update((component.name, component) for component in free)
    return tuple(placed.values())
