"""`python -m compose.install_rabbitmq`: RabbitMQ from the packages of Debian and its kin, as root.

The package would start a broker of the system's own, with its default password and on every address. It is
kept from that, and from starting with the machine; the stack and the tests start private ones.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from compose import rabbitmq
from compose.model import MissingProgramError

POLICY = Path("/usr/sbin/policy-rc.d")


def main() -> int:
    """0 where RabbitMQ is there in the end, else 1 after a line that says why."""
    try:
        found = rabbitmq.server()
    except MissingProgramError as error:
        missing = error
    else:
        print(f"RabbitMQ {found.version} is installed.")
        return 0
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        print(f"{missing}. Not installed now: that takes root and apt-get.", file=sys.stderr)
        return 1
    print("Installing rabbitmq-server ...", flush=True)
    with _services_stay_down():
        if not (_install() or (_apt("update") and _install())):
            print("apt-get could not install rabbitmq-server.", file=sys.stderr)
            return 1
    if shutil.which("systemctl"):
        subprocess.run(
            ["systemctl", "disable", "--quiet", "rabbitmq-server"],  # noqa: S607 - as administrators do
            stderr=subprocess.DEVNULL,
            check=False,
        )
    return 0


def _install() -> bool:
    return _apt("install", "--yes", "--no-install-recommends", "rabbitmq-server")


def _apt(*arguments: str) -> bool:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=120", *arguments]
    done = subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        print(done.stderr.strip()[-600:], file=sys.stderr)
    return done.returncode == 0


@contextmanager
def _services_stay_down() -> Iterator[None]:
    """Debian's own switch against starting what is installed; one that is there already is left alone."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n", "ascii")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()


if __name__ == "__main__":
    sys.exit(main())
