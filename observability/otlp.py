"""Spans as OTLP bytes, written directly for the spans that nearly all are.

The stock encoder builds a protobuf object for each attribute and hashes the resource once a span; that is
the larger half of what a span costs. Here a span without events, links and lists is put together from byte
strings, most of which repeat and are kept. All else goes through the stock encoder; tests compare the two.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import StatusCode

_KEPT = 4_096
_KEPT_LENGTH = 256
_SHORT = tuple(bytes((number,)) for number in range(128))
_DOUBLE = struct.Struct("<d")
_TIMES = struct.Struct("<cQcQ")
# Field numbers and wire types of opentelemetry/proto/trace/v1/trace.proto, as the bytes that precede a value.
_TRACE_ID, _SPAN_ID, _PARENT_ID, _NAME, _KIND = b"\x0a\x10", b"\x12\x08", b"\x22\x08", b"\x2a", b"\x30"
_START, _END, _ATTRIBUTE = b"\x39", b"\x41", b"\x4a"
# An empty status; flags: whether the parent is remote is known (0x100), and whether it is (0x200).
_STATUS_LOCAL, _STATUS_REMOTE = b"\x7a\x00\x85\x01\x00\x01\x00\x00", b"\x7a\x00\x85\x01\x00\x03\x00\x00"


class SpanEncoder:
    """Encodes batches of spans. For one thread; it keeps up to 4,096 attributes and names as bytes."""

    def __init__(self) -> None:
        self._strings: dict[tuple[str, str], bytes] = {}
        self._names: dict[str, bytes] = {}
        self._scopes: dict[tuple[int, int], bytes] = {}
        self._resources: dict[int, tuple[bytes, bytes]] = {}
        self._owners: list[tuple[Resource, InstrumentationScope | None]] = []

    def encode(self, spans: Sequence[ReadableSpan]) -> bytes:
        """An `ExportTraceServiceRequest`. ValueError or TypeError for what OTLP cannot hold."""
        by_resource: dict[int, dict[int, list[bytes]]] = {}
        for span in spans:
            by_scope = by_resource.setdefault(id(span.resource), {})
            group = by_scope.get(id(span.instrumentation_scope))
            if group is None:
                group = by_scope[id(span.instrumentation_scope)] = [self._scope(span)]
            group.append(_field(b"\x12", self._plain(span) or _stock(span)))
        request = []
        for resource, by_scope in by_resource.items():
            scopes = [_field(b"\x12", b"".join(group)) for group in by_scope.values()]
            head, schema = self._resources[resource]
            request.append(_field(b"\x0a", b"".join((head, *scopes, schema))))
        return b"".join(request)

    def _plain(self, span: ReadableSpan) -> bytes | None:
        """The span's bytes; None if it holds more than these fields."""
        context, start, end = span.context, span.start_time, span.end_time
        if (
            context is None
            or start is None
            or end is None
            or span.events
            or span.links
            or context.trace_state
            or span.status.status_code is not StatusCode.UNSET
            or span.dropped_attributes
        ):
            return None
        parts = [
            _TRACE_ID,
            context.trace_id.to_bytes(16, "big"),
            _SPAN_ID,
            context.span_id.to_bytes(8, "big"),
        ]
        tail = _STATUS_LOCAL
        if (parent := span.parent) is not None:
            parts += (_PARENT_ID, parent.span_id.to_bytes(8, "big"))
            if parent.is_remote:
                tail = _STATUS_REMOTE
        parts += (
            self._name(span.name),
            _KIND,
            _SHORT[span.kind.value + 1],
            _TIMES.pack(_START, start, _END, end),
        )
        for key, value in (span.attributes or {}).items():
            kind = type(value)
            if kind is str:
                parts.append(self._strings.get((key, value)) or self._string(key, value))  # type: ignore[arg-type]
            elif kind is int and 0 <= value < 1 << 63:  # type: ignore[operator]
                parts.append(_attribute(key, b"\x18" + _varint(value)))  # type: ignore[arg-type]
            elif kind is bool:
                parts.append(_attribute(key, b"\x10\x01" if value else b"\x10\x00"))
            elif kind is float:
                parts.append(_attribute(key, b"\x21" + _DOUBLE.pack(value)))
            else:
                return None
        parts.append(tail)
        return b"".join(parts)

    def _string(self, key: str, value: str) -> bytes:
        encoded = _attribute(key, _field(b"\x0a", value.encode()))
        if len(self._strings) < _KEPT and len(value) <= _KEPT_LENGTH:
            self._strings[key, value] = encoded
        return encoded

    def _name(self, name: str) -> bytes:
        known = self._names.get(name)
        if known is None:
            # An empty text is no field at all.
            known = _field(_NAME, name.encode()) if name else b""
            if len(self._names) < _KEPT and len(name) <= _KEPT_LENGTH:
                self._names[name] = known
        return known

    def _scope(self, span: ReadableSpan) -> bytes:
        """A scope with its schema; remembers the resource it is met with for the first time."""
        owners = (span.resource, span.instrumentation_scope)
        key = (id(owners[0]), id(owners[1]))
        known = self._scopes.get(key)
        if known is None:
            (resource_spans,) = encode_spans([span]).resource_spans
            (scope_spans,) = resource_spans.scope_spans
            known = _field(b"\x0a", scope_spans.scope.SerializeToString()) + _schema(scope_spans.schema_url)
            self._scopes[key] = known
            self._resources[key[0]] = (
                _field(b"\x0a", resource_spans.resource.SerializeToString()),
                _schema(resource_spans.schema_url),
            )
            # The objects are kept with their bytes: their IDs are the keys.
            self._owners.append(owners)
        return known


class DirectOtlpExporter(OTLPSpanExporter):
    """The stock OTLP gRPC exporter (retries, TLS, headers by environment) over this encoder."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._encoder = SpanEncoder()

    def _translate_data(self, data: Sequence[ReadableSpan]) -> ExportTraceServiceRequest:
        request: ExportTraceServiceRequest = ExportTraceServiceRequest.FromString(self._encoder.encode(data))
        return request


def _stock(span: ReadableSpan) -> bytes:
    encoded: bytes = encode_spans([span]).resource_spans[0].scope_spans[0].spans[0].SerializeToString()
    return encoded


def _schema(url: str) -> bytes:
    return _field(b"\x1a", url.encode()) if url else b""


def _attribute(key: str, value: bytes) -> bytes:
    return _field(_ATTRIBUTE, _field(b"\x0a", key.encode()) + _field(b"\x12", value))


def _field(tag: bytes, value: bytes) -> bytes:
    size = len(value)
    return tag + (_SHORT[size] if size < 128 else _varint(size)) + value


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)
