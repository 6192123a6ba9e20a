"""The server's own view of the run, from its Prometheus, to lay beside the client's."""

from dataclasses import dataclass

import httpx

ANSWER_SECONDS = 10.0
STEP_SECONDS = 5  # the stack's scrape interval
RATE = "15s"


@dataclass(frozen=True)
class Question:
    """A query over the run whose answer is one series."""

    key: str
    title: str
    unit: str
    query: str
    scale: float = 1.0


@dataclass(frozen=True)
class Series:
    """An answered question: points as (seconds since the load began, value)."""

    key: str
    title: str
    unit: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class ServerView:
    """What Prometheus told, and in words what it did not."""

    series: tuple[Series, ...] = ()
    missing: tuple[str, ...] = ()


_REQUESTS = 'http_server_request_duration_seconds{}{{job="yardstick-api",http_route=~"/v1/.*"}}'
QUESTIONS = (
    Question("rate", "server: requests", "/s", f"sum(rate({_REQUESTS.format('_count')}[{RATE}]))"),
    Question(
        "p99",
        "server: p99",
        "ms",
        f"histogram_quantile(0.99, sum by (le) (rate({_REQUESTS.format('_bucket')}[{RATE}])))",
        1000,
    ),
    Question(
        "wait_p95",
        "server: jobs wait, p95",
        "ms",
        f"histogram_quantile(0.95, sum by (le) (rate(yardstick_jobs_wait_seconds_bucket[{RATE}])))",
        1000,
    ),
)


def ask(prometheus: str | None, start: float, end: float) -> ServerView:
    """Ask for the run from `start` to `end` (epoch seconds). What cannot be had is said, not raised."""
    if prometheus is None:
        return ServerView(missing=("no Prometheus was given (--prometheus or --stack)",))
    series: list[Series] = []
    missing: list[str] = []
    with httpx.Client(base_url=prometheus, timeout=ANSWER_SECONDS, trust_env=False) as client:
        for question in QUESTIONS:
            try:
                points = _answer(client, question, start, end)
            except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
                return ServerView(
                    tuple(series), (f"{prometheus} did not answer: {error or type(error).__name__}",)
                )
            if points:
                series.append(Series(question.key, question.title, question.unit, points))
            else:
                missing.append(f"{prometheus} has no data for “{question.title}” in this time")
    return ServerView(tuple(series), tuple(missing))


def _answer(
    client: httpx.Client, question: Question, start: float, end: float
) -> tuple[tuple[float, float], ...]:
    step = max(STEP_SECONDS, round((end - start) / 120))
    query = {"query": question.query, "start": f"{start:.3f}", "end": f"{end:.3f}", "step": str(step)}
    answer = client.get("/api/v1/query_range", params=query)
    body = answer.json()
    if body.get("status") != "success":
        raise ValueError(f"{answer.status_code} {body.get('error', '')}")
    result = body["data"]["result"]
    values = (
        [(float(at) - start, float(value) * question.scale) for at, value in result[0]["values"]]
        if result
        else []
    )
    return tuple((at, value) for at, value in values if value == value)  # noqa: PLR0124 - NaN: no events
