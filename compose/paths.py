"""Where the state of one stack lies."""

import os
from dataclasses import dataclass
from pathlib import Path

from compose.model import StackError

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "compose" / "config"


def default_state() -> Path:
    """`YARDSTICK_STATE`, or `.stack` in the repository."""
    return Path(os.environ.get("YARDSTICK_STATE") or ROOT / ".stack")


@dataclass(frozen=True)
class Paths:
    """The folders and files of a stack; `state` is absolute and resolved."""

    state: Path

    @classmethod
    def of(cls, state: Path | None) -> "Paths":
        """The paths below `state`, or below the default."""
        return cls((state or default_state()).expanduser().resolve())

    @property
    def file(self) -> Path:
        return self.state / "state.json"

    @property
    def lock(self) -> Path:
        return self.state / "lock"

    @property
    def endpoints(self) -> Path:
        return self.state / "endpoints.json"

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def secrets(self) -> Path:
        return self.state / "secrets"

    def log(self, component: str) -> Path:
        """Standard output and error of a component."""
        return self.logs / f"{component}.log"

    def data(self, component: str) -> Path:
        """What a component keeps over restarts."""
        return self.state / "data" / component

    def config(self, component: str) -> Path:
        """A component's own copy of its configuration."""
        return self.state / "config" / component

    def make(self) -> None:
        """Create the folders.

        Raises:
            StackError: if that is not possible.
        """
        try:
            for folder in (
                self.state,
                self.logs,
                self.logs / "service",
                self.state / "data",
                self.state / "config",
            ):
                folder.mkdir(parents=True, exist_ok=True)
            self.secrets.mkdir(mode=0o700, exist_ok=True)
            self.lock.touch()
        except OSError as error:
            raise StackError(
                f"cannot write the stack's state to {self.state}: {error.strerror or error}; "
                "make that folder writable, or name another one in YARDSTICK_STATE"
            ) from error
