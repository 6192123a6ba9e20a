"""`kill -9` of API, worker and relay under load, at random and at chosen points, on every engine.

`KILLS` is how many an engine (20), `KILLS_SEED` what the choices are made from; it is printed. `KILLS_RATE`
is the load, new transactions a second (10). docs/jobs-proof.md tells the method and the mutations.
"""

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from compose import rabbitmq
from compose.model import MissingProgramError
from tests.faults.kills import report
from tests.faults.kills.campaign import NOTICED, Campaign, Engine

KILLS = int(os.environ.get("KILLS", "20"))
REPORTS = Path(__file__).parents[3] / "reports" / "faults"
RERUN_WITHIN = 10.0

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600 + 15 * KILLS)]


@pytest.mark.parametrize("engine", ["redis", "rabbitmq", "file"])
async def test_no_job_is_lost_and_no_effect_happens_twice(
    engine: Engine, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    if engine == "rabbitmq":
        try:
            rabbitmq.server()
        except MissingProgramError as error:
            pytest.skip(str(error))
    seed = int(os.environ.get("KILLS_SEED") or random.randrange(10**6))
    print(f"KILLS={KILLS} KILLS_SEED={seed}")
    outcome = await Campaign(engine, KILLS, seed, tmp_path).run()
    record_property(report.PROPERTY, report.row(outcome))
    report.write(outcome, REPORTS)
    found = outcome.account
    assert found is not None
    assert not found.lost, _some(found.lost)
    assert not found.twice, _some(found.twice)
    assert not found.unexpected + outcome.exits, _some(found.unexpected + outcome.exits)
    assert not outcome.statuses.keys() - {201, 503}, outcome.statuses
    # A run that has interrupted nothing has proven nothing.
    assert outcome.kills.total() >= KILLS
    assert outcome.recovered
    assert outcome.accepted >= outcome.sent / 2
    bound = NOTICED[engine] + RERUN_WITHIN
    late = [recovery for recovery in outcome.recovered if recovery.last > bound + recovery.extra]
    assert not late, late


def _some(findings: list[str]) -> str:
    return "\n".join([f"{len(findings)} findings:", *findings[:20]])
