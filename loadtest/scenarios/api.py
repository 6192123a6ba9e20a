"""A user of an API that answers in the service's frame: every answer is checked, not only its status."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from locust import FastHttpUser

from loadtest.plan import Plan
from loadtest.recorder import trace_of
from loadtest.scenarios.frame import read_frame


@dataclass(frozen=True)
class Answer:
    """A checked answer: `data` as the journey's check accepted it, and the trace behind it."""

    data: Any
    meta: dict[str, Any]
    trace_id: str


class ApiUser(FastHttpUser):
    """Keeps its connection alive as a client library does, verifies TLS, and sends no trace context."""

    abstract = True
    insecure = False
    default_headers = {  # noqa: RUF012 - Locust's own attribute
        "User-Agent": "yardstick-loadtest",
        "Accept": "application/json",
    }
    plan: Plan  # set before the run

    def call(
        self,
        method: str,
        path: str,
        *,
        route: str,
        expected: int = 200,
        body: dict[str, Any] | None = None,
        check: Callable[[Any], str] = lambda _: "",
    ) -> Answer | None:
        """Send one request, recorded under its route's template.

        `check` gets `data` and returns what is wrong with it, or an empty string.
        None when the request failed; the failure is then in the samples.
        """
        with self.client.request(method, path, name=route, json=body, catch_response=True) as response:
            if response.status_code == 0:
                return None  # nothing answered: Locust has the reason
            frame, fault = read_frame(response.status_code, response.content, expected)
            fault = fault or check(frame["data"])
            if fault:
                response.failure(fault)
                return None
            response.success()
            meta = frame["meta"] if isinstance(frame["meta"], dict) else {}
            return Answer(frame["data"], meta, trace_of(response))
