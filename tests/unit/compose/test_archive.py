"""The archive of a backup: whole or refused, and never half there."""

import io
import json
import stat
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from compose.backup import manifest
from compose.backup.archive import Archive, written
from compose.backup.manifest import Manifest, Table
from compose.backup.restore import differences
from compose.model import StackError
from tests.integration.compose.backups import rewritten

TAKEN_AT = datetime(2026, 11, 21, 12, 30, 15, tzinfo=UTC)
DUMP = bytes(range(256)) * 400


def take(folder: Path) -> Path:
    with written(folder, TAKEN_AT) as (writer, path):
        writer.add("postgres.dump", io.BytesIO(DUMP))
        members, tables = dict(writer.members), {"public.transaction": Table(3, "00ff")}
        at = TAKEN_AT.isoformat()
        writer.close(Manifest(at, "native", "0.1.0", "abc", "18.6", 8_000_000, "0005", tables, members))
    return path


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return take(tmp_path)


def test_it_gives_back_what_was_put_in(archive: Path) -> None:
    assert archive.name == "yardstick-20261121T123015Z.zip"
    assert stat.S_IMODE(archive.stat().st_mode) == 0o600
    found = Archive.of(archive)
    assert found.manifest.tables == {"public.transaction": Table(3, "00ff")}
    assert found.manifest.members["postgres.dump"].bytes == len(DUMP)
    with found.member("postgres.dump") as source:
        assert source.read() == DUMP


def test_every_single_truncation_is_noticed(archive: Path) -> None:
    whole = archive.read_bytes()
    for length in [*range(0, len(whole), 4999), len(whole) - 1]:
        archive.write_bytes(whole[:length])
        with pytest.raises(StackError, match="cannot be restored"):
            Archive.of(archive)


def test_a_changed_byte_is_noticed_wherever_the_data_is(archive: Path) -> None:
    whole = archive.read_bytes()
    begin = whole.index(DUMP)
    for position in (begin, begin + len(DUMP) // 2, begin + len(DUMP) - 1, whole.index(b"PK\1\2") - 5):
        changed = bytearray(whole)
        changed[position] ^= 1
        archive.write_bytes(changed)
        with pytest.raises(StackError, match="damaged"):
            Archive.of(archive)


def change(**values: object) -> Callable[[dict[str, Any]], None]:
    return lambda content: content.update(values)


def without(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda content: content.pop(name)


@pytest.mark.parametrize(
    ("alter", "words"),
    [
        (change(format=2), "it has format 2, and this version reads up to 1; use the version that made it"),
        (change(format="1"), "its manifest states no format"),
        (change(kind="another-backup"), "it is no backup of this project"),
        (without("tables"), "its manifest is not complete"),
        (change(tables={"x": {"rows": 1}}), "its manifest is not complete"),
        (change(surprise=1), "its manifest is not complete"),
        (change(members={}), "names no dump"),
        (
            change(members={"postgres.dump": {"bytes": len(DUMP), "sha256": "0" * 64}}),
            "it is damaged: postgres.dump is not what its manifest says",
        ),
        (
            change(members={name: {"bytes": 1, "sha256": ""} for name in ("gone.db", "postgres.dump")}),
            "it is damaged: gone.db is missing",
        ),
    ],
)
def test_what_does_not_fit_is_said(
    archive: Path, tmp_path: Path, alter: Callable[[dict[str, Any]], None], words: str
) -> None:
    other = rewritten(archive, tmp_path / "other.zip", alter)
    with pytest.raises(StackError) as refused:
        Archive.of(other)
    assert str(refused.value).startswith(f"{other} cannot be restored: ")
    assert words in str(refused.value)


def test_what_is_no_backup_is_said(tmp_path: Path) -> None:
    file = tmp_path / "file"
    with pytest.raises(StackError, match="there is no "):
        Archive.of(file)
    for data in (b"", b"SELECT 1;", json.dumps({"kind": manifest.KIND}).encode()):
        file.write_bytes(data)
        with pytest.raises(StackError, match="it is damaged, or no backup"):
            Archive.of(file)
    with zipfile.ZipFile(file, "w") as foreign:
        foreign.writestr("letter.txt", "hello")
    with pytest.raises(StackError, match="no backup of this project: it has no manifest"):
        Archive.of(file)
    with zipfile.ZipFile(file, "w") as foreign:
        foreign.writestr("manifest.json", "{")
    with pytest.raises(StackError, match="its manifest is no JSON"):
        Archive.of(file)
    with pytest.raises(StackError, match="cannot be read: Is a directory"):
        Archive.of(tmp_path)


def test_of_two_in_one_second_the_first_stays(archive: Path, tmp_path: Path) -> None:
    before = archive.read_bytes()
    with pytest.raises(StackError, match="is there already"):
        take(tmp_path)
    assert archive.read_bytes() == before
    assert list(tmp_path.iterdir()) == [archive]


@pytest.mark.parametrize("fault", [KeyboardInterrupt, StackError("pg_dump failed"), OSError(28, "No space")])
def test_what_does_not_become_whole_is_not_there(tmp_path: Path, fault: BaseException) -> None:
    def half() -> None:
        with written(tmp_path, TAKEN_AT) as (writer, _):
            writer.add("postgres.dump", io.BytesIO(DUMP))
            raise fault

    with pytest.raises((KeyboardInterrupt, StackError)):
        half()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_backup_left_is_swept_away_and_nothing_else(tmp_path: Path) -> None:
    left, running, foreign = (
        tmp_path / name
        for name in (".yardstick-x.zip.999999999.part", ".yardstick-x.zip.1.part", "notes.part")
    )
    for file in (left, running, foreign):
        file.touch()
    take(tmp_path)
    assert [file.exists() for file in (left, running, foreign)] == [False, True, True]


def test_differences_are_named_table_by_table() -> None:
    expected = {"a": Table(1, "0"), "b": Table(1, "0"), "c": Table(1, "0"), "d": Table(1, "0")}
    found = {"a": Table(1, "0"), "b": Table(2, "0"), "c": Table(1, "1"), "e": Table(0, "0")}
    assert differences(expected, found) == [
        "b has 2 rows instead of 1",
        "c has other content",
        "d is missing",
        "e is not in the manifest",
    ]
    assert differences(expected, expected) == []


def test_the_revisions_are_those_of_the_migrations() -> None:
    assert {"0001", "0005"} <= manifest.revisions()
    assert all(len(revision) == 4 for revision in manifest.revisions())
