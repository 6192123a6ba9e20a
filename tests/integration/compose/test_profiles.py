"""What not every stack has: jobs in a file, files on S3, a mail sandbox; and the way out for its data.

The stack is one of its own; a backup goes through the command line, between containers and plain processes.
"""

import re
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from compose.docker import Containers, engine
from compose.effective import by_yaml
from compose.native import Stack
from tests.containers import containers, create, docker, eventually, named, settled
from tests.integration.compose.backups import command, finished

pytestmark = pytest.mark.timeout(900)

CHOSEN = {"QUEUE_ENGINE": "file", "FILES_ENGINE": "s3", "APP_ENV": "development"}
MAIL = by_yaml()["services"]["mail"]["image"]
NATIVE = ("postgres", "redis", "migrate", "api", "worker")
SEND = """
import smtplib, sys
with smtplib.SMTP("mail", 1025, timeout=10) as server:
    server.sendmail("yardstick@example.com", ["you@example.com"], sys.argv[1])
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containers]:
    there = engine() and not docker("image", "inspect", MAIL).returncode
    with containers(
        tmp_path_factory.mktemp("profiles"), **CHOSEN, COMPOSE_PROFILES="mail" if there else ""
    ) as one:
        yield one


def test_workers_share_a_queue_that_is_a_file(stack: Containers) -> None:
    assert stack.up(["--scale=worker=3"]) == 0
    api = stack.endpoints()["api"]
    made = [create(api, f"file {number}") for number in range(60)]
    assert eventually(lambda: all(settled(api, one) for one in made))
    done = "sum by (instance) (yardstick_jobs_done_total) > 0"
    query = stack.endpoints()["prometheus"] + "/api/v1/query"

    def workers() -> int:
        return len(httpx.get(query, params={"query": done}, timeout=10).json()["data"]["result"])

    assert eventually(lambda: workers() == 3), "each of the three took some"
    file = docker("exec", named(stack, "worker").name, "test", "-s", "/var/lib/yardstick/queue/queue.db")
    assert file.returncode == 0, "the jobs went another way"
    assert stack.up(["--scale=worker=1"]) == 0


def test_a_signed_link_leads_to_s3_and_not_through_the_service(stack: Containers) -> None:
    api = stack.endpoints()["api"]
    kind = {"content-type": "text/plain"}
    made = httpx.post(f"{api}/v1/files/content?name=note.txt", content=b"hello", headers=kind, timeout=30)
    assert made.status_code == 201, made.text
    key = made.json()["data"]["key"]
    link = httpx.post(f"{api}/v1/files/signed-urls", json={"key": key}, timeout=30).json()["data"]["url"]
    assert urlsplit(link).netloc == urlsplit(stack.endpoints()["s3"]).netloc
    assert httpx.get(link, timeout=30).content == b"hello"
    assert httpx.get(link.replace("note", "other"), timeout=30).status_code in (403, 404)


def test_mail_ends_in_the_sandbox(stack: Containers) -> None:
    if not stack.ids("mail"):
        pytest.skip(f"{MAIL} is not on this machine")
    message = EmailMessage()
    message["Subject"] = "A report"
    message["From"], message["To"] = "yardstick@example.com", "you@example.com"
    message.set_content("It is ready.")
    sent = docker("exec", named(stack, "worker").name, "python", "-c", SEND, message.as_string())
    assert sent.returncode == 0, sent.stderr
    messages = f"{stack.endpoints()['mail']}/api/v1/messages"
    found = httpx.get(messages, timeout=10).json()["messages"]
    assert [one["Subject"] for one in found] == ["A report"]


def test_a_backup_goes_from_containers_to_plain_processes_and_back(stack: Containers, tmp_path: Path) -> None:
    def compose(*arguments: str, on: Containers | Stack) -> str:
        code, said = finished(command(on, *arguments), within=600)
        assert code == 0, said
        return said

    def archive(of: Containers | Stack, folder: str) -> str:
        said = compose("backup", "--folder", str(tmp_path / folder), on=of)
        return str(re.findall(r"\S+\.zip", said)[-1])

    api = stack.endpoints()["api"]
    first = create(api, "in containers")
    assert eventually(lambda: settled(api, first))
    there = archive(stack, "from-containers")
    with pytest.MonkeyPatch.context() as plain:
        for name in (*CHOSEN, "COMPOSE_PROFILES"):
            plain.delenv(name)
        with Stack(tmp_path / "native", only=NATIVE) as processes:
            compose("restore", there, on=processes)
            theirs = processes.endpoints()["api"]
            assert settled(theirs, first)
            second = create(theirs, "in plain processes")
            assert eventually(lambda: settled(theirs, second))
            back = archive(processes, "from-processes")
    code, said = finished(command(stack, "restore", back))
    assert code == 1
    assert "holds data" in said
    compose("down", "--volumes", on=stack)
    compose("up", "--mode", "docker", on=stack)
    said = compose("restore", back, on=stack)
    assert "counts and hashes are those of the manifest" in said
    assert all(one.good for one in stack.status()), stack.status()
    api = stack.endpoints()["api"]
    assert settled(api, first)
    assert settled(api, second)
    third = create(api, "after the restore")
    assert eventually(lambda: settled(api, third))
