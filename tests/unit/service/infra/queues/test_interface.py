"""The envelope and the names of jobs."""

from datetime import UTC, datetime
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from service.infra.queues.domains import DOMAINS
from service.infra.queues.interface import Job, JobKind, JobOptions, MalformedJobError

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=10)
LEAVES = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT
JSON = LEAVES | st.lists(LEAVES, max_size=3) | st.dictionaries(TEXT, LEAVES, max_size=3)


class Payload(BaseModel):
    pass


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(TEXT, JSON, max_size=3))
def test_an_envelope_comes_back_as_it_was(payload: dict[str, object]) -> None:
    job = Job(id=uuid4(), name="transaction.settlement.v1", payload=payload, due_at=datetime.now(UTC))
    assert Job.decode(job.encode()) == job


@pytest.mark.parametrize("text", ["\0", "a\0b", "\\\0"])
def test_a_nul_is_malformed_as_no_database_can_keep_it(text: str) -> None:
    job = Job(id=uuid4(), name="transaction.x.v1", payload={"text": text}, due_at=datetime.now(UTC))
    with pytest.raises(MalformedJobError, match="NUL"):
        Job.decode(job.encode())


def test_a_backslash_before_u0000_is_no_nul() -> None:
    job = Job(id=uuid4(), name="transaction.x.v1", payload={"text": "\\u0000"}, due_at=datetime.now(UTC))
    assert Job.decode(job.encode()) == job


@pytest.mark.parametrize(
    "name",
    ["", "transaction", "transaction.v1", "transaction.settle", "Transaction.settle.v1", "transaction.x.v0",
     "transaction..v1", "transaction.settle.v1 ", "unknown.settle.v1", "transaction." + "a" * 100 + ".v1"],
)  # fmt: skip
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"domain\.action\.vN"):
        JobKind(name, Payload)


@pytest.mark.parametrize(
    ("domain", "attempts", "delay"), [("email", 3, 5), ("notification", 5, 3), ("transaction", 5, 10)]
)
def test_a_job_is_tried_as_its_domain_says(domain: str, attempts: int, delay: float) -> None:
    options = JobKind(f"{domain}.send.v1", Payload).options
    assert (options.attempts, options.backoff, options.backoff_seconds) == (attempts, "fixed", delay)
    own = JobOptions(attempts=9)
    assert JobKind(f"{domain}.send.v1", Payload, own).options is own
    assert domain in DOMAINS
