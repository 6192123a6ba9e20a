import math

from hypothesis import given
from hypothesis import strategies as st

from loadtest import stats
from loadtest.samples import Mark, Phase, Sample


def sample(start: float, elapsed: float, *, kind: str = "GET", name: str = "/a", error: str = "") -> Sample:
    return Sample(start, elapsed, kind, name, 500 if error else 200, error, "a" * 32)


@given(values=st.lists(st.floats(0, 1e6), min_size=1), wanted=st.floats(0.1, 100))
def test_a_percentile_is_a_measured_value_with_enough_values_at_or_below_it(
    values: list[float], wanted: float
) -> None:
    found = stats.percentile(sorted(values), wanted)
    assert found in values
    at_or_below = sum(1 for value in values if value <= found)
    assert at_or_below >= len(values) * wanted / 100 - 1e-9
    below = sum(1 for value in values if value < found)
    assert below < len(values) * wanted / 100 + 1e-9


def test_percentiles_of_the_first_hundred_numbers_are_the_textbook_ones() -> None:
    ordered = [float(n) for n in range(1, 101)]
    assert [stats.percentile(ordered, p) for p in (50, 95, 99, 99.9, 100)] == [50, 95, 99, 100, 100]
    assert math.isnan(stats.percentile([], 50))


def test_a_failure_counts_as_one_and_lowers_no_latency() -> None:
    own = [sample(0, 0.1), sample(1, 0.001, error="answered 500, expected 200"), sample(2, 0.3)]
    figures = stats.figures("GET /a", own, seconds=10)
    assert (figures.count, figures.failed, figures.rate) == (3, 1, 0.3)
    assert figures.percentiles_ms["50"] == 100
    assert figures.max_ms == 300


def test_a_route_with_failures_only_has_no_latency() -> None:
    figures = stats.figures("GET /a", [sample(0, 0.1, error="no")], seconds=1)
    assert figures.max_ms is None
    assert set(figures.percentiles_ms.values()) == {None}
    assert figures.curve_ms == []


def test_the_timeline_counts_every_sample_of_the_load_once_where_it_ended() -> None:
    samples = [sample(100 + n / 10, 0.05) for n in range(95)] + [
        sample(108, 60.0),
        sample(100.2, 0.1, kind="JOB"),
    ]
    marks = [Mark(100.1, Phase.RUNNING, 3, 0), Mark(109.4, Phase.RUNNING, 5, 0)]
    buckets = stats.timeline(samples, marks, 100.0, 109.5)
    assert [bucket.at for bucket in buckets][:2] == [0.5, 1.5]
    widths = [1.0] * (len(buckets) - 1) + [9.5 - (len(buckets) - 1)]
    assert round(sum(b.rate * width for b, width in zip(buckets, widths, strict=True))) == 95
    assert (buckets[0].users, buckets[-1].users) == (3, 5)
    assert buckets[0].settle_p95_ms == 100
    assert buckets[3].settle_p95_ms is None


def test_a_long_run_has_no_more_stretches_than_a_chart_can_show() -> None:
    buckets = stats.timeline([], [], 0, 3600)
    assert len(buckets) <= stats.BUCKETS


def test_the_slowest_are_named_per_route_and_only_with_a_trace() -> None:
    fast = [sample(n, 0.01, name="/fast") for n in range(5)]
    slow = [sample(n, 1.0 + n, name="/slow") for n in range(5)]
    found = stats.slowest([*fast, *slow, slow[0]._replace(elapsed=99, trace_id="")], each=2)
    assert [(one.route, round(one.ms)) for one in found] == [
        ("GET /fast", 10),
        ("GET /fast", 10),
        ("GET /slow", 5000),
        ("GET /slow", 4000),
    ]


def test_errors_are_counted_by_route_and_text() -> None:
    found = stats.errors(
        [sample(0, 1, error="a"), sample(0, 1, error="b"), sample(0, 1, error="b"), sample(0, 1)]
    )
    assert [(one.error, one.count) for one in found] == [("b", 2), ("a", 1)]
