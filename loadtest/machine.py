"""Where the generator ran: a figure without its machine says nothing."""

import ipaddress
import os
import platform
import shutil
import socket
import subprocess
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

import psutil

PROJECT = Path(__file__).parents[1]


def describe(target: str) -> dict[str, str]:
    """Names and values for a person to read, on the machine and on the run's programs."""
    return {
        **machine(),
        "Locust": version("locust"),
        "target": "on the generator's own machine: they share its CPU"
        if is_local(target)
        else "another machine",
    }


def machine() -> dict[str, str]:
    """Names and values on this machine, its Python and this checkout."""
    cores = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    return {
        "CPU": _cpu_model(),
        "cores": str(cores) if usable == cores else f"{usable} of {cores}",
        "memory": f"{psutil.virtual_memory().total / 2**30:.1f} GiB",
        "operating system": f"{_system()}, kernel {platform.release()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "commit": _commit(),
    }


def is_local(target: str) -> bool:
    """Does the target run on this machine?"""
    host = urlsplit(target).hostname or ""
    try:
        address = ipaddress.ip_address(socket.gethostbyname(host))
    except (OSError, ValueError):
        return False
    own = {item.address.split("%")[0] for items in psutil.net_if_addrs().values() for item in items}
    return address.is_loopback or str(address) in own


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith(("model name", "Model")):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.system()


def _commit() -> str:
    git = shutil.which("git")
    if git is None:
        return "unknown (no git)"
    known = subprocess.run(
        [git, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    if known.returncode:
        return "unknown (not a git checkout)"
    commit, dirty, _ = known.stdout.strip().partition("-dirty")
    return f"{commit} with uncommitted changes" if dirty else commit
