"""The target of a run: its address, and whether anything answers there."""

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from loadtest.errors import UsageError

PROBE_SECONDS = 3.0


def parse(url: str, option: str = "--target") -> str:
    """The URL without its last slash. Raises UsageError for what is not one to load."""
    try:
        parts = urlsplit(url)
        port_is_one = parts.port != 0
    except ValueError:
        parts, port_is_one = urlsplit(""), False
    if parts.scheme not in {"http", "https"} or not parts.hostname or not port_is_one:
        raise UsageError(f"{option} {url!r} is not a URL such as http://127.0.0.1:8000")
    if parts.username or parts.password:
        raise UsageError(f"{option}: no credentials in the URL, they would end up in the report")
    if parts.query or parts.fragment:
        raise UsageError(
            f"{option} {url!r}: no query and no fragment, only the address that paths are added to"
        )
    return url.rstrip("/")


@dataclass(frozen=True)
class Stack:
    """Addresses of the target and of what watches it; None for what there is not."""

    api: str
    prometheus: str | None = None
    tempo: str | None = None
    grafana: str | None = None


def running_stack() -> Stack:
    """The stack of this checkout, from the endpoints file that it writes once it is ready."""
    folder = Path(os.environ.get("YARDSTICK_STATE") or Path(__file__).parents[1] / ".stack")
    path = folder / "endpoints.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(
            f"--stack: no stack is running ({path} is not there): make up, or give --target"
        ) from error
    except (OSError, ValueError) as error:
        raise UsageError(f"--stack: {path} cannot be read: {error}") from error
    if not isinstance(content, dict) or not content.get("api"):
        raise UsageError(f"--stack: {path} names no api: make up, or give --target")
    return Stack(content["api"], content.get("prometheus"), content.get("tempo"), content.get("grafana"))


def chosen(
    api: str | None, prometheus: str | None, tempo: str | None, grafana: str | None, *, stack: bool
) -> Stack:
    """What the options name; with `stack`, the rest from the running stack. Raises UsageError."""
    if bool(api) == stack:
        raise UsageError("what to load? --target URL, or --stack for the running stack of this checkout")
    known = running_stack() if stack else Stack(api=parse(api or ""))
    given = {"prometheus": prometheus, "tempo": tempo, "grafana": grafana}
    return replace(known, **{name: parse(url, f"--{name}") for name, url in given.items() if url})


def unreachable(target: str) -> str:
    """Why nothing answers at the target, or an empty string. Any HTTP answer is an answer."""
    try:
        httpx.get(
            target, timeout=PROBE_SECONDS, trust_env=False, headers={"User-Agent": "yardstick-loadtest"}
        )
    except httpx.HTTPError as error:
        return f"nothing answers at {target}: {str(error) or type(error).__name__}"
    return ""


def unready(target: str, path: str | None) -> str:
    """Why the target cannot be loaded now, or an empty string."""
    if path is None:
        return unreachable(target)
    try:
        answer = httpx.get(target + path, timeout=PROBE_SECONDS, trust_env=False)
    except httpx.HTTPError as error:
        return f"nothing answers at {target}: {str(error) or type(error).__name__}"
    return (
        "" if answer.is_success else f"{target}{path} answered {answer.status_code}: the target is not ready"
    )
