"""The OpenAPI contract, held against a real process: whatever is sent, the answer is one that it states."""

import os
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import APIOperation, Case, GenerationMode, Response
from schemathesis.checks import positive_data_acceptance
from schemathesis.core.result import Ok
from schemathesis.openapi import from_dict

from service.settings import Settings
from tests.integration.service.launched import Process

Configure = Callable[..., Settings]
EXAMPLES = int(os.environ.get("CONTRACT_EXAMPLES", "25"))
EXACT = {"POST /v1/transactions", "GET /v1/transactions/{transaction_id}"}
"""Where all that the schema allows is accepted. Cursors and names of files know more than a schema says."""
STREAMS = "^/v1/stream"
TOKEN = "an-operators-token-0123456789-abcdefgh"
OFTEN = settings(
    max_examples=EXAMPLES,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture
async def api(configure: Configure, tmp_path: Path) -> AsyncIterator[Process]:
    configure(TELEMETRY_LOG_SINK="stdout", RATE_LIMIT_ENABLED="false", QUEUE_ADMIN_TOKEN=TOKEN)
    process = Process("service.app", tmp_path)
    await process.up()
    yield process
    process.end()


def check_frame(answer: Response) -> None:
    """What every answer has, stated or not."""
    [request_id] = answer.headers["x-request-id"]
    assert answer.headers["x-content-type-options"] == ["nosniff"]
    if answer.status_code >= 400:
        body: dict[str, Any] = answer.json()
        assert body.keys() == {"statusCode", "message", "data", "error", "meta"}
        assert body["statusCode"] == answer.status_code
        assert body["meta"]["requestId"] == request_id
        assert body["error"]["code"] != "internal"


def probe(
    operation: APIOperation[Any, Any, Any, Any], mode: GenerationMode, url: str, session: requests.Session
) -> Counter[tuple[str, int]]:
    """Send what the schema allows, or what it forbids; gives how often which status came back."""
    seen: Counter[tuple[str, int]] = Counter()
    excluded = [] if operation.label in EXACT else [positive_data_acceptance]

    @OFTEN
    @given(case=operation.as_strategy(generation_mode=mode))
    def send(case: Case[Any]) -> None:
        answer = case.call(base_url=url, session=session, timeout=20)
        case.validate_response(answer, excluded_checks=excluded)
        check_frame(answer)
        seen[operation.label, answer.status_code] += 1

    # Nothing that could be wrong can be sent to a route without parameters.
    with suppress(Unsatisfiable):
        send()
    return seen


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["valid", "invalid"])
async def test_every_answer_conforms(api: Process, mode: GenerationMode) -> None:
    async with httpx.AsyncClient() as http:
        document = (await http.get(f"{api.url}/openapi.json")).json()
    # Streams do not end by themselves; they have tests of their own.
    schema = from_dict(document).exclude(path_regex=STREAMS)
    seen: Counter[tuple[str, int]] = Counter()
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {TOKEN}"
        for result in schema.get_all_operations():
            assert isinstance(result, Ok)
            seen += probe(result.ok(), mode, api.url, session)
    if mode is GenerationMode.POSITIVE:
        assert seen["POST /v1/transactions", 201] >= EXAMPLES // 2
        assert {200, 201, 404} <= {status for _, status in seen}
    else:
        assert seen["POST /v1/transactions", 422] >= EXAMPLES // 2
        assert not any(status < 300 and label in EXACT for label, status in seen), seen
    assert "Traceback" not in api.log.read_text()
    assert '"level":"error"' not in api.log.read_text()
