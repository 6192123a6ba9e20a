"""Where an installed RabbitMQ is, and the Erlang below it.

Debian and its kin put a wrapper on PATH that changes the user and writes to the system's own folders. What it
calls in the end is RabbitMQ's own script, which runs as anybody and reads everything from the environment.
"""

import re
import shutil
import subprocess
from pathlib import Path

from compose.model import MissingProgramError, Resolved

OLDEST = (3, 10)
INSTALL = "RabbitMQ comes from the system's packages: `make rabbitmq` on Debian or Ubuntu as root"
# System programs are not on every user's PATH.
_FOLDERS = ("/usr/lib/rabbitmq/bin", "/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin")


def server() -> Resolved:
    """RabbitMQ's own start script, 3.10 or newer.

    Raises:
        MissingProgramError: if there is none, it is older, or Erlang is missing.
    """
    if shutil.which("erl") is None:
        raise MissingProgramError("rabbitmq", ("no Erlang (erl) on PATH", INSTALL))
    reasons = []
    found = shutil.which("rabbitmq-server")
    places = [Path(found)] if found else []
    places += [Path(folder) / "rabbitmq-server" for folder in _FOLDERS]
    for place in places:
        script = place.resolve()
        if not script.is_file() or script.name == "rabbitmq-script-wrapper":
            continue
        stated = re.search(
            r"rabbitmq[_-](?:server[_-])?(\d+(?:\.\d+)+)|/rabbitmq/(\d+(?:\.\d+)+)", str(script)
        )
        version = next((part for part in stated.groups() if part), "0") if stated else _ask(script)
        if tuple(int(part) for part in version.split(".")[:2]) >= OLDEST:
            return Resolved(script, version, "PATH" if place == Path(found or "") else "system")
        reasons.append(f"{script} is {version}, older than 3.10")
    raise MissingProgramError("rabbitmq", (*(reasons or ["no rabbitmq-server on PATH"]), INSTALL))


def epmd() -> Resolved:
    """Erlang's port mapper, on PATH or in Erlang's own folder.

    Raises:
        MissingProgramError: if there is none.
    """
    on_path = shutil.which("epmd")
    erl = shutil.which("erl")
    beside = sorted(Path(erl).resolve().parent.parent.glob("erts-*/bin/epmd")) if erl else []
    for path in (Path(on_path) if on_path else None, *beside):
        if path is not None:
            return Resolved(path, "", "PATH" if on_path else "Erlang")
    raise MissingProgramError("epmd", ("no Erlang (epmd) on PATH", INSTALL))


def _ask(script: Path) -> str:
    """The version as the tool beside the server states it; 0 if it states none."""
    try:
        done = subprocess.run(
            [script.parent / "rabbitmqctl", "version"],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return "0"
    stated = re.search(r"^(\d+\.\d+\.\d+)", done.stdout, re.MULTILINE)
    return stated.group(1) if stated else "0"
