"""When a schedule fires: a cron expression in a time zone, or every so many seconds. Pure, on aware times."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)
_FIRST_WINDOW = timedelta(minutes=2)
_OLDEST = datetime(1900, 1, 1, tzinfo=UTC)


class Timing(Protocol):
    """Times in UTC. The same times for everybody who asks, whenever they ask: firings have no start.

    `str` of it tells one timing from another; a schedule whose text has changed is timed anew.
    """

    def next(self, after: datetime) -> datetime:
        """The first firing later than that time."""

    def previous(self, until: datetime) -> datetime | None:
        """The last firing not later than that time; none since 1900 is none."""


@dataclass(frozen=True, slots=True)
class Every:
    """Each multiple of so many whole seconds since 1970: `Every(60)` is each full minute.

    Raises ValueError for less than a second, and for more than a year.
    """

    seconds: int

    def __post_init__(self) -> None:
        if type(self.seconds) is not int or not 1 <= self.seconds <= 366 * 86_400:
            raise ValueError(
                f"a schedule repeats in 1 second to 366 days, whole ones, not in {self.seconds!r}"
            )

    def next(self, after: datetime) -> datetime:
        return self._last(after) + timedelta(seconds=self.seconds)

    def previous(self, until: datetime) -> datetime | None:
        return self._last(until)

    def __str__(self) -> str:
        return f"every {self.seconds} s"

    def _last(self, until: datetime) -> datetime:
        step = timedelta(seconds=self.seconds)
        return _EPOCH + (until - _EPOCH) // step * step


@dataclass(frozen=True, slots=True)
class Cron:
    """Five fields (minute, hour, day of month, month, day of week) on the clocks of a zone.

    A time of day that a clock leaves out fires when it has been put forward, one that it shows twice fires at
    the first: once a day either way. Where minute or hour begin with `*` the expression follows the clock
    instead: what is left out does not fire, what is shown twice fires twice. That is Debian's cron.

    Raises ValueError for an expression that is none or never fires, and for a zone that is none.
    """

    expression: str
    zone: str = "UTC"

    def __post_init__(self) -> None:
        if len(self.expression.split()) != 5:
            raise ValueError(f"{self.expression!r} is no cron expression: it takes five fields")
        try:
            self._zone()
        except (KeyError, ValueError, OSError):
            raise ValueError(f"{self.zone!r} is no time zone, such as Europe/Berlin") from None
        try:
            self.next(_EPOCH)
        except CronSimError as error:
            raise ValueError(f"{self.expression!r} is no cron expression: {error}") from None

    def next(self, after: datetime) -> datetime:
        start = after.astimezone(UTC)
        for found in self._from(start):
            # Within an hour that is shown twice, the clock's first showing of it may lie behind.
            if found > start:
                return found
        raise ValueError(f"{self.expression!r} never fires")

    def previous(self, until: datetime) -> datetime | None:
        """By looking ahead from ever further back, so that both ways give the same times."""
        until, window = until.astimezone(UTC), _FIRST_WINDOW
        while (first := self.next(max(_OLDEST, until - window))) > until:
            if until - window < _OLDEST:
                return None
            window *= 8
        last, none_after = first, until
        while none_after - last >= _SECOND:
            middle = last + (none_after - last) / 2
            found = self.next(middle)
            last, none_after = (found, none_after) if found <= until else (last, middle)
        return last

    def __str__(self) -> str:
        return f"{' '.join(self.expression.split())} {self.zone}"

    def _from(self, start: datetime) -> Iterator[datetime]:
        # Whole minutes, one early, as whoever asks leaves out what is not after.
        start = start.replace(second=0, microsecond=0) - _SECOND
        for found in CronSim(self.expression, start.astimezone(self._zone())):
            yield found.astimezone(UTC)

    def _zone(self) -> ZoneInfo:
        return ZoneInfo(self.zone)


def newest(timing: Timing, since: datetime, until: datetime, most: int) -> list[datetime]:
    """The last `most` firings from `since` to `until`, both included, the oldest first."""
    found: list[datetime] = []
    last = timing.previous(until)
    while last is not None and last >= since and len(found) < most:
        found.append(last)
        last = timing.previous(last - _SECOND)
    return found[::-1]
