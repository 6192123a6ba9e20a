"""Telemetry of one process: start it where the requests are served, close it last."""

from __future__ import annotations

import asyncio
import atexit
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import structlog
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter
from prometheus_client import CollectorRegistry

from observability import logs
from observability.metrics import Metrics
from observability.sinks import ConsoleSink, FileDescriptorSink, RotatingFileSink, Sink
from observability.stdlib import Capture
from observability.tracing import BatchProcessor, otlp_exporter, set_global, tracer_provider


@dataclass(frozen=True, slots=True)
class TelemetryConfig:
    """Settings of one process.

    `namespace` is the prefix of the service's own metrics and `service.namespace`. `instance` defaults to
    `host:pid`. Without `otlp_endpoint` spans give IDs to logs but go nowhere. With `enabled` false there are
    no spans, no request or job metrics and no access line; `/metrics` and logging stay.
    """

    service_name: str
    namespace: str = "app"
    version: str = "0"
    environment: str = "development"
    instance: str | None = None
    enabled: bool = True
    otlp_endpoint: str | None = None
    sample_ratio: float = 1.0
    log_level: str = "info"
    log_sink: Literal["console", "stdout", "file"] = "stdout"
    log_file: Path | None = None
    log_max_bytes: int = 5_000_000
    log_backups: int = 5

    def __post_init__(self) -> None:
        logs.level_number(self.log_level)
        if not 0.0 <= self.sample_ratio <= 1.0:
            raise ValueError(f"sample_ratio is {self.sample_ratio}: between 0 and 1")
        if self.log_sink == "file" and self.log_file is None:
            raise ValueError("log_sink is file, but log_file is not set")


class Telemetry:
    """Tracer, metrics and logging of one process, from `start` to `close`."""

    def __init__(
        self,
        config: TelemetryConfig,
        metrics: Metrics,
        pipeline: logs.LogPipeline,
        provider: TracerProvider | None,
        processor: BatchProcessor | None,
    ) -> None:
        self.config = config
        self.enabled = config.enabled
        self.metrics = metrics
        self.registry = metrics.registry
        self.pipeline = pipeline
        self.provider = provider
        self.tracer: trace.Tracer = provider.get_tracer("observability") if provider else trace.NoOpTracer()
        self._processor = processor
        self._previous = logs.use(pipeline)
        self._capture = Capture(pipeline.level)
        self._closed = False
        if processor is not None:
            # For a process that ends without `close`: what is queued still goes out, for two seconds.
            atexit.register(processor.shutdown, 2.0)

    @classmethod
    def start(cls, config: TelemetryConfig, *, exporter: SpanExporter | None = None) -> Self:
        """Build everything for this process; call it after any fork, in the process that serves.

        `exporter` takes the place of OTLP. A log file that cannot be opened is an OSError.
        """
        metrics = Metrics(CollectorRegistry(), config.namespace)
        counters = metrics.telemetry
        instance = config.instance or f"{socket.gethostname()}:{os.getpid()}"
        pipeline = logs.LogPipeline(
            _sink(config, counters.log_lines_lost.inc),
            {"service": config.service_name, "env": config.environment, "instance": instance},
            config.log_level,
            renderer=_console_renderer() if config.log_sink == "console" else None,
            on_lost=counters.log_lines_lost.inc,
        )
        provider = processor = None
        if config.enabled:
            provider = tracer_provider(config, instance)
            if exporter is None and config.otlp_endpoint:
                exporter = otlp_exporter(config.otlp_endpoint)
            if exporter is not None:
                processor = BatchProcessor(exporter, counters)
                provider.add_span_processor(processor)
            set_global(provider)
        return cls(config, metrics, pipeline, provider, processor)

    def exposition(self, accept_header: str | None) -> tuple[bytes, str]:
        """Body and content type for `/metrics`."""
        return self.metrics.exposition(accept_header)

    def set_log_level(self, level: str) -> None:
        """Change what is logged from here on: debug, info, warning, error, critical; else ValueError."""
        number = logs.level_number(level)
        self.pipeline.level = number
        self._capture.set_level(number)

    def adopt_loggers(self) -> None:
        """Take over the console handlers that a server or worker library has set up since the start."""
        self._capture.adopt()

    def flush(self, timeout: float = 5.0) -> bool:
        """Export the spans ended so far, blocking for at most `timeout` seconds; False if some are left."""
        if self._processor is None:
            return True
        return self._processor.force_flush(int(timeout * 1000))

    async def close(self, timeout: float = 5.0) -> None:  # noqa: ASYNC109 - a bound on what happens in a thread
        """Export what is queued, then give logging back, within about `timeout` s. Again: does nothing."""
        if self._closed:
            return
        self._closed = True
        if self._processor is not None:
            await asyncio.to_thread(self._processor.shutdown, timeout)
            atexit.unregister(self._processor.shutdown)
        self._close_logging()

    def _close_logging(self) -> None:
        self._capture.close()
        if logs.pipeline() is self.pipeline:
            logs.use(logs.unmanaged() if self._previous.closed else self._previous)
        self.pipeline.close()


def _sink(config: TelemetryConfig, on_lost: Callable[[], None]) -> Sink:
    if config.log_sink == "file" and config.log_file is not None:
        return RotatingFileSink(config.log_file, config.log_max_bytes, config.log_backups, on_lost)
    if config.log_sink == "console":
        return ConsoleSink()
    return FileDescriptorSink(1, on_lost, "standard output")


def _console_renderer() -> structlog.dev.ConsoleRenderer:
    return structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty(), pad_event_to=28, sort_keys=False)
