"""The direct encoder says the same as the stock one, byte strings apart, for any span."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from observability.otlp import SpanEncoder

RESOURCES = [
    Resource({"service.name": "a", "n": 1}),
    Resource({"service.name": "b"}, schema_url="https://schema/1"),
]
SCOPES = [None, InstrumentationScope("s"), InstrumentationScope("t", "1", "https://schema/2", {"k": "v"})]

_ids = st.integers(1, 2**64 - 1)
_values: st.SearchStrategy[Any] = (
    st.text(max_size=300)
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.lists(st.text(max_size=5), max_size=3)
    | st.binary(max_size=5)
)
_contexts = st.builds(
    SpanContext,
    trace_id=st.integers(1, 2**128 - 1),
    span_id=_ids,
    is_remote=st.booleans(),
    trace_flags=st.sampled_from([TraceFlags(0), TraceFlags(1), TraceFlags(3)]),
    trace_state=st.sampled_from([None, TraceState(), TraceState([("vendor", "x")])]),
)
_spans = st.builds(
    ReadableSpan,
    name=st.text(max_size=200),
    context=_contexts,
    parent=st.none() | _contexts,
    resource=st.sampled_from(RESOURCES),
    attributes=st.none() | st.dictionaries(st.text(max_size=140), _values, max_size=8),
    events=st.just(())
    | st.lists(st.builds(Event, st.text(max_size=5), timestamp=st.integers(0, 2**60)), max_size=2),
    links=st.just(()) | st.lists(st.builds(Link, _contexts), max_size=1),
    kind=st.sampled_from(list(SpanKind)),
    status=st.just(Status()) | st.builds(lambda text: Status(StatusCode.ERROR, text), st.text(max_size=9)),
    start_time=st.integers(0, 2**64 - 1),
    end_time=st.integers(0, 2**64 - 1),
    instrumentation_scope=st.sampled_from(SCOPES),
)


@given(st.lists(_spans, max_size=5))
def test_it_is_what_the_stock_encoder_says(spans: list[ReadableSpan]) -> None:
    encoder = SpanEncoder()
    expected = encode_spans(spans)
    # Twice: from scratch, and with what was kept.
    for _ in range(2):
        assert ExportTraceServiceRequest.FromString(encoder.encode(spans)) == expected


def span(**fields: Any) -> ReadableSpan:
    context = SpanContext(1, 2, is_remote=False, trace_flags=TraceFlags(1))
    values: dict[str, Any] = {
        "name": "x",
        "context": context,
        "resource": RESOURCES[0],
        "start_time": 1,
        "end_time": 2,
    }
    return ReadableSpan(**(values | fields))


def test_values_that_are_equal_but_of_another_kind_stay_apart() -> None:
    encoder = SpanEncoder()
    for value in (1, True, 1.0, "1", 0, False, 0.0, ""):
        spans = [span(attributes={"k": value})]
        assert ExportTraceServiceRequest.FromString(encoder.encode(spans)) == encode_spans(spans)


def test_what_is_kept_does_not_grow_without_end() -> None:
    encoder = SpanEncoder()
    for number in range(6_000):
        encoder.encode(
            [span(name=f"n{number}", attributes={"id": f"v{number}", "long": "x" * 1_000 + str(number)})]
        )
    assert len(encoder._strings) == len(encoder._names) == 4_096


def test_text_that_is_no_utf_8_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="surrogates"):
        SpanEncoder().encode([span(attributes={"k": "\ud800"})])
