"""Make prometheus/slo.yaml from slo.yaml: recording rules per window and multi-window multi-burn-rate alerts.

    python -m alerts.build [--check]

`--check` writes nothing and exits 1 when the committed file differs from what slo.yaml gives.

An alert fires when its long window and its short one both spend the budget faster than `factor` (the long
one says that it matters, the short one that it still goes on, and so it resets soon), and when the long
window holds at least `minimum_bad_events`: on an idle service one error is a large share of next to nothing,
and must not page. Without any event the share is NaN, which fires nothing.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from alerts.expressions import COUNTED, bad_events, error_ratio, events, metric_names, recorded
from alerts.rules import DASHBOARD_BASE, PROMETHEUS_RULES, read_rules, runbook_url
from alerts.slo import SLO_FILE, Slo, SloFile, SloFileError, load

OUTPUT = PROMETHEUS_RULES / "slo.yaml"
HEADER = "# Generated from alerts/slo.yaml by python -m alerts.build: change that file, not this one.\n"


@dataclass(frozen=True)
class Burn:
    """Fire when `long` and `short` both spend the budget `factor` times as fast as the objective allows."""

    severity: str
    long: str
    short: str
    factor: float
    hold: str


# Google's SRE workbook, chapter 5: of a 30-day budget, 14.4 over 1 h is 2 %, 6 over 6 h 5 %, the others 10 %.
BURNS = (
    Burn("page", "1h", "5m", 14.4, "1m"),
    Burn("page", "6h", "30m", 6, "5m"),
    Burn("ticket", "1d", "2h", 3, "15m"),
    Burn("ticket", "3d", "6h", 1, "30m"),
)
# How often a group is evaluated: reading three days of samples every few seconds would be waste.
GROUPS = {"30s": ("5m", "30m", "1h", "2h"), "2m": ("6h", "1d", "3d")}


def alert_name(slo: Slo) -> str:
    """`api-latency` becomes `YardstickApiLatencyBurn`."""
    return "Yardstick" + "".join(word.capitalize() for word in slo.name.split("-")) + "Burn"


def rules(file: SloFile) -> dict[str, Any]:
    """The content of the rule file; SloFileError when an objective leaves an alert that could never fire."""
    lowest = 1 - 1 / max(burn.factor for burn in BURNS)
    for slo in file.slos:
        if slo.objective <= lowest:
            raise SloFileError(
                f"{slo.name}: with objective {slo.objective:g} the fastest alert could never fire, for it "
                f"would need more bad events than there are events; wanted an objective above {lowest:.3f}"
            )
    records = [
        {
            "name": f"yardstick-slo-{interval}",
            "interval": interval,
            "rules": [
                rule for slo in file.slos for window in windows for rule in _records(file, slo, window)
            ],
        }
        for interval, windows in GROUPS.items()
    ]
    alerts = [_alert(file, slo, burn) for slo in file.slos for burn in BURNS]
    return {"groups": [*records, {"name": "yardstick-slo-burn", "interval": "30s", "rules": alerts}]}


def _records(file: SloFile, slo: Slo, window: str) -> list[dict[str, Any]]:
    labels = {"service": file.service, "slo": slo.name}
    made = {f"slo:error_ratio:rate{window}": error_ratio(slo, window)}
    if window == COUNTED:
        made[f"slo:events:increase{window}"] = events(slo, "increase", window)
    if window == COUNTED or window in {burn.long for burn in BURNS}:
        made[f"slo:bad_events:increase{window}"] = bad_events(slo, "increase", window)
    return [{"record": name, "expr": expr, "labels": labels} for name, expr in made.items()]


def _alert(file: SloFile, slo: Slo, burn: Burn) -> dict[str, Any]:
    limit = f"{burn.factor:g} * {slo.error_budget:.9g}"
    spent_in = file.window_days * 24 / burn.factor
    description = (
        f"Over the last {burn.long}, {{{{ $value | humanizePercentage }}}} of events were bad; the objective "
        f"{slo.objective * 100:.9g} % allows {slo.error_budget * 100:.9g} %. At {burn.factor:g} times that, "
        f"the budget of {file.window_days} days is gone in {spent_in:.0f} h."
    )
    return {
        "alert": alert_name(slo),
        "expr": f"{recorded(slo, burn.long)} > {limit}\n"
        f"and {recorded(slo, burn.short)} > {limit}\n"
        f'and slo:bad_events:increase{burn.long}{{slo="{slo.name}"}} >= {slo.minimum_bad_events}\n',
        "for": burn.hold,
        "labels": {"severity": burn.severity, "team": file.team, "window": burn.long},
        "annotations": {
            "summary": f"Error budget is burning: {slo.title}",
            "description": description,
            "runbook_url": runbook_url("slo.md", alert_name(slo)),
            "dashboard_url": f"{DASHBOARD_BASE}/yardstick-overview",
        },
    }


class _Dumper(yaml.SafeDumper):
    """Lines of an expression stay lines, and shared mappings are written out."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style="|" if "\n" in text else None
    ),
)


def render(file: SloFile) -> str:
    """The rule file's text."""
    return HEADER + yaml.dump(rules(file), Dumper=_Dumper, sort_keys=False, width=1000, allow_unicode=True)


def metrics_used() -> set[str]:
    """Every metric that a Prometheus rule reads and no rule records: what the stack must expose."""
    found = read_rules(PROMETHEUS_RULES)
    return set().union(*(metric_names(rule.expr) for rule in found)) - {
        r.name for r in found if not r.is_alert
    }


def build(*, check: bool, slo_file: Path = SLO_FILE, output: Path = OUTPUT) -> str | None:
    """Write the rule file, or with `check` only compare; the fault in words when it differs."""
    text = render(load(slo_file))
    if not check:
        output.write_text(text, encoding="utf-8")
    elif not output.exists() or output.read_text(encoding="utf-8") != text:
        return f"{output.name} is not what {slo_file.name} gives. Run: make alerts"
    return None


def main(argv: list[str] | None = None) -> int:
    """Exit code 0 when all is well, 1 when slo.yaml is faulty or the committed rules differ."""
    parser = argparse.ArgumentParser(prog="python -m alerts.build", description="Generate the SLO rules.")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail when the committed file differs"
    )
    arguments = parser.parse_args(argv)
    try:
        fault = build(check=arguments.check)
    except SloFileError as error:
        fault = str(error)
    if fault:
        print(fault, file=sys.stderr)
    return 1 if fault else 0


if __name__ == "__main__":
    sys.exit(main())
