"""Let each program check the configuration that it will be given."""

import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from compose import binaries
from compose.components import COMPONENTS
from compose.configure import Setting, copy_config, environment, write_targets
from compose.graph import by_name
from compose.paths import Paths
from compose.secret import NAMES


@dataclass(frozen=True)
class Check:
    """How a program checks the configuration of a component; `{config}` is the folder it lies in."""

    component: str
    program: str
    arguments: tuple[str, ...]


CHECKS = (
    Check("prometheus", "promtool", ("check", "config", "--lint=none", "{config}/prometheus.yml")),
    Check("alertmanager", "amtool", ("check-config", "{config}/alertmanager.yml")),
    Check("loki", "loki", ("-config.file={config}/loki.yaml", "-config.expand-env=true", "-verify-config")),
    Check(
        "tempo",
        "tempo",
        ("-config.file={config}/tempo.yaml", "-config.expand-env=true", "-config.verify=true"),
    ),
    Check("otelcol", "otelcol", ("validate", "--config", "{config}/otelcol.yaml")),
)
UNCHECKED = "grafana: it has no check of its own; its provisioning is read when it starts"


def verify(console: Console) -> bool:
    """Check every configuration as the stack would use it, and say what was not checked.

    Returns:
        Whether no check failed; a missing program is no failure.
    """
    good = True
    with tempfile.TemporaryDirectory(prefix="yardstick-verify-") as folder:
        paths = Paths(Path(folder).resolve())
        paths.make()
        setting = Setting(
            paths,
            {component.name: dict(component.ports) for component in COMPONENTS},
            {f"{name}_password": "x" * 32 for name in NAMES},
            frozenset(by_name(COMPONENTS)),
        )
        for component in COMPONENTS:
            copy_config(component, setting)
        write_targets(setting, COMPONENTS, paths.config("prometheus") / "targets")
        for check in CHECKS:
            good = _run(check, setting, console) and good
    console.print(f"  not checked  {UNCHECKED}", soft_wrap=True)
    return good


def _run(check: Check, setting: Setting, console: Console) -> bool:
    name = f"{check.component:<13}"
    try:
        program = binaries.locate(check.program)
    except binaries.ProgramUnavailable as error:
        console.print(
            f"  not checked  {name} {check.program} is not there ({escape('; '.join(error.reasons))})"
        )
        return True
    command = [str(program.path)] + [setting.fill(part, check.component) for part in check.arguments]
    own = environment(by_name(COMPONENTS)[check.component], setting)
    try:
        done = subprocess.run(
            command, env={**os.environ, **own}, capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        console.print(f"  [red]fault[/]        {name} {escape(str(error))}")
        return False
    if done.returncode != 0:
        console.print(f"  [red]fault[/]        {name} {check.program} {program.version} says:")
        console.print((done.stdout + done.stderr).strip(), markup=False)
        return False
    console.print(f"  good         {name} {check.program} {program.version}")
    return True
