"""One log line: which fields it has, who may write one, and that nothing said to it can break the caller."""

from __future__ import annotations

import asyncio
import logging
import re
import sys
import threading
import warnings
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import orjson
import pytest
import structlog

from observability import bind, bound, get_logger
from observability.context import current_context
from observability.logs import level_name, pipeline
from observability.stdlib import PipelineHandler
from tests.unit.observability.harness import Harness, fail

log = get_logger("tests.logs")
ALWAYS = ["timestamp", "level", "event", "logger", "service", "env", "instance"]


@pytest.fixture(autouse=True)
async def no_context() -> AsyncIterator[None]:
    token = current_context.set(None)
    yield
    current_context.reset(token)


async def test_a_line_has_exactly_the_agreed_fields_in_their_order(harness: Harness) -> None:
    log.info("plain")
    with (
        harness.telemetry.tracer.start_as_current_span("x"),
        bound(
            request_id="r",
            user_id="u",
            role="admin",
            tenant="t",
            ip="192.0.2.1",
            user_agent="curl",
            action="GET /x",
        ),
    ):
        log.warning("full", duration=1.5, status=200)
    plain, full = harness.lines()
    assert list(plain) == ALWAYS
    assert list(full) == [
        *ALWAYS, "traceId", "spanId", "requestId", "userId", "role", "tenant", "ip", "userAgent", "action",
        "duration", "status",
    ]  # fmt: skip
    assert (plain["service"], plain["env"], plain["instance"]) == ("orders", "test", "unit:1")
    assert (plain["level"], full["level"], plain["logger"]) == ("info", "warning", "tests.logs")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", plain["timestamp"])
    assert abs((datetime.fromisoformat(plain["timestamp"]) - datetime.now(UTC)).total_seconds()) < 60
    assert re.fullmatch(r"[0-9a-f]{32}", full["traceId"])
    assert re.fullmatch(r"[0-9a-f]{16}", full["spanId"])


async def test_the_timestamp_keeps_its_six_digits(harness: Harness) -> None:
    assert harness.telemetry.pipeline.timestamp(1_700_000_000_000_000_000) == "2023-11-14T22:13:20.000000Z"
    assert harness.telemetry.pipeline.timestamp(1_700_000_001_000_042_999) == "2023-11-14T22:13:21.000042Z"


async def test_an_exception_is_frames_without_locals(harness: Harness) -> None:
    hidden_local = "s3cr3t-local"
    try:
        try:
            fail(KeyError("inner"))
        except KeyError as error:
            raise RuntimeError(f"outer {len(hidden_local)}") from error
    except RuntimeError:
        log.exception("broke")
    line = harness.line("broke")
    assert line["level"] == "error"
    assert [entry["type"] for entry in line["exception"]] == ["RuntimeError", "KeyError"]
    frame = line["exception"][0]["frames"][-1]
    assert frame["file"] == __file__
    assert frame["function"] == "test_an_exception_is_frames_without_locals"
    assert isinstance(frame["line"], int)
    assert b"s3cr3t-local" not in harness.raw_lines()[0]


async def test_the_level_changes_at_run_time(harness: Harness) -> None:
    standard = logging.getLogger("tests.standard")
    log.debug("one")
    standard.debug("one")
    harness.telemetry.set_log_level("debug")
    log.debug("two")
    standard.debug("three")
    harness.telemetry.set_log_level("ERROR")
    log.warning("four")
    standard.warning("four")
    log.error("five")
    assert [line["event"] for line in harness.lines()] == ["two", "three", "five"]
    with pytest.raises(ValueError, match="one of debug, info"):
        harness.telemetry.set_log_level("loud")


async def test_the_access_line_obeys_the_level(harness: Harness, call: Callable[..., Any]) -> None:
    from starlette.responses import PlainTextResponse  # noqa: PLC0415

    from observability import TelemetryMiddleware  # noqa: PLC0415

    harness.telemetry.set_log_level("warning")
    await call(TelemetryMiddleware(PlainTextResponse("x"), harness.telemetry))
    assert harness.raw_lines() == []


