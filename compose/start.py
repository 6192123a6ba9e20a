"""Start the planned components, each as soon as what it needs is ready."""

import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait

from compose import halt, processes
from compose.configure import Plan, Setting
from compose.events import GOOD, Event, Phase, Report
from compose.graph import order
from compose.launch import launch
from compose.model import Component, StackError
from compose.ready import is_ready
from compose.state import State

Outcome = tuple[Phase, str]


def start_all(
    plans: Mapping[str, Plan], selected: Iterable[Component], setting: Setting, state: State, report: Report
) -> dict[str, Outcome]:
    """Start every selected component that has a plan, and leave alone what runs unchanged.

    Raises:
        KeyboardInterrupt: after everything that this call started was stopped again.
    """
    run = _Run(plans, setting, state, report)
    components = order(selected)
    tasks: dict[str, Future[Outcome]] = {}
    pool = ThreadPoolExecutor(max(len(components), 1), "start")
    try:
        for component in components:
            needs = [tasks[name] for name in component.needs]
            tasks[component.name] = pool.submit(run.bring, component, needs)
        while wait(tasks.values(), timeout=0.2).not_done:
            pass
    except KeyboardInterrupt:
        run.cancel.set()
        wait(tasks.values())
        halt.stop_all([plans[name].component for name in run.started], state, report)
        raise
    finally:
        run.cancel.set()
        pool.shutdown()
    return {name: task.result() for name, task in tasks.items()}


class _Run:
    def __init__(self, plans: Mapping[str, Plan], setting: Setting, state: State, report: Report) -> None:
        self.plans, self.setting, self.state, self.report = plans, setting, state, report
        self.cancel = threading.Event()
        self.started: set[str] = set()

    def bring(self, component: Component, needs: list[Future[Outcome]]) -> Outcome:
        name = component.name
        for need, task in zip(component.needs, needs, strict=True):
            if task.result()[0] not in GOOD and not self.cancel.is_set():
                return self._say(name, Phase.SKIPPED, f"it needs {need}, which is not there")
        plan = self.plans.get(name)
        if plan is None:
            return Phase.MISSING, "; ".join(self.state.programs[name].reasons)
        if self.cancel.is_set():
            return self._say(name, Phase.SKIPPED, "interrupted")
        if self._is_current(plan):
            return self._say(name, Phase.DONE if component.one_shot else Phase.KEPT)
        return self._start(plan)

    def _start(self, plan: Plan) -> Outcome:
        name = plan.component.name
        halt.stop(plan.component, self.state, self.report)
        self.started.add(name)
        try:
            launch(plan, self.setting, self.state, self.report, self.cancel)
        except (StackError, OSError) as error:
            if self.cancel.is_set():
                return self._say(name, Phase.SKIPPED, "interrupted")
            return self._say(name, Phase.FAILED, str(error))
        return self._say(name, Phase.DONE if plan.component.one_shot else Phase.READY)

    def _is_current(self, plan: Plan) -> bool:
        component = plan.component
        running = self.state.running.get(component.name)
        if running is None or running.fingerprint != plan.fingerprint:
            return False
        if component.one_shot:
            return running.ready and not self.started.intersection(component.needs)
        if not processes.alive(running.pid, running.started):
            return False
        for _ in range(20):
            if is_ready(component, plan.program.path, self.setting):
                return True
            if self.cancel.wait(0.25):
                return True
        self.report(Event(None, None, f"{component.name} runs but does not answer; it is started anew"))
        return False

    def _say(self, name: str, phase: Phase, text: str = "") -> Outcome:
        self.report(Event(name, phase, text))
        return phase, text
