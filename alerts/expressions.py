"""The PromQL of an objective.

The share of bad events is 0, not absent, while all were good. Without any event in the range it is NaN (0/0),
and no comparison with NaN is true: silence, not an alarm.
"""

import re

from alerts.slo import Slo

_ASIDE = re.compile(
    r'"(?:[^"\\]|\\.)*"|\{[^}]*\}|\[[^\]]*\]|\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)'
)
_METRIC = re.compile(r"(?<![\w:.$])([a-zA-Z_:][a-zA-Z0-9_:]*)\b(?!\s*\()")
_KEYWORDS = frozenset({"and", "or", "unless", "offset", "bool", "inf", "nan", "group_left", "group_right"})

# The window in which all events are recorded too: summed up, they give the budget of a month at little cost.
COUNTED = "5m"


def events(slo: Slo, function: str, window: str) -> str:
    """All events as `function` (rate or increase) over `window`."""
    return f"sum({function}({slo.metric}_count{{{slo.selector}}}[{window}]))"


def bad_events(slo: Slo, function: str, window: str) -> str:
    """The bad events as `function` over `window`; 0 when none has ever happened."""
    if slo.bad_selector is not None:
        selector = f"{slo.selector},{slo.bad_selector}"
        return f"(sum({function}({slo.metric}_count{{{selector}}}[{window}])) or vector(0))"
    good = f"sum({function}({slo.metric}_bucket{{{slo.selector},{bucket(slo)}}}[{window}]))"
    return f"({events(slo, function, window)} - {good})"


def error_ratio(slo: Slo, window: str) -> str:
    """The share (0..1) of bad events over `window`; NaN without events, absent without the metric."""
    return f"{bad_events(slo, 'rate', window)} / {events(slo, 'rate', window)}"


def bucket(slo: Slo) -> str:
    """The matcher of the threshold's histogram bucket, which Prometheus 3 writes as a float (`30.0`)."""
    if slo.threshold_seconds is None:
        raise ValueError(f"{slo.name} has no threshold")
    return f'le="{float(slo.threshold_seconds)}"'


def recorded(slo: Slo, window: str) -> str:
    """The recorded error ratio of this objective over one of the rules' windows."""
    return f'slo:error_ratio:rate{window}{{slo="{slo.name}"}}'


def budget_left(slo: Slo, window: str) -> str:
    """The share of the error budget over `window` that is not spent: 1 untouched, below 0 overdrawn."""
    bad, all_events = (
        f'sum_over_time(slo:{which}:increase{COUNTED}{{slo="{slo.name}"}}[{window}])'
        for which in ("bad_events", "events")
    )
    return f"1 - {bad} / {all_events} / {slo.error_budget:.9g}"


def metric_names(expr: str) -> set[str]:
    """The metrics that a PromQL expression reads."""
    bare = _ASIDE.sub(" ", expr)
    return {name for name in _METRIC.findall(bare) if name.lower() not in _KEYWORDS}
