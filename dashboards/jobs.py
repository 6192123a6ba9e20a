"""Jobs: whether they get through, where they are stuck, and who works on them."""

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row

from alerts.slo import Slo, SloFile
from dashboards.kit import Limit, Panel, Query, board, choice, promql, row, stat, timeseries

NAMED = 'job_name=~"$job_name"'
QUANTILES = (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))


def jobs(slos: SloFile) -> Dashboard:
    """The dashboard `yardstick-jobs`; the limit of what is late comes from the objective."""
    return board(
        "yardstick-jobs",
        "Yardstick / Jobs",
        description="From the outbox over the queue to the worker: docs/jobs.md tells how jobs work.",
        choices=[choice("job_name", "Job", "label_values(yardstick_jobs_started_total, job_name)")],
        parts=[
            *_now(),
            *_throughput(),
            *_times(slos.named("job-freshness")),
            *_waiting(slos.named("job-freshness")),
            *_workers(),
            *_schedules(),
        ],
    )


def _rate(metric: str, legend: str, *, selector: str = "", by: str = "") -> Query:
    """Events a second; 0 where none has happened since the process began."""
    rated = (
        f"(rate({metric}{{{selector}}}[$__rate_interval]))"
        if selector
        else f"(rate({metric}[$__rate_interval]))"
    )
    return promql(f"sum by ({by}) {rated}" if by else f"sum{rated} or vector(0)", legend)


def _now() -> list[Row | Panel]:
    def number(title: str, good: str, description: str, query: Query, limit: Limit, **how: object) -> Panel:
        unit, words = str(how.get("unit", "short")), how.get("words")
        return stat(
            title,
            good=good,
            description=description,
            unit=unit,
            queries=[query],
            limit=limit,
            words=words if isinstance(words, dict) else None,
            width=4,
        )

    return [
        row("Now"),
        number(
            "Engine",
            "connected",
            "Whether every worker has an answer of the broker that carries the queue.",
            promql("min by (queue) (yardstick_queue_depth >= bool 0)", "{{queue}}", instant=True),
            Limit(1),
            words={"0": "away", "1": "connected"},
        ),
        number(
            "Deliveries",
            "running",
            "Whether the queue, or a domain of it, is paused by hand.",
            promql("max(yardstick_jobs_paused) + max(yardstick_queue_paused)", instant=True),
            Limit(1, good_below=True),
            words={"0": "running", "1": "a domain is paused", "2": "paused"},
        ),
        number(
            "New work",
            "accepted",
            "Whether requests are answered with 503, as too much waits.",
            promql("max(yardstick_jobs_refusing)", instant=True),
            Limit(1, good_below=True),
            words={"0": "accepted", "1": "refused"},
        ),
        number(
            "Dead letters",
            "zero",
            "Jobs that were given up, and that nobody has looked after yet.",
            promql("max(yardstick_jobs_dead_letters)", instant=True),
            Limit(1, good_below=True),
        ),
        number(
            "Workers",
            "at least 1",
            "Workers that live, by their heartbeats in the database.",
            promql("max(yardstick_jobs_workers)", instant=True),
            Limit(1),
        ),
        number(
            "Saturation",
            "below 80 %",
            "Share of what all workers may run at once that runs; without a worker it is 100 %.",
            promql("max(yardstick_jobs_saturation)", instant=True),
            Limit(0.8, good_below=True),
            unit="percentunit",
        ),
    ]


def _throughput() -> list[Row | Panel]:
    def ends(which: str, legend: str) -> Query:
        return _rate(f"yardstick_jobs_{which}_total", legend, selector=NAMED)

    return [
        row("Throughput"),
        timeseries(
            "Jobs by outcome",
            good="as many done as enqueued, none dead",
            description="Jobs a second that were handed to the queue, completed, and given up.",
            unit="ops",
            queries=[ends("enqueued", "enqueued"), ends("done", "done"), ends("dead", "dead")],
            width=8,
        ),
        timeseries(
            "Done, by job",
            good="steady",
            description="Jobs completed a second, of each name.",
            unit="ops",
            queries=[_rate("yardstick_jobs_done_total", "{{job_name}}", selector=NAMED, by="job_name")],
            width=8,
        ),
        timeseries(
            "Work done again",
            good="near zero",
            description="Attempts a second that failed and come again, jobs whose worker did not end them, "
            "and deliveries of jobs that had ended before.",
            unit="ops",
            queries=[
                ends("retried", "retried"),
                ends("interrupted", "interrupted"),
                ends("duplicate", "duplicate"),
            ],
            width=8,
        ),
    ]


