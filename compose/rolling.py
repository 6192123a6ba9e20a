"""Replace the instances of a service by new ones, one after the other, with no request lost: `roll(stack)`.

A new instance is started beside the old ones and has to become healthy. Then an old one is told to end: it
says that it is not ready and goes on answering for its notice (`APP_DRAIN_NOTICE_SECONDS`). In that time the
edge is made to ask for readiness through the connections that requests take, and skips the instance from then
on; its port closes when nobody comes any more.
"""

import shutil
import subprocess

from compose.discovery import SCALED
from compose.docker import Containers
from compose.model import StackError

EDGE = "edge"
# More often than any order of turns among so few could pass one by, spread over most of the notice.
_ASK = (
    "for i in $(seq 60); do"
    " wget -q -T 3 -O /dev/null http://127.0.0.1:8080/edge/skip-draining 2>/dev/null; sleep 0.03;"
    " done"
)


def roll(stack: Containers, service: str = "api") -> int:
    """Build the service's image, bring the schema up to date, and replace every instance.

    The schema is new before the last old instance is gone, so a migration must suit both.

    Returns:
        How many instances were replaced.

    Raises:
        StackError: if the stack is not up in containers, or a new instance does not become healthy; the old
            ones then go on serving.
    """
    if service not in SCALED:
        raise StackError(f"{service} has one instance only; these can be rolled: {', '.join(SCALED)}")
    old = stack.ids(service) if stack.is_up else []
    if not old:
        raise StackError(f"no {service} runs in containers; `make up MODE=docker` starts the stack")
    _must(stack, "its image could not be built", "build", service)
    _must(stack, "the schema could not be brought up to date", "run", "--rm", "--no-deps", "migrate")
    for one in reversed(old):
        _replace(stack, service, one)
    return len(old)


def _replace(stack: Containers, service: str, old: str) -> None:
    before = stack.ids(service)
    scale = f"--scale={service}={len(before) + 1}"
    started = ("up", "--detach", "--wait", "--no-deps", "--no-recreate", scale, service)
    try:
        _must(stack, f"the new {service} did not become healthy; the old one goes on", *started)
    except StackError:
        if new := [one for one in stack.ids(service) if one not in before]:
            _docker("rm", "--force", *new)
        raise
    # Its own grace, and not a kill: a container that was told to stop is not started again.
    with subprocess.Popen([_client(), "stop", old], stdout=subprocess.DEVNULL) as stopping:
        if service == "api" and (edges := stack.ids(EDGE)):
            _docker("exec", edges[0], "sh", "-c", _ASK)
    if stopping.returncode:
        raise StackError(f"docker stop {old[:12]} failed with exit code {stopping.returncode}")
    _docker("rm", old)


def _must(stack: Containers, otherwise: str, *arguments: str) -> None:
    if code := stack.compose(*arguments):
        raise StackError(f"{otherwise} (exit code {code}; see above)")


def _client() -> str:
    return shutil.which("docker") or "docker"


def _docker(*arguments: str) -> None:
    done = subprocess.run([_client(), *arguments], capture_output=True, text=True, check=False)
    if done.returncode and arguments[0] != "exec":
        raise StackError(f"docker {arguments[0]} failed: {done.stderr.strip()}")
