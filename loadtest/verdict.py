"""What a run comes to. The numbers are the process's exit codes."""

from dataclasses import dataclass
from enum import IntEnum


class Code(IntEnum):
    """0 and 97 to 99 as in SPEC F3; 2 is the shell's for a wrong command, 130 for an interrupted one."""

    PASSED = 0
    GENERATOR_FAILED = 1
    USAGE = 2
    GENERATOR_SATURATED = 97
    STACK_FAILED = 98
    SLO_FAILED = 99
    ABORTED = 130

    @property
    def words(self) -> str:
        return {0: "passed", 1: "generator failed", 99: "failed", 130: "aborted"}.get(
            self, self.name.lower().replace("_", " ")
        )


@dataclass(frozen=True)
class Verdict:
    """The one outcome, and the reasons for it in the order of their weight."""

    code: Code
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Course:
    """How the run went beside its figures; empty texts are for what did not happen."""

    interrupted: bool = False
    stack_failed: str = ""
    generator_failed: str = ""
    given_up: str = ""
    generator_cpu: float | None = None
    cpu_limit: float = 1.0


def judge(course: Course, failed_checks: list[str], checks: int) -> Verdict:
    """What invalidates a run outweighs what it measured: a dead stack, a broken or saturated generator."""
    cpu = course.generator_cpu
    saturated = cpu is not None and cpu > course.cpu_limit
    failed = [*([course.given_up] if course.given_up else []), *failed_checks]
    if course.stack_failed:
        return Verdict(Code.STACK_FAILED, (course.stack_failed,))
    if course.generator_failed:
        return Verdict(Code.GENERATOR_FAILED, (course.generator_failed,))
    if course.interrupted:
        return Verdict(Code.ABORTED, ("interrupted before its end: the figures are of the part that ran",))
    if saturated and cpu is not None:
        used = f"the generator used {cpu:.0%} of a core (limit {course.cpu_limit:.0%})"
        return Verdict(Code.GENERATOR_SATURATED, (f"{used}: the latencies are not valid", *failed))
    if failed:
        return Verdict(Code.SLO_FAILED, tuple(failed))
    return Verdict(Code.PASSED, (f"all {checks} limits met",))
