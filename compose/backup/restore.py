"""Bring a backup into a running stack, or leave everything as it was.

The dump goes into a new database beside the old one; only when that is complete, compared and migrated do the
two change names, in one transaction. So a command that fails, is interrupted or killed leaves the old data.
"""

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from compose.backup import sql
from compose.backup.archive import GRAFANA, PIECE, POSTGRES, Archive
from compose.backup.manifest import Manifest, Table, revisions
from compose.backup.place import DATABASE, WRITERS, Place
from compose.model import StackError

STAGING = "yardstick_restore"
REPLACED = "yardstick_replaced"

_LOG_BYTES = 2 << 30
"""Most that PostgreSQL's write-ahead log takes on its way: twice its `max_wal_size`."""
_SPARE_BYTES = 64 << 20
_SWAPS = 5
_CLEAR = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname IN ('yardstick', 'yardstick_restore') AND pid <> pg_backend_pid()"
)
_OWN = {
    "public.alembic_version": "",
    "public.schedule": "",
    "public.snowflake_node": "",
    "public.worker_presence": "",
    "public.job": "name NOT LIKE 'maintenance.%'",
}
"""What the service writes without anybody's asking: whole tables, or the rows that this does not select."""


def restore(place: Place, archive: Archive, say: Callable[[str], None], *, force: bool = False) -> None:
    """Replace the data of the stack by that of the backup.

    API, worker and scheduler stand still meanwhile, Grafana too if its state is in the backup.

    Args:
        force: whether data that is there may go.

    Raises:
        StackError: if the backup does not fit, there is data, or something fails; the data is then as before.
    """
    manifest = archive.manifest
    known = revisions()
    if manifest.revision and manifest.revision not in known:
        raise StackError(
            f"{archive.path} cannot be restored: its schema has revision {manifest.revision}, and this "
            f"version knows up to {max(known)}; use version {manifest.version or 'that made it'} or newer"
        )
    sql.run(place, "postgres", "SELECT 1")  # that there is none to restore into is told first
    _refuse_to_fill_the_disk(place, manifest)
    _refuse_to_lose(place, force)
    with_grafana = GRAFANA in manifest.members and place.has_grafana()
    with place.without((*WRITERS, "grafana") if with_grafana else WRITERS):
        _refuse_to_lose(place, force)  # what came until the writers stood still counts too
        try:
            sql.run(
                place,
                "postgres",
                _drop(STAGING),
                _drop(REPLACED),
                f"CREATE DATABASE {STAGING} TEMPLATE template0",
            )
            say(f"restoring into {STAGING}, beside {DATABASE}")
            _load(place, archive)
            say("comparing counts and hashes with the manifest")
            _compare(place, manifest)
            place.migrate(STAGING)
            _say_revision(place, manifest, say)
            if with_grafana:
                _stage_grafana(place, archive)
            _swap(place)
        finally:
            # After the swap there is none; a server that has gone away keeps it until the next restore.
            with contextlib.suppress(StackError):
                sql.run(place, "postgres", _drop(STAGING))
        try:
            place.clear_cache()
        except StackError as error:
            say(f"{error}; for some minutes the API may show what it had cached of the data before")
        if with_grafana:
            place.switch_grafana()
        with contextlib.suppress(StackError):
            sql.run(place, "postgres", _drop(REPLACED))
    rows = sum(table.rows for table in manifest.tables.values())
    say(f"{len(manifest.tables)} tables with {rows} rows: counts and hashes are those of the manifest")
    if with_grafana:
        say("Grafana's state is that of the backup; the one before is kept as grafana.db.before-restore")
    elif GRAFANA in manifest.members:
        say("Grafana's state was left out: Grafana is no part of this stack")
    elif place.has_grafana():
        say("Grafana's state stays as it is: the backup holds none")


def lost(place: Place) -> dict[str, int]:
    """Rows by table that a restore would take away, without those that the service writes by itself."""
    found = {}
    with sql.session(place, DATABASE) as one:
        for schema, name in one.ask(sql.TABLES):
            only = _OWN.get(f"{schema}.{name}")
            if only == "":
                continue
            where = f" WHERE {only}" if only else ""
            table = f"{sql.quoted(schema)}.{sql.quoted(name)}"
            ((rows,),) = one.ask(f"SELECT count(*) FROM ONLY {table}{where}")  # noqa: S608
            if int(rows):
                found[name if schema == "public" else f"{schema}.{name}"] = int(rows)
    return found


