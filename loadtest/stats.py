"""Figures from raw samples: exact percentiles, routes, errors, a timeline. Names say the unit."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from loadtest.samples import Mark, Sample

PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)
BUCKETS = 120  # a timeline has at most this many, and none is shorter than a second


def percentile(ordered: Sequence[float], wanted: float) -> float:
    """The nearest-rank percentile (a value that was measured) of ascending values; NaN of none."""
    if not ordered:
        return math.nan
    return ordered[max(0, math.ceil(len(ordered) * wanted / 100) - 1)]


@dataclass(frozen=True)
class RouteFigures:
    """One route. Latency is that of the answers that were right; the others are under `failed`."""

    route: str
    is_http: bool
    count: int
    failed: int
    rate: float  # per second of load
    percentiles_ms: dict[str, float | None]  # "50" ... "99.9", None without a right answer
    max_ms: float | None
    curve_ms: list[tuple[float, float]]  # (percentile, ms) to draw


@dataclass(frozen=True)
class ErrorFigures:
    """One kind of failure on one route."""

    route: str
    error: str
    count: int


@dataclass(frozen=True)
class Bucket:
    """A stretch of the run; `at` is its middle in seconds since the load began."""

    at: float
    rate: float
    errors: float  # per second
    users: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    settle_p95_ms: float | None


@dataclass(frozen=True)
class Slow:
    """One of the slowest samples of its route."""

    route: str
    ms: float
    at: float  # epoch seconds
    trace_id: str
    error: str


def by_route(samples: Iterable[Sample]) -> dict[str, list[Sample]]:
    """Samples under their routes; HTTP first, then jobs, each by name."""
    found: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        found[sample.route].append(sample)
    return dict(sorted(found.items(), key=lambda item: (not item[1][0].is_http, item[1][0].name, item[0])))


def figures(route: str, samples: Sequence[Sample], seconds: float) -> RouteFigures:
    """The figures of one route's samples over that many seconds of load."""
    right = sorted(sample.elapsed * 1000 for sample in samples if not sample.error)
    curve = [100 * (1 - 10 ** (-step / 8)) for step in range(25)] if right else []
    finest = 100 * (1 - 1 / len(right)) if right else 0.0  # beyond it there is nothing but the maximum
    return RouteFigures(
        route=route,
        is_http=samples[0].is_http,
        count=len(samples),
        failed=sum(1 for sample in samples if sample.error),
        rate=len(samples) / seconds if seconds else 0.0,
        percentiles_ms={f"{p:g}": percentile(right, p) if right else None for p in PERCENTILES},
        max_ms=right[-1] if right else None,
        curve_ms=[(p, percentile(right, p)) for p in curve if p <= finest],
    )


def errors(samples: Iterable[Sample]) -> list[ErrorFigures]:
    """Failures by route and text, the most frequent first."""
    counts = Counter((sample.route, sample.error) for sample in samples if sample.error)
    return [ErrorFigures(route, error, count) for (route, error), count in counts.most_common()]


def slowest(samples: Iterable[Sample], each: int) -> list[Slow]:
    """That many of the slowest samples with a trace, of each route."""
    found = []
    for route, own in by_route(sample for sample in samples if sample.trace_id).items():
        worst = sorted(own, key=lambda sample: sample.elapsed, reverse=True)[:each]
        found += [Slow(route, s.elapsed * 1000, s.start, s.trace_id, s.error) for s in worst]
    return found


def timeline(samples: Iterable[Sample], marks: Sequence[Mark], start: float, end: float) -> list[Bucket]:
    """The run in stretches of a second or more. A sample counts where it ended, as a server counts it."""
    seconds = max(end - start, 1e-9)
    width = max(1.0, math.ceil(seconds / BUCKETS))
    count = max(1, round(seconds / width))
    held: list[list[Sample]] = [[] for _ in range(count)]
    for sample in samples:
        if start <= sample.end <= end:
            held[min(int((sample.end - start) // width), count - 1)].append(sample)
    users = [0] * count
    for mark in marks:
        if start <= mark.time <= end:
            index = min(int((mark.time - start) // width), count - 1)
            users[index] = max(users[index], mark.users)
    # The last one takes the rest of the run: of a fraction of its own, a rate would be noise.
    lengths = [width] * (count - 1) + [seconds - (count - 1) * width]
    return [_bucket(own, users[i], i * width, lengths[i]) for i, own in enumerate(held)]


def _bucket(samples: Sequence[Sample], users: int, begin: float, width: float) -> Bucket:
    http = [sample for sample in samples if sample.is_http]
    right = sorted(sample.elapsed * 1000 for sample in http if not sample.error)
    settled = sorted(sample.elapsed * 1000 for sample in samples if sample.kind == "JOB" and not sample.error)
    return Bucket(
        at=begin + width / 2,
        rate=len(http) / width,
        errors=sum(1 for sample in samples if sample.error) / width,
        users=users,
        p50_ms=percentile(right, 50) if right else None,
        p95_ms=percentile(right, 95) if right else None,
        p99_ms=percentile(right, 99) if right else None,
        settle_p95_ms=percentile(settled, 95) if settled else None,
    )
