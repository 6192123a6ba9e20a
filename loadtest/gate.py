"""The gate: objectives and thresholds against raw samples. Nothing measured is never a pass.

What counts: availability is the share of HTTP requests with the right answer; latency is the share of
right answers within the threshold; freshness is the share of jobs that were done in time, and a job that
never was is not left out.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from loadtest.samples import Sample
from loadtest.scenario import Abort, Scenario, Threshold
from loadtest.slo import Slo
from loadtest.stats import by_route, percentile

ALL = "all requests"


@dataclass(frozen=True)
class Check:
    """One limit and what was measured against it."""

    name: str
    route: str
    required: str
    measured: str
    passed: bool
    value: float | None  # a share, milliseconds, or a rate per second; None without traffic
    limit: float
    margin: float | None  # of the limit or of the error budget: 1 all of it left, below 0 overdrawn
    total: int
    bad: int | None = None  # of `total`, where the limit is a share
    note: str = ""

    @property
    def burn_rate(self) -> float:
        """How many times more bad events than the objective allows; 0 where it is not a share."""
        if self.bad is None or not self.total:
            return 0.0
        return self.bad / self.total / max(1e-12, 1 - self.limit)


def evaluate(
    scenario: Scenario, slos: Sequence[Slo], samples: Sequence[Sample], start: float, end: float
) -> list[Check]:
    """All checks over the samples of a load from `start` to `end` (epoch seconds)."""
    warm = start + scenario.model.warmup_seconds
    checks: list[Check] = []
    for slo in slos:
        checks += _SLO_CHECKS[slo.kind](slo, samples, warm)
    checks += [_own(threshold, samples, warm, start, end) for threshold in scenario.thresholds]
    broken = [sample for sample in samples if sample.kind == "EXCEPTION"]
    if broken:
        checks.append(_exceptions(broken))
    return checks


def hopeless(checks: Sequence[Check], elapsed: float, duration: float, rule: Abort) -> Check | None:
    """A check that can no longer pass, however well the rest of the run goes; None while there is hope.

    It must both burn its budget `burn_rate` times too fast and have spent more than the whole run's,
    at the rate of events so far.
    """
    if elapsed < rule.grace_seconds:
        return None
    for check in checks:
        if check.bad is None or check.passed or check.bad < rule.least_bad:
            continue
        whole = check.total * duration / elapsed * (1 - check.limit)
        if check.burn_rate >= rule.burn_rate and check.bad > whole:
            return check
    return None


def _availability(slo: Slo, samples: Sequence[Sample], _warm: float) -> list[Check]:
    http = [sample for sample in samples if sample.is_http]
    bad = sum(1 for sample in http if sample.error)
    return [_share(slo, ALL, f"≥ {100 * slo.objective:.6g} % answered right", bad, len(http))]


def _latency(slo: Slo, samples: Sequence[Sample], warm: float) -> list[Check]:
    threshold = slo.threshold_seconds or 0.0
    required = f"≥ {100 * slo.objective:.6g} % within {_duration(threshold)}"
    http = [sample for sample in samples if sample.is_http]
    checks = []
    for route, own in {ALL: http, **by_route(http)}.items():
        right = [sample for sample in own if not sample.error and sample.start >= warm]
        bad = sum(1 for sample in right if sample.elapsed > threshold)
        checks.append(_share(slo, route, required, bad, len(right)))
    return checks


def _freshness(slo: Slo, samples: Sequence[Sample], warm: float) -> list[Check]:
    threshold = slo.threshold_seconds or 0.0
    required = f"≥ {100 * slo.objective:.6g} % within {_duration(threshold)}"
    jobs = [sample for sample in samples if sample.kind == "JOB" and sample.start >= warm]
    checks = []
    for route, own in (by_route(jobs) or {"jobs": []}).items():
        bad = sum(1 for sample in own if sample.error or sample.elapsed > threshold)
        checks.append(_share(slo, route, required, bad, len(own)))
    return checks


_SLO_CHECKS: dict[str, Callable[[Slo, Sequence[Sample], float], list[Check]]] = {
    "availability": _availability,
    "latency": _latency,
    "freshness": _freshness,
}


def _share(slo: Slo, route: str, required: str, bad: int, total: int) -> Check:
    if not total:
        return _nothing(slo.name, route, required, slo.objective)
    allowed = 1 - slo.objective
    share = bad / total
    note = (
        f"fewer than {math.ceil(1 / allowed - 1e-9):,} samples: one bad one breaks it"
        if 1e-6 < allowed < 1 / total
        else ""
    )
    return Check(
        name=slo.name,
        route=route,
        required=required,
        measured=_percent(1 - share),
        passed=share <= allowed + 1e-12,
        value=1 - share,
        limit=slo.objective,
        margin=1 - share / allowed,
        total=total,
        bad=bad,
        note=note,
    )


def _own(threshold: Threshold, samples: Sequence[Sample], warm: float, start: float, end: float) -> Check:
    if threshold.route:
        own = [sample for sample in samples if sample.route == threshold.route]
    else:
        own = [sample for sample in samples if sample.is_http]
    route = threshold.route or ALL
    if threshold.error_share_at_most is not None:
        return _error_share(threshold.error_share_at_most, route, own)
    if threshold.rate_over is not None:
        return _rate(threshold.rate_over, route, own, start, end)
    right = sorted(sample.elapsed * 1000 for sample in own if not sample.error and sample.start >= warm)
    name, limit = f"p{threshold.percentile:g}", threshold.under_ms or 0.0
    required = f"< {limit:,.0f} ms"
    if not right:
        return _nothing(name, route, required, limit)
    value = percentile(right, threshold.percentile or 0.0)
    return Check(
        name, route, required, f"{value:,.1f} ms", value < limit, value, limit, 1 - value / limit, len(right)
    )


def _error_share(limit: float, route: str, own: Sequence[Sample]) -> Check:
    as_slo = Slo(name="errors", objective=min(1 - 1e-9, 1 - limit), kind="availability")
    required = f"≤ {100 * limit:g} % failed"
    check = _share(as_slo, route, required, sum(1 for sample in own if sample.error), len(own))
    return (
        check
        if check.value is None
        else replace(check, measured=f"{math.ceil((1 - check.value) * 1e4 - 1e-6) / 100:g} % failed")
    )


def _rate(limit: float, route: str, own: Sequence[Sample], start: float, end: float) -> Check:
    required = f"> {limit:g} /s"
    inside = sum(1 for sample in own if start <= sample.end <= end)
    if not inside or end <= start:
        return _nothing("rate", route, required, limit)
    value = inside / (end - start)
    return Check(
        "rate", route, required, f"{value:,.1f} /s", value > limit, value, limit, value / limit - 1, inside
    )


def _exceptions(broken: Sequence[Sample]) -> Check:
    return Check(
        name="journeys",
        route=broken[0].name,
        required="no exception",
        measured=f"{len(broken)} raised",
        passed=False,
        value=float(len(broken)),
        limit=0.0,
        margin=None,
        total=len(broken),
        note=f"a fault of the scenario's own code: {broken[0].error}",
    )


def _nothing(name: str, route: str, required: str, limit: float) -> Check:
    return Check(
        name, route, required, "nothing", False, None, limit, None, 0, note="no traffic is not a pass"
    )


def _percent(share: float) -> str:
    """Rounded down, so that a share below its limit never reads like the limit: 99.94 %, 100 %."""
    return f"{math.floor(share * 1e4 + 1e-6) / 100:.6g} %"


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:g} ms" if seconds < 1 else f"{seconds:g} s"
