"""The whole outcome of a run in one frozen value; every output is written from it."""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from urllib.parse import quote

from loadtest import stats
from loadtest.gate import Check
from loadtest.machine import describe
from loadtest.run import Measured, Order
from loadtest.server import ServerView, ask
from loadtest.target import Stack
from loadtest.verdict import Course, Verdict, judge

SLOWEST_EACH = 3


@dataclass(frozen=True)
class SlowTrace:
    """A slow sample and where its trace can be seen; `link` is empty without Grafana and Tempo."""

    route: str
    ms: float
    at_seconds: float
    trace_id: str
    link: str
    error: str


@dataclass(frozen=True)
class GeneratorFigures:
    """Could the generator keep up? CPU in cores, lateness of its own timer in ms."""

    cpu_mean: float | None
    cpu_peak: float | None
    cpu_limit: float
    latest_tick_ms: float


@dataclass(frozen=True)
class Result:
    """Times are UTC, ISO 8601; seconds count from the start of the load."""

    run_id: str
    scenario: str
    title: str
    target: str
    verdict: Verdict
    started: str
    load_seconds: float
    planned_seconds: int
    requests: int
    failed: int
    rate: float
    overall: stats.RouteFigures | None
    checks: tuple[Check, ...]
    routes: tuple[stats.RouteFigures, ...]
    errors: tuple[stats.ErrorFigures, ...]
    timeline: tuple[stats.Bucket, ...]
    server: ServerView
    slowest: tuple[SlowTrace, ...]
    generator: GeneratorFigures
    environment: dict[str, str]
    settings: dict[str, object]
    warmup_seconds: float
    latency_limit_ms: float | None  # of the latency objective, when there is one

    def as_json(self) -> str:
        content = asdict(self)
        content["verdict"] = {
            "code": int(self.verdict.code),
            "words": self.verdict.code.words,
            "reasons": list(self.verdict.reasons),
        }
        return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def assemble(order: Order, measured: Measured, stack: Stack) -> Result:
    """Compute every figure of the run, and ask its Prometheus when there is one."""
    samples = measured.recording.samples
    seconds = measured.end - measured.start
    inside = [sample for sample in samples if sample.end <= measured.end]
    http = [sample for sample in inside if sample.is_http]
    routes = stats.by_route(samples)
    return Result(
        run_id=order.run_id,
        scenario=order.scenario.name,
        title=order.scenario.title,
        target=order.target,
        verdict=_verdict(measured.course, measured.checks),
        started=datetime.fromtimestamp(measured.start, UTC).isoformat(timespec="milliseconds"),
        load_seconds=seconds,
        planned_seconds=order.scenario.model.duration_seconds,
        requests=sum(1 for sample in samples if sample.is_http),
        failed=sum(1 for sample in samples if sample.is_http and sample.error),
        rate=len(http) / seconds if seconds else 0.0,
        overall=stats.figures("all requests", http, seconds) if http else None,
        checks=tuple(measured.checks),
        routes=tuple(stats.figures(route, own, seconds) for route, own in routes.items()),
        errors=tuple(stats.errors(samples)),
        timeline=tuple(stats.timeline(samples, measured.recording.marks, measured.start, measured.end)),
        server=ask(stack.prometheus, measured.start, measured.end) if samples else ServerView(),
        slowest=tuple(
            SlowTrace(
                s.route, s.ms, s.at - measured.start, s.trace_id, link(s.trace_id, s.at, stack), s.error
            )
            for s in stats.slowest(samples, SLOWEST_EACH)
        ),
        generator=GeneratorFigures(
            measured.course.generator_cpu,
            measured.cpu_peak,
            measured.course.cpu_limit,
            measured.latest_tick * 1000,
        ),
        environment=describe(order.target),
        settings=order.scenario.model_dump(mode="json", exclude={"name", "title"}, exclude_none=True),
        warmup_seconds=order.scenario.model.warmup_seconds,
        latency_limit_ms=next(
            (1000 * (s.threshold_seconds or 0) for s in order.slos if s.kind == "latency"), None
        ),
    )


def _verdict(course: Course, checks: list[Check]) -> Verdict:
    failed = [f"{c.name} on {c.route}: {c.measured}, required {c.required}" for c in checks if not c.passed]
    return judge(course, failed, len(checks))


def link(trace_id: str, at: float, stack: Stack) -> str:
    """Grafana's Explore on the trace, else Tempo's own answer, else nothing."""
    if stack.grafana:
        query = {
            "refId": "A",
            "datasource": {"type": "tempo", "uid": "tempo"},
            "queryType": "traceql",
            "query": trace_id,
        }
        span = {"from": str(int((at - 600) * 1000)), "to": str(int((at + 600) * 1000))}
        panes = json.dumps(
            {"t": {"datasource": "tempo", "queries": [query], "range": span}}, separators=(",", ":")
        )
        return f"{stack.grafana}/explore?schemaVersion=1&orgId=1&panes={quote(panes, safe='')}"
    return f"{stack.tempo}/api/traces/{trace_id}" if stack.tempo else ""
