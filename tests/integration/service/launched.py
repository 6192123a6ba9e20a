"""A real process of the service, started and watched by a test."""

import asyncio
import os
import secrets
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import httpx
import orjson

from tests.integration.service.harness import eventually
from tests.ports import free_port

REPOSITORY = Path(__file__).parents[3]
PORTS = {"service.app": "APP_PORT", "service.worker": "WORKER_PORT", "service.scheduler": "SCHEDULER_PORT"}


class Process:
    """A process of the service, its port and its log."""

    def __init__(self, module: str, folder: Path, *, port: int | None = None) -> None:
        port = port or free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.log = folder / f"{module}-{port}-{secrets.token_hex(4)}.log"
        name = PORTS[module]
        with self.log.open("wb") as output:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", module],
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env=os.environ | {name: str(port), "PYTHONPATH": str(REPOSITORY)},
            )

    async def up(self, within: float = 60) -> None:
        async with httpx.AsyncClient() as http:

            async def ready() -> bool:
                assert self.popen.poll() is None, self.log.read_text()
                with suppress(httpx.TransportError):
                    return (await http.get(f"{self.url}/health/ready")).status_code == 200
                return False

            await eventually(ready, within=within, every=0.05)

    async def ended(self, within: float = 20) -> int:
        return await asyncio.to_thread(self.popen.wait, within)

    def events(self) -> list[str]:
        lines = self.log.read_bytes().splitlines()
        return [orjson.loads(line)["event"] for line in lines if line.startswith(b"{")]

    def end(self) -> None:
        """Kill it if it still runs."""
        if self.popen.poll() is None:
            self.popen.kill()
            self.popen.wait()
