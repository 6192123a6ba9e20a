"""Line charts as inline SVG, drawn for the report: no script, colours from the page's variables."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 560, 230
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 30
MOST_TICKS = 5


@dataclass(frozen=True)
class Line:
    """A named series of (x, y); `tone` is a colour variable of the page. A gap is a missing y (None)."""

    name: str
    tone: str
    points: Sequence[tuple[float, float | None]]
    dashed: bool = False
    filled: bool = False


@dataclass(frozen=True)
class Axis:
    """An axis from 0 or from `low` to `high`, with its ticks as (position, words)."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]


def chart(
    title: str, unit: str, lines: Sequence[Line], x: Axis, *, limit: float | None = None, warm: float = 0
) -> str:
    """A figure element. `limit` draws a threshold when it is in reach; `warm` shades the x up to it."""
    values = [value for line in lines for _, value in line.points if value is not None]
    if not values:
        return _empty(title, unit)
    highest = max(values)
    y = linear(0, max(highest, limit) if limit and limit <= 1.6 * highest else highest)
    parts = [_frame(x, y)]
    if warm > x.low:
        right = _x(x, min(warm, x.high))
        parts.append(
            f'<rect class="warm" x="{LEFT}" y="{TOP}" width="{right - LEFT:.1f}" height="{_floor() - TOP}"/>'
        )
    parts += [_path(line, x, y) for line in lines]
    if limit is not None and limit <= y.high:
        at = _y(y, limit)
        parts.append(f'<line class="limit" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
    drawn = "".join(parts)
    said = escape(f"{title}, {unit}")
    keys = "".join(
        f'<span class="key{_dashed(line)}" style="--tone:var(--{line.tone})">{escape(line.name)}</span>'
        for line in lines
        if any(value is not None for _, value in line.points)
    )
    keys += '<span class="key limit-key">limit</span>' if limit is not None and limit <= y.high else ""
    keys += '<span class="key warm-key">warm-up</span>' if warm > x.low else ""
    return (
        f'<figure><figcaption><b>{escape(title)}</b> <span class="unit">{escape(unit)}</span></figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{said}">{drawn}</svg>'
        f'<div class="keys">{keys}</div></figure>'
    )


def linear(low: float, high: float) -> Axis:
    """Round ticks (1, 2, 2.5 or 5 times a power of ten) from `low` to at least `high`."""
    span = max(high - low, 1e-9)
    rough = span / MOST_TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * times for times in (1, 2, 2.5, 5, 10) if power * times >= rough * (1 - 1e-9))
    count = math.ceil(span / step - 1e-9)
    ticks = tuple((low + i * step, _number(low + i * step, step)) for i in range(count + 1))
    return Axis(low, low + count * step, ticks)


def seconds(duration: float) -> Axis:
    """The time axis of a run: ends where the run ends, ticks in seconds or minutes."""
    duration = max(math.ceil(duration - 0.05), 1)
    minutes = duration > 300
    unit, name = (60, "min") if minutes else (1, "s")
    ticks = linear(0, duration / unit).ticks
    inside = [(at * unit, words) for at, words in ticks if at * unit <= duration * 1.001]
    last = inside[-1]
    return Axis(0, duration, (*inside[:-1], (last[0], f"{last[1]} {name}")))


def nines(most: float) -> Axis:
    """A percentile axis on which each nine is as wide as the last; positions as `nine` gives them."""
    wanted = [p for p in (0.0, 50.0, 90.0, 99.0, 99.9) if p <= most or p <= 90]
    return Axis(0, max(nine(most), 1.0), tuple((nine(p), f"{p:g} %") for p in wanted))


def nine(percentile: float) -> float:
    """Where a percentile stands on that axis: 0 -> 0, 90 -> 1, 99 -> 2."""
    return -math.log10(max(1e-9, 1 - percentile / 100))


def _frame(x: Axis, y: Axis) -> str:
    rows = "".join(
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{_y(y, at):.1f}" y2="{_y(y, at):.1f}"/>'
        f'<text x="{LEFT - 6}" y="{_y(y, at) + 4:.1f}" text-anchor="end">{words}</text>'
        for at, words in y.ticks
    )
    columns = "".join(
        f'<text x="{_x(x, at):.1f}" y="{HEIGHT - 9}" text-anchor="{_anchor(x, at)}">{escape(words)}</text>'
        for at, words in x.ticks
    )
    return rows + columns


def _path(line: Line, x: Axis, y: Axis) -> str:
    runs: list[list[tuple[float, float]]] = [[]]
    for at, value in line.points:
        if value is None:
            runs.append([])
        elif x.low <= at <= x.high * 1.001:
            runs[-1].append((_x(x, at), _y(y, value)))
    drawn = []
    style = f'style="--tone:var(--{line.tone})"'
    for run in filter(None, runs):
        steps = " L".join(f"{a:.1f} {b:.1f}" for a, b in run)
        if line.filled:
            first, last = run[0][0], run[-1][0]
            area = f"M{first:.1f} {_floor()} L{steps} L{last:.1f} {_floor()} Z"
            drawn.append(f'<path class="area" {style} d="{area}"/>')
        if len(run) == 1:
            drawn.append(f'<circle class="dot" {style} cx="{run[0][0]:.1f}" cy="{run[0][1]:.1f}" r="2.5"/>')
        else:
            drawn.append(f'<path class="line{_dashed(line)}" {style} d="M{steps}"/>')
    return "".join(drawn)


def _dashed(line: Line) -> str:
    return " dashed" if line.dashed else ""


def _empty(title: str, unit: str) -> str:
    return (
        f'<figure><figcaption><b>{escape(title)}</b> <span class="unit">{escape(unit)}</span></figcaption>'
        '<p class="none">nothing was measured</p></figure>'
    )


def _floor() -> int:
    return HEIGHT - BOTTOM


def _x(axis: Axis, at: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * (at - axis.low) / (axis.high - axis.low)


def _y(axis: Axis, value: float) -> float:
    return _floor() - (_floor() - TOP) * (value - axis.low) / (axis.high - axis.low)


def _anchor(axis: Axis, at: float) -> str:
    if at > axis.low + 0.96 * (axis.high - axis.low):
        return "end"
    return "start" if at == axis.low else "middle"


def _number(value: float, step: float) -> str:
    decimals = next((places for places in range(6) if abs(round(step, places) - step) < 1e-9 * step), 6)
    return f"{value:,.{decimals}f}"
