"""Write dashboards/json/*.json: `python -m dashboards.build [--check]`.

`--check` writes nothing and exits 1 when a committed file differs from what the code gives, or belongs to no
dashboard. The files are classic dashboard JSON for Grafana's file provisioning: change the code, neither a
file nor the dashboard in the browser.
"""

import argparse
import json
import sys
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from alerts.slo import SloFile, load
from dashboards.jobs import jobs
from dashboards.overview import overview

JSON = Path(__file__).with_name("json")
DASHBOARDS = (overview, jobs)


def render(slos: SloFile) -> dict[str, str]:
    """The text of each file by its name, always the same for the same code and objectives."""
    files = {}
    for make in DASHBOARDS:
        built = make(slos).build()
        files[f"{built.uid}.json"] = json.dumps(built, cls=JSONEncoder, indent=2, sort_keys=True) + "\n"
    return files


def build(*, check: bool, directory: Path = JSON) -> list[str]:
    """Write the files and remove others, or with `check` only compare; the faults in words."""
    files = render(load())
    committed = {path.name: path.read_text(encoding="utf-8") for path in directory.glob("*.json")}
    if check:
        differing = {
            name for name in files.keys() | committed.keys() if files.get(name) != committed.get(name)
        }
        return [
            f"dashboards/json/{name} is not what the code gives. Run: make dashboards"
            for name in sorted(differing)
        ]
    directory.mkdir(exist_ok=True)
    for name in committed.keys() - files.keys():
        (directory / name).unlink()
    for name, text in files.items():
        (directory / name).write_text(text, encoding="utf-8")
    return []


def main(argv: list[str] | None = None) -> int:
    """Exit code 0 when all is well, 1 when committed files differ."""
    parser = argparse.ArgumentParser(
        prog="python -m dashboards.build", description="Generate the dashboards."
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail when committed files differ"
    )
    faults = build(check=parser.parse_args(argv).check)
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
