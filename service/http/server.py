"""Granian's embedded server: HTTP in Rust, the application in this process's event loop, no child process."""

import asyncio
import socket

from granian.constants import Interfaces
from granian.server.embed import Server
from starlette.types import ASGIApp

from observability import get_logger
from service.errors import StartError
from service.http.sockets import bound_connections

log = get_logger(__name__)


class PortTakenError(StartError):
    """Another process listens there."""


class HttpServer:
    """One application on one port, from `start` to `stop`."""

    def __init__(self, app: ASGIApp, *, host: str, port: int) -> None:
        self._address = (host, port)
        self._server = Server(
            app,
            address=host,
            port=port,
            interface=Interfaces.ASGINL,
            backlog=1024,
            log_enabled=False,
            websockets=True,
        )
        self._serving: asyncio.Task[None] | None = None

    @property
    def serving(self) -> asyncio.Task[None]:
        """The task that serves; it ends when stopped, or when the server fails."""
        if self._serving is None:
            raise RuntimeError("the server has not been started")
        return self._serving

    async def start(self) -> None:
        """Listen. Raises PortTakenError."""
        check_port(*self._address)
        self._serving = asyncio.create_task(self._server.serve(), name="http-server")
        # The socket is bound in the task's first step: what goes wrong there ends it.
        await asyncio.wait({self._serving}, timeout=0.05)
        self._raise_failure()
        host, port = self._address
        bound_connections(port)
        log.info("http.listening", url=f"http://{host}:{port}")

    async def stop(self, grace: float) -> None:
        """Close the port, finish the requests in flight for at most `grace` seconds."""
        self._server.stop()  # type: ignore[no-untyped-call]
        _, late = await asyncio.wait({self.serving}, timeout=grace)
        if late:
            log.warning("http.drain_cut_off", seconds=grace)
        self._raise_failure()

    def _raise_failure(self) -> None:
        if self.serving.done():
            self.serving.result()


def check_port(host: str, port: int) -> None:
    """Raises PortTakenError. Granian uses SO_REUSEPORT: a second process would go unnoticed."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PortTakenError(f"cannot listen on {host}:{port}: {error.strerror or error}") from None
