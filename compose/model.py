"""What a component of the stack is. The table itself is in `compose.components`."""

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType


class StackError(Exception):
    """Something the user can act on; the message says what, why and what to do."""


class MissingProgramError(StackError):
    """A component's program cannot be had on this machine.

    Args:
        name: the program's name.
        reasons: why each place it could come from did not give it.
    """

    def __init__(self, name: str, reasons: tuple[str, ...]) -> None:
        super().__init__(f"{name} is not available: {'; '.join(reasons)}")
        self.name = name
        self.reasons = reasons


@dataclass(frozen=True)
class Resolved:
    """A program that is there."""

    path: Path
    version: str
    source: str


@dataclass(frozen=True)
class Http:
    """Ready when a GET of `path` on the named port answers 2xx."""

    port: str
    path: str


@dataclass(frozen=True)
class Redis:
    """Ready when the server takes the password and answers PING."""

    port: str


@dataclass(frozen=True)
class Amqp:
    """Ready when the server answers the AMQP 0-9-1 protocol header, which it does once it takes logins."""

    port: str


@dataclass(frozen=True)
class Command:
    """Ready when the command, a list of templates, exits with 0. `{program_dir}` is the program's folder."""

    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Finished:
    """A one-shot: ready when it has exited with 0."""


Ready = Http | Redis | Amqp | Command | Finished


@dataclass(frozen=True)
class Var:
    """One environment variable.

    Attributes:
        value: template; may name secrets, which arguments may not.
        when: the component without which the value is the empty string.
    """

    name: str
    value: str
    when: str | None = None


@dataclass(frozen=True)
class Metrics:
    """Where Prometheus scrapes the component, and the `job` label it gets."""

    port: str
    job: str
    path: str = "/metrics"


@dataclass(frozen=True)
class Component:
    """One process of the stack.

    Templates are `str.format` strings over: `{root}` the repository, `{state}`, `{config}` and `{data}` the
    component's own folders, `{logs}`, `{secrets}`, `{files}` the uploads, `{host}`, and
    `{<component>.<port>}` for every port.

    Attributes:
        program: key that `compose.programs` resolves.
        ports: usual port by name.
        needs: components that must be ready first; it cannot run without them.
        uses: components it talks to and can do without; it is stopped before them.
        when: environment variable and value with which it is part of the whole stack; always if None.
        ready: the check that says it is up.
        config: folder under `compose/config` copied for it.
        rules: folder under `alerts` whose rule files are copied to `rules_to` in its configuration.
        required: whether the stack is of no use without it.
        endpoints: URL template by the name under which it stands in `endpoints.json`.
        show: which of `endpoints` the user opens.
        inherit: prefixes of the user's environment that change how it runs.
        watch: folders whose files are part of it: a change restarts it.
        start_seconds: how long it may take to become ready.
        stop_seconds: how long it may take to end before it is killed.
    """

    name: str
    program: str
    about: str
    ready: Ready
    arguments: tuple[str, ...] = ()
    ports: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    needs: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()
    when: tuple[str, str] | None = None
    config: str | None = None
    rules: str | None = None
    rules_to: str = "rules"
    environment: tuple[Var, ...] = ()
    required: bool = False
    endpoints: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    show: str | None = None
    metrics: Metrics | None = None
    inherit: tuple[str, ...] = ()
    watch: tuple[str, ...] = ()
    start_seconds: float = 60.0
    stop_seconds: float = 15.0
    stop_signal: signal.Signals = signal.SIGTERM

    def belongs(self, environment: Mapping[str, str]) -> bool:
        """Whether the whole stack has it, where nothing else was asked for."""
        return self.when is None or environment.get(self.when[0]) == self.when[1]

    @property
    def one_shot(self) -> bool:
        """Whether it runs to its end instead of staying up."""
        return isinstance(self.ready, Finished)