def _refuse_to_lose(place: Place, force: bool) -> None:
    if force:
        return
    if there := lost(place):
        what = ", ".join(f"{rows} rows of {name}" for name, rows in sorted(there.items()))
        raise StackError(
            f"the database holds data, which a restore would take away: {what}. Nothing was changed. To "
            "replace it, add --yes (with make: FORCE=1); `make backup` keeps it first"
        )


def _refuse_to_fill_the_disk(place: Place, manifest: Manifest) -> None:
    """A server that can write no more log shuts down, and does not start before there is room."""
    needed = manifest.database_bytes + min(manifest.database_bytes, _LOG_BYTES) + _SPARE_BYTES
    if (there := place.room()) < needed:
        raise StackError(
            f"the disk of PostgreSQL's data has {there / 2**20:.0f} MiB free, and the restore needs "
            f"{needed / 2**20:.0f} MiB beside the data that is there. Nothing was changed; make room first"
        )


def _drop(database: str) -> str:
    return f"DROP DATABASE IF EXISTS {database} WITH (FORCE)"


def _load(place: Place, archive: Archive) -> None:
    arguments = ("-w", "--single-transaction", "--exit-on-error", "--no-owner", "-d", STAGING)
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as complaints:
        process = subprocess.Popen(
            place.client("pg_restore", *arguments),
            env=dict(place.environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=complaints,
            start_new_session=True,
        )
        if process.stdin is None:
            raise ValueError("pg_restore was started without a pipe")
        try:
            # If it ends before it has read all, its exit code and its words tell why.
            with archive.member(POSTGRES) as dump, contextlib.suppress(BrokenPipeError):
                shutil.copyfileobj(dump, process.stdin, PIECE)
        finally:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            code = process.wait()
        if code:
            complaints.seek(0)
            raise StackError(f"pg_restore failed, and the data is as before: {complaints.read().strip()}")


def _compare(place: Place, manifest: Manifest) -> None:
    with sql.session(place, STAGING) as one:
        found = sql.tables(one)
        one.ask("ANALYZE")
    if faults := differences(manifest.tables, found):
        raise StackError(
            f"what was restored is not what was backed up; the data is as before. {'; '.join(faults)}"
        )


def differences(expected: Mapping[str, Table], found: Mapping[str, Table]) -> list[str]:
    """What is not the same, table by table."""
    faults = [f"{name} is missing" for name in expected.keys() - found.keys()]
    faults += [f"{name} is not in the manifest" for name in found.keys() - expected.keys()]
    for name in expected.keys() & found.keys():
        if expected[name].rows != found[name].rows:
            faults.append(f"{name} has {found[name].rows} rows instead of {expected[name].rows}")
        elif expected[name] != found[name]:
            faults.append(f"{name} has other content")
    return sorted(faults)


def _say_revision(place: Place, manifest: Manifest, say: Callable[[str], None]) -> None:
    with sql.session(place, STAGING) as one:
        now = sql.revision(one)
    if now != manifest.revision:
        say(f"schema migrated from {manifest.revision or 'nothing'} to {now}")


def _stage_grafana(place: Place, archive: Archive) -> None:
    with tempfile.TemporaryDirectory(prefix="yardstick-grafana-") as spare:
        copy = Path(spare) / GRAFANA
        with archive.member(GRAFANA) as source, copy.open("wb") as out:
            shutil.copyfileobj(source, out, PIECE)
        place.stage_grafana(copy)


def _swap(place: Place) -> None:
    """Change the names. A client that comes back just then makes PostgreSQL refuse, so it is tried again."""
    for left in reversed(range(_SWAPS)):
        try:
            sql.run(
                place,
                "postgres",
                _CLEAR,
                f"BEGIN; ALTER DATABASE {DATABASE} RENAME TO {REPLACED};"
                f" ALTER DATABASE {STAGING} RENAME TO {DATABASE}; COMMIT",
            )
        except StackError as error:
            if "is being accessed by other users" not in str(error) or not left:
                raise
        else:
            return
