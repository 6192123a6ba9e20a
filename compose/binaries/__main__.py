"""`python -m compose.binaries [list | fetch [NAME ...] | path NAME]`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.markup import escape
from rich.status import Status
from rich.table import Table

from compose.binaries.errors import ProgramUnavailable
from compose.binaries.find import locate, obtain
from compose.binaries.table import PROGRAMS

LOG_SECONDS = 15.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 if everything asked for is there, 1 if something is missing."""
    parser = argparse.ArgumentParser(
        prog="python -m compose.binaries", description="Where the stack's programs come from."
    )
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("list", help="what is there, and why the rest is not (the default)")
    fetch = commands.add_parser("fetch", help="download or build what is missing")
    # No `choices`: with nargs="*" they would refuse an empty list.
    fetch.add_argument("names", nargs="*", metavar="NAME", help=", ".join(PROGRAMS))
    path = commands.add_parser("path", help="print where a program is")
    path.add_argument("name", choices=sorted(PROGRAMS), metavar="NAME", help=", ".join(PROGRAMS))
    given = parser.parse_args(arguments)
    if given.command == "fetch":
        if unknown := [name for name in given.names if name not in PROGRAMS]:
            parser.error(f"no program named {', '.join(unknown)}; there are {', '.join(PROGRAMS)}")
        return _fetch(given.names or list(PROGRAMS))
    if given.command == "path":
        return _path(given.name)
    return _list()


def _list() -> int:
    table = Table("program", "version", "from")
    table.add_column("where, or why not", overflow="fold")
    missing = 0
    for name in PROGRAMS:
        try:
            found = locate(name)
            table.add_row(name, found.version, found.source, str(found.path))
        except ProgramUnavailable as error:
            missing += 1
            table.add_row(name, "-", "[red]missing[/]", "\n".join(error.reasons))
    Console().print(table)
    return 1 if missing else 0


def _fetch(names: Sequence[str]) -> int:
    console = Console()
    missing = 0
    for name in names:
        began = time.monotonic()
        with console.status(name) as status:
            try:
                found = obtain(name, report=_progress(console, status))
            except ProgramUnavailable as error:
                missing += 1
                console.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
                continue
        console.print(
            f"{name} {found.version} from {found.source} in {time.monotonic() - began:.1f} s: {found.path}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    return 1 if missing else 0


def _progress(console: Console, status: Status) -> Callable[[str], None]:
    """A live line on a terminal; in a log, a line now and then, so that a long build is not silent."""
    said = 0.0

    def report(text: str) -> None:
        nonlocal said
        status.update(escape(text))
        if not console.is_terminal and time.monotonic() - said > LOG_SECONDS:
            said = time.monotonic()
            console.print(text, markup=False, highlight=False, soft_wrap=True)

    return report


def _path(name: str) -> int:
    try:
        sys.stdout.write(f"{locate(name).path}\n")
    except ProgramUnavailable as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
