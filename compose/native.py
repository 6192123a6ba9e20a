"""The stack as plain processes: `Stack(state, only).up()`, `.down()`, and faults by component."""

import json
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from compose import halt, ports, processes, secret
from compose.components import COMPONENTS
from compose.configure import Setting, environment, plan, remove, write_targets
from compose.events import GOOD, Event, Phase, Report, silent
from compose.graph import by_name, closure, order
from compose.launch import launch
from compose.model import Component, MissingProgramError, Resolved, StackError
from compose.paths import Paths
from compose.programs import resolve
from compose.ready import is_ready
from compose.start import Outcome, start_all
from compose.state import Known, State, locked, write
from compose.status import Status, look


class Stack:
    """One stack of components and its state folder.

    Used as a context manager it is brought up, and on leaving is taken down with its data kept.

    Args:
        state: folder for everything it keeps; `YARDSTICK_STATE` or `.stack` if None.
        only: components to start, what they need included; if None, all that belong to the whole stack.
        table: what there is to start.
        report: told of every step.
    """

    def __init__(
        self,
        state: Path | None = None,
        only: Iterable[str] | None = None,
        *,
        table: tuple[Component, ...] = COMPONENTS,
        report: Report = silent,
    ) -> None:
        self.paths = Paths.of(state)
        self.table = table
        wanted = (c.name for c in table if c.belongs(os.environ)) if only is None else only
        self.selected = closure(wanted, table)
        self.report = report

    def __enter__(self) -> Self:
        outcome = self.up()
        bad = [f"{name}: {text}" for name, (phase, text) in outcome.items() if phase not in GOOD]
        if bad:
            self.down()
            raise StackError("\n".join(bad))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    def up(self) -> dict[str, Outcome]:
        """Start what does not run or has changed, and wait until all of it is ready.

        An interrupt stops what this call started. A component that fails leaves the others running.

        Returns:
            How each selected component ended up, and a text on what went wrong.

        Raises:
            StackError: if nothing could be started at all.
        """
        with locked(self.paths, self._remark):
            state = self._load()
            halt.end_leftovers(self.paths, state, self.table, self.report)
            for name in [n for n in state.running if n not in by_name(self.table)]:
                state.set_running(name, None)
            outcomes, programs = self._find_programs(state)
            setting = self._setting(state, set(programs))
            plans = {
                name: plan(by_name(self.table)[name], found, setting) for name, found in programs.items()
            }
            write_targets(setting, self.table, self.paths.config("prometheus") / "targets")
            state.wanted = [name for name in by_name(self.table) if name in setting.present]
            state.save()
            outcomes |= start_all(plans, self.selected, setting, state, self.report)
            self._write_endpoints(setting)
            return {component.name: outcomes[component.name] for component in self.selected}

    def down(self, *, volumes: bool = False) -> None:
        """Stop every component and whatever else bears this stack's marker; harmless when nothing runs.

        Args:
            volumes: remove data, logs and configuration too; secrets stay.
        """
        if not self.paths.state.is_dir():
            # Nothing is remembered, but what was started before the folder was removed may still run.
            halt.end_leftovers(self.paths, State(self.paths.file), self.table, self.report)
            return
        with locked(self.paths, self._remark):
            state = self._load()
            halt.stop_all(self.table, state, self.report)
            halt.end_leftovers(self.paths, state, self.table, self.report)
            self.paths.endpoints.unlink(missing_ok=True)
            state.running, state.wanted = {}, []
            state.save()
            ports.release(self.paths.state)
            if volumes:
                for name in ("data", "logs", "config"):
                    remove(self.paths.state / name)
                self.paths.file.unlink()

    def start(self, name: str) -> None:
        """Start one component, with the ports it had, and wait until it is ready.

        Raises:
            StackError: if it cannot be had or does not become ready.
        """
        with locked(self.paths, self._remark):
            self._start(self._component(name), self._load())

    def stop(self, name: str) -> None:
        """Stop one component in its own way; the others stay, and it stays a scrape target."""
        with locked(self.paths, self._remark):
            halt.stop(self._component(name), self._load(), self.report)

    def kill(self, name: str) -> None:
        """Kill one component at once, as a crash would."""
        with locked(self.paths, self._remark):
            state = self._load()
            halt.kill(self._component(name), state)

    @contextmanager
    def without(self, names: Iterable[str]) -> Iterator[None]:
        """Stop components for the time of the block, in which no other command works on the stack.

        Those of them that ran are started again, whatever happened in the block.

        Raises:
            StackError: if one does not become ready again.
        """
        with locked(self.paths, self._remark):
            state = self._load()
            chosen = set(names)
            ran = [
                component
                for component in order(self.table)
                if component.name in chosen
                and not component.one_shot
                and (running := state.running.get(component.name))
                and processes.alive(running.pid, running.started)
            ]
            well = False
            try:
                halt.stop_all(ran, state, self.report)
                yield
                well = True
            finally:
                faults = []
                for component in ran:
                    try:
                        self._start(component, state)
                    except StackError as error:
                        faults.append(str(error))
                if faults and not well:
                    # What went wrong in the block is the more important news.
                    self._remark("\n".join(faults))
            if faults:
                raise StackError("\n".join(faults))

    def wait_ready(self, name: str, seconds: float = 60.0) -> None:
        """Wait until a component's check passes.

        Raises:
            StackError: if it does not within `seconds`.
        """
        state = self._load()
        setting = self.setting(state)
        component = self._component(name)
        pause = threading.Event()
        waited = 0.0
        while not is_ready(component, Path(state.programs[name].path), setting):
            if waited >= seconds:
                raise StackError(f"{name} is not ready after {seconds:.0f} s")
            pause.wait(0.1)
            waited += 0.1

    def status(self) -> list[Status]:
        """How every component of the table does now, those that are not part of this stack included."""
        if not self.paths.file.exists():
            return []
        state = self._load()
        return look(self.table, state, self.setting(state))

    def environment(self, name: str) -> dict[str, str]:
        """The variables that the table gives a component of the running stack.

        Raises:
            StackError: if the stack is not up.
        """
        state = self._load()
        if not state.wanted:
            raise StackError("the stack is not up; `make up` starts it")
        return environment(self._component(name), self.setting(state))

    def pid(self, name: str) -> int | None:
        """The process of a component, if it runs."""
        running = self._load().running.get(self._component(name).name)
        return running.pid if running and processes.alive(running.pid, running.started) else None

    def program(self, name: str) -> Path:
        """What a component was last run with.

        Raises:
            StackError: if it never was.
        """
        known = self._load().programs.get(name, Known())
        if not known.path:
            raise StackError(f"{name} has not been started; `make up` starts it")
        return Path(known.path)

    def endpoints(self) -> dict[str, str]:
        """Addresses by name, as in `endpoints.json`; empty when the stack is down."""
        try:
            content = json.loads(self.paths.endpoints.read_text("utf-8"))
        except FileNotFoundError:
            return {}
        return {str(name): str(address) for name, address in content.items()}

    def setting(self, state: State) -> Setting:
        """What the templates are filled with, from the remembered ports."""
        return Setting(self.paths, state.ports, secret.values(self.paths.secrets), frozenset(state.wanted))

    def _setting(self, state: State, programs: set[str]) -> Setting:
        def held(name: str) -> bool:
            running = state.running.get(name)
            return running is not None and processes.alive(running.pid, running.started)

        present = frozenset(programs) | {name for name in state.wanted if name in by_name(self.table)}
        state.ports, moved = ports.allocate(
            self.paths.state, self.table, state.ports, held, lambda name: name in present
        )
        for move in moved:
            if move.component in programs and not held(move.component):
                text = f"uses port {move.given} for {move.port}: {move.usual} is held by {move.holder}"
                self.report(Event(None, None, f"{move.component} {text}"))
        return Setting(self.paths, state.ports, secret.values(self.paths.secrets), present)

    def _start(self, component: Component, state: State) -> None:
        name = component.name
        known = state.programs.get(name, Known(reasons=["the stack has not been brought up"]))
        if known.reasons:
            raise MissingProgramError(name, tuple(known.reasons))
        halt.stop(component, state, self.report)
        setting = self.setting(state)
        program = Resolved(Path(known.path), known.version, known.source)
        launch(plan(component, program, setting), setting, state, self.report, threading.Event())
        self.report(Event(name, Phase.READY))

    def _find_programs(self, state: State) -> tuple[dict[str, Outcome], dict[str, Resolved]]:
        outcomes: dict[str, Outcome] = {}
        programs: dict[str, Resolved] = {}
        for component in self.selected:
            name = component.name
            self.report(Event(name, Phase.LOOKING))
            # A second `up` must be quick: what could not be fetched is not fetched again before a `down`.
            tried = state.programs.get(name, Known()).reasons if state.wanted else []
            try:
                found = resolve(component.program, partial(self._looking, name), fetch=not tried)
            except MissingProgramError as error:
                state.programs[name] = Known(reasons=tried or list(error.reasons))
                outcomes[name] = (Phase.MISSING, "; ".join(state.programs[name].reasons))
                self.report(Event(name, *outcomes[name]))
            else:
                state.programs[name] = Known(str(found.path), found.version, found.source)
                programs[name] = found
                self.report(Event(name, Phase.WAITING))
        return outcomes, programs

    def _write_endpoints(self, setting: Setting) -> None:
        addresses = {
            name: setting.fill(template, component.name, secrets=True)
            for component in self.table
            if component.name in setting.present
            for name, template in component.endpoints.items()
        }
        write(self.paths.endpoints, json.dumps(addresses, indent=1) + "\n")

    def _component(self, name: str) -> Component:
        return (
            closure([name], self.table)[-1] if name in by_name(self.table) else closure([name], self.table)[0]
        )

    def _load(self) -> State:
        state = State.load(self.paths.file)
        if state.trouble:
            self._remark(state.trouble)
        return state

    def _looking(self, name: str, text: str) -> None:
        self.report(Event(name, Phase.LOOKING, text))

    def _remark(self, text: str) -> None:
        self.report(Event(None, None, text))
