"""Customers of the transactions API: they look through the list, and they pay and wait for settlement."""

import random
import time
import uuid
from typing import Any
from urllib.parse import urlencode

import gevent
from locust import task
from pydantic import BaseModel, ConfigDict, Field

from loadtest.scenarios.api import Answer, ApiUser
from loadtest.scenarios.checks import mismatch, not_a_page

COLLECTION = "/v1/transactions"
ITEM = "/v1/transactions/{id}"
OPEN = "pending"
DONE = "settled"
LOST = frozenset({"failed", "rejected", "cancelled"})


class Parameters(BaseModel):
    """What a scenario file may set under `parameters`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    page_size: int = Field(default=20, ge=1, le=100)
    settle_deadline_seconds: float = Field(default=35, gt=0)
    first_poll_seconds: float = Field(default=0.1, gt=0)
    longest_poll_seconds: float = Field(default=1.0, gt=0)


class SettlementError(Exception):
    """A transaction did not settle."""


class Customer(ApiUser):
    """Browses and pays in the proportion that the scenario's mix gives."""

    def on_start(self) -> None:
        self.parameters = Parameters.model_validate(self.plan.parameters)

    @task
    def browse(self) -> None:
        """The newest page, one transaction of it, and the next page by its cursor."""
        page = self._page(None)
        if page is None or not page.data:
            return
        wanted = random.choice(page.data)["id"]  # noqa: S311
        self._transaction(wanted)
        cursor = (page.meta.get("page") or {}).get("nextCursor")
        if cursor:
            self._page(cursor)

    @task
    def pay(self) -> None:
        """Create a transaction, then ask for it until it is settled; the time until then is a sample."""
        body = {
            "amount": f"{random.randint(100, 50_000) / 100:.2f}",  # noqa: S311
            "currency": random.choice(("EUR", "GBP", "USD")),  # noqa: S311
            "reference": f"loadtest-{self.plan.run_id}-{uuid.uuid4().hex[:12]}",
        }
        sent, clock = time.time(), time.perf_counter()
        created = self.call(
            "POST",
            COLLECTION,
            route=COLLECTION,
            expected=201,
            body=body,
            check=lambda data: mismatch(data, body),
        )
        if created is None:
            return
        failure: SettlementError | None = None
        try:
            self._wait_until_settled(created.data["id"], clock + self.parameters.settle_deadline_seconds)
        except SettlementError as error:
            failure = error
        self.environment.events.request.fire(
            request_type="JOB",
            name="settle transaction",
            response_time=(time.perf_counter() - clock) * 1000,
            response_length=0,
            response=None,
            context={"trace_id": created.trace_id},
            exception=failure,
            start_time=sent,
        )

    def _wait_until_settled(self, transaction_id: str, deadline: float) -> None:
        pause = self.parameters.first_poll_seconds
        status = OPEN
        while status != DONE:
            if time.perf_counter() + pause > deadline:
                raise SettlementError(f"still {status} after {self.parameters.settle_deadline_seconds:g} s")
            gevent.sleep(pause)
            pause = min(pause * 1.5, self.parameters.longest_poll_seconds)
            answer = self._transaction(transaction_id)
            status = answer.data.get("status", status) if answer else status
            if status in LOST:
                raise SettlementError(f"ended as {status}")

    def _page(self, cursor: str | None) -> Answer | None:
        query: dict[str, Any] = {"limit": self.parameters.page_size, "sort": "-createdAt"}
        if cursor:
            query["cursor"] = cursor
        return self.call("GET", f"{COLLECTION}?{urlencode(query)}", route=COLLECTION, check=not_a_page)

    def _transaction(self, transaction_id: str) -> Answer | None:
        return self.call(
            "GET",
            f"{COLLECTION}/{transaction_id}",
            route=ITEM,
            check=lambda data: mismatch(data, {"id": transaction_id}),
        )
