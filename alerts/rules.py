"""Rule files as data: what stands in alerts/prometheus and alerts/loki, and what every alert must have."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent
PROMETHEUS_RULES = ROOT / "prometheus"
LOKI_RULES = ROOT / "loki"
RUNBOOKS = ROOT / "runbooks"
# Links are relative, for each copy of this repository has an address of its own: runbooks to the repository's
# root, dashboards to Grafana's. Whoever sends a notification puts the address in front.
RUNBOOK_BASE = "alerts/runbooks"
DASHBOARD_BASE = "/d"
SEVERITIES = ("page", "ticket", "none")
RUNBOOK_PARTS = ("Meaning", "Impact", "Diagnosis", "Mitigation")


@dataclass(frozen=True)
class Rule:
    """One recording or alerting rule; `name` is the alert's or the recorded series' name."""

    file: Path
    name: str
    is_alert: bool
    expr: str
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


def read_rules(*directories: Path) -> list[Rule]:
    """Every rule of the directories' YAML files, in the files' order."""
    return [
        rule
        for directory in directories
        for path in sorted(directory.glob("*.yaml"))
        for rule in _rules_of(path)
    ]


def _rules_of(path: Path) -> Iterator[Rule]:
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    for group in content["groups"]:
        for raw in group["rules"]:
            yield Rule(
                file=path,
                name=raw.get("alert") or raw["record"],
                is_alert="alert" in raw,
                expr=raw["expr"].strip(),
                labels=raw.get("labels", {}),
                annotations=raw.get("annotations", {}),
            )


def runbook_url(file: str, alert: str) -> str:
    """Where the heading of an alert stands, such as `alerts/runbooks/slo.md#yardstickapilatencyburn`."""
    return f"{RUNBOOK_BASE}/{file}#{alert.lower()}"


def alert_faults(rules: list[Rule], runbooks: Path = RUNBOOKS) -> list[str]:
    """What the alerts among the rules lack of labels, annotations and runbook; empty when all is there."""
    headings = _headings(runbooks)
    alerts = [rule for rule in rules if rule.is_alert]
    faults = [
        f"{rule.file.name}: {rule.name}: {fault}" for rule in alerts for fault in _faults_of(rule, headings)
    ]
    orphans = sorted({heading for _, heading in headings} - {rule.name for rule in alerts})
    return faults + [f"runbook without an alert: {heading}" for heading in orphans]


def _faults_of(rule: Rule, headings: Mapping[tuple[str, str], str]) -> Iterator[str]:
    if not rule.name.startswith("Yardstick"):
        yield "its name must start with Yardstick"
    if rule.labels.get("severity") not in SEVERITIES:
        yield f"label severity must be one of {', '.join(SEVERITIES)}"
    if not rule.labels.get("team"):
        yield "label team is missing"
    if not rule.annotations.get("summary") or "{{" in rule.annotations.get("summary", ""):
        yield "annotation summary must be there, and static"
    if "{{" not in rule.annotations.get("description", ""):
        yield "annotation description must be there, and templated"
    yield from _link_faults(rule, headings)


def _link_faults(rule: Rule, headings: Mapping[tuple[str, str], str]) -> Iterator[str]:
    if not rule.annotations.get("dashboard_url", "").startswith(f"{DASHBOARD_BASE}/"):
        yield f"annotation dashboard_url must start with {DASHBOARD_BASE}/"
    url = rule.annotations.get("runbook_url", "")
    file = url.removeprefix(f"{RUNBOOK_BASE}/").split("#")[0]
    if url != runbook_url(file, rule.name):
        yield f"annotation runbook_url must be {runbook_url('<file>.md', rule.name)}"
        return
    if (file, rule.name) not in headings:
        yield f"no heading '## {rule.name}' in {file}"
        return
    missing = [part for part in RUNBOOK_PARTS if f"**{part}.**" not in headings[file, rule.name]]
    yield from (f"its runbook has no '**{part}.**'" for part in missing)


def _headings(runbooks: Path) -> dict[tuple[str, str], str]:
    """The text below each `## Alert` heading, by (file name, alert)."""
    found = {}
    for path in sorted(runbooks.glob("*.md")):
        _, *sections = re.split(r"^## ", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        for section in sections:
            heading, _, text = section.partition("\n")
            found[path.name, heading.strip()] = text
    return found
