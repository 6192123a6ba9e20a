"""The report's texts: one HTML file that loads nothing from anywhere, and a Markdown summary."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from loadtest.report import charts, words
from loadtest.result import Result
from loadtest.stats import PERCENTILES, Bucket, RouteFigures
from loadtest.verdict import Code

TONES = ("c1", "c2", "c3", "c4", "c5", "c6")
HERE = Path(__file__).parent


def html(result: Result) -> str:
    """The whole page."""
    return _render("report.html.j2", result, autoescape=True)


def markdown(result: Result) -> str:
    """The summary, for a pull request or a chat."""
    return _render("summary.md.j2", result, autoescape=False)


def _render(template: str, result: Result, *, autoescape: bool) -> str:
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=autoescape,  # noqa: S701 - off for Markdown only
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        ms=words.milliseconds, margin=words.margin, share=words.share, clock=words.clock
    )
    environment.filters["breakable"] = _breakable
    return environment.get_template(
        template
    ).render(
        r=result,
        tone=_tone(result.verdict.code),
        percentiles=[f"{p:g}" for p in PERCENTILES],
        charts=[Markup(figure) for figure in _charts(result)] if autoescape and result.timeline else [],  # noqa: S704 - our own SVG
        settings=yaml.safe_dump(
            result.settings, sort_keys=False, allow_unicode=True, default_flow_style=None
        ),
        started=result.started[:19].replace("T", " "),
    )


def _breakable(route: str) -> Markup:
    """A route that a narrow screen may break at its slashes, never within a word."""
    return Markup(str(escape(route)).replace("/", "<wbr>/"))  # noqa: S704 - escaped just before


def _tone(code: Code) -> str:
    if code == Code.PASSED:
        return "good"
    return "unsure" if code in {Code.ABORTED, Code.GENERATOR_SATURATED} else "bad"


def _charts(result: Result) -> list[str]:
    buckets = result.timeline
    draw = partial(charts.chart, x=charts.seconds(result.load_seconds), warm=result.warmup_seconds)
    settled = [point for point in _of(buckets, lambda b: b.settle_p95_ms) if point[1] is not None]
    load = [
        charts.Line("requests", "c1", _of(buckets, lambda b: b.rate), filled=True),
        charts.Line("errors", "bad", _of(buckets, lambda b: b.errors)),
        charts.Line("users", "muted", _of(buckets, lambda b: b.users), dashed=True),
    ]
    latency = [
        charts.Line("p50", "c1", _of(buckets, lambda b: b.p50_ms)),
        charts.Line("p95", "c2", _of(buckets, lambda b: b.p95_ms)),
        charts.Line("p99", "c3", _of(buckets, lambda b: b.p99_ms)),
    ]
    settlement = [
        charts.Line("client: sent to seen settled", "c2", settled),
        *_server(result, "wait_p95", "c4"),
    ]
    both = {
        "rate": charts.Line("client: requests", "c1", _of(buckets, lambda b: b.rate)),
        "p99": charts.Line("client: p99", "c1", _of(buckets, lambda b: b.p99_ms)),
    }
    server = {key: _server(result, key, "c3") for key in both}
    drawn = [
        draw("Throughput, errors and users", "per second; users as a number", load),
        draw("Latency of right answers", "ms", latency, limit=result.latency_limit_ms),
    ]
    if any(server.values()):
        drawn += [
            draw("Throughput, client and server", "per second", [both["rate"], *server["rate"]]),
            draw("p99, client and server", "ms", [both["p99"], *server["p99"]]),
        ]
    return [*drawn, _curves(result.routes), draw("From payment to settlement, p95", "ms", settlement)]


def _server(result: Result, key: str, tone: str) -> list[charts.Line]:
    return [charts.Line(s.title, tone, s.points, dashed=True) for s in result.server.series if s.key == key]


def _curves(routes: Sequence[RouteFigures]) -> str:
    lines = [
        charts.Line(route.route, tone, [(charts.nine(p), ms) for p, ms in route.curve_ms])
        for route, tone in zip((r for r in routes if r.is_http), TONES, strict=False)
    ]
    most = max((p for route in routes if route.is_http for p, _ in route.curve_ms), default=0.0)
    return charts.chart("Latency by percentile", "ms", lines, charts.nines(most))


def _of(
    buckets: Sequence[Bucket], value: Callable[[Bucket], float | None]
) -> list[tuple[float, float | None]]:
    return [(bucket.at, value(bucket)) for bucket in buckets]
