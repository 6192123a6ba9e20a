"""No spelling of a path gets past the check of keys."""

import posixpath
from datetime import date
from pathlib import PurePosixPath, PureWindowsPath
from urllib.parse import unquote
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.errors import InvalidRequestError
from service.infra.storage.errors import FileKeyError
from service.infra.storage.keys import by_date, by_resource, check_folder, check_key, check_name, slug

UNIQUE = UUID("6b2fcfb5-d7db-479d-b968-56371c2b491c")

TRAVERSALS = [
    "..", ".", "../etc/passwd", "a/../b", "a/..", "a/./b", "./a", "a/.", "....//etc", "..;/a", "a/...",
    "/etc/passwd", "//etc/passwd", "a//b", "a/", "/", "",
    "%2e%2e/etc", "%2e%2e%2fetc", "..%2fetc", "%252e%252e%252fetc", "..%c0%afetc", "..%255cetc",
    "..\\etc", "a\\..\\b", "\\\\server\\share", "C:\\windows", "c:/windows", "C:a", "a:stream",
    "a\0b", "a\x00.png", "\0", "a\nb", "a\rb", "a b", " a", "a ", "~root/a", "$HOME/a", "a*b", "a?b",
    "\u2024\u2024/etc", "\uff0e\uff0e/etc", "\u2025/etc", "..\u2215etc", "..\uff0fetc", "..\u2044etc",
    "a\u202eb",    "\u0441om1", "é", "..\ufeff/a", "\ud800",
    "con", "CON", "nul.txt", "a/aux/b", "a/LPT1.pdf", "com9", "prn.", "a/con.tar.gz",
    ".incoming", ".incoming/x", "a/.hidden", ".sgwtmp/multipart", "a.", "a/b.", "-rf", "a/--flag",
    "a" * 201, "a/" * 300 + "a", "a/" * 255 + "aaa",
]  # fmt: skip


@pytest.mark.parametrize("key", TRAVERSALS)
def test_a_spelling_that_is_no_key_is_refused(key: str) -> None:
    with pytest.raises(FileKeyError) as refused:
        check_key(key)
    assert refused.value.status == 422
    assert refused.value.fields[0].field == "key"


@pytest.mark.parametrize(
    "key", ["a", "a/b.c", "2026/11/21/x-y_z.tar.gz", "users/avatars/42/me.png", "a..b", "_", "com10"]
)
def test_a_key_is_taken_as_it_is(key: str) -> None:
    assert check_key(key) == key


ALPHABET = st.sampled_from([*"ab.-_/\\%:~ \0\n", "..", "../", "%2e", "%2f", "con", "\uff0e", "\u2215", "é"])


@given(st.one_of(st.text(), st.lists(ALPHABET, max_size=12).map("".join)))
@example("a/b")
def test_whatever_passes_stays_below_its_root(text: str) -> None:
    try:
        key = check_key(text)
    except FileKeyError:
        return
    assert key.isascii()
    assert unquote(unquote(key)) == key
    path = posixpath.normpath(posixpath.join("/root", key))
    assert path == f"/root/{key}"
    assert PurePosixPath(path).is_relative_to("/root")
    windows = PureWindowsPath("C:/root") / key
    assert windows.is_relative_to("C:/root")
    assert ".." not in windows.parts
    assert not PureWindowsPath(key).is_reserved()
    assert windows.parts[2:] == tuple(key.split("/"))


@given(st.text(max_size=300))
@example("..")
@example("../../etc/passwd")
@example("con")
@example(".htaccess")
@example("a" * 250 + ".png")
def test_any_name_makes_a_key(name: str) -> None:
    ending = slug(name)
    assert "/" not in ending
    key = by_date(name, on=date(2026, 11, 21), unique=UNIQUE)
    assert key == f"2026/11/21/{UNIQUE}-{ending}"
    assert check_key(by_resource("users/avatars/42", name, unique=UNIQUE)).startswith("users/avatars/42/")


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("report.pdf", "report.pdf"),
        ("Résumé (final).PDF", "Resume-final.PDF"),
        ("archive.tar.gz", "archive-tar.gz"),
        ("../../etc/passwd", "file.etcpasswd"),
        ("日本.png", "file.png"),
        (".env", "file.env"),
        ("...", "file"),
    ],
)
def test_a_name_becomes_the_end_of_a_key(name: str, ending: str) -> None:
    assert slug(name) == ending


@pytest.mark.parametrize("resource", ["", "/", "../x", "users/", "users//1", "users/..", "a" * 600])
def test_a_resource_is_checked_like_a_key(resource: str) -> None:
    with pytest.raises(FileKeyError):
        by_resource(resource, "me.png", unique=UNIQUE)


def test_the_root_is_a_folder_and_no_key() -> None:
    assert check_folder("") == ""
    with pytest.raises(FileKeyError):
        check_folder("../")


@pytest.mark.parametrize(
    "name", ["", "  ", "a/b", "a\\b", "a\0b", "a\nb", "a\u202egpj.exe", "a\ufeffb", "x" * 256]
)
def test_a_name_holds_nothing_that_misleads(name: str) -> None:
    with pytest.raises(InvalidRequestError):
        check_name(name)


@pytest.mark.parametrize("name", ["résumé.txt", "日本.png", "a;b\"c'.txt", "x" * 255])
def test_a_name_may_be_of_any_script(name: str) -> None:
    assert check_name(name) == name
