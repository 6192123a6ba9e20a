"""Forks the service's processes: `python -m tests.faults.kills.nursery`.

A process that starts from nothing spends more than a second of a core on imports, and hundreds of restarts
would do little else. This one has imported everything and opened nothing; each child is a process of its
own from there on, with its own environment, log, event loop and connections.

Takes an order a line on standard input, `{"role", "environment", "folder", "log"}`, and writes `born <pid>`
and, for each child that has ended, `ended <pid> <status>`. At the end of its input it kills all of them.
"""

import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from tests.faults.kills import roles

_alive: set[int] = set()


def main() -> None:
    signal.signal(signal.SIGCHLD, _reap)
    for line in sys.stdin:
        order = json.loads(line)
        # Nobody may hear of a child's end before its birth.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        pid = os.fork()
        if pid == 0:
            _become(order)
        _alive.add(pid)
        _say(f"born {pid}")
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    for pid in list(_alive):
        os.kill(pid, signal.SIGKILL)


def _reap(*_: object) -> None:
    while _alive:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        _alive.discard(pid)
        _say(f"ended {pid} {os.waitstatus_to_exitcode(status)}")


def _say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


def _become(order: dict[str, Any]) -> None:
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        _alive.clear()
        nothing = os.open(os.devnull, os.O_RDONLY)
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for source, target in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        os.environ.clear()
        os.environ.update(order["environment"])
        os.chdir(order["folder"])
        code = roles.play(order["role"], Path(order["folder"]))
    except BaseException:  # noqa: BLE001 - a child must not go on as its parent
        traceback.print_exc()
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
