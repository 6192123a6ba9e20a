"""The bytes say what a file is, and the sender only which of what they allow."""

import io
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.infra.storage.sniff import HEAD_BYTES, UnsupportedTypeError, decide, sniff
from service.settings import FilesSettings

ALLOWED = FilesSettings().types
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + b"\0" * 40
JPEG = b"\xff\xd8\xff\xe0\0\x10JFIF\0" + b"\0" * 40
GIF = b"GIF89a" + b"\0" * 40
WEBP = b"RIFF\x24\0\0\0WEBPVP8 " + b"\0" * 40
PDF = b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n"
EXE = b"MZ\x90\0\x03\0\0\0\x04" + b"\0" * 200
ELF = b"\x7fELF\x02\x01\x01" + b"\0" * 60


def zipped(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return file.getvalue()


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (PNG, "image/png"),
        (JPEG, "image/jpeg"),
        (GIF, "image/gif"),
        (WEBP, "image/webp"),
        (PDF, "application/pdf"),
        (b"hello", "text/plain"),
        (b"", "text/plain"),
        (b'{"a": 1}', "application/json"),
        (b"a,b\n1,2\n", "text/plain"),
        (zipped("hello.txt"), "application/zip"),
        (zipped("[Content_Types].xml", "xl/workbook.xml"), XLSX),
    ],
)
@pytest.mark.parametrize("declared", ["", "application/octet-stream"])
def test_what_the_sender_leaves_open_the_bytes_decide(head: bytes, kind: str, declared: str) -> None:
    assert decide(head, declared, ALLOWED) == kind


@pytest.mark.parametrize(
    ("head", "declared"),
    [
        (b"a,b\n1,2\n", "text/csv"),
        (b"[1]", "text/plain; charset=utf-8"),
        (b"[1]", "Application/JSON"),
        (zipped("xl/a"), "application/zip"),
    ],
)
def test_of_what_the_bytes_allow_the_sender_may_choose(head: bytes, declared: str) -> None:
    assert decide(head, declared, ALLOWED) == declared.partition(";")[0].lower()


@pytest.mark.parametrize(
    ("head", "declared"),
    [
        (EXE, "image/png"),
        (ELF, "application/pdf"),
        (PNG, "image/jpeg"),
        (b"hello", "image/png"),
        (PNG, "text/plain"),
        (b"<!DOCTYPE html><script>", "text/plain"),
        (b"\n <script>alert(1)</script>", "text/plain"),
        (b"\xef\xbb\xbf<svg xmlns='http://www.w3.org/2000/svg'>", "text/plain"),
        (b"<?xml version='1.0'?>", "text/csv"),
        (b"<svg onload=alert(1)>", "image/png"),
        (zipped("word/document.xml"), XLSX),
        (zipped("a"), "image/png"),
        (b"hello", "text/html"),
        (b"hello", "nonsense"),
        (PDF, "application/pdfx"),
        (b"hello\0", "text/plain"),
        (b"", "image/png"),
        (b"caf\xe9 latin", "text/plain"),
        (b"\x1b[2Jhello", "text/plain"),
    ],
)
def test_what_the_bytes_are_not_is_refused(head: bytes, declared: str) -> None:
    with pytest.raises(UnsupportedTypeError) as refused:
        decide(head, declared, ALLOWED)
    assert refused.value.status == 415


@pytest.mark.parametrize("head", [EXE, ELF, b"\0\1\2\3", b"<html>", b"#!/bin/sh\0"])
def test_what_is_not_accepted_is_refused_undeclared_too(head: bytes) -> None:
    with pytest.raises(UnsupportedTypeError):
        decide(head, "", ALLOWED)


def test_an_older_name_of_a_type_is_the_type() -> None:
    gzip = b"\x1f\x8b\x08\0" + b"\0" * 30
    allowed = frozenset({"application/gzip"})
    assert decide(gzip, "application/gzip", allowed) == "application/gzip"
    assert decide(gzip, "application/x-gzip", allowed) == "application/x-gzip"


def test_a_character_cut_at_the_end_of_the_head_is_text() -> None:
    head = ("a" * (HEAD_BYTES - 1) + "é").encode()[:HEAD_BYTES]
    assert "text/plain" in sniff(head)
    assert "text/plain" not in sniff(head[:-100] + b"\xff" * 100)


@given(st.binary(max_size=200), st.text(max_size=30))
def test_a_type_is_accepted_or_refused_and_never_another(head: bytes, declared: str) -> None:
    try:
        assert decide(head, declared, ALLOWED) in ALLOWED
    except UnsupportedTypeError:
        return
