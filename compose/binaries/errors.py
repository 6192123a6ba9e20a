"""What can go wrong, each with what, why and what to do."""

from __future__ import annotations


class SourceError(Exception):
    """One way to a program failed; the next one is tried."""


class ProgramUnavailable(Exception):  # noqa: N818 - its name says what is the case
    """No way led to the program.

    Attributes:
        name: the program.
        reasons: one for every way that was tried, in order.
    """

    def __init__(self, name: str, reasons: tuple[str, ...], advice: str = "") -> None:
        super().__init__(name, reasons, advice)
        self.name = name
        self.reasons = reasons
        self.advice = advice

    def __str__(self) -> str:
        lines = [f"{self.name} cannot be had:", *(f"  - {reason}" for reason in self.reasons)]
        if self.advice:
            lines.append(f"  {self.advice}")
        return "\n".join(lines)