async def test_the_access_line_has_the_fields_of_any_line(harness: Harness, call: Callable[..., Any]) -> None:
    from starlette.responses import PlainTextResponse  # noqa: PLC0415

    from observability import TelemetryMiddleware  # noqa: PLC0415

    async def app(scope: Any, receive: Any, send: Any) -> None:
        bind(user_id="u", role="r", tenant="t", action="GET /{unmatched}")
        log.info("http.like", duration=1.0, status=200)
        await PlainTextResponse("x")(scope, receive, send)

    agent = "curl/8 Bearer abcdef123456 https://joe:pw@proxy/"
    await call(TelemetryMiddleware(app, harness.telemetry), headers=[("User-Agent", agent)])
    slow, fast = harness.line("http.like"), harness.line("http.request")
    assert list(slow) == list(fast)
    assert slow["userAgent"] == fast["userAgent"] == "curl/8 Bearer [redacted] https://joe:[redacted]@proxy/"


async def test_standard_logging_takes_the_same_way(harness: Harness) -> None:
    logger = logging.getLogger("a.library")
    with harness.telemetry.tracer.start_as_current_span("x"):
        logger.info("%s jobs in %.1f s", 3, 0.5, extra={"queue": "q", "password": "p"})
    try:
        fail(OSError("gone"))
    except OSError:
        logger.exception("poll failed")
    first, second = harness.lines()
    assert first["event"] == "3 jobs in 0.5 s"
    assert (first["logger"], first["level"], first["queue"], first["password"]) == (
        "a.library",
        "info",
        "q",
        "[redacted]",
    )
    assert "traceId" in first
    assert second["level"] == "error"
    assert second["exception"][0]["type"] == "OSError"


async def test_a_broken_format_string_is_logged_as_it_is(harness: Harness) -> None:
    # Straight to the handler: pytest's own raises on such a record.
    PipelineHandler().emit(logging.LogRecord("x", logging.WARNING, __file__, 1, "%d apples", ("many",), None))
    log.info("%d pears", "few")
    assert harness.line("%d apples")["logArguments"] == "('many',)"
    assert harness.line("%d pears")["logArguments"] == "('few',)"


async def test_console_handlers_of_libraries_are_taken_over(harness: Harness) -> None:
    library = logging.getLogger("a_server.access")
    library.addHandler(logging.StreamHandler(sys.stdout))
    library.propagate = False
    library.setLevel(logging.INFO)
    harness.telemetry.adopt_loggers()
    library.info("GET /")
    assert library.handlers == []
    assert harness.line("GET /")["logger"] == "a_server.access"


async def test_warnings_are_lines(harness: Harness) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn("old way", DeprecationWarning, stacklevel=1)
    assert harness.lines()[0]["logger"] == "py.warnings"
    assert "old way" in harness.lines()[0]["event"]


async def test_uncaught_exceptions_are_critical_lines(harness: Harness) -> None:
    try:
        fail(LookupError("nobody catches me"))
    except LookupError as error:
        sys.excepthook(type(error), error, error.__traceback__)

    def work() -> None:
        raise ValueError("in a thread")

    thread = threading.Thread(target=work, name="worker-1")
    thread.start()
    thread.join()
    first, second = harness.lines()
    assert (first["event"], first["level"]) == ("process.uncaught_exception", "critical")
    assert first["exception"][0]["value"] == "nobody catches me"
    assert (second["event"], second["thread"]) == ("thread.uncaught_exception", "worker-1")


async def test_what_the_event_loop_catches_is_an_error_line(harness: Harness) -> None:
    def fail() -> None:
        raise ValueError("in a callback")

    asyncio.get_running_loop().call_soon(fail)
    await asyncio.sleep(0.01)
    line = harness.lines()[0]
    assert (line["logger"], line["level"]) == ("asyncio", "error")
    assert line["exception"][0]["value"] == "in a callback"


async def test_code_that_uses_structlog_itself_ends_in_the_same_place(harness: Harness) -> None:
    structlog.get_logger().info("from.structlog", token="t0k3n")
    assert harness.line("from.structlog")["token"] == "[redacted]"


async def test_bound_fields_stay_with_their_logger(harness: Harness) -> None:
    child = log.bind(order="o1")
    child.info("one")
    child.unbind("order").info("two")
    assert harness.line("one")["order"] == "o1"
    assert "order" not in harness.line("two")


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


