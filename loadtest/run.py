"""One run: start the generator, watch it, stop it when there is a reason, and hand over what was measured."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from loadtest import gate, target
from loadtest.generator import Generator, cpu_share
from loadtest.plan import Plan
from loadtest.samples import Phase, Recording
from loadtest.scenario import Scenario
from loadtest.slo import Slo
from loadtest.verdict import Course

LOOK_SECONDS = 0.5
START_SECONDS = 60.0


@dataclass(frozen=True)
class Order:
    """What to run, against what, judged by what."""

    run_id: str
    scenario: Scenario
    target: str
    slos: tuple[Slo, ...]
    folder: Path


@dataclass
class Measured:
    """Everything a report is made of. `start` and `end` bound the load, in epoch seconds."""

    recording: Recording
    start: float
    end: float
    course: Course
    checks: list[gate.Check]
    cpu_peak: float | None
    latest_tick: float  # seconds that the generator's own timer fired late, at worst


@dataclass
class Watch:
    """The state of a run under way; progress is drawn from it."""

    order: Order
    recording: Recording
    generator: Generator
    began: float = field(default_factory=time.time)
    checks: list[gate.Check] = field(default_factory=list)
    stack_failed: str = ""
    given_up: str = ""
    _probed: float = 0.0
    _next_judgement: float = 0.0

    @property
    def start(self) -> float | None:
        return self.recording.time_of(Phase.STARTED)

    @property
    def end(self) -> float | None:
        """When the load ended; the journeys under way then may go on for a while."""
        return self.recording.time_of(Phase.STOPPING)

    def look(self) -> None:
        """Take in what is new, and find out whether the run should end."""
        self.recording.read()
        self.generator.measure_cpu()
        if self.start is None:
            return
        now = time.time()
        self._look_for_silence(now, self.start)
        if now >= self._next_judgement:
            self._judge(now, self.start)

    def _judge(self, now: float, start: float) -> None:
        self.checks = gate.evaluate(
            self.order.scenario, self.order.slos, self.recording.samples, start, self.end or now
        )
        # A long run has many samples: judging them must not take the CPU from the generator beside it.
        self._next_judgement = time.time() + 20 * (time.time() - now)
        if self.end is not None:
            return
        model, limits = self.order.scenario.model, self.order.scenario.limits
        lost = gate.hopeless(self.checks, now - start, model.duration_seconds, limits.abort)
        if lost:
            self.given_up = (
                f"given up after {now - start:.0f} s: {lost.name} on {lost.route} "
                f"is at {lost.measured}, {lost.required} can no longer be reached"
            )

    def _look_for_silence(self, now: float, start: float) -> None:
        patience = self.order.scenario.limits.unreachable_seconds
        answered = max((s.end for s in self.recording.samples[-2000:] if s.status), default=start)
        if now - max(answered, self._probed) < patience:
            return
        self._probed = now
        silence = target.unreachable(self.order.target)
        if silence:
            self.stack_failed = f"{silence} (no answer for {now - answered:.0f} s)"


def execute(order: Order, show: Callable[[Watch], None]) -> Measured:
    """Run it to its end, or until it is interrupted, hopeless, or its target is gone.

    `show` is called about twice a second. A second SIGINT or SIGTERM ends the generator at once.
    """
    scenario = order.scenario
    plan = Plan(
        run_id=order.run_id,
        journeys=scenario.journeys,
        mix=scenario.mix,
        think_seconds=scenario.think_seconds,
        request_timeout_seconds=scenario.limits.request_timeout_seconds,
        parameters=dict(scenario.parameters),
        recording=str(order.folder.resolve()),
    )
    recording = Recording(order.folder)
    with interruptions() as interrupted:
        watch = Watch(order, recording, Generator(scenario, order.target, plan, order.folder))
        try:
            while watch.generator.exit_code is None and not (watch.stack_failed or watch.given_up):
                if interrupted():
                    break
                if watch.start is None and time.time() - watch.began > START_SECONDS:
                    break
                time.sleep(LOOK_SECONDS)
                watch.look()
                show(watch)
        finally:
            ended_itself = watch.generator.exit_code is not None
            watch.generator.stop()
    watch.recording.read()
    recording.close()
    return _measured(watch, interrupted=interrupted(), ended_itself=ended_itself)


def not_run(order: Order, why: str) -> Measured:
    """The outcome when the target was not there to begin with: no samples, every check without traffic."""
    now = time.time()
    checks = gate.evaluate(order.scenario, order.slos, [], now, now)
    return Measured(Recording(order.folder), now, now, Course(stack_failed=why), checks, None, 0.0)


def _measured(watch: Watch, *, interrupted: bool, ended_itself: bool) -> Measured:
    order, recording = watch.order, watch.recording
    start = watch.start or watch.began
    last = max((mark.time for mark in recording.marks), default=start)
    end = watch.end or last
    ramped = recording.time_of(Phase.RAMPED)
    mean, peak = cpu_share(watch.generator.cpu, start, end)
    failure, code = "", watch.generator.exit_code
    if not interrupted and not watch.stack_failed:
        if watch.start is None:
            failure = f"the generator did not start:\n{watch.generator.last_words()}"
        elif ended_itself and (code or recording.time_of(Phase.STOPPED) is None):
            failure = f"the generator ended early, with {code}:\n{watch.generator.last_words()}"
    silence = watch.stack_failed or _silence_at_end(watch, ended_itself and not interrupted)
    steady = [m.late for m in recording.marks if m.time >= (ramped or start) and m.time <= end]
    return Measured(
        recording=recording,
        start=start,
        end=end,
        course=Course(
            interrupted=interrupted,
            stack_failed=silence,
            generator_failed="" if silence else failure,
            given_up=watch.given_up,
            generator_cpu=mean,
            cpu_limit=order.scenario.limits.generator_cpu,
        ),
        checks=gate.evaluate(order.scenario, order.slos, recording.samples, start, end),
        cpu_peak=peak,
        latest_tick=max(steady, default=0.0),
    )


def _silence_at_end(watch: Watch, complete: bool) -> str:
    """A target that died in the last seconds has not been noticed by `look` yet."""
    http = [sample for sample in watch.recording.samples if sample.is_http]
    if http and not any(sample.status for sample in http):
        return f"nothing answered: {len(http):,} requests to {watch.order.target}, the first: {http[0].error}"
    if not complete or not http or http[-1].status:
        return ""
    return target.unreachable(watch.order.target)


@contextmanager
def interruptions() -> Iterator[Callable[[], bool]]:
    """SIGINT and SIGTERM set a flag instead of ending this process; the second one ends it."""
    seen: list[int] = []

    def handle(number: int, _frame: FrameType | None) -> None:
        if seen:
            raise KeyboardInterrupt
        seen.append(number)

    before: dict[int, Any] = {
        number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield lambda: bool(seen)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
