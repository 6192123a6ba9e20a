"""PostgreSQL and Redis of the stack: reachable, guarded by a password, private."""

import stat
import subprocess
from pathlib import Path

import asyncpg
import pytest
import redis

from compose.native import Stack


async def test_postgres_answers_and_wants_the_password(postgres_url: str) -> None:
    connection = await asyncpg.connect(postgres_url)
    assert (
        await connection.fetchval("SELECT current_database() || ' ' || current_user") == "yardstick yardstick"
    )
    await connection.close()
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(postgres_url, password="wrong")


def test_redis_answers_and_wants_the_password(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.ping()
        assert client.config_get("appendonly") == {"appendonly": "yes"}
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    with (
        redis.Redis(port=int(redis_url.rpartition(":")[2].partition("/")[0])) as stranger,
        pytest.raises(redis.AuthenticationError),
    ):
        stranger.ping()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that only this user may enter, with a space in its name."""
    folder = tmp_path_factory.mktemp("private") / "two words"
    folder.mkdir(mode=0o700)
    return folder


async def test_data_survives_a_kill_and_a_restart(folder: Path) -> None:
    stack = Stack(folder, only=("postgres", "redis"))
    with stack:
        addresses = stack.endpoints()
        connection = await asyncpg.connect(addresses["postgres"])
        await connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
        await connection.close()
        with redis.Redis.from_url(addresses["redis"]) as client:
            client.set("kept", "yes")
        stack.kill("postgres")
        stack.start("postgres")
    with stack:
        assert stack.endpoints() == addresses
        connection = await asyncpg.connect(addresses["postgres"])
        assert await connection.fetchval("SELECT number FROM kept") == 7
        await connection.close()
        with redis.Redis.from_url(addresses["redis"]) as client:
            assert client.get("kept") == b"yes"


def test_no_password_is_on_a_command_line_or_in_a_file_that_others_can_read(folder: Path) -> None:
    with Stack(folder, only=("postgres", "redis")) as stack:
        passwords = [(stack.paths.secrets / f"{name}-password").read_text() for name in ("postgres", "redis")]
        assert all(len(password) >= 32 for password in passwords)
        listing = subprocess.run(
            ["/bin/ps", "axww", "-o", "args"], capture_output=True, text=True, check=True
        ).stdout
        assert str(stack.paths.config("redis")) in listing
        assert not any(password in listing for password in passwords)
        holders = [
            file
            for file in stack.paths.state.rglob("*")
            if "data" not in file.parts and file.is_file() and any(p in file.read_text() for p in passwords)
        ]
        assert {file.name for file in holders} >= {"endpoints.json", "redis.conf", "postgres-password"}
        assert {stat.S_IMODE(file.stat().st_mode) for file in holders} == {0o600}


def test_a_cluster_whose_making_was_cut_off_is_made_anew(tmp_path: Path) -> None:
    draft = tmp_path / "data" / "postgres" / "draft"
    draft.mkdir(parents=True)
    (draft / "PG_VERSION").write_text("18\n")
    with Stack(tmp_path, only=("postgres",)) as stack:
        assert stack.pid("postgres")
    assert not draft.exists()
