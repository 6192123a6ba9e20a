"""The domains that jobs belong to: one table from which each engine makes its queues.

A job's domain is the first part of its name. A domain has a queue of its own where the broker has queues,
so that a crowd of one kind does not stand in the way of another, and says how its jobs are tried unless their
kind says otherwise.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Domain:
    """How the jobs of a domain are tried: `attempts` in all, `delay_seconds` between them."""

    name: str
    attempts: int = 3
    delay_seconds: float = 5.0


DOMAINS: Mapping[str, Domain] = MappingProxyType(
    {
        domain.name: domain
        for domain in (
            Domain("transaction", 5, 10),
            Domain("email", 3, 5),
            Domain("sms", 3, 5),
            Domain("notification", 5, 3),
            Domain("webhook", 5, 5),
            Domain("slack", 3, 5),
            Domain("report", 3, 5),
            Domain("user", 3, 5),
            Domain("maintenance", 3, 5),
        )
    }
)


def domain_of(name: str) -> str:
    """The domain in a job's name; the name need not be a good one."""
    return name.partition(".")[0]
