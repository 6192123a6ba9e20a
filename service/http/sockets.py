"""What the kernel is told about the connections that a port accepts."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

STALLED_MS = 20_000
UNSENT_BYTES = 131_072

_OPEN_FILES = Path("/proc/self/fd")


def bound_connections(port: int) -> int:
    """Let the kernel end connections whose client takes nothing, and keep what waits for one small.

    The server gives no access to its sockets, and has no timeout for a client that stopped reading: without
    this, each holds a descriptor and up to 4 MB of kernel memory until it goes, and holds up the drain. The
    options are set on the listening socket and inherited by the connections accepted from then on.

    Returns:
        The number of listening sockets found; 0 on systems without these options.
    """
    if not hasattr(socket, "TCP_USER_TIMEOUT") or not hasattr(socket, "TCP_NOTSENT_LOWAT"):
        return 0
    found = 0
    for listener in _listeners(port):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STALLED_MS)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        found += 1
    return found


def _listeners(port: int) -> Iterator[socket.socket]:
    """Duplicates of this process's listening sockets on the port, closed after use."""
    for file in _OPEN_FILES.iterdir():
        try:
            if not str(file.readlink()).startswith("socket:"):
                continue
            candidate = socket.socket(fileno=os.dup(int(file.name)))
        except OSError:  # closed in the meantime
            continue
        with candidate:
            if _listens(candidate, port):
                yield candidate


def _listens(candidate: socket.socket, port: int) -> bool:
    if candidate.family not in (socket.AF_INET, socket.AF_INET6) or candidate.type != socket.SOCK_STREAM:
        return False
    listening = candidate.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
    return listening and candidate.getsockname()[1] == port
