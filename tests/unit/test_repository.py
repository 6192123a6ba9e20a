"""The promises of the repository's face: the Makefile's targets and the locks."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
TARGETS = [
    "demo",
    "test",
    "up",
    "down",
    "status",
    "logs",
    "check",
    "load",
    "capacity",
    "bench",
    "alerts",
    "dashboards",
    "test-stack",
    "test-faults",
]
LOCKS = {
    "dev": ("stack", "dev"),
    "service": (),
    "ansible": ("ansible",),
}


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def test_make_alone_lists_every_target() -> None:
    listed = re.sub(r"\x1b\[[0-9;]*m", "", make().stdout)
    named = {line.split()[0] for line in listed.splitlines() if line.strip()}
    assert set(TARGETS) <= named, f"not listed: {set(TARGETS) - named}"


@pytest.mark.parametrize("target", ["capacity"])
def test_a_target_to_come_says_so(target: str) -> None:
    done = make(target)
    assert done.returncode == 2
    assert "not built yet" in done.stdout


def test_an_unknown_suite_says_which_there_are() -> None:
    done = make("bench", "SUITE=queues")
    assert done.returncode == 2
    assert "no suite 'queues'. There are: jobs" in done.stdout


@pytest.mark.parametrize("peer", ["saq", "taskiq"])
def test_the_lock_of_a_peer_satisfies_its_group_by_hash(peer: str) -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    held(f"bench-{peer}", groups[f"bench-{peer}"])


@pytest.mark.parametrize("lock", LOCKS)
def test_the_lock_satisfies_the_project_by_hash(lock: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = list(project["dependencies"])
    for extra in LOCKS[lock]:
        wanted += project["optional-dependencies"][extra]
    held(lock, wanted)


def held(lock: str, wanted: list[str]) -> None:
    text = (ROOT / "requirements" / f"{lock}.lock").read_text()
    assert "://" not in text, "a lock names no download address"
    pinned = {
        canonicalize_name(name): version
        for name, version in re.findall(r"(?m)^([\w.-]+)==(\S+?)(?: ;| \\)", text)
    }
    assert text.count("--hash=sha256:") >= len(pinned)
    for requirement in map(Requirement, wanted):
        version = pinned.get(canonicalize_name(requirement.name))
        assert version, f"{requirement.name} is not in {lock}.lock; run make lock"
        assert requirement.specifier.contains(version, prereleases=True), (
            f"{requirement}: {version} is locked"
        )
