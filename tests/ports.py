"""Ports for what a test starts itself."""

import random

from compose.ports import is_free

_given: set[int] = set()


def free_port() -> int:
    """A port that nothing listens on and that this run has not given out before.

    Below those that outgoing connections take: one of them would have it before the process listens, or while
    it is down for a moment.
    """
    while True:
        port = random.randrange(20_000, 32_000)
        if port not in _given and is_free(port):
            _given.add(port)
            return port
