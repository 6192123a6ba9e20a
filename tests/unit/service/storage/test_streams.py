"""Pieces, threads, and the header that names a download."""

import asyncio
import re
import threading
from collections.abc import AsyncIterator
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.infra.storage.keys import check_name
from service.infra.storage.streams import InterruptedUploadError, Pipe, disposition, in_thread, pieces


async def stream(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


@given(st.lists(st.binary(max_size=20)), st.integers(1, 30))
def test_pieces_are_the_same_bytes_in_larger_parts(chunks: list[bytes], size: int) -> None:
    async def collect() -> list[bytes]:
        return [piece async for piece in pieces(stream(*chunks), size)]

    found = asyncio.run(collect())
    assert b"".join(found) == b"".join(chunks)
    assert all(len(piece) >= size for piece in found[:-1])
    assert all(found)


async def test_a_cancelled_caller_waits_for_the_thread() -> None:
    entered, leave, left = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        entered.set()
        leave.wait(10)
        left.set()

    task = asyncio.create_task(in_thread(work))
    await asyncio.to_thread(entered.wait, 10)
    task.cancel()
    await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.sleep(0.05)
    assert not task.done()
    leave.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert left.is_set()


async def test_a_pipe_ends_or_fails_as_its_writer_does() -> None:
    async def read(pipe: Pipe) -> bytes:
        return b"".join([piece async for piece in pipe])

    pipe = Pipe()
    reader = asyncio.create_task(read(pipe))
    for piece in (b"a", b"b"):
        await pipe.send(piece, reader)
    await pipe.end(reader)
    assert await reader == b"ab"
    pipe = Pipe()
    reader = asyncio.create_task(read(pipe))
    await pipe.send(b"a", reader)
    pipe.fail()
    with pytest.raises(InterruptedUploadError):
        await reader


async def test_a_writer_does_not_wait_for_a_reader_that_broke() -> None:
    async def broken() -> None:
        raise ZeroDivisionError

    pipe = Pipe()
    reader = asyncio.create_task(broken())
    await asyncio.wait({reader})
    with pytest.raises(ZeroDivisionError):
        await pipe.send(b"x", reader)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("report.pdf", 'attachment; filename="report.pdf"'),
        ("résumé.txt", "attachment; filename=\"r_sum_.txt\"; filename*=UTF-8''r%C3%A9sum%C3%A9.txt"),
        ('a"; x="b.txt', "attachment; filename=\"a__ x=_b.txt\"; filename*=UTF-8''a%22%3B%20x%3D%22b.txt"),
        (
            "a\r\nSet-Cookie: x",
            "attachment; filename=\"a__Set-Cookie: x\"; filename*=UTF-8''a%0D%0ASet-Cookie%3A%20x",
        ),
    ],
)
def test_a_name_cannot_leave_its_header(name: str, value: str) -> None:
    assert disposition(name) == value


@given(st.text(st.characters(exclude_categories=["C"], exclude_characters="/\\"), min_size=1, max_size=60))
def test_a_client_reads_the_name_that_was_given(name: str) -> None:
    if not name.strip():
        return
    value = disposition(check_name(name))
    assert value.isascii()
    assert value.isprintable()
    read = re.fullmatch(r"""attachment; filename="([^"\\%;]*)"(?:; filename\*=UTF-8''([^ "';]*))?""", value)
    assert read is not None
    assert (read[1] if read[2] is None else unquote(read[2])) == name
