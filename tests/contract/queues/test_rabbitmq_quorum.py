"""Quorum queues keep to the same contract, but for the order within a lane: they know two priorities.

The tests are those of every engine, run again with the `broker` of this file.
"""

from collections.abc import AsyncIterator

import pytest

from service.infra.queues.interface import PRIORITIES
from tests.contract.queues.harness import Working, ids, job, published
from tests.contract.queues.rabbitmq_broker import RabbitBroker
from tests.contract.queues.test_queue import (
    test_a_job_due_later_runs_then_and_holds_up_no_other,
    test_a_malformed_body_can_be_put_back_as_it_is,
    test_a_runner_with_a_defect_loses_no_job_and_ends_no_consumer,
    test_many_jobs_put_back_again_and_again_all_come_to_their_end,
    test_published_jobs_run_once_each,
    test_stats_tell_what_waits_what_runs_and_what_is_not_due,
    test_two_workers_share_the_jobs_and_each_runs_once,
)
from tests.contract.queues.test_workers import (
    test_a_pause_fetches_no_more_and_a_resume_goes_on,
    test_stopping_hands_back_what_does_not_end_in_time,
    test_the_jobs_of_a_killed_process_go_to_another_worker,
)

__all__ = [
    "test_a_job_due_later_runs_then_and_holds_up_no_other",
    "test_a_malformed_body_can_be_put_back_as_it_is",
    "test_a_pause_fetches_no_more_and_a_resume_goes_on",
    "test_a_runner_with_a_defect_loses_no_job_and_ends_no_consumer",
    "test_many_jobs_put_back_again_and_again_all_come_to_their_end",
    "test_published_jobs_run_once_each",
    "test_stats_tell_what_waits_what_runs_and_what_is_not_due",
    "test_stopping_hands_back_what_does_not_end_in_time",
    "test_the_jobs_of_a_killed_process_go_to_another_worker",
    "test_two_workers_share_the_jobs_and_each_runs_once",
]


@pytest.fixture
async def broker(amqp_url: str) -> AsyncIterator[RabbitBroker]:
    found = RabbitBroker(amqp_url, "quorum")
    yield found
    await found.close()


async def test_critical_and_high_go_before_the_rest_in_the_order_they_came(broker: RabbitBroker) -> None:
    queue = broker.open()
    jobs = [job(priority=priority) for _ in range(5) for priority in (*reversed(PRIORITIES), *PRIORITIES)]
    await published(queue, *jobs)
    async with Working(queue, seconds=0.005) as worker:
        await worker.ran(50)
    urgent = [one for one in jobs if one.options.priority in ("critical", "high")]
    assert [one for one in worker.order if one in ids(urgent)] == ids(urgent)
    # The next of them is on its way while one runs: a slow machine may let one or another slip in between.
    assert worker.order.index(ids(urgent)[-1]) <= len(urgent) + 2
