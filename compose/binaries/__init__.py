"""Where the stack's programs come from: PATH, the cache, the official release, or a Go build."""

from compose.binaries.errors import ProgramUnavailable
from compose.binaries.find import Program, locate, obtain
from compose.binaries.table import PROGRAMS

__all__ = ["PROGRAMS", "Program", "ProgramUnavailable", "locate", "obtain"]
