"""Files of a run's folder: report.html, summary.md, result.json, junit.xml."""

from pathlib import Path

from loadtest import junit
from loadtest.report.render import html, markdown
from loadtest.result import Result


def write(result: Result, folder: Path) -> None:
    """Write all outputs of a run into its folder."""
    for name, content in (
        ("report.html", html(result)),
        ("summary.md", markdown(result)),
        ("result.json", result.as_json()),
        ("junit.xml", junit.render(result)),
    ):
        (folder / name).write_text(content, encoding="utf-8")
