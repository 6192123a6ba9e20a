"""PostgreSQL through its own client programs: the same way beside it and in its container."""

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator
from typing import IO

from compose.backup.manifest import Table
from compose.backup.place import Place
from compose.model import StackError

_SEPARATOR = "\x1f"
_END = "-- that was all --"
_PSQL = ("-X", "-q", "-A", "-t", "-w", f"-F{_SEPARATOR}", "-v", "ON_ERROR_STOP=1")

# As text a row must look the same on every server; where it looks for names has an influence too.
_PLAIN = (
    "SET datestyle = 'ISO, YMD'; SET intervalstyle = 'postgres'; SET timezone = 'UTC';"
    " SET extra_float_digits = 1; SET bytea_output = 'hex'; SET lc_monetary = 'C'; SET search_path = '';"
    " SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0"
)

TABLES = (
    "SELECT n.nspname, c.relname FROM pg_catalog.pg_class c"
    " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
    " WHERE c.relkind = 'r' AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'"
    " ORDER BY 1, 2"
)


# A bit string is what can be aggregated by XOR; it comes as zeros and ones.
_CONTENT = (
    "count(*), coalesce(bit_xor("
    "('x' || encode(sha256(convert_to(whole_row::text, 'UTF8')), 'hex'))::bit(256))::text, '0')"
)


class Session:
    """One `psql` kept open, so that several statements, and other programs, share a transaction."""

    def __init__(self, process: "subprocess.Popen[str]", complaints: IO[str]) -> None:
        self._process = process
        self._complaints = complaints

    def ask(self, statement: str) -> list[list[str]]:
        """Rows of text. Raises StackError with what the server said."""
        process = self._process
        if process.stdin is None or process.stdout is None:
            raise ValueError("psql was started without pipes")
        rows: list[list[str]] = []
        try:
            process.stdin.write(f"{statement};\n\\echo '{_END}'\n")
            process.stdin.flush()
            for line in process.stdout:
                if line.rstrip("\n") == _END:
                    return rows
                rows.append(line.rstrip("\n").split(_SEPARATOR))
        except BrokenPipeError:
            pass
        process.wait()
        self._complaints.seek(0)
        raise StackError(f"PostgreSQL: {self._complaints.read().strip() or 'it has gone away'}")


@contextlib.contextmanager
def session(place: Place, database: str) -> Iterator[Session]:
    """A session with that database. Raises StackError if there is no way to it."""
    command = place.client("psql", *_PSQL, "-d", database)
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as complaints:
        try:
            process = subprocess.Popen(
                command,
                env=dict(place.environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=complaints,
                encoding="utf-8",
                # Ctrl-C is for the command: it still has something to put in order.
                start_new_session=True,
            )
        except OSError as error:
            raise StackError(f"{command[0]} cannot be run: {error.strerror}") from error
        try:
            yield Session(process, complaints)
        finally:
            for pipe in (process.stdin, process.stdout):
                if pipe:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()
            ended(process)


def run(place: Place, database: str, *statements: str) -> list[list[str]]:
    """Rows of the last of these statements, each a transaction of its own unless they say BEGIN."""
    with session(place, database) as one:
        return [one.ask(statement) for statement in statements][-1]


def ended(process: "subprocess.Popen[str] | subprocess.Popen[bytes]") -> int:
    """Wait for a program whose pipes are closed, and make it end if it does not."""
    try:
        return process.wait(10)
    except subprocess.TimeoutExpired:
        process.terminate()
    try:
        return process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def quoted(name: str) -> str:
    """A name as SQL reads it."""
    return '"' + name.replace('"', '""') + '"'


def tables(one: Session) -> dict[str, Table]:
    """Rows and hash of every table, by `schema.table`, as the session's transaction sees them."""
    one.ask(_PLAIN)
    found = {}
    for schema, name in one.ask(TABLES):
        table = f"{quoted(schema)}.{quoted(name)}"
        ((rows, bits),) = one.ask(f"SELECT {_CONTENT} FROM ONLY {table} AS whole_row")  # noqa: S608
        found[f"{schema}.{name}"] = Table(int(rows), f"{int(bits, 2):064x}")
    return found


def revision(one: Session) -> str:
    """Of the schema; empty if it was never migrated."""
    ((there,),) = one.ask("SELECT to_regclass('public.alembic_version') IS NOT NULL")
    if there != "t":
        return ""
    rows = one.ask("SELECT version_num FROM public.alembic_version")
    return rows[0][0] if rows else ""
