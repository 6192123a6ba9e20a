"""The overview: is the promise kept, and where not. One click leads on to a trace or a log line."""

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row

from alerts.expressions import budget_left, error_ratio
from alerts.slo import Slo, SloFile
from dashboards.kit import (
    Limit,
    Panel,
    board,
    choice,
    log_lines,
    logql,
    promql,
    row,
    stat,
    timeseries,
    trace_table,
    traceql,
)

HTTP = "http_server_request_duration_seconds"
API = 'job="yardstick-api",http_route=~"$route"'
LOGS = '{service_namespace="yardstick"}'


def overview(slos: SloFile) -> Dashboard:
    """The dashboard `yardstick-overview`; limits come from the objectives."""
    return board(
        "yardstick-overview",
        "Yardstick / Overview",
        description="The service level objectives, and beneath them what they are made of.",
        choices=[choice("route", "Route", f'label_values({HTTP}_count{{job="yardstick-api"}}, http_route)')],
        parts=[
            *_objectives(slos),
            *_api(slos.named("api-availability"), slos.named("api-latency")),
            *_jobs(slos.named("job-freshness")),
            *_saturation(),
            *_logs_and_traces(),
        ],
    )


def _objectives(slos: SloFile) -> list[Row | Panel]:
    shares = [
        _kept(slos.named("api-availability"), "Availability", "Share of requests not answered with a 5xx")
    ]
    latency, freshness = slos.named("api-latency"), slos.named("job-freshness")
    shares.append(
        _kept(latency, "Answered in time", f"Share of requests within {latency.threshold_seconds:g} s")
    )
    done = f"Share of finished jobs done within {freshness.threshold_seconds:g} s of the commit behind them"
    shares.append(_kept(freshness, "Jobs done in time", done))
    days = f"{slos.window_days}d"
    left = stat(
        "Error budget left",
        good="above 0 %",
        description=f"What is left of {slos.window_days} days' permitted errors, as far back as metrics "
        "are kept; below zero it is overdrawn.",
        unit="percentunit",
        decimals=1,
        queries=[promql(budget_left(slo, days), slo.name, instant=True) for slo in slos.slos],
        limit=Limit(0),
        width=9,
    )
    up = stat(
        "Components up",
        good="all",
        description="Of each component, whether every instance answered its last scrape.",
        unit="short",
        queries=[promql("min by (job) (up)", "{{job}}", instant=True)],
        limit=Limit(1),
        words={"0": "down", "1": "up"},
        width=24,
    )
    return [row("Service level objectives"), *shares, left, up]


def _kept(slo: Slo, title: str, share: str) -> Panel:
    return stat(
        title,
        good=f"at least {slo.objective * 100:.9g} %",
        description=f"{share}, over the time shown. The objective stands in alerts/slo.yaml.",
        unit="percentunit",
        decimals=2,
        queries=[promql(f"1 - {error_ratio(slo, '$__range')}", instant=True)],
        limit=Limit(slo.objective),
        width=5,
    )


def _api(availability: Slo, latency: Slo) -> list[Row | Panel]:
    count = f"{HTTP}_count{{{API}}}[$__rate_interval]"
    failed = f"{HTTP}_count{{{API},{availability.bad_selector}}}[$__rate_interval]"
    buckets = f"sum by (le) (rate({HTTP}_bucket{{{API}}}[$__rate_interval]))"
    return [
        row("API"),
        timeseries(
            "Requests",
            good="steady, without gaps",
            description="Requests a second by route template. A sudden fall is as bad as errors.",
            unit="reqps",
            queries=[promql(f"sum by (http_route) (rate({count}))", "{{http_route}}")],
            width=8,
        ),
        timeseries(
            "Share of requests that fail",
            good=f"below {availability.error_budget * 100:.9g} %",
            description="Requests answered with a 5xx, of all; the dashed line is what the objective allows.",
            unit="percentunit",
            queries=[promql(f"(sum(rate({failed})) or vector(0)) / sum(rate({count}))", "5xx")],
            limit=Limit(availability.error_budget, good_below=True),
            width=8,
        ),
        timeseries(
            "Time to answer",
            good=f"99 % below {latency.threshold_seconds:g} s",
            description="Percentiles over the chosen routes. Dots are exemplars: click one for its trace.",
            unit="s",
            queries=[
                promql(f"histogram_quantile({quantile}, {buckets})", name, exemplars=quantile == 0.99)
                for name, quantile in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
            ],
            limit=Limit(latency.threshold_seconds or 0, good_below=True),
            width=8,
        ),
    ]


