"""Take a backup of a running stack."""

import contextlib
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from compose.backup import sql
from compose.backup.archive import GRAFANA, POSTGRES, written
from compose.backup.manifest import Manifest, commit, version
from compose.backup.place import DATABASE, Place
from compose.model import StackError
from compose.paths import ROOT

FOLDER = ROOT / "backups"


def take(place: Place, folder: Path, say: Callable[[str], None]) -> tuple[Path, Manifest]:
    """Write an archive into `folder`; nothing of it stays if it does not become whole.

    What it says of the tables holds for the very snapshot that was dumped, whatever is written meanwhile.

    Raises:
        StackError: if PostgreSQL does not run, a program fails, or the disk does not take it.
    """
    taken_at = datetime.now(UTC)
    with written(folder, taken_at) as (writer, path):
        with sql.session(place, DATABASE) as one:
            one.ask("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            ((snapshot,),) = one.ask("SELECT pg_export_snapshot()")
            ((server,),) = one.ask("SHOW server_version")
            ((size,),) = one.ask("SELECT pg_database_size(current_database())")
            revision = sql.revision(one)
            say("dumping PostgreSQL")
            with _dumped(place, snapshot) as dump:
                writer.add(POSTGRES, dump)
            say("counting and hashing the tables of the same snapshot")
            tables = sql.tables(one)
        if place.has_grafana():
            say("copying Grafana's state")
            with tempfile.TemporaryDirectory(prefix="yardstick-grafana-") as spare:
                copy = Path(spare) / GRAFANA
                place.save_grafana(copy)
                with copy.open("rb") as source:
                    writer.add(GRAFANA, source)
        else:
            say("without Grafana: it is no part of this stack, or has no state yet")
        manifest = Manifest(
            taken_at=taken_at.isoformat(timespec="seconds"),
            mode=place.mode,
            version=version(),
            commit=commit(),
            postgres=server,
            database_bytes=int(size),
            revision=revision,
            tables=tables,
            members=dict(writer.members),
        )
        writer.close(manifest)
    return path, manifest


@contextlib.contextmanager
def _dumped(place: Place, snapshot: str) -> Iterator[IO[bytes]]:
    """What `pg_dump` writes. Raises StackError at the end of the block if it failed."""
    arguments = ("-Fc", "-w", "--lock-wait-timeout=60s", f"--snapshot={snapshot}", "-d", DATABASE)
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as complaints:
        process = subprocess.Popen(
            place.client("pg_dump", *arguments),
            env=dict(place.environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=complaints,
            start_new_session=True,
        )
        if process.stdout is None:
            raise ValueError("pg_dump was started without a pipe")
        whole = False
        try:
            yield process.stdout
            whole = True
        finally:
            process.stdout.close()
            code = sql.ended(process)
        if whole and code:
            complaints.seek(0)
            raise StackError(f"pg_dump failed: {complaints.read().strip()}")
