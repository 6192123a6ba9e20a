"""What the parent tells the generator process: one JSON file, named by an environment variable."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

VARIABLE = "YARDSTICK_LOADTEST_PLAN"


@dataclass(frozen=True)
class Plan:
    """Everything a generator needs beside the target; `recording` is the folder for its sample file."""

    run_id: str
    journeys: str
    mix: dict[str, int]
    think_seconds: tuple[float, float]
    request_timeout_seconds: float
    parameters: dict[str, Any]
    recording: str

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Self:
        content = json.loads(path.read_text(encoding="utf-8"))
        return cls(**{**content, "think_seconds": tuple(content["think_seconds"])})
