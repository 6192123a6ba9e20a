"""`python -m service.db upgrade|downgrade|seed|check|revision`: the schema and its demonstration data."""

import argparse
import asyncio
import sys

import asyncpg
from alembic.util.exc import CommandError
from prometheus_client import CollectorRegistry
from sqlalchemy.exc import DBAPIError

from observability import Metrics
from service.db import migrate
from service.db.session import Database
from service.errors import UnavailableError
from service.features.transactions.seed import seed
from service.settings import DatabaseSettings, SettingsError, load_migration_settings

EX_CONFIG = 78


def main() -> int:
    arguments = _parser().parse_args()
    try:
        settings = load_migration_settings()
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return EX_CONFIG
    try:
        _perform(arguments, settings)
    except (OSError, asyncpg.PostgresError, DBAPIError, UnavailableError, CommandError) as error:
        reason = error.orig if isinstance(error, DBAPIError) else error
        sys.stderr.write(f"{arguments.command} failed: {type(reason).__name__}: {reason}\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m service.db", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("upgrade", help="bring the schema up to date")
    up.add_argument("revision", nargs="?", default="head")
    down = commands.add_parser("downgrade", help="take the schema back; `base` drops everything")
    down.add_argument("revision", nargs="?", default="-1")
    commands.add_parser("seed", help="add the demonstration data; a second time changes nothing")
    commands.add_parser("check", help="fail if models and migrations differ")
    new = commands.add_parser("revision", help="write a migration from the models")
    new.add_argument("message")
    return parser


def _perform(arguments: argparse.Namespace, settings: DatabaseSettings) -> None:
    match arguments.command:
        case "upgrade":
            migrate.upgrade(settings, arguments.revision)
        case "downgrade":
            migrate.downgrade(settings, arguments.revision)
        case "check":
            migrate.check(settings)
        case "revision":
            migrate.revision(settings, arguments.message)
        case "seed":
            added = asyncio.run(_seed(settings))
            sys.stdout.write(f"{added} transactions added\n")


async def _seed(settings: DatabaseSettings) -> int:
    metrics = Metrics(CollectorRegistry(), "yardstick")
    database = Database(settings, application="yardstick-seed", metrics=metrics)
    try:
        async with database.unit() as unit:
            return await seed(unit)
    finally:
        await database.close()


if __name__ == "__main__":
    sys.exit(main())
