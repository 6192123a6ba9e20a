"""An S3 server of the tests' own: versitygw over a folder, on loopback. It checks signatures and expiry."""

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from compose.binaries import locate
from tests.ports import free_port

ACCESS_KEY = "yardstick"
SECRET_KEY = "an-s3-secret-of-the-tests-0123456789"


@dataclass(frozen=True)
class S3Server:
    """Where it listens; every folder in `root` is a bucket."""

    url: str
    root: Path

    def bucket(self, name: str) -> str:
        (self.root / name).mkdir()
        return name

    def unfinished(self, bucket: str) -> list[Path]:
        """The parts of multipart uploads that were neither completed nor aborted."""
        return [path for path in (self.root / bucket / ".sgwtmp").rglob("*") if path.is_file()]

    def settings(self, bucket: str) -> dict[str, str]:
        """The variables of a service that keeps its files there."""
        return {
            "FILES_ENGINE": "s3",
            "FILES_S3_ENDPOINT": self.url,
            "FILES_S3_BUCKET": bucket,
            "FILES_S3_ACCESS_KEY": ACCESS_KEY,
            "FILES_S3_SECRET_KEY": SECRET_KEY,
        }


@contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    """The server, with its data and its log in `folder`. Raises ProgramUnavailable when there is none."""
    program = locate("versitygw")
    for name in ("buckets", "metadata"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    port = free_port()
    # Metadata beside the files: not every file system has extended attributes.
    arguments = ["--quiet", "--port", f"127.0.0.1:{port}", "posix", "--sidecar", str(folder / "metadata")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [program.path, *arguments, str(folder / "buckets")],
            env=os.environ | {"ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY},
            stdout=log,
            stderr=log,
        )
    try:
        _await(port, process, folder / "log")
        yield S3Server(f"http://127.0.0.1:{port}", folder / "buckets")
    finally:
        process.kill()
        process.wait()


def _await(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + 15
    while time.monotonic() < until and process.poll() is None:
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(f"versitygw does not listen: {log.read_text()}")
