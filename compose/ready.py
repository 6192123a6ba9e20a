"""Whether a component serves: its own check, not the mere existence of its process."""

import http.client
import socket
import subprocess
from pathlib import Path

from compose.configure import Setting
from compose.model import Amqp, Command, Component, Finished, Http, Redis
from compose.ports import HOST

SECONDS = 2.0


def is_ready(component: Component, program: Path, setting: Setting) -> bool:
    """Run the component's ready check once, in at most a few seconds; a one-shot is never asked."""
    ports = setting.ports[component.name]
    match component.ready:
        case Http(port, path):
            return _http(ports[port], path)
        case Redis(port):
            return _redis(ports[port], setting.secrets["redis_password"])
        case Amqp(port):
            return _amqp(ports[port])
        case Command(arguments):
            filled = [setting.fill(part, component.name, program=program) for part in arguments]
            return _command(filled)
        case Finished():
            return False


def _http(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=SECONDS)
    try:
        connection.request("GET", path, headers={"User-Agent": "yardstick-ready"})
        return 200 <= connection.getresponse().status < 300
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _redis(port: int, password: str) -> bool:
    try:
        with socket.create_connection((HOST, port), SECONDS) as connection:
            connection.sendall(f"AUTH {password}\r\nPING\r\n".encode())
            answer = b""
            while answer.count(b"\r\n") < 2:
                part = connection.recv(256)
                if not part:
                    return False
                answer += part
    except OSError:
        return False
    return answer == b"+OK\r\n+PONG\r\n"


def _amqp(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port), SECONDS) as connection:
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            # Connection.Start is a method frame on channel 0.
            return connection.recv(3) == b"\x01\x00\x00"
    except OSError:
        return False


def _command(arguments: list[str]) -> bool:
    try:
        done = subprocess.run(arguments, capture_output=True, timeout=SECONDS + 3, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
