"""Finds the Locust user classes that a plan names and gives them the plan's mix, pauses and time limits."""

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

from locust import User, between

from loadtest.errors import UsageError
from loadtest.plan import Plan


def users_of(plan: Plan) -> dict[str, type[User]]:
    """User classes by name, ready to run. Raises UsageError for a mix that does not fit the journeys."""
    module = _module(plan.journeys)
    classes = {
        name: item
        for name, item in vars(module).items()
        if isinstance(item, type) and issubclass(item, User) and item.abstract is False
    }
    tasks = {name for cls in classes.values() for name in _tasks(cls)}
    unknown = sorted(set(plan.mix) - tasks)
    if unknown:
        has = f"it has {', '.join(sorted(tasks))}" if tasks else "it has no user class with tasks"
        raise UsageError(f"mix: {plan.journeys} has no journey {', '.join(unknown)}; {has}")
    ready = {}
    for name, cls in classes.items():
        cls.tasks = [task for key, task in _tasks(cls).items() for _ in range(plan.mix.get(key, 0))]
        if not cls.tasks:
            continue
        vars_of_run: dict[str, Any] = {
            "plan": plan,
            "wait_time": between(*plan.think_seconds),
            "network_timeout": plan.request_timeout_seconds,
            "connection_timeout": plan.request_timeout_seconds,
        }
        for key, value in vars_of_run.items():
            setattr(cls, key, value)
        ready[name] = cls
    return ready


def _tasks(cls: type[User]) -> dict[str, Any]:
    """Its journeys by name: functions, or Locust's nested task sets."""
    return {getattr(task, "__name__", str(task)): task for task in cls.tasks}


def _module(journeys: str) -> ModuleType:
    if not journeys.endswith(".py"):
        return importlib.import_module(journeys)
    path = Path(journeys)
    spec = importlib.util.spec_from_file_location(f"journeys_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UsageError(f"journeys: {path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
