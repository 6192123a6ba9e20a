"""Building a program from the Go module proxy, out of the committed tools modules."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from compose.binaries import places
from compose.binaries.errors import SourceError
from compose.binaries.places import Report
from compose.binaries.table import GO_MODULES, Entry, GoRecipe

LIMIT_SECONDS = 60 * 60
OLDEST_GO = (1, 21)  # the first that fetches the toolchain a module names

Check = Callable[[str, Path], None]


def build(entry: Entry, folder: Path, check: Check, report: Report) -> None:
    """Build every program of the entry's recipe and put it into `folder` by one rename each.

    One build runs at a time on a machine: they are long, and hungry for memory.

    Args:
        entry: the program wanted; its siblings in the recipe come along.
        folder: where the programs go.
        check: called with a program's name and file before it counts; raises SourceError if it is not right.
        report: told the seconds that went by.

    Raises:
        SourceError: if there is no recipe or no Go, or the build failed; the error names the log.
    """
    recipe = entry.go
    if recipe is None:
        raise SourceError(f"there is none: {entry.no_go}")
    if places.flag("YARDSTICK_NO_GO"):
        raise SourceError("switched off by YARDSTICK_NO_GO")
    find_go()
    folder.mkdir(parents=True, exist_ok=True)
    places.logs().mkdir(parents=True, exist_ok=True)
    with places.locked("go-build", report, f"{entry.name}: waiting for another Go build to end"):
        for left in places.cache().glob(".build-*"):  # of a build that was killed: this one holds the lock
            shutil.rmtree(left, ignore_errors=True)
        _build(entry, recipe, folder, check, report)


def _build(entry: Entry, recipe: GoRecipe, folder: Path, check: Check, report: Report) -> None:
    go = find_go()
    log = places.logs() / f"{recipe.module}-build.log"
    with tempfile.TemporaryDirectory(prefix=".build-", dir=places.cache()) as scratch:
        module = _module(go, recipe, Path(scratch), log)
        out = Path(scratch) / "out"
        out.mkdir()
        for name, package in recipe.packages.items():
            symbols = "".join(f" -X {symbol}={entry.version}" for symbol in recipe.version_symbols)
            tags = ["-tags", ",".join(recipe.tags)] if recipe.tags else []
            flags = ["-trimpath", "-buildvcs=false", "-p", "2", *tags, "-ldflags", f"-s -w{symbols}"]
            _run([go, "build", *flags, "-o", str(out / name), package], module, log, name, report)
            check(name, out / name)
        for name in recipe.packages:
            (out / name).replace(folder / name)


def find_go() -> str:
    """The go command.

    Raises:
        SourceError: if there is none, or one that cannot fetch the toolchain that the modules name.
    """
    go = shutil.which("go")
    if go is None:
        raise SourceError("no `go` on PATH; install Go 1.21 or newer")
    try:
        out = subprocess.run(
            [go, "version"],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
            env=os.environ | {"GOTOOLCHAIN": "local"},
        ).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SourceError(f"{go} does not run: {error}") from error
    found = re.search(r"go(\d+)\.(\d+)", out)
    if not found or (int(found[1]), int(found[2])) < OLDEST_GO:
        raise SourceError(f"{go} is {out.strip() or 'silent about its version'}; install Go 1.21 or newer")
    return go


def toolchain(module: Path) -> str:
    """The toolchain that a go.mod names, such as `go1.26.8`: every build uses just that one."""
    found = re.search(r"^toolchain (\S+)", (module / "go.mod").read_text(), re.MULTILINE)
    return found[1] if found else "auto"


def _environment(module: Path) -> dict[str, str]:
    # A user's GOFLAGS or workspace would change what is built; proxy and caches are theirs.
    own = {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly", "GOWORK": "off", "GOTOOLCHAIN": toolchain(module)}
    unset = {"GOOS", "GOARCH", "GOEXPERIMENT"}
    return {name: value for name, value in os.environ.items() if name not in unset} | own


def _module(go: str, recipe: GoRecipe, scratch: Path, log: Path) -> Path:
    """A copy of the committed module, so that a build never writes into the repository."""
    module = scratch / "module"
    shutil.copytree(GO_MODULES / recipe.module, module)
    log.write_text("")
    for number, (path, file, text) in enumerate(recipe.stand_ins):
        # Go verifies the module against go.sum before the copy; only then the stand-in joins it.
        answer = _run([go, "mod", "download", "-json", path], module, log, recipe.module, lambda _: None)
        source = Path(json.loads(answer)["Dir"])
        copy = scratch / f"source{number}"
        shutil.copytree(source, copy, ignore=shutil.ignore_patterns("testdata", "node_modules"))
        for folder, _, _ in os.walk(copy):
            Path(folder).chmod(0o755)
        (copy / file).parent.mkdir(parents=True, exist_ok=True)
        (copy / file).write_text(text)
        _run([go, "mod", "edit", f"-replace={path}={copy}"], module, log, recipe.module, lambda _: None)
    return module


def _run(command: list[str], module: Path, log: Path, name: str, report: Report) -> str:
    began = time.monotonic()
    with log.open("a") as err, tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(
            command,
            cwd=module,
            env=_environment(module),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
        try:
            while True:
                elapsed = time.monotonic() - began
                try:
                    process.wait(timeout=2)
                    break
                except subprocess.TimeoutExpired:
                    report(f"{name}: building with Go, {elapsed:.0f} s (log: {log})")
                if elapsed > LIMIT_SECONDS:
                    raise SourceError(f"took over {LIMIT_SECONDS // 60} min and was ended; its log is {log}")
        finally:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        out.seek(0)
        answer = out.read()
    if process.returncode != 0:
        raise SourceError(
            f"`{' '.join(command[:3])}` failed: {_last_line(log) or answer[-300:]}; its log is {log}"
        )
    return answer


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return " / ".join(lines[-2:])[:600]
