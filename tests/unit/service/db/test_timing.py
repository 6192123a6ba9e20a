"""When schedules fire: clocks put forward and back, leap days, and the same times in both directions."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.db.jobs.timing import Cron, Every, Timing, newest

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "America/St_Johns", "Asia/Kolkata", "Africa/Cairo")
EXPRESSIONS = (
    "0 0 * * *", "30 2 * * *", "*/15 * * * *", "0 * * * *", "45 1,2,3 * * *", "*/20 2 * * *", "0 */6 * * *",
    "5 4 1 * *", "0 12 29 2 *", "0 9 * * MON-FRI", "59 23 L * *", "15 0 * * SUN#1", "* * * * *",
)  # fmt: skip

TIMINGS = st.one_of(
    st.builds(Every, st.integers(1, 90_000)),
    st.builds(Cron, st.sampled_from(EXPRESSIONS), st.sampled_from(ZONES)),
)
# Half of them within a day of where Europe and America change their clocks.
CHANGES = [
    datetime(year, month, day, 1, tzinfo=UTC)
    for year, month, day in ((2026, 3, 8), (2026, 3, 29), (2026, 10, 25), (2026, 11, 1), (2024, 2, 29))
]
NAIVE = st.datetimes(datetime(2000, 1, 1), datetime(2040, 1, 1))  # noqa: DTZ001 - the zone follows
MOMENTS = st.one_of(
    NAIVE.map(lambda one: one.replace(tzinfo=UTC)),
    st.builds(
        lambda change, seconds: change + timedelta(seconds=seconds),
        st.sampled_from(CHANGES),
        st.floats(-86_400, 86_400),
    ),
)


def berlin(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo("Europe/Berlin"))


def firings(timing: Timing, after: datetime, count: int) -> list[datetime]:
    return [after := timing.next(after) for _ in range(count)]


@settings(max_examples=300, deadline=None)
@given(TIMINGS, MOMENTS)
def test_the_next_firing_is_later_and_nothing_fires_in_between(timing: Timing, moment: datetime) -> None:
    following = timing.next(moment)
    assert following > moment
    assert following.tzinfo is UTC
    middle = moment + (following - moment) / 2
    assert timing.next(middle) == following
    assert timing.next(following - timedelta(microseconds=1)) == following


@settings(max_examples=300, deadline=None)
@given(TIMINGS, MOMENTS)
def test_the_previous_firing_is_the_one_whose_next_is_later(timing: Timing, moment: datetime) -> None:
    last = timing.previous(moment)
    assert last is not None
    assert last <= moment < timing.next(last)
    assert timing.previous(last) == last
    assert timing.next(last - timedelta(seconds=1)) == last


@settings(max_examples=100, deadline=None)
@given(TIMINGS, MOMENTS, st.integers(0, 8), st.integers(1, 10))
def test_the_newest_are_those_that_walking_forward_finds(
    timing: Timing, moment: datetime, count: int, most: int
) -> None:
    walked = firings(timing, moment, count + 1)
    since, until = walked[0], walked[-1]
    assert newest(timing, since, until, most) == walked[-most:]
    assert newest(timing, until + timedelta(microseconds=1), until, most) == []


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(EXPRESSIONS), st.sampled_from(ZONES), MOMENTS)
def test_a_cron_fires_at_times_that_its_zone_has(expression: str, zone: str, moment: datetime) -> None:
    for found in firings(Cron(expression, zone), moment, 5):
        assert found.second == found.microsecond == 0


def test_a_time_that_the_clock_leaves_out_fires_once_it_was_put_forward() -> None:
    nightly = Cron("30 2 * * *", "Europe/Berlin")
    assert firings(nightly, berlin("2026-03-28T12:00"), 2) == [
        berlin("2026-03-29T03:00"),
        berlin("2026-03-30T02:30"),
    ]


def test_a_time_that_the_clock_shows_twice_fires_at_the_first() -> None:
    nightly = Cron("30 2 * * *", "Europe/Berlin")
    first = datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    assert firings(nightly, berlin("2026-10-24T12:00"), 2) == [first, berlin("2026-10-26T02:30")]
    for minutes in (31, 59, 60, 75, 89, 90, 119):
        between = first + timedelta(minutes=minutes)
        assert nightly.next(between) == berlin("2026-10-26T02:30")
        assert nightly.previous(between) == first


def test_what_follows_the_clock_has_an_hour_less_and_an_hour_more() -> None:
    quarters = Cron("*/15 * * * *", "Europe/Berlin")
    for day, hours in (("2026-03-29", 23), ("2026-10-25", 25), ("2026-06-01", 24)):
        start = berlin(f"{day}T00:00")
        end = start + timedelta(days=1)  # the same time on the next day, on the clock
        found = newest(quarters, start.astimezone(UTC), end.astimezone(UTC) - timedelta(seconds=1), 200)
        assert len(found) == hours * 4
    twice = Cron("*/30 2 * * *", "Europe/Berlin")
    assert len(newest(twice, berlin("2026-10-25T00:00"), berlin("2026-10-25T12:00"), 9)) == 4
    assert newest(twice, berlin("2026-03-29T00:00"), berlin("2026-03-29T12:00"), 9) == []


def test_midnight_where_the_clock_has_none() -> None:
    cairo = ZoneInfo("Africa/Cairo")  # on 24 April 2026, 00:00 is 01:00
    nightly = Cron("0 0 * * *", "Africa/Cairo")
    found = firings(nightly, datetime(2026, 4, 23, 12, tzinfo=cairo), 2)
    assert found == [datetime(2026, 4, 24, 1, tzinfo=cairo), datetime(2026, 4, 25, 0, tzinfo=cairo)]


def test_leap_days() -> None:
    leap = Cron("0 0 29 2 *")
    assert [one.year for one in firings(leap, datetime(2026, 1, 1, tzinfo=UTC), 3)] == [2028, 2032, 2036]
    assert leap.next(datetime(2096, 3, 1, tzinfo=UTC)).year == 2104
    last = Cron("0 0 L 2 *")
    assert [one.day for one in firings(last, datetime(2026, 1, 1, tzinfo=UTC), 3)] == [28, 28, 29]


def test_every_stands_on_its_multiples_whoever_asks() -> None:
    minute = Every(60)
    assert minute.next(datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)) == datetime(2026, 1, 1, 12, 1, tzinfo=UTC)
    assert minute.next(datetime(2026, 1, 1, 12, 0, 59, 999_999, tzinfo=UTC)).minute == 1
    kolkata = datetime(2026, 1, 1, 12, 0, 30, tzinfo=ZoneInfo("Asia/Kolkata"))
    assert Every(3600).next(kolkata) == datetime(2026, 1, 1, 7, tzinfo=UTC)


def test_a_firing_before_1900_is_none() -> None:
    assert Cron("0 0 29 2 *").previous(datetime(1901, 1, 1, tzinfo=UTC)) is None


@pytest.mark.parametrize(
    "expression",
    [
        "", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * 32 * *", "* * * 13 *",
        "* * * * 8", "a * * * *", "*/0 * * * *", "5-1 * * * *", "@daily", "0 0 30 2 *", "0 0 31 4,6 *",
        "-1 * * * *", "1,,2 * * * *", "1.5 * * * *", "* * * * MON#6", "\u0661 * * * *",
    ],
)  # fmt: skip
def test_what_is_no_expression_is_refused_with_its_text(expression: str) -> None:
    with pytest.raises(ValueError, match="is no cron expression") as refused:
        Cron(expression)
    assert repr(expression) in str(refused.value)


@pytest.mark.parametrize("zone", ["", "Mars/Olympus", "../etc/passwd", "Europe", "\0", "/etc/localtime"])
def test_what_is_no_zone_is_refused(zone: str) -> None:
    with pytest.raises(ValueError, match="is no time zone"):
        Cron("0 0 * * *", zone)


@pytest.mark.parametrize("seconds", [0, -1, 0.5, True, "60", 366 * 86_400 + 1, float("nan")])
def test_what_is_no_interval_is_refused(seconds: int) -> None:
    with pytest.raises(ValueError, match="a schedule repeats in"):
        Every(seconds)


def test_the_text_tells_timings_apart() -> None:
    assert str(Cron("0  0 * * *", "Europe/Berlin")) == "0 0 * * * Europe/Berlin"
    assert str(Every(60)) == "every 60 s"
