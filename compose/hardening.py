"""What every container of the stack owes: the rules, over the effective compose file.

A service that cannot keep one of the first three says why in a label, which `docker inspect` shows too:
`org.yardstick.exception.user`, `.read-only`, `.capabilities`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

Service = Mapping[str, Any]

LABEL = "org.yardstick.exception."
# PostgreSQL counts releases in two numbers, everything else here in three.
_EXACT = re.compile(r"[^:@\s]+:v?\d+\.\d+\.\d+(-[\w.-]+)?(@sha256:[0-9a-f]{64})?")
_EXACT_POSTGRES = re.compile(r"postgres:\d+\.\d+(-[\w.-]+)?(@sha256:[0-9a-f]{64})?")
# An access key is a name; the secret that goes with it says so.
_SECRET_NAME = re.compile(
    r"PASSWORD|PASSWD|_PASS\b|SECRET|TOKEN|CREDENTIAL|(?<!ACCESS)_KEY\b|^KEY\b|PRIVATE", re.IGNORECASE
)
_URL_WITH_PASSWORD = re.compile(r"\w+://[^/@\s:]*:[^/@\s]+@")
_ROOT = {"", "0", "root"}


def faults(config: Mapping[str, Any]) -> list[str]:
    """Every rule that is broken, as `service: what is wrong`."""
    services: Mapping[str, Service] = config["services"]
    finished = {
        name
        for service in services.values()
        for name, how in _dependencies(service)
        if how == "service_completed_successfully"
    }
    found = [
        f"{name}: {fault}"
        for name, service in services.items()
        for fault in _service(service, one_shot=name in finished or service.get("restart") == "no")
    ]
    return found + [f"network {fault}" for fault in _networks(config)]


def _service(service: Service, *, one_shot: bool) -> Iterator[str]:
    yield from _user(service)
    yield from _capabilities(service)
    yield from _limits(service)
    yield from _logging(service)
    yield from _ports(service)
    yield from _secrets(service)
    image = str(service.get("image", ""))
    if not (_EXACT.fullmatch(image) or _EXACT_POSTGRES.fullmatch(image)):
        yield f"image {image!r} is not pinned to an exact version"
    check = service.get("healthcheck") or {}
    none = check.get("disable") or check.get("test") in (None, [], ["NONE"])
    if none and not one_shot:
        yield "has no health check"
    for volume in service.get("volumes", []):
        if "docker.sock" in str(volume):
            yield "can reach the engine's socket, and so the whole machine"
    for space in ("network_mode", "pid", "ipc", "userns_mode"):
        if service.get(space) == "host":
            yield f"shares the machine's {space}"


def _user(service: Service) -> Iterator[str]:
    if str(service.get("user", "")).partition(":")[0] in _ROOT and not _excuse(service, "user"):
        yield f"runs as root, or as whoever its image says; give a user, or a reason ({LABEL}user)"
    if not service.get("read_only") and not _excuse(service, "read-only"):
        yield f"its root file system can be written; set read_only, or give a reason ({LABEL}read-only)"


def _capabilities(service: Service) -> Iterator[str]:
    if service.get("privileged"):
        yield "is privileged"
    if service.get("cap_drop") != ["ALL"]:
        yield "keeps capabilities; set cap_drop: [ALL]"
    if service.get("cap_add") and not _excuse(service, "capabilities"):
        yield f"adds {', '.join(service['cap_add'])} without a reason ({LABEL}capabilities)"
    if not {"no-new-privileges:true", "no-new-privileges"} & set(service.get("security_opt", [])):
        yield "may gain privileges; set security_opt: [no-new-privileges:true]"


def _limits(service: Service) -> Iterator[str]:
    limits = ((service.get("deploy") or {}).get("resources") or {}).get("limits") or {}
    for name in ("cpus", "memory", "pids"):
        if not limits.get(name):
            yield f"has no limit of {name}"


def _logging(service: Service) -> Iterator[str]:
    logging = service.get("logging") or {}
    options = logging.get("options") or {}
    if logging.get("driver") not in ("json-file", "local") or not {"max-size", "max-file"} <= set(options):
        yield "its log is not rotated; set max-size and max-file"


def _ports(service: Service) -> Iterator[str]:
    for port in service.get("ports", []):
        host = port.get("host_ip", "") if isinstance(port, dict) else str(port).rpartition(":")[0]
        if host != "127.0.0.1" and not str(host).startswith("127.0.0.1:"):
            yield f"publishes {port} to every network; put 127.0.0.1 in front"


def _secrets(service: Service) -> Iterator[str]:
    environment = service.get("environment") or {}
    pairs = (
        environment.items()
        if isinstance(environment, Mapping)
        else [str(one).partition("=")[::2] for one in environment]
    )
    for name, value in pairs:
        if value and _SECRET_NAME.search(name) and not name.endswith("_FILE"):
            yield f"{name} is a secret in the environment; give it as a file ({name}_FILE)"
        elif value and _URL_WITH_PASSWORD.search(str(value)):
            yield f"{name} holds a password in the environment"
    for part in ("command", "entrypoint"):
        words = service.get(part) or []
        if any(
            _URL_WITH_PASSWORD.search(str(word)) for word in ([words] if isinstance(words, str) else words)
        ):
            yield f"its {part} holds a password"


def _networks(config: Mapping[str, Any]) -> Iterator[str]:
    services: Mapping[str, Service] = config["services"]
    on = {name: set(service.get("networks") or ()) for name, service in services.items()}
    if "edge" in on:
        for name in ("postgres", "redis", "rabbitmq", "prometheus", "loki", "tempo"):
            if both := on["edge"] & on.get(name, set()):
                yield f"{', '.join(sorted(both))}: the edge can reach {name}"
    for name in ("data", "app", "broker"):
        if not (config.get("networks", {}).get(name) or {}).get("internal"):
            yield f"{name}: has a way out; set internal"
    for name in services:
        if not on[name] and services[name].get("network_mode") != "none":
            yield f"default: {name} is on it, with everything else; name its networks"


def _dependencies(service: Service) -> Iterable[tuple[str, str]]:
    dependencies = service.get("depends_on") or {}
    if isinstance(dependencies, Mapping):
        return [(name, str(how.get("condition"))) for name, how in dependencies.items()]
    return [(name, "service_started") for name in dependencies]


def _excuse(service: Service, subject: str) -> bool:
    labels = service.get("labels") or {}
    return isinstance(labels, Mapping) and len(str(labels.get(LABEL + subject, "")).split()) >= 5
