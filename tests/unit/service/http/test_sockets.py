"""What accepted connections inherit from the port."""

import errno
import socket

import pytest

from service.http import sockets
from service.http.server import HttpServer
from service.http.sockets import bound_connections


def options(connection: socket.socket) -> tuple[int, int]:
    return (
        connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
        connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT),
    )


def test_connections_inherit_the_bounds_and_other_ports_do_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mine, socket.create_server(("127.0.0.1", 0)) as other:
        assert bound_connections(mine.getsockname()[1]) == 1
        for server, expected in ((mine, (20_000, 131_072)), (other, options(other))):
            with socket.create_connection(server.getsockname()) as client:
                accepted, _ = server.accept()
                with accepted:
                    assert options(accepted) == expected
                    client.sendall(b"x")
        assert options(other)[0] == 0


def test_a_client_that_takes_nothing_is_ended_by_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "STALLED_MS", 500)
    with socket.create_server(("127.0.0.1", 0)) as server:
        bound_connections(server.getsockname()[1])
        with socket.create_connection(server.getsockname()) as _silent:
            accepted, _ = server.accept()
            with accepted:
                accepted.settimeout(15)
                with pytest.raises(TimeoutError) as ended:
                    accepted.sendall(b"x" * 2**24)
                assert ended.value.errno == errno.ETIMEDOUT  # the kernel's, not the one set here


async def test_the_servers_own_socket_is_found() -> None:
    async def app(scope: object, receive: object, send: object) -> None: ...

    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    server = HttpServer(app, host="127.0.0.1", port=port)
    await server.start()
    try:
        assert bound_connections(port) == 1
    finally:
        await server.stop(5)
