"""What backup and restore need of a running stack, however it is run. docs/backup.md tells of both."""

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

DATABASE = "yardstick"
WRITERS = ("api", "worker", "scheduler")
"""Who writes to the database: they stand still while its content is exchanged."""


class Place(Protocol):
    """A running stack whose PostgreSQL can be reached by PostgreSQL's own client programs."""

    @property
    def mode(self) -> str:
        """`native` or `docker`; it is written into the backup."""

    @property
    def environment(self) -> Mapping[str, str]:
        """All of the environment for `client`'s command."""

    def client(self, program: str, *arguments: str) -> list[str]:
        """The command that runs `psql`, `pg_dump` or `pg_restore` as the owner of the databases.

        Standard input and output are those of the program. Which database is among the arguments.

        Raises:
            StackError: if the stack or its PostgreSQL does not run.
        """

    def without(self, names: Iterable[str]) -> AbstractContextManager[None]:
        """Stop these components inside the block, and no other command works on the stack.

        Those that ran are started again at its end, however it ends.
        """

    def room(self) -> int:
        """Bytes that are free where PostgreSQL keeps its data."""

    def migrate(self, database: str) -> None:
        """Bring the schema of that database to what this code wants.

        Raises:
            StackError: if that fails, with what the migration said.
        """

    def clear_cache(self) -> None:
        """Forget what the service's cache holds of the data before.

        Raises:
            StackError: if that fails; what is cached then goes at the end of its lifetime.
        """

    def has_grafana(self) -> bool:
        """Whether there is a state of Grafana."""

    def save_grafana(self, target: Path) -> None:
        """Write a copy of Grafana's SQLite database as of one moment; Grafana may run.

        Raises:
            StackError: if it cannot be read.
        """

    def stage_grafana(self, source: Path) -> None:
        """Lay a copy beside Grafana's database, so that `switch_grafana` needs no more room."""

    def switch_grafana(self) -> None:
        """Put what was staged in the place of Grafana's database. Grafana is stopped."""
