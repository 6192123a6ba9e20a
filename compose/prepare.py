"""What must be on disk before a component can start for the first time."""

import os
import shutil
import threading
from pathlib import Path

import psutil

from compose import processes, unprivileged
from compose.configure import Plan, remove
from compose.model import StackError
from compose.paths import ROOT, Paths


def prepare(plan: Plan, paths: Paths, password: str, cancel: threading.Event) -> None:
    """Make a PostgreSQL cluster where there is none, or unlock one whose server died.

    The cluster is made beside its place and moved there when it is whole, so that being killed in the middle
    leaves no half of one.

    Raises:
        StackError: if a command fails, with the log to read.
    """
    data = paths.data("postgres")
    cluster = data / "cluster"
    if plan.component.program != "postgres":
        return
    if cluster.exists():
        _drop_stale_lock(cluster / "postmaster.pid")
        return
    draft = data / "draft"
    remove(draft)
    who = unprivileged.user(data)
    if who:
        os.chown(data, who.pw_uid, who.pw_gid)
    pwfile = data / "pwfile"
    pwfile.unlink(missing_ok=True)
    with os.fdopen(
        os.open(pwfile, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii"
    ) as out:
        out.write(password)
    if who:
        shutil.chown(pwfile, who.pw_uid, who.pw_gid)
    bin_ = plan.program.path.parent
    become = unprivileged.prefix(data, (plan.program.path, cluster))
    initdb = [str(bin_ / "initdb"), "-D", str(draft), "-U", "yardstick", f"--pwfile={pwfile}"]
    initdb += ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"]
    try:
        _run([*become, *initdb], plan, paths, cancel)
    finally:
        pwfile.unlink(missing_ok=True)
    statement = data / "create.sql"
    statement.write_text("CREATE DATABASE yardstick\n", "ascii")
    single = ["/bin/sh", "-c", 'exec "$0" --single -D "$1" postgres < "$2"']
    try:
        _run([*become, *single, str(plan.program.path), str(draft), str(statement)], plan, paths, cancel)
    finally:
        statement.unlink()
    draft.rename(cluster)


def _drop_stale_lock(file: Path) -> None:
    """Remove the lock file of a server that was killed.

    PostgreSQL asks only whether there is a process with that pid, so it takes a zombie that nobody reaped, or
    a stranger that got the pid after a restart of the machine, for a running server.
    """
    try:
        holder = psutil.Process(int(file.read_text("utf-8").split()[0]))
        if holder.status() != psutil.STATUS_ZOMBIE and "postgres" in holder.name():
            return
    except (FileNotFoundError, IndexError, ValueError, psutil.NoSuchProcess):
        pass
    file.unlink(missing_ok=True)


def _run(arguments: list[str], plan: Plan, paths: Paths, cancel: threading.Event) -> None:
    log = paths.log(plan.component.name)
    call = processes.Call(arguments, plan.environment, ROOT, log, paths.state, plan.component.name)
    code = processes.run_to_end(call, cancel, seconds=60)
    if code != 0:
        raise StackError(f"making the PostgreSQL cluster failed with exit code {code}; see {log}")
