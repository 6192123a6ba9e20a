"""The objectives of `alerts/slo.yaml`, as far as a client can judge them."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from loadtest.errors import UsageError
from loadtest.scenario import faults

SLO_FILE = Path(__file__).parents[1] / "alerts" / "slo.yaml"


class Slo(BaseModel):
    """A share of good events. The file's other fields serve the alert rules and are of no matter here."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    name: Annotated[str, Field(min_length=1)]
    title: str = ""
    objective: float = Field(gt=0, lt=1)
    kind: Literal["availability", "latency", "freshness"]
    threshold_seconds: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _has_its_threshold(self) -> "Slo":
        if self.kind != "availability" and self.threshold_seconds is None:
            raise ValueError(f"kind {self.kind} needs threshold_seconds")
        return self


class _File(BaseModel):
    model_config = ConfigDict(extra="ignore")
    slos: Annotated[list[Slo], Field(min_length=1)]


def load(path: Path, wanted: Iterable[str] | None = None) -> tuple[Slo, ...]:
    """The file's objectives, or those of them that are wanted. Raises UsageError."""
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"there is no SLO file {path}: the gate takes its limits from it") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path} cannot be read as YAML: {error}") from error
    try:
        slos = {slo.name: slo for slo in _File.model_validate(content).slos}
    except ValidationError as error:
        raise UsageError("\n".join(faults(error, str(path)))) from error
    if wanted is None:
        return tuple(slos.values())
    missing = [name for name in wanted if name not in slos]
    if missing:
        raise UsageError(f"{path} has no SLO {', '.join(missing)}; it has {', '.join(slos)}")
    return tuple(slos[name] for name in wanted)
