"""Scenarios as data: who does what (`journeys`, `mix`), how much of it (`model`), and what must hold."""

import importlib.util
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from loadtest.errors import UsageError

MODELS = Path(__file__).parent / "models"
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ClosedModel(Strict):
    """A fixed number of users, each of whom waits for an answer before the next request."""

    kind: Literal["closed"]
    users: int = Field(ge=1, le=100_000)
    duration_seconds: int = Field(ge=1, le=7 * 86_400)
    ramp_seconds: NotNegative = 0
    warmup_seconds: NotNegative = 0  # left out of the latency and freshness figures, never of the errors

    @model_validator(mode="after")
    def _leaves_time_to_measure(self) -> Self:
        if max(self.ramp_seconds, self.warmup_seconds) >= self.duration_seconds:
            raise ValueError("ramp_seconds and warmup_seconds must be shorter than duration_seconds")
        return self

    @property
    def spawn_rate(self) -> float:
        """Users started per second."""
        return self.users / self.ramp_seconds if self.ramp_seconds else float(self.users)


class Threshold(Strict):
    """One limit of the scenario's own: a percentile, a share of errors, or a rate; on one route or on all."""

    route: str | None = None
    percentile: float | None = Field(default=None, gt=0, le=100)
    under_ms: Positive | None = None
    error_share_at_most: float | None = Field(default=None, ge=0, lt=1)
    rate_over: Positive | None = None

    @model_validator(mode="after")
    def _is_one_limit(self) -> Self:
        if (self.percentile is None) != (self.under_ms is None):
            raise ValueError("percentile and under_ms go together")
        if [self.under_ms, self.error_share_at_most, self.rate_over].count(None) != 2:
            raise ValueError("one of under_ms (with percentile), error_share_at_most or rate_over is needed")
        return self


class Abort(Strict):
    """When a run is given up: an objective's error budget burns this many times too fast after the grace."""

    grace_seconds: NotNegative = 15
    burn_rate: float = Field(default=10, gt=1)
    least_bad: int = Field(default=10, ge=1)


class Limits(Strict):
    """What makes a run invalid, and how long it waits for what."""

    request_timeout_seconds: Positive = 10
    drain_seconds: NotNegative = 50  # after the load ends, for journeys under way
    unreachable_seconds: Positive = 5
    generator_cpu: Positive = 0.70  # cores, mean over the run
    abort: Abort = Abort()


class Scenario(Strict):
    """A whole scenario file; `name` is the file's own."""

    name: str
    title: str
    journeys: str  # a module, or a .py file beside the scenario file
    mix: dict[str, Annotated[int, Field(ge=0, le=1000)]]
    model: ClosedModel
    think_seconds: tuple[NotNegative, NotNegative] = (0.5, 1.5)
    parameters: dict[str, str | int | float | bool] = {}  # for the journeys
    ready_path: str | None = Field(default=None, pattern="^/")  # answers 2xx when the target is ready
    slos: tuple[str, ...] | None = None  # names from the SLO file; all of them if absent
    thresholds: tuple[Threshold, ...] = ()
    limits: Limits = Limits()

    @field_validator("think_seconds")
    @classmethod
    def _in_order(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] > value[1]:
            raise ValueError("the shorter time comes first")
        return value

    @field_validator("mix")
    @classmethod
    def _has_weight(cls, value: dict[str, int]) -> dict[str, int]:
        if not any(value.values()):
            raise ValueError("at least one journey needs a weight above 0")
        return value

    @model_validator(mode="after")
    def _has_a_limit(self) -> Self:
        if self.slos == () and not self.thresholds:
            raise ValueError("with no slos and no thresholds there is nothing to pass: name one")
        return self

    def resized(self, users: int | None, duration: int | None) -> "Scenario":
        """The same scenario with other users or seconds; ramp and warm-up shrink with the duration."""
        wanted = self.model.model_dump()
        if duration is not None:
            shrink = max(0.0, min(1.0, duration / self.model.duration_seconds))
            wanted["duration_seconds"] = duration
            wanted["ramp_seconds"] *= shrink
            wanted["warmup_seconds"] *= shrink
        if users is not None:
            wanted["users"] = users
        try:
            return self.model_copy(update={"model": ClosedModel.model_validate(wanted)})
        except ValidationError as error:
            raise UsageError("\n".join(faults(error, "--users or --duration"))) from error


def known() -> list[str]:
    """Names of the scenarios that ship with the harness."""
    return sorted(path.stem for path in MODELS.glob("*.yaml"))


def load(name: str) -> Scenario:
    """The scenario of that name, or of that file when the name ends in .yaml. Raises UsageError."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else MODELS / f"{name}.yaml"
    if not path.is_file():
        what = f"no scenario file {path}" if path != MODELS / f"{name}.yaml" else f"no scenario {name!r}"
        raise UsageError(f"{what}: there are {', '.join(known())}, or give a .yaml file")
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path} cannot be read as YAML: {error}") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path}: a mapping is needed, with title, journeys, mix and model")
    try:
        scenario = Scenario.model_validate({"name": path.stem, **content})
    except ValidationError as error:
        raise UsageError("\n".join(faults(error, str(path)))) from error
    return scenario.model_copy(update={"journeys": _located(scenario.journeys, path)})


def _located(journeys: str, scenario_file: Path) -> str:
    if journeys.endswith(".py"):
        path = (scenario_file.parent / journeys).resolve()
        if not path.is_file():
            raise UsageError(f"{scenario_file}: journeys: there is no file {path}")
        return str(path)
    try:
        found = importlib.util.find_spec(journeys)
    except (ImportError, ValueError):
        found = None
    if found is None:
        raise UsageError(f"{scenario_file}: journeys: no module {journeys!r}; a .py file beside it works too")
    return journeys


def faults(error: ValidationError, where: str) -> list[str]:
    """One line per fault: file, the place in it, what is wrong, what was there."""
    lines = []
    for fault in error.errors():
        place = ".".join(str(part) for part in fault["loc"])
        given = (
            ""
            if fault["type"] == "missing" or isinstance(fault["input"], dict)
            else f" (is {fault['input']!r})"
        )
        lines.append(
            f"{where}: {place + ': ' if place else ''}{fault['msg'].removeprefix('Value error, ')}{given}"
        )
    return lines