async def test_odd_values_are_written_not_raised(harness: Harness) -> None:
    loop: dict[str, Any] = {}
    loop["self"] = loop
    log.info(
        "odd",
        huge=2**70,
        surrogate="\ud800",
        money=Decimal("12.50"),
        identity=UUID(int=1),
        moment=datetime(2026, 1, 2, tzinfo=UTC),
        raw=b"\xff\x00",
        nan=float("nan"),
        unprintable=Unprintable(),
        loop=loop,
        keys={1: "one", (2, 3): "two"},
        many=list(range(5_000)),
        many_set={"a"},
        long="x" * 100_000,
    )
    line = harness.line("odd")
    assert line["huge"] == str(2**70)
    assert (line["money"], line["identity"]) == ("12.50", "00000000-0000-0000-0000-000000000001")
    assert line["moment"] == "2026-01-02T00:00:00Z"
    assert line["nan"] is None
    assert "RuntimeError" in line["unprintable"]
    assert line["keys"] == {"1": "one", "(2, 3)": "two"}
    assert len(line["many"]) == 1_000
    assert len(line["long"]) < 40_000
    assert harness.sample("telemetry_log_lines_lost_total") == 0


async def test_newlines_cannot_forge_a_line(harness: Harness) -> None:
    log.info('a\n{"level":"critical"}', note="b\r\nc\u2028d")
    assert len(harness.raw_lines()) == 1


async def test_reserved_fields_cannot_be_overwritten(harness: Harness) -> None:
    log.info("x", service="forged", timestamp="never", traceId="0" * 32, level="critical")
    line = harness.line("x")
    assert (line["service"], line["level"], line["service_"], line["timestamp_"]) == (
        "orders",
        "info",
        "forged",
        "never",
    )
    assert line["traceId_"] == "0" * 32


async def test_the_exporters_complaints_are_one_a_minute(harness: Harness) -> None:
    noisy = logging.getLogger("opentelemetry.exporter.test")
    for number in range(50):
        noisy.error("attempt %d failed", number)
    noisy.error("another kind")
    assert [line["event"] for line in harness.lines()] == ["attempt 0 failed", "another kind"]


async def test_close_gives_everything_back(start: Callable[..., Harness]) -> None:
    before = (
        pipeline(),
        list(logging.root.handlers),
        logging.root.level,
        sys.excepthook,
        threading.excepthook,
    )
    harness = start()
    assert pipeline() is not before[0]
    await harness.telemetry.close()
    await harness.telemetry.close()
    assert (
        pipeline(),
        logging.root.handlers,
        logging.root.level,
        sys.excepthook,
        threading.excepthook,
    ) == before


def test_before_the_start_lines_are_json_on_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    get_logger("early").info("starting", password="p")
    line = orjson.loads(capfd.readouterr().err)
    assert (line["event"], line["logger"], line["password"]) == ("starting", "early", "[redacted]")


async def test_standard_output_gets_one_line_each(
    start: Callable[..., Harness], capfd: pytest.CaptureFixture[str]
) -> None:
    start(log_sink="stdout", log_file=None)
    log.info("one")
    log.info("two")
    assert [orjson.loads(line)["event"] for line in capfd.readouterr().out.splitlines()] == ["one", "two"]


async def test_the_console_is_for_people_without_colours_in_a_pipe(
    start: Callable[..., Harness], capsys: pytest.CaptureFixture[str]
) -> None:
    start(log_sink="console", log_file=None)
    try:
        fail(ValueError("boom"))
    except ValueError:
        log.exception("order.failed", password="p", order="o1")
    text = capsys.readouterr().out
    assert "order.failed" in text
    assert "order=o1" in text
    assert "ValueError: boom" in text
    assert "[redacted]" in text
    assert "\x1b[" not in text
    assert "service" not in text


@pytest.mark.parametrize(
    ("number", "name"),
    [(10, "debug"), (15, "debug"), (25, "info"), (50, "critical"), (99, "critical"), (1, "debug")],
)
def test_levels_between_the_names(number: int, name: str) -> None:
    assert level_name(number) == name