def _times(freshness: Slo) -> list[Row | Panel]:
    def quantiles(title: str, good: str, description: str, metric: str, limit: Limit | None) -> Panel:
        buckets = f"sum by (le) (rate({metric}_bucket{{{NAMED}}}[$__rate_interval]))"
        return timeseries(
            title,
            good=good,
            description=f"{description} Dots are exemplars: click one for its trace.",
            unit="s",
            queries=[
                promql(f"histogram_quantile({share}, {buckets})", name, exemplars=share == 0.99)
                for name, share in QUANTILES
            ],
            limit=limit,
            width=8,
        )

    late = Limit(freshness.threshold_seconds or 0, good_below=True)
    return [
        row("Times"),
        quantiles(
            "Wait",
            "well below the objective",
            "From due to the start of an attempt.",
            "yardstick_jobs_wait_seconds",
            late,
        ),
        quantiles("Run", "steady", "From start to end of an attempt.", "yardstick_jobs_run_seconds", None),
        quantiles(
            "Freshness",
            f"{freshness.objective * 100:.9g} % below {freshness.threshold_seconds:g} s",
            "From the commit that wanted the job to its completion.",
            "yardstick_jobs_freshness_seconds",
            late,
        ),
    ]


def _waiting(freshness: Slo) -> list[Row | Panel]:
    late = Limit(freshness.threshold_seconds or 0, good_below=True)
    return [
        row("What waits"),
        timeseries(
            "Queue",
            good="near zero, not growing",
            description="Jobs that the broker holds: due ones, with those that run, and those not due yet.",
            unit="short",
            queries=[
                promql("max by (queue) (yardstick_queue_depth)", "{{queue}} due"),
                promql("max by (queue) (yardstick_queue_delayed)", "{{queue}} delayed"),
            ],
            width=6,
        ),
        timeseries(
            "Outbox",
            good="near zero",
            description="Due jobs on their way to the broker, and those that a paused domain keeps back.",
            unit="short",
            queries=[
                promql("max(yardstick_outbox_pending)", "pending"),
                promql("max(yardstick_outbox_held)", "held back"),
            ],
            width=6,
        ),
        timeseries(
            "Age of the oldest",
            good=f"below {freshness.threshold_seconds:g} s",
            description="How long the oldest job has been due in the queue, and in the outbox.",
            unit="s",
            queries=[
                promql("max by (queue) (yardstick_queue_oldest_age_seconds)", "{{queue}}"),
                promql("max(yardstick_outbox_oldest_age_seconds)", "outbox"),
            ],
            limit=late,
            width=6,
        ),
        timeseries(
            "Relay and refusals",
            good="none refused, none published again",
            description="Jobs a second that the relay handed over, that the broker did not take, that went "
            "to it again as it seemed to have lost them, and that the API refused with 503.",
            unit="ops",
            queries=[
                _rate("yardstick_outbox_published_total", "published"),
                _rate("yardstick_outbox_refused_total", "refused by the broker"),
                _rate("yardstick_outbox_republished_total", "published again"),
                _rate("yardstick_jobs_refused_total", "refused by the API"),
            ],
            width=6,
        ),
    ]


def _workers() -> list[Row | Panel]:
    running = "sum by (instance) (yardstick_jobs_in_flight)"
    return [
        row("Workers"),
        timeseries(
            "In flight",
            good="below what may run at once",
            description="Attempts that run now, by worker, and how many may.",
            unit="short",
            queries=[
                promql(running, "{{instance}}"),
                promql("max(yardstick_jobs_concurrency)", "may run, each"),
            ],
            width=8,
        ),
        timeseries(
            "Saturation, by worker",
            good="below 80 %",
            description="Share of what a worker may run at once that runs.",
            unit="percentunit",
            queries=[
                promql(f"{running} / (sum by (instance) (yardstick_jobs_concurrency) > 0)", "{{instance}}")
            ],
            limit=Limit(0.8, good_below=True),
            width=8,
        ),
        timeseries(
            "Backlog and its drain",
            good="falling faster than it grows",
            description="Due jobs that have not ended, and how many the workers got done a second, lately.",
            unit="short",
            queries=[
                promql("max(yardstick_jobs_backlog)", "backlog"),
                promql("max(yardstick_jobs_drain_rate)", "done a second"),
            ],
            width=8,
        ),
    ]


def _schedules() -> list[Row | Panel]:
    return [
        row("Schedules"),
        timeseries(
            "Firings",
            good="each on its time, none missed",
            description="Jobs that each schedule enqueued within the last hour, and firings it missed.",
            unit="short",
            queries=[
                promql("sum by (schedule) (increase(yardstick_schedule_firings_total[1h]))", "{{schedule}}"),
                promql(
                    "sum by (schedule) (increase(yardstick_schedule_missed_total[1h]))", "{{schedule}} missed"
                ),
            ],
            width=12,
        ),
        timeseries(
            "Overdue",
            good="zero",
            description="How long a schedule has been due without firing.",
            unit="s",
            queries=[promql("max by (schedule) (yardstick_schedule_due_seconds)", "{{schedule}}")],
            limit=Limit(300, good_below=True),
            width=12,
        ),
    ]
