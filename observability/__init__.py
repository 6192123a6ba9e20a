"""Traces, metrics and logs for an ASGI service and its workers.

README.md has the three lines that adopt it.
"""

from observability.asgi import TelemetryMiddleware, instrument
from observability.context import RequestContext, bind, bound, current
from observability.database import instrument_redis, instrument_sqlalchemy
from observability.event_loop import EventLoopMonitor
from observability.jobs import Attempt, JobTelemetry
from observability.logs import get_logger
from observability.metrics import HttpMetrics, JobMetrics, Metrics
from observability.redaction import redact
from observability.setup import Telemetry, TelemetryConfig

__all__ = [
    "Attempt",
    "EventLoopMonitor",
    "HttpMetrics",
    "JobMetrics",
    "JobTelemetry",
    "Metrics",
    "RequestContext",
    "Telemetry",
    "TelemetryConfig",
    "TelemetryMiddleware",
    "bind",
    "bound",
    "current",
    "get_logger",
    "instrument",
    "instrument_redis",
    "instrument_sqlalchemy",
    "redact",
]
