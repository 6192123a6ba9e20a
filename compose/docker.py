"""The stack in containers: `Containers(state).up()`, `.down()`, `.status()`, `.logs()`.

Everything that starts or stops goes through `docker compose` with the project's file; what is added here is
what comes before it (secrets, free ports, a state that remembers both) and what comes after (addresses).
`YARDSTICK_COMPOSE` replaces `docker compose -f <file>`, for a machine that needs another command.
"""

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from compose import ports, secret
from compose.components import COMPONENTS
from compose.effective import FILE
from compose.events import Event, Report, silent
from compose.graph import by_name
from compose.model import StackError
from compose.paths import ROOT, Paths
from compose.state import State, locked, write

PUBLISHED: Mapping[str, tuple[str, int]] = {
    "api": ("YARDSTICK_API_PORT", 8000),
    "prometheus": ("YARDSTICK_PROMETHEUS_PORT", 9090),
    "alertmanager": ("YARDSTICK_ALERTMANAGER_PORT", 9093),
    "grafana": ("YARDSTICK_GRAFANA_PORT", 3000),
    "mail": ("YARDSTICK_MAIL_PORT", 8025),
    "s3": ("YARDSTICK_S3_PORT", 7070),
}
"""What can be reached from this machine: the variable that moves it, and its usual port."""

OPTIONAL: Mapping[str, str] = {
    "mail": "what was mailed, in the sandbox",
    "s3": "files: where signed links lead",
}
"""Those of them that have a profile of their name and are only there with it, and what is seen there."""

IN_FILES = ("api", "worker", "scheduler")
"""Whose log lines are in files that the collector tails, and not on standard output."""

ENGINES = ("QUEUE_ENGINE", "FILES_ENGINE")
"""Settings whose value may need a container of its own; it has a profile of the value's name."""


@dataclass(frozen=True)
class Container:
    """One container as `status` shows it; memory and CPU as Docker writes them."""

    service: str
    name: str
    state: str
    image: str
    memory: str = ""
    cpu: str = ""

    @property
    def running(self) -> bool:
        """Whether its process is there, healthy or not."""
        return self.state in ("healthy", "running", "starting", "unhealthy")

    @property
    def good(self) -> bool:
        """Whether it is as it should be: running and healthy, or a one-shot that ended well."""
        return self.state in ("healthy", "running", "done")


def engine() -> bool:
    """Whether a Docker engine answers here, and Docker has its compose plugin."""
    docker = shutil.which("docker")
    if docker is None:
        return False
    try:
        for command in ((docker, "info"), (docker, "compose", "version")):
            if subprocess.run(command, capture_output=True, timeout=10, check=False).returncode:
                return False
    except (OSError, subprocess.TimeoutExpired):
        return False
    return True


