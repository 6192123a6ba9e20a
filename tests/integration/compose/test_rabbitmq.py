"""RabbitMQ of the stack: private to it, guarded by its password, gone without a trace."""

import socket
from pathlib import Path

import aio_pika
import psutil
import pytest
from aio_pika.exceptions import AMQPConnectionError

from compose import processes
from compose.native import Stack
from tests.contract.queues.rabbitmq_broker import needs_rabbitmq


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AMQP_URL", raising=False)
    needs_rabbitmq()


async def test_it_is_private_survives_a_kill_and_leaves_nothing_behind(tmp_path: Path) -> None:
    folder = tmp_path / "two words"
    with Stack(folder, only=("rabbitmq",)) as stack:
        url = stack.endpoints()["rabbitmq"]
        async with await aio_pika.connect(url) as connection:
            channel = await connection.channel()
            await channel.declare_queue("kept", durable=True)
            message = aio_pika.Message(b"7", delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
            await channel.default_exchange.publish(message, "kept")
        for stranger in ("guest:guest", "yardstick:wrong"):
            with pytest.raises(AMQPConnectionError):
                await aio_pika.connect(f"amqp://{stranger}@{url.partition('@')[2]}", timeout=10)
        ours = {one.pid for one in processes.marked(folder.resolve())}
        listening = [c for c in psutil.net_connections("tcp") if c.status == "LISTEN" and c.pid in ours]
        assert len({c.laddr[1] for c in listening if c.laddr}) == 4
        assert {c.laddr[0] for c in listening if c.laddr} <= {"127.0.0.1", "::1"}

        stack.kill("rabbitmq")
        stack.start("rabbitmq")
        async with await aio_pika.connect(url) as connection:
            channel = await connection.channel()
            queue = await channel.declare_queue("kept", durable=True)
            kept = await queue.get()
            assert kept.body == b"7"
        password = url.partition("yardstick:")[2].partition("@")[0]
        logs = "".join(file.read_text("utf-8") for file in (folder / "logs").glob("*.log"))
        assert password not in logs

    assert processes.marked(folder.resolve()) == []
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", _port(url)), 2):
        pass


def _port(url: str) -> int:
    return int(url.rpartition(":")[2].partition("/")[0])
