"""Figures as a person reads them. A missing figure is a dash."""

import math

NONE = "\N{EN DASH}"
_MINUS = "\N{MINUS SIGN}"


def margin(value: float | None) -> str:
    """What is left of a limit or an error budget: 80 %, or -40 % when it is overdrawn."""
    if value is None or not math.isfinite(value):
        return NONE
    percent = math.floor(100 * value) if value < 0 else math.floor(100 * value + 1e-9)
    return f"< {_MINUS}999 %" if percent < -999 else f"{percent:,} %".replace("-", _MINUS)


def milliseconds(value: float | None) -> str:
    """Three significant digits or whole milliseconds: 0.84, 12.3, 1,204."""
    if value is None or not math.isfinite(value):
        return NONE
    if value < 10:
        return f"{value:.2f}"
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def share(value: float | None) -> str:
    """A share of one core or of all, in whole percent, finer below ten."""
    if value is None:
        return NONE
    return f"{100 * value:.1f} %" if value < 0.1 else f"{100 * value:.0f} %"


def clock(seconds: float) -> str:
    """A stretch of time: 8.0 s, 61 s, 10 min 0 s."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    return f"{seconds:.0f} s" if seconds < 120 else f"{int(seconds // 60)} min {seconds % 60:.0f} s"