class Containers:
    """One stack of containers and its state folder; arguments as those of `compose.native.Stack`."""

    def __init__(self, state: Path | None = None, *, report: Report = silent) -> None:
        self.paths = Paths.of(state)
        self.report = report

    @property
    def file(self) -> Path:
        """What is remembered; there as long as the stack has not been taken down."""
        return self.paths.state / "docker.json"

    @property
    def is_up(self) -> bool:
        """Whether this state folder's stack was brought up in containers."""
        return self.file.exists()

    def up(self, arguments: Iterable[str] = ()) -> int:
        """Build what is not built, start, and wait until everything is healthy.

        Returns:
            The exit code of compose, which has told what happened.

        Raises:
            StackError: if there is no engine, or this state's stack runs as plain processes.
        """
        if not (os.environ.get("YARDSTICK_COMPOSE") or engine()):
            raise StackError(
                "no Docker engine with compose answers here; start Docker, or run the stack as plain "
                "processes with MODE=native"
            )
        with self.locked():
            if State.load(self.paths.file).wanted:
                raise StackError(
                    "this stack runs as plain processes; `make down` first, then `make up MODE=docker`"
                )
            self.secrets()
            chosen = self._ports()
            write(self.file, json.dumps({"ports": chosen}) + "\n")
            self._remove_idle()
            code = self.compose("up", "--detach", "--build", "--wait", "--remove-orphans", *arguments)
            addresses = {name: f"http://{ports.HOST}:{port}" for name, port in chosen.items()}
            running = {one.service for one in self.status()}
            shown = {name: url for name, url in addresses.items() if name in running}
            write(self.paths.endpoints, json.dumps(shown, indent=1) + "\n")
            return code

    def down(self, *, volumes: bool = False) -> int:
        """Stop and remove the containers; the volumes stay unless asked for. The secrets stay always."""
        with self.locked():
            self.secrets()
            code = self.compose(
                "--profile", "*", "down", "--remove-orphans", *(["--volumes"] if volumes else [])
            )
            if code == 0:
                self.file.unlink(missing_ok=True)
                self.paths.endpoints.unlink(missing_ok=True)
            return code

    def locked(self) -> AbstractContextManager[None]:
        """A block in which no other command works on this stack."""
        return locked(self.paths, self._remark)

    def secrets(self) -> list[str]:
        """Generate what is missing, and tell compose where they are; gives the names."""
        self.paths.make()
        names = [f"{name}-password" for name in secret.NAMES]
        secret.values(self.paths.secrets)
        dotenv = FILE.parent / ".env"
        line = f"YARDSTICK_SECRETS={self.paths.secrets}"
        if self.paths.state == (ROOT / ".stack").resolve() or not dotenv.exists():
            kept = dotenv.read_text("utf-8").splitlines() if dotenv.exists() else []
            lines = [one for one in kept if not one.startswith("YARDSTICK_SECRETS=")] + [line]
            write(dotenv, "\n".join(lines) + "\n")
        return names

    def status(self) -> list[Container]:
        """Every container of the stack, in the table's order."""
        label = f"label=com.docker.compose.project={self.project}"
        columns = '{{.Label "com.docker.compose.service"}}\t{{.Names}}\t{{.State}}\t{{.Status}}\t{{.Image}}'
        rows = [line.split("\t") for line in self.docker("ps", "-a", "--filter", label, "--format", columns)]
        usage = {}
        if running := [row[1] for row in rows if row[2] == "running"]:
            form = "{{.Name}}\t{{.MemUsage}}\t{{.CPUPerc}}"
            for line in self.docker("stats", "--no-stream", "--format", form, *running):
                name, memory, cpu = line.split("\t")
                usage[name] = (memory, cpu)
        order = ["prepare", *by_name(COMPONENTS), "edge"]
        found = [
            Container(service, name, _state(state, text), image.partition("@")[0], *usage.get(name, ("", "")))
            for service, name, state, text, image in rows
        ]
        return sorted(
            found, key=lambda one: (order.index(one.service) if one.service in order else 99, one.name)
        )

    def logs(self, names: list[str], lines: int, follow: bool) -> int:
        """The newest lines of the named services, or of all, on standard output."""
        readers = []
        plain = [name for name in names if name not in IN_FILES]
        if plain or not names:
            readers.append(["logs", "--tail", str(lines), *(["--follow"] if follow else []), *plain])
        for name in IN_FILES:
            if name in names or not names:
                tail = [
                    "tail",
                    "-n",
                    str(lines),
                    *(["-F"] if follow else []),
                    f"/var/log/yardstick/{name}.jsonl",
                ]
                readers.append(["exec", "-T", name, *tail])
        if not follow:
            return max(self.compose(*reader) for reader in readers)
        environment = self._environment()
        running = [subprocess.Popen([*self.command(), *reader], env=environment) for reader in readers]
        try:
            return max(one.wait() for one in running)
        finally:
            for one in running:
                one.terminate()

    def run(self, command: list[str]) -> int:
        """Run a command in a container of the API; this machine's Python stands for the image's."""
        first = "python" if Path(command[0]).name.startswith("python") else command[0]
        return self.compose("exec", "-T", "api", first, *command[1:])

    def _remove_idle(self) -> None:
        """Take away what another choice of engine had needed; its data stays."""
        for component in COMPONENTS:
            if not component.belongs(os.environ) and self.ids(component.name):
                self.compose("--profile", "*", "rm", "--stop", "--force", component.name)

    def ids(self, service: str) -> list[str]:
        """The containers of one service, the oldest last."""
        labels = (f"project={self.project}", f"service={service}")
        filters = [word for one in labels for word in ("--filter", f"label=com.docker.compose.{one}")]
        return self.docker("ps", "--all", "--quiet", "--no-trunc", *filters)

    def endpoints(self) -> dict[str, str]:
        """Addresses by name; empty when the stack is down."""
        try:
            return {str(k): str(v) for k, v in json.loads(self.paths.endpoints.read_text("utf-8")).items()}
        except FileNotFoundError:
            return {}

    @property
    def project(self) -> str:
        """Compose's name for this stack; another state folder makes another stack."""
        named = os.environ.get("COMPOSE_PROJECT_NAME")
        if named or self.paths.state == (ROOT / ".stack").resolve():
            return named or "yardstick"
        return f"yardstick-{hashlib.sha256(str(self.paths.state).encode()).hexdigest()[:8]}"

    def command(self) -> list[str]:
        """What stands in front of compose's own arguments."""
        own = os.environ.get("YARDSTICK_COMPOSE")
        return shlex.split(own) if own else ["docker", "compose", "-f", str(FILE)]

    def _environment(self) -> dict[str, str]:
        chosen = self._remembered()
        return {
            **os.environ,
            "COMPOSE_PROJECT_NAME": self.project,
            "COMPOSE_PROFILES": ",".join(_profiles()),
            "YARDSTICK_SECRETS": str(self.paths.secrets),
            **{PUBLISHED[name][0]: str(port) for name, port in chosen.items()},
        }

    def compose(self, *arguments: str) -> int:
        """Run one command of compose for this stack; gives its exit code."""
        sys.stdout.flush()
        try:
            return subprocess.run(
                [*self.command(), *arguments], env=self._environment(), cwd=ROOT, check=False
            ).returncode
        except OSError as error:
            raise StackError(f"{self.command()[0]} cannot be run: {error.strerror}") from error

    def asked(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run one command of compose for this stack and keep what it says."""
        command = [*self.command(), *arguments]
        return subprocess.run(
            command, env=self._environment(), cwd=ROOT, capture_output=True, text=True, check=False
        )

    def docker(self, *arguments: str) -> list[str]:
        """The lines that a command of Docker's client answers. Raises StackError if it fails."""
        try:
            docker = shutil.which("docker") or "docker"
            done = subprocess.run([docker, *arguments], capture_output=True, text=True, check=False)
        except OSError as error:
            raise StackError(f"docker cannot be run: {error.strerror}") from error
        if done.returncode:
            raise StackError(f"docker {arguments[0]} failed: {done.stderr.strip()}")
        return done.stdout.splitlines()

    def _remembered(self) -> dict[str, int]:
        try:
            found = json.loads(self.file.read_text("utf-8"))["ports"]
            return {name: int(port) for name, port in found.items() if name in PUBLISHED}
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
            return {}

    def _ports(self) -> dict[str, int]:
        """The user's choice, else what a running stack has, else the usual one, else a free one near it."""
        had = self._remembered() if self.status() else {}
        chosen: dict[str, int] = {}
        for name, (variable, usual) in PUBLISHED.items():
            if name in OPTIONAL and name not in _profiles():
                continue
            if given := os.environ.get(variable):
                if not given.isdecimal():
                    raise StackError(f"{variable} is {given!r}; it must be a port, such as {usual}")
                chosen[name] = int(given)
            elif name in had:
                chosen[name] = had[name]
            else:
                taken = set(chosen.values())
                free = (port for port in ports.candidates(usual) if port not in taken and ports.is_free(port))
                chosen[name] = next(free)
                if chosen[name] != usual:
                    who = ports.holder(usual)
                    self._remark(f"{name} uses port {chosen[name]}: {usual} is held by {who}")
        return chosen

    def _remark(self, text: str) -> None:
        self.report(Event(None, None, text))


def _profiles() -> list[str]:
    """Those that are asked for by name, and those that the choice of engines needs."""
    asked = os.environ.get("COMPOSE_PROFILES", "").split(",")
    return [name for name in (*asked, *(os.environ.get(engine, "") for engine in ENGINES)) if name]


def _state(state: str, text: str) -> str:
    """One word for what Docker says of a container: `Up 5 minutes (healthy)`, `Exited (0) 2 hours ago`."""
    if state == "running":
        for word in ("unhealthy", "healthy", "starting"):
            if word in text:
                return word
        return "running"
    if state == "exited":
        return (
            "done" if text.startswith("Exited (0)") else f"failed {text.partition(')')[0].partition('(')[2]}"
        )
    return state
