"""`python -m service.settings --example` writes `.env.example`; without it, checks the settings in force."""

import argparse
import sys
import textwrap

from service.settings.groups import Group
from service.settings.loading import GROUPS, SettingsError, example_value, load_settings
from service.settings.secret_files import secret_fields

EX_CONFIG = 78


def example() -> str:
    """The text of `.env.example`: every variable, the optional ones commented out with their default."""
    lines = [
        "# Every setting of the service. Written by `python -m service.settings --example`; do not edit.",
        "# A secret can also stand in a file of its own that only the service may read:",
        *(f"#   {variable}" for group in GROUPS for variable in secret_fields(group).values()),
    ]
    for group in GROUPS:
        lines += ["", f"# --- {group.title}"]
        for field in group.model_fields:
            lines += _variable(group, field)
    return "\n".join(lines) + "\n"


def _variable(group: type[Group], field: str) -> list[str]:
    info = group.model_fields[field]
    comment = f"{info.description}{'. Required' if info.is_required() else ''}."
    assignment = f"{group.variable(field)}={example_value(group, field)}"
    return [
        *textwrap.wrap(comment, 108, initial_indent="# ", subsequent_indent="# "),
        assignment if info.is_required() else f"#{assignment}",
    ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m service.settings")
    parser.add_argument("--example", action="store_true", help="print .env.example")
    if parser.parse_args().example:
        sys.stdout.write(example())
        return 0
    try:
        load_settings()
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return EX_CONFIG
    sys.stdout.write("The settings are complete.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
