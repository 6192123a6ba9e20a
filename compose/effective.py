"""The compose file as it takes effect: includes, `extends` and variables resolved, every profile on.

Docker's own reading where there is a Docker with compose, else the same by PyYAML, for what this stack uses
of the format: included files, services that extend one of another file, and `${NAME:-default}`.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from compose.model import StackError
from compose.paths import ROOT

FILE = ROOT / "compose" / "compose.yaml"
ASKED = {"YARDSTICK_SECRETS": "/nonexistent/secrets"}
"""What has no default; only whoever starts something needs the real value."""

_VARIABLE = re.compile(r"\$(?:(\$)|\{(\w+)(?:(:?[-?])([^}]*))?\}|(\w+))")
Config = dict[str, Any]


def by_docker(file: Path = FILE) -> Config | None:
    """What `docker compose config` gives; None without Docker or its compose plugin. It needs no engine.

    Raises:
        StackError: if Docker refuses the file.
    """
    docker = shutil.which("docker")
    if docker is None:
        return None
    if subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode != 0:
        return None
    command = [docker, "compose", "--profile", "*", "-f", str(file), "config"]
    done = subprocess.run(
        command, env={**os.environ, **ASKED}, capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode != 0:
        raise StackError(f"docker compose refuses {file}: {done.stderr.strip()}")
    config: Config = yaml.safe_load(done.stdout)
    return config


def by_yaml(file: Path = FILE, environment: Mapping[str, str] | None = None) -> Config:
    """The same from the files alone.

    Raises:
        StackError: if a variable that is required is not set, or a service extends one that is not there.
    """
    return _read(file, file.parent, {**ASKED} if environment is None else environment)


def _read(file: Path, folder: Path, environment: Mapping[str, str]) -> Config:
    config: Config = _expand(yaml.safe_load(file.read_text("utf-8")), environment)
    services = config.setdefault("services", {})
    for name, service in services.items():
        services[name] = _extended(service, folder, environment)
    for included in config.pop("include", []):
        below = folder / included.get("project_directory", ".")
        part = _read(folder / included["path"], below, environment)
        for section in ("services", "networks", "volumes"):
            if twice := config.get(section, {}).keys() & part.get(section, {}).keys():
                raise StackError(f"{included['path']} defines {section} {', '.join(sorted(twice))} again")
            config[section] = {**config.get(section, {}), **part.get(section, {})}
    return config


def _extended(service: Config, folder: Path, environment: Mapping[str, str]) -> Config:
    base = service.pop("extends", None)
    if base is None:
        return service
    if "file" not in base:
        raise StackError(f"extends {base['service']}: only services of a named file are extended here")
    found = _common(folder / base["file"], base["service"], environment)
    return merged(found, service)


def _common(file: Path, name: str, environment: Mapping[str, str]) -> Config:
    services = _expand(yaml.safe_load(file.read_text("utf-8")), environment)["services"]
    if name not in services:
        raise StackError(f"{file} has no service {name}")
    service: Config = dict(services[name])
    above = service.pop("extends", None)
    return merged(_common(file, above["service"], environment), service) if above else service


def merged(base: Config, own: Config) -> Config:
    """One mapping over another: mappings merge, lists follow each other, anything else is replaced."""
    result = dict(base)
    for key, value in own.items():
        before = result.get(key)
        if isinstance(before, dict) and isinstance(value, dict):
            result[key] = merged(before, value)
        elif isinstance(before, list) and isinstance(value, list) and key not in ("command", "entrypoint"):
            result[key] = [*before, *(one for one in value if one not in before)]
        else:
            result[key] = value
    return result


def _expand(value: Any, environment: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _expand(one, environment) for key, one in value.items()}
    if isinstance(value, list):
        return [_expand(one, environment) for one in value]
    return (
        _VARIABLE.sub(lambda found: _variable(found, environment), value) if isinstance(value, str) else value
    )


def _variable(found: re.Match[str], environment: Mapping[str, str]) -> str:
    dollar, braced, operator, text, bare = found.groups()
    if dollar:
        return "$"
    value = environment.get(braced or bare)
    if operator and (value is None or (operator.startswith(":") and not value)):
        if operator.endswith("?"):
            raise StackError(f"{braced} is not set: {text}")
        return str(text)
    return value or ""
