"""One contender in one round: fresh processes, an empty queue, and a count of every job."""

import math
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.jobs import outbox
from bench.jobs.contender import Setup, Work
from bench.jobs.ledger import Ledger, Line
from bench.jobs.side import Order
from bench.jobs.table import ROOT, Entry


class VoidError(Exception):
    """The run says nothing: a job did not run, or ran twice, or a process failed."""


@dataclass(frozen=True)
class Plan:
    """How much of everything. Times are seconds, the rate is jobs a second.

    `settle` is how long a second run of a job is waited for once all have run; without any progress for
    `patience` the rest is taken for lost.
    """

    jobs: int = 6_000
    rate: float = 50.0
    seconds: float = 8.0
    warm_up: int = 20
    concurrency: int = 100
    settle: float = 1.0
    patience: float = 20.0


@dataclass(frozen=True, slots=True)
class Turn:
    """A contender, the address of its broker, and an empty folder and a name that no other turn has.

    `database` is the PostgreSQL of a contender with an outbox; nobody else has jobs in it.
    """

    entry: Entry
    broker: str
    plan: Plan
    folder: Path
    database: str = ""


@dataclass(frozen=True, slots=True)
class Drain:
    """Jobs a second, of a queue being emptied and of it being filled beforehand."""

    rate: float
    enqueue_rate: float


@dataclass(frozen=True, slots=True)
class Waits:
    """Milliseconds from the call that enqueues a job to its start, and how late those calls were (99 %)."""

    p50: float
    p99: float
    late_p99: float


def drain(turn: Turn, work: Work) -> Drain:
    """Fill a queue, start one worker process, and time its jobs from the first start to the last end.

    Raises:
        VoidError: not every job ran exactly once.
    """
    entry, plan = turn.entry, turn.plan
    count = max(1, round(plan.jobs * (entry.share if work == "noop" else entry.io_share)))
    order = _order(turn, work, count)
    ran, sent = _ledgers(order)
    with _side("enqueue", turn, order) as filling:
        _finish(filling, turn.folder / "enqueue.log", 60 + count / 20)
    with _side("work", turn, order) as worker:
        _watch(ran, count, worker, turn)
    lines, calls = ran.lines(), sent.lines()
    _judge(ran, count)
    return Drain(_rate(lines), _rate(calls))


def waits(turn: Turn) -> Waits:
    """Give one idle worker process no-op jobs at a low fixed rate, and time how long each waits.

    Raises:
        VoidError: not every job ran exactly once.
    """
    plan = turn.plan
    count = plan.warm_up + max(1, round(plan.rate * plan.seconds))
    order = _order(turn, "noop", count)
    ran, sent = _ledgers(order)
    with _side("work", turn, order) as worker, _side("arrive", turn, order) as arrivals:
        _finish(arrivals, turn.folder / "arrive.log", plan.seconds + 2 * plan.patience)
        _watch(ran, count, worker, turn)
    _judge(ran, count)
    started = {line.number: line.begin for line in ran.lines()}
    calls = sorted((line for line in sent.lines() if line.number >= plan.warm_up), key=lambda c: c.number)
    waited = [(started[call.number] - call.begin) / 1e6 for call in calls]
    step = 1e9 / plan.rate
    late = [(call.begin - calls[0].begin - place * step) / 1e6 for place, call in enumerate(calls)]
    return Waits(percentile(waited, 0.5), percentile(waited, 0.99), percentile(late, 0.99))


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest rank: the smallest value that at least `share` of them do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def faults(lines: Sequence[Line], begun: int, count: int) -> list[str]:
    """What is wrong with a ledger in which each of `count` jobs is to stand once."""
    times = Counter(line.number for line in lines)
    lost = [number for number in range(count) if number not in times]
    doubled = [number for number, runs in times.items() if runs > 1]
    said = []
    if lost:
        said.append(f"{len(lost)} of {count} jobs never ran (the first of them: {lost[0]})")
    if doubled or begun > len(lines):
        said.append(f"{len(doubled)} of {count} jobs ran more than once ({begun} runs in all)")
    unknown = [number for number in times if number >= count]
    if unknown:
        said.append(f"{len(unknown)} jobs ran that nobody enqueued")
    unfinished = sum(1 for line in lines if not line.end)
    if unfinished:
        said.append(f"{unfinished} of {count} jobs began and did not end")
    return said


def _judge(ran: Ledger, count: int) -> None:
    said = faults(ran.lines(), ran.counts()[0], count)
    if said:
        raise VoidError("; ".join(said))


def _rate(lines: Sequence[Line]) -> float:
    seconds = (max(line.end for line in lines) - min(line.begin for line in lines)) / 1e9
    return len(lines) / max(seconds, 1e-9)


def _order(turn: Turn, work: Work, count: int) -> Order:
    turn.folder.mkdir(parents=True)
    if turn.database:
        outbox.clear(turn.database)
    return Order(
        contender=turn.entry.target,
        setup=Setup(turn.broker, f"bench-{turn.folder.name}", turn.plan.concurrency, turn.database),
        work=work,
        count=count,
        ran=str(turn.folder / "ran"),
        sent=str(turn.folder / "sent"),
        rate=turn.plan.rate,
        warm_up=turn.plan.warm_up,
    )


def _ledgers(order: Order) -> tuple[Ledger, Ledger]:
    # Room for every job twice: more than that is counted, if not written down.
    return Ledger(Path(order.ran), 2 * order.count), Ledger(Path(order.sent), order.count)


@contextmanager
def _side(command: str, turn: Turn, order: Order) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is killed at the end: no contender's way of stopping is part of what is measured."""
    arguments = [str(turn.entry.python), "-m", "bench.jobs.side", command, order.encode()]
    with (turn.folder / f"{command}.log").open("wb") as log:
        process = subprocess.Popen(arguments, cwd=ROOT, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _finish(process: subprocess.Popen[bytes], log: Path, seconds: float) -> None:
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        raise VoidError(f"what enqueues was not done after {seconds:.0f} s{_tail(log)}") from None
    if code:
        raise VoidError(f"what enqueues ended with {code}{_tail(log)}")


def _watch(ran: Ledger, count: int, worker: subprocess.Popen[bytes], turn: Turn) -> None:
    seen, moved = ran.counts(), time.monotonic()
    while seen[1] < count and time.monotonic() - moved < turn.plan.patience:
        time.sleep(0.02)
        if worker.poll() is not None:
            raise VoidError(f"the worker ended with {worker.returncode}{_tail(turn.folder / 'work.log')}")
        now = ran.counts()
        if now != seen:
            seen, moved = now, time.monotonic()
    time.sleep(turn.plan.settle)
    if turn.database and seen[1] >= count:
        done = outbox.completed(turn.database, count, turn.plan.patience)
        if done < count:
            raise VoidError(f"{count - done} of {count} jobs ran and have not ended in the database")


def _tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return f": {lines[-1][:300]}" if lines else ""
