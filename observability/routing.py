"""The route template of a request, for names and labels that stay bounded."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

UNMATCHED = "/{unmatched}"


def action(method: str, scope: MutableMapping[str, Any]) -> str:
    """`GET /items/{id}` once an endpoint was found, empty before."""
    route = route_template(scope, 404)
    return "" if route is UNMATCHED else f"{method} {route}"


def route_template(scope: MutableMapping[str, Any], status: int) -> str:
    """The template that matched, mounts and nested routers included: never the path itself.

    An application without a router may put a text into `scope["route"]`.
    """
    route = scope.get("route")
    if isinstance(route, str):
        return route
    prefix = _mount_prefix(scope) if "app_root_path" in scope else ""
    if route is not None and hasattr(route, "endpoint"):
        # FastAPI keeps the path with every included router's prefix beside the route, not in it.
        if "fastapi" in scope:
            effective = scope["fastapi"].get("effective_route_context")
            if getattr(effective, "original_route", None) is route:
                route = effective
        return prefix + str(getattr(route, "path", UNMATCHED))
    if prefix and status != 404:
        return prefix + "/{path}"
    return UNMATCHED


def _mount_prefix(scope: MutableMapping[str, Any]) -> str:
    """`/t/acme` -> `/t/{tenant}`: the mounted path with its parameters named again."""
    path: str = scope.get("root_path", "")[len(scope["app_root_path"]) :]
    if values := scope.get("path_params"):
        names = {str(value): name for name, value in values.items()}
        path = "/".join(f"{{{names[part]}}}" if part in names else part for part in path.split("/"))
    return path
