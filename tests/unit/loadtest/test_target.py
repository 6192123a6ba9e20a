import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from loadtest import generator, machine, recorder, server, target
from loadtest.errors import UsageError
from loadtest.scenarios import checks
from loadtest.scenarios.frame import read_frame


class Prometheus(BaseHTTPRequestHandler):
    """Answers range queries: with data for requests, none for jobs, or the fault that the path asks for."""

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path.startswith("/broken"):
            self.reply(400, {"status": "error", "error": "parse error"})
            return
        query = {key: value[0] for key, value in parse_qs(url.query).items()}
        values = [[float(query["start"]), "0.5"], [float(query["end"]), "NaN"]]
        series = [] if "yardstick_jobs" in query["query"] else [{"metric": {}, "values": values}]
        self.reply(200, {"status": "success", "data": {"resultType": "matrix", "result": series}})

    def reply(self, status: int, body: Any) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def prometheus() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Prometheus) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_the_servers_side_comes_in_seconds_of_the_load_and_says_what_is_missing(prometheus: str) -> None:
    view = server.ask(prometheus, 1000.0, 1060.0)
    assert [(one.key, one.points) for one in view.series] == [
        ("rate", ((0.0, 0.5),)),
        ("p99", ((0.0, 500.0),)),
    ]
    assert len(view.missing) == 1
    assert "jobs wait" in view.missing[0]


def test_a_prometheus_that_is_absent_or_refuses_is_said_and_not_raised(prometheus: str) -> None:
    assert "no Prometheus was given" in server.ask(None, 0, 1).missing[0]
    assert "400 parse error" in server.ask(f"{prometheus}/broken", 0, 1).missing[0]
    assert "did not answer" in server.ask("http://127.0.0.1:1", 0, 1).missing[0]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:8000",
        "ftp://x",
        "http://",
        "http://x:99999",
        "http://x/?a=1",
        "http://x/#a",
        "http://[x",
    ],
)
def test_what_is_no_address_to_load_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="--target"):
        target.parse(url)


def test_credentials_stay_out_of_the_report() -> None:
    with pytest.raises(UsageError, match="no credentials") as caught:
        target.parse("http://me:hunter2@x")
    assert "hunter2" not in str(caught.value)
    assert target.parse("https://x.example/base/") == "https://x.example/base"


def test_the_running_stack_gives_the_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YARDSTICK_STATE", str(tmp_path))
    with pytest.raises(UsageError, match="no stack is running"):
        target.running_stack()
    (tmp_path / "endpoints.json").write_text('{"worker": "http://w"}')
    with pytest.raises(UsageError, match="names no api"):
        target.running_stack()
    (tmp_path / "endpoints.json").write_text('{"api": "http://a", "tempo": "http://t", "redis": "redis://r"}')
    assert target.chosen(None, "http://p/", None, None, stack=True) == target.Stack(
        "http://a", "http://p", "http://t"
    )


@pytest.mark.parametrize(("api", "stack"), [(None, False), ("http://x", True)])
def test_there_is_one_target(api: str | None, stack: bool) -> None:
    with pytest.raises(UsageError, match="what to load"):
        target.chosen(api, None, None, None, stack=stack)


def test_nothing_on_a_port_is_unreachable() -> None:
    assert "nothing answers at http://127.0.0.1:1" in target.unreachable("http://127.0.0.1:1")


def test_the_environment_names_machine_and_commit() -> None:
    known = machine.describe("http://127.0.0.1:8000")
    assert all(known.values())
    assert known["target"].startswith("on the generator's own machine")
    assert not machine.is_local("http://192.0.2.1")


FRAME = {"statusCode": 200, "message": "", "data": {"id": "a"}, "meta": {}}


@pytest.mark.parametrize(
    ("status", "body", "fault"),
    [
        (200, FRAME, ""),
        (201, FRAME, "answered 201, expected 200"),
        (503, {**FRAME, "error": {"code": "overloaded"}}, "answered 503 overloaded, expected 200"),
        (200, {**FRAME, "statusCode": 500}, "statusCode in the body is 500, in the head 200"),
        (200, {"statusCode": 200, "message": ""}, "the frame has no data, meta"),
        (200, [FRAME], "answered 200 with a body that is not a JSON object"),
    ],
)
def test_an_answer_is_right_only_as_the_contract_has_it(status: int, body: Any, fault: str) -> None:
    assert read_frame(status, json.dumps(body).encode(), 200) == ({} if fault else body, fault)


def test_a_body_that_is_no_json_is_a_fault() -> None:
    assert read_frame(200, b"<html>", 200)[1].endswith("not a JSON object")
    assert read_frame(200, None, 200)[1].endswith("not a JSON object")


def test_the_content_must_be_what_was_sent() -> None:
    sent = {"amount": "12.50", "currency": "EUR"}
    assert checks.mismatch({"id": "x", "amount": "12.5", "currency": "EUR"}, sent) == ""
    assert "amount, currency" in checks.mismatch({"id": "x", "amount": "12.51"}, sent)
    assert "amount" in checks.mismatch({"id": "x", "amount": None, "currency": "EUR"}, sent)
    assert checks.mismatch([], sent) == "data is not a transaction with an id"
    assert checks.not_a_page([{"id": "x"}]) == ""
    assert checks.not_a_page([{"id": 7}]) == "an item of the list has no id"
    assert checks.not_a_page({}) == "data is not a list"


def test_traces_are_read_from_traceresponse_and_nothing_else() -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    good = SimpleNamespace(headers={"traceresponse": f"00-{trace}-b7ad6b7169203331-01"})
    assert recorder.trace_of(good) == trace
    for headers in ({}, None, {"traceresponse": "00-zz-b7ad6b7169203331-01"}, {"traceresponse": trace}):
        assert recorder.trace_of(SimpleNamespace(headers=headers)) == ""
    assert recorder.trace_of(None) == ""


def test_faults_are_said_without_what_makes_each_another() -> None:
    assert recorder.said(None) == ""
    assert recorder.said(ValueError()) == "ValueError"
    said = recorder.said(OSError("GET http://x/1/abc\nfailed at 0x7f3a9c00ffee"))
    assert said == "GET … failed at …"


def test_cpu_is_counted_between_start_and_end_only() -> None:
    readings = [(0.0, 0.0), (10.0, 5.0), (11.0, 5.1), (12.0, 5.5), (20.0, 13.0)]
    mean, peak = generator.cpu_share(readings, 10.0, 12.5)
    assert mean == pytest.approx(0.25)
    assert peak == pytest.approx(0.4)
    assert generator.cpu_share(readings, 0.5, 10.5) == (None, None)


def test_settings_for_another_locust_do_not_reach_the_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCUST_USERS", "10000")
    assert not [key for key in generator.environment(Path("plan.json")) if key.startswith("LOCUST")]


def test_the_parent_is_not_patched_by_gevent() -> None:
    code = "import sys, loadtest.cli; sys.exit('gevent' in sys.modules or 'locust' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=generator.PROJECT, check=False).returncode == 0