def _jobs(freshness: Slo) -> list[Row | Panel]:
    wait = "sum by (le, job_name) (rate(yardstick_jobs_wait_seconds_bucket[$__rate_interval]))"
    late = Limit(freshness.threshold_seconds or 0, good_below=True)
    return [
        row("Jobs"),
        timeseries(
            "Jobs done and failed",
            good="as many done as asked for, none failed",
            description="Jobs completed a second, attempts that failed, and jobs given up.",
            unit="ops",
            queries=[
                promql(f"sum(rate(yardstick_jobs_{which}_total[$__rate_interval]))", which)
                for which in ("done", "failed", "dead")
            ],
            width=6,
        ),
        timeseries(
            "Wait for a worker, p99",
            good="well below the freshness objective",
            description="From enqueueing to the start of the attempt, by job.",
            unit="s",
            queries=[promql(f"histogram_quantile(0.99, {wait})", "{{job_name}}", exemplars=True)],
            limit=late,
            width=6,
        ),
        timeseries(
            "Jobs waiting",
            good="near zero, not growing",
            description="Jobs in the queue, and in the outbox on their way to it.",
            unit="short",
            queries=[
                promql("max by (queue) (yardstick_queue_depth)", "queue {{queue}}"),
                promql("max(yardstick_outbox_pending)", "outbox"),
            ],
            width=6,
        ),
        timeseries(
            "Age of the oldest waiting",
            good=f"below {freshness.threshold_seconds:g} s",
            description="How long the oldest job waits in the queue, and the oldest entry in the outbox.",
            unit="s",
            queries=[
                promql("max by (queue) (yardstick_queue_oldest_age_seconds)", "queue {{queue}}"),
                promql("max(yardstick_outbox_oldest_age_seconds)", "outbox"),
            ],
            limit=late,
            width=6,
        ),
    ]


def _saturation() -> list[Row | Panel]:
    lag = "sum by (le, job) (rate(yardstick_event_loop_lag_seconds_bucket[$__rate_interval]))"
    return [
        row("Saturation"),
        timeseries(
            "Database connections",
            good="some idle, no overflow",
            description="The pool's connections by state, all instances together.",
            unit="short",
            queries=[promql("sum by (job, state) (yardstick_db_pool_connections)", "{{job}} {{state}}")],
            width=12,
        ),
        timeseries(
            "Event-loop lag, p99",
            good="below 50 ms",
            description="How much later than due the event loop runs what is ready: all requests lose it.",
            unit="s",
            queries=[promql(f"histogram_quantile(0.99, {lag})", "{{job}}")],
            limit=Limit(0.05, good_below=True),
            width=12,
        ),
    ]


def _logs_and_traces() -> list[Row | Panel]:
    errors = f'{LOGS} | json level="level" | level=~"error|critical" [$__auto]'
    return [
        row("Logs and traces"),
        timeseries(
            "Error lines",
            good="zero",
            description="Log lines a second at level error or critical, all services together.",
            unit="cps",
            queries=[logql(f"sum(rate({errors})) or vector(0)", "error and critical")],
            width=24,
        ),
        log_lines(
            "Newest log lines",
            good="boring",
            description="The newest lines of every service. A line's trace_id leads to its trace.",
            query=logql(LOGS),
            width=12,
        ),
        trace_table(
            "Recent requests, slowest first",
            good="none that surprises",
            description="Traces that began with a request; their duration includes the job that followed.",
            query=traceql('{ resource.service.name = "yardstick-api" && kind = server }', traces=100),
            width=12,
        ),
    ]
