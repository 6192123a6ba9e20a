"""Replace the instances of a service by new ones, one after the other, with no request lost: `roll(stack)`.

A new instance is started beside the old ones, has to become healthy, and has to answer the edge, which skips
for some seconds what it asked too early. Then an old one is told to end: it says that it is not ready and
goes on answering for its notice (`APP_DRAIN_NOTICE_SECONDS`). In that time the edge is made to ask for
readiness through the connections that requests take, and skips the instance from then on; its port closes
when nobody comes any more.
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
# Until the edge has an answer of this address, for half a minute at most.
_SEEN = (
    "for i in $(seq 120); do"
    " wget -q -S -T 3 -O /dev/null http://127.0.0.1:8080/edge/skip-draining 2>&1"
    " | grep -q 'X-Instance:.*[ ,]{address}:[0-9]*.\\?$' && exit 0; sleep 0.25;"
    " done; exit 1"
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
    edge = stack.ids(EDGE)[:1] if service == "api" else []
    scale = f"--scale={service}={len(before) + 1}"
    started = ("up", "--detach", "--wait", "--no-deps", "--no-recreate", scale, service)
    try:
        _must(stack, f"the new {service} did not become healthy; the old one goes on", *started)
        for one in edge:
            _await_answer(stack, one, next(new for new in stack.ids(service) if new not in before))
    except StackError:
        if failed := [one for one in stack.ids(service) if one not in before]:
            stack.docker("rm", "--force", *failed)
        raise
    # Its own grace, and not a kill: a container that was told to stop is not started again.
    with subprocess.Popen([_client(), "stop", old], stdout=subprocess.DEVNULL) as stopping:
        for one in edge:
            _inside(one, _ASK)
    if stopping.returncode:
        raise StackError(f"docker stop {old[:12]} failed with exit code {stopping.returncode}")
    stack.docker("rm", old)


def _await_answer(stack: Containers, edge: str, instance: str) -> None:
    """Wait until the edge has an answer of the instance, on the network that they share."""
    form = "{{range $name, $one := .NetworkSettings.Networks}}{{$name}} {{$one.IPAddress}}\n{{end}}"
    found = dict(line.split() for line in stack.docker("inspect", "--format", form, instance) if line)
    address = next((ip for name, ip in found.items() if name.endswith("_app")), "none")
    if not _inside(edge, _SEEN.replace("{address}", address)):
        raise StackError("the edge has no answer of the new api; the old one goes on")


def _must(stack: Containers, otherwise: str, *arguments: str) -> None:
    if code := stack.compose(*arguments):
        raise StackError(f"{otherwise} (exit code {code}; see above)")


def _client() -> str:
    return shutil.which("docker") or "docker"


def _inside(edge: str, script: str) -> bool:
    """Whether a script of the shell went well in the edge's container."""
    ask = [_client(), "exec", edge, "sh", "-c", script]
    return subprocess.run(ask, capture_output=True, check=False).returncode == 0
