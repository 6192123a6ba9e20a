"""PostgreSQL refuses to run as root; here is the user it runs as then.

No user is made and no folder's mode is changed. Where the files lie beneath a folder that other users cannot
enter, such as root's home, the process keeps the one capability to reach them.
"""

import os
import pwd
import shutil
import stat
from collections.abc import Iterable
from pathlib import Path

from compose.model import StackError

USERS = ("postgres", "nobody")


def user(data: Path) -> pwd.struct_passwd | None:
    """The user to become: the owner of the data if it is there; None when this is not root."""
    if os.geteuid() != 0:
        return None
    if data.exists() and data.stat().st_uid != 0:
        return pwd.getpwuid(data.stat().st_uid)
    names = {entry.pw_name: entry for entry in pwd.getpwall()}
    for name in USERS:
        if name in names:
            return names[name]
    raise StackError("PostgreSQL does not run as root, and there is no user postgres or nobody to run it as")


def prefix(data: Path, reaches: Iterable[Path]) -> list[str]:
    """What to put before a command so that it runs as that user and can reach the paths.

    Raises:
        StackError: as root on a machine without `setpriv`.
    """
    who = user(data)
    if who is None:
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise StackError("PostgreSQL does not run as root, and setpriv is missing; run as another user")
    command = [setpriv, f"--reuid={who.pw_uid}", f"--regid={who.pw_gid}", "--clear-groups"]
    if not all(_open_to_others(path) for path in reaches):
        command += ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
    return [*command, "--"]


def _open_to_others(path: Path) -> bool:
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in path.resolve().parents)
