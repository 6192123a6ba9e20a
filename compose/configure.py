"""From the table to one component's command line, environment and configuration on this machine."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from compose import unprivileged
from compose.model import Component, Resolved
from compose.paths import CONFIG, ROOT, Paths
from compose.ports import HOST
from compose.state import write


@dataclass(frozen=True)
class Setting:
    """What the templates are filled with.

    Attributes:
        ports: by component and port name, for the whole table.
        secrets: by template name.
        present: the components that run or will run in this stack.
    """

    paths: Paths
    ports: Mapping[str, Mapping[str, int]]
    secrets: Mapping[str, str]
    present: frozenset[str]

    def fill(
        self, template: str, component: str, *, secrets: bool = False, program: Path | None = None
    ) -> str:
        """The template with everything filled in.

        Raises:
            KeyError: if it names what is not there, or a secret where none may stand.
        """
        values: dict[str, object] = {name: SimpleNamespace(**ports) for name, ports in self.ports.items()}
        values |= {
            "root": ROOT,
            "host": HOST,
            "state": self.paths.state,
            "logs": self.paths.logs,
            "secrets": self.paths.secrets,
            "config": self.paths.config(component),
            "data": self.paths.data(component),
            "files": self.paths.data("files"),
        }
        if program:
            values["program_dir"] = program.parent
        if secrets:
            values |= self.secrets
        return template.format_map(values)


@dataclass(frozen=True)
class Plan:
    """How one component is run.

    Attributes:
        environment: all of it, except the stack's marker.
        fingerprint: changes when the process has to be started anew.
    """

    component: Component
    program: Resolved
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    fingerprint: str


def plan(component: Component, program: Resolved, setting: Setting) -> Plan:
    """Write the component's configuration and say how it is run."""
    paths = setting.paths
    paths.data(component.name).mkdir(parents=True, exist_ok=True)
    copy_config(component, setting)
    arguments = [str(program.path)]
    arguments += [
        setting.fill(argument, component.name, program=program.path) for argument in component.arguments
    ]
    if component.program == "postgres":
        data = paths.data(component.name)
        arguments = unprivileged.prefix(data, (program.path, data / "cluster")) + arguments
    own = environment(component, setting)
    inherited = {
        name: value for name, value in os.environ.items() if name.startswith(component.inherit or ("\0",))
    }
    seen = json.dumps([arguments, {**inherited, **own}, program.version], sort_keys=True)
    digest = hashlib.sha256(seen.encode())
    for folder in (paths.config(component.name), *(ROOT / name for name in component.watch)):
        for file in files(folder):
            digest.update(f"\0{file.relative_to(folder)}\0".encode() + file.read_bytes())
    return Plan(component, program, tuple(arguments), {**os.environ, **own}, digest.hexdigest()[:16])


def environment(component: Component, setting: Setting) -> dict[str, str]:
    """The variables that the table gives the component."""
    return {
        var.name: ""
        if var.when is not None and var.when not in setting.present
        else setting.fill(var.value, component.name, secrets=True)
        for var in component.environment
    }


def files(folder: Path) -> Iterable[Path]:
    """The files below a folder that matter, in a stable order, without what is found at run time."""
    if not folder.is_dir():
        return []
    return sorted(
        file
        for file in folder.rglob("*")
        if file.is_file()
        and "__pycache__" not in file.parts
        and "targets" not in file.relative_to(folder).parts
    )


def copy_config(component: Component, setting: Setting) -> None:
    """Bring the component's own copy of its configuration up to date, and remove what has left it."""
    target = setting.paths.config(component.name)
    wanted: dict[Path, str] = {}
    if component.config:
        source = CONFIG / component.config
        wanted |= {file.relative_to(source): file.read_text("utf-8") for file in files(source)}
    if component.rules:
        source = ROOT / component.rules
        wanted |= {
            Path(component.rules_to) / file.name: file.read_text("utf-8")
            for file in sorted(source.glob("*.yaml"))
        }
    if component.program == "redis":
        password = setting.secrets["redis_password"]
        wanted[Path("redis.conf")] = wanted.get(Path("redis.conf"), "") + f"requirepass {password}\n"
    if component.program == "rabbitmq":
        wanted[Path("rabbitmq.conf")] = wanted.get(Path("rabbitmq.conf"), "") + _broker(component, setting)
    target.mkdir(parents=True, exist_ok=True)
    for name, text in wanted.items():
        file = target / name
        if not file.is_file() or file.read_text("utf-8") != text:
            file.parent.mkdir(parents=True, exist_ok=True)
            write(file, text)
    for file in files(target):
        if file.relative_to(target) not in wanted:
            file.unlink()


def _broker(component: Component, setting: Setting) -> str:
    """What RabbitMQ takes from its configuration file alone."""
    ports = setting.ports[component.name]
    return (
        f"listeners.tcp.1 = {HOST}:{ports['amqp']}\n"
        f"prometheus.tcp.ip = {HOST}\nprometheus.tcp.port = {ports['metrics']}\n"
        f"default_user = yardstick\ndefault_pass = {setting.secrets['rabbitmq_password']}\n"
    )


def write_targets(setting: Setting, table: Iterable[Component], folder: Path) -> None:
    """Write one file of scrape targets for each component that has metrics and belongs to this stack.

    The Alertmanagers to send to stand in a folder of their own beside them.
    """
    here = [c for c in table if c.metrics and c.name in setting.present]
    scraped = {c.name: _target(setting, c) for c in here}
    senders = {name: target for name, target in scraped.items() if name == "alertmanager"}
    for place, targets in ((folder, scraped), (folder / "alertmanagers", senders)):
        place.mkdir(parents=True, exist_ok=True)
        for name, target in targets.items():
            write(place / f"{name}.json", json.dumps([target]) + "\n", mode=0o644)
        for file in place.glob("*.json"):
            if file.stem not in targets:
                file.unlink()


def _target(setting: Setting, component: Component) -> dict[str, object]:
    if component.metrics is None:
        raise ValueError(f"{component.name} has no metrics")
    address = f"{HOST}:{setting.ports[component.name][component.metrics.port]}"
    labels = {"job": component.metrics.job}
    if component.metrics.path != "/metrics":
        labels["__metrics_path__"] = component.metrics.path
    return {"targets": [address], "labels": labels}


def remove(folder: Path) -> None:
    """Remove a folder and what is in it, if it is there."""
    if folder.exists():
        shutil.rmtree(folder)
