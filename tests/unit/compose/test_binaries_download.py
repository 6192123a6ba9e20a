"""Releases from a real server on the loopback address: what arrives, what breaks, and what is left behind."""

import dataclasses
import gzip
import hashlib
import io
import os
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from compose.binaries import PROGRAMS, ProgramUnavailable, download, obtain
from compose.binaries.table import this_platform

ROOT = Path(__file__).parents[3]
PLATFORM = this_platform()
SYSTEM, _, ARCH = PLATFORM.partition("-")
LOKI = f"/grafana/loki/releases/download/v{PROGRAMS['loki'].version}/loki-{PLATFORM}.zip"
LOKI_SUMS = LOKI.rpartition("/")[0] + "/SHA256SUMS"
PROGRAM = b"#!/bin/sh\necho 'loki, version 3.7.6'\n"

pytestmark = pytest.mark.skipif(
    PLATFORM not in PROGRAMS["loki"].release.platforms, reason=f"no release for {PLATFORM}"
)


@dataclass
class Site:
    """What the server holds, and how it misbehaves."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)  # the next answers end after so many bytes
    slow: float = 0.0  # seconds before each 64 KB
    asked: list[tuple[str, str]] = field(default_factory=list)  # path and Range of every request

    def asked_for(self, path: str) -> list[str]:
        return [wanted for each, wanted in self.asked if each == path]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A server of releases; everything but it is out of reach, and the cache is empty."""
    held = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range", "")
            held.asked.append((self.path, wanted))
            body = held.files.get(self.path)
            if body is None:
                self.send_error(404)
                return
            start = int(wanted.removeprefix("bytes=").rstrip("-") or 0)
            if start and start >= len(body):
                self.send_error(416)
                return
            self.send_response(206 if wanted else 200)
            self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            end = held.cuts.pop(0) if held.cuts and len(body) > 1000 else len(body)
            for at in range(start, end, 1 << 16):
                time.sleep(held.slow)
                self.wfile.write(body[at : min(at + (1 << 16), end)])

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    held.url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("YARDSTICK_RELEASE_BASE", held.url)
    monkeypatch.setenv("YARDSTICK_NO_GO", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr(download, "_unreachable", {})
    yield held
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "yardstick"


def packed(members: dict[str, bytes], padding: int = 400_000) -> bytes:
    """A zip with the members, and noise so that it is long enough to cut."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for name, body in {**members, "noise": os.urandom(padding)}.items():
            file.writestr(name, body)
    return out.getvalue()


def tarred(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as file:
        for name, body in members.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(body), 0o755
            file.addfile(entry, io.BytesIO(body))
    return out.getvalue()


def publish_loki(site: Site, body: bytes | None = None) -> bytes:
    body = packed({f"loki-{PLATFORM}": PROGRAM}) if body is None else body
    site.files[LOKI] = body
    sums = f"{'0' * 64}  logcli-{PLATFORM}.zip\n{hashlib.sha256(body).hexdigest()}  loki-{PLATFORM}.zip\n"
    site.files[LOKI_SUMS] = sums.encode()
    return body


def pin(monkeypatch: pytest.MonkeyPatch, name: str, body: bytes) -> None:
    """Let the table pin the hash of `body`."""
    entry = PROGRAMS[name]
    hashes = {PLATFORM: hashlib.sha256(body).hexdigest()}
    release = dataclasses.replace(entry.release, sha256=hashes)
    monkeypatch.setitem(PROGRAMS, name, dataclasses.replace(entry, release=release))


def refused(name: str) -> str:
    """The reason why the release could not be had."""
    with pytest.raises(ProgramUnavailable) as caught:
        obtain(name)
    assert [reason.partition(":")[0] for reason in caught.value.reasons] == [
        "PATH",
        "cache",
        "release",
        "go build",
    ]
    assert str(caught.value).startswith(f"{name} cannot be had:\n  - PATH: ")
    return caught.value.reasons[2]


def left(cache: Path) -> list[str]:
    """Files below the cache but locks."""
    files = (path.relative_to(cache) for path in cache.rglob("*") if path.is_file())
    return sorted(str(file) for file in files if file.parts[0] != "lock")


def test_a_release_is_checked_against_the_publishers_file_and_installed(site: Site, cache: Path) -> None:
    publish_loki(site)
    said: list[str] = []
    found = obtain("loki", report=said.append)
    assert (found.path, found.version, found.source) == (cache / "bin" / "loki", "3.7.6", "release")
    assert left(cache) == ["bin/loki"]
    assert any("downloading" in line for line in said)
    assert obtain("loki").source == "cache"
    assert len(site.asked_for(LOKI)) == 1


def test_siblings_of_one_archive_come_with_one_download(
    site: Site, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = f"alertmanager-{PROGRAMS['alertmanager'].version}.{PLATFORM}"
    body = tarred(
        {f"{top}/{name}": b"#!/bin/sh\necho version 0.34.1\n" for name in ("alertmanager", "amtool")}
    )
    path = f"/prometheus/alertmanager/releases/download/v0.34.1/{top}.tar.gz"
    site.files[path] = body
    pin(monkeypatch, "alertmanager", body)
    assert obtain("alertmanager").source == "release"
    assert obtain("amtool").source == "cache"
    assert [each for each, _ in site.asked] == [path]  # a pinned hash asks for no checksum file
    assert left(cache) == ["bin/alertmanager", "bin/amtool"]


def test_a_cut_off_answer_is_resumed_where_it_ended(site: Site, cache: Path) -> None:
    publish_loki(site)
    site.cuts = [100_000, 250_000]
    assert obtain("loki").source == "release"
    assert site.asked_for(LOKI) == ["", "bytes=100000-", "bytes=250000-"]
    assert left(cache) == ["bin/loki"]


def test_a_download_cut_off_for_good_keeps_its_part_for_the_next_run(site: Site, cache: Path) -> None:
    publish_loki(site)
    site.cuts = [100_000, 100_000, 100_000]
    reason = refused("loki")
    assert "cut off 3 times" in reason
    assert "0.1 MB are kept" in reason
    assert left(cache) == [f"download/loki-3.7.6-loki-{PLATFORM}.zip.part"]
    site.asked.clear()
    assert obtain("loki").source == "release"
    assert site.asked_for(LOKI) == ["bytes=100000-"]


def test_a_killed_run_is_resumed(site: Site, cache: Path) -> None:
    publish_loki(site)
    site.slow = 0.2
    command = [sys.executable, "-m", "compose.binaries", "fetch", "loki"]
    running = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    part = cache / "download" / f"loki-3.7.6-loki-{PLATFORM}.zip.part"
    until = time.monotonic() + 20
    while not (part.exists() and part.stat().st_size) and time.monotonic() < until:
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert left(cache) == [f"download/{part.name}"]
    site.slow = 0.0
    assert obtain("loki").source == "release"
    assert site.asked_for(LOKI)[-1].startswith("bytes=")


def test_a_complete_part_needs_no_second_download(site: Site, cache: Path) -> None:
    body = publish_loki(site)
    part = cache / "download" / f"loki-3.7.6-loki-{PLATFORM}.zip.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(body)
    assert obtain("loki").source == "release"


def test_a_part_of_another_file_is_thrown_away(site: Site, cache: Path) -> None:
    publish_loki(site)
    part = cache / "download" / f"loki-3.7.6-loki-{PLATFORM}.zip.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * 5000)
    assert obtain("loki").source == "release"
    assert site.asked_for(LOKI) == ["bytes=5000-", ""]


def test_a_wrong_checksum_installs_nothing(site: Site, cache: Path) -> None:
    body = publish_loki(site)
    site.files[LOKI] = body[:-1] + b"!"
    reason = refused("loki")
    assert "is not the file that was published" in reason
    assert "try again" in reason
    assert left(cache) == []


def test_a_wrong_checksum_against_a_pin_installs_nothing(
    site: Site, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_loki(site)
    pin(monkeypatch, "loki", b"something else")
    assert "is not the file that was published" in refused("loki")
    assert left(cache) == []


def test_a_missing_archive_is_said_with_its_address(site: Site, cache: Path) -> None:
    publish_loki(site)
    del site.files[LOKI]
    assert f"{site.url}{LOKI} is not there (404)" in refused("loki")
    assert left(cache) == []


def test_a_checksum_file_without_the_archive_stops_before_the_download(site: Site, cache: Path) -> None:
    publish_loki(site)
    site.files[LOKI_SUMS] = b"0000  something-else.zip\n"
    assert "does not name" in refused("loki")
    assert site.asked_for(LOKI) == []
    assert left(cache) == []


def test_an_unreachable_host_fails_within_seconds_and_is_asked_once(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        gone = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("YARDSTICK_RELEASE_BASE", gone)
    began = time.monotonic()
    assert f"cannot reach {gone}" in refused("loki")
    assert f"cannot reach {gone}" in refused("tempo" if SYSTEM == "linux" else "otelcol")
    assert time.monotonic() - began < 5
    assert site.asked == []


def test_an_archive_without_the_program_installs_nothing(site: Site, cache: Path) -> None:
    publish_loki(site, packed({"LICENSE": b"text"}))
    assert f"holds no loki-{PLATFORM}" in refused("loki")
    assert left(cache) == []


@pytest.mark.parametrize("name", ["../../escaped", "/tmp/yardstick-escaped", "bin/../../../escaped"])  # noqa: S108
def test_an_archive_that_names_a_place_outside_is_refused(site: Site, cache: Path, name: str) -> None:
    publish_loki(site, packed({f"loki-{PLATFORM}": PROGRAM, name: b"evil"}))
    assert "outside its own folder" in refused("loki")
    assert left(cache) == []
    assert not list(cache.parent.rglob("*escaped*"))


@pytest.mark.parametrize("body", [b"", b"PK not a zip", b"<html>sign in to this network</html>" * 50])
def test_something_that_is_no_archive_installs_nothing(site: Site, cache: Path, body: bytes) -> None:
    publish_loki(site, body)
    assert "is no readable archive" in refused("loki")
    assert left(cache) == []


@pytest.mark.parametrize("keep", [200, 15])
def test_a_broken_tar_installs_nothing(
    site: Site, cache: Path, monkeypatch: pytest.MonkeyPatch, keep: int
) -> None:
    top = f"alertmanager-0.34.1.{PLATFORM}"
    body = gzip.compress(os.urandom(4000))[:keep]
    site.files[f"/prometheus/alertmanager/releases/download/v0.34.1/{top}.tar.gz"] = body
    pin(monkeypatch, "alertmanager", body)
    assert "is no readable archive" in refused("alertmanager")
    assert left(cache) == []


def test_a_program_of_another_version_than_the_release_promises_is_refused(site: Site) -> None:
    publish_loki(site, packed({f"loki-{PLATFORM}": b"#!/bin/sh\necho loki, version 2.0.0\n"}))
    assert "2.0.0, older than 3.7.2" in refused("loki")


def grafana(site: Site, monkeypatch: pytest.MonkeyPatch, members: dict[str, bytes]) -> None:
    body = tarred(members)
    entry = PROGRAMS["grafana"]
    site.files[entry.release.fill(entry.release.path, entry.version, PLATFORM)] = body
    pin(monkeypatch, "grafana", body)


def test_grafana_is_installed_as_a_tree(site: Site, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = b"#!/bin/sh\necho grafana version 13.2.2\n"
    grafana(site, monkeypatch, {"grafana-13.2.2/bin/grafana": program, "grafana-13.2.2/public/x.js": b"1"})
    found = obtain("grafana")
    assert (found.path, found.source) == (cache / "grafana-13.2.2" / "bin" / "grafana", "release")
    assert left(cache) == ["grafana-13.2.2/bin/grafana", "grafana-13.2.2/public/x.js"]


@pytest.mark.parametrize(
    ("members", "complaint"),
    [
        ({"grafana-13.2.2/bin/grafana": b"", "../escaped": b""}, "outside its own folder"),
        ({"grafana-13.2.2/README": b""}, "holds no bin/grafana"),
        ({"a/bin/grafana": b"", "b/bin/grafana": b""}, "holds no bin/grafana"),
    ],
)
def test_a_tree_that_is_wrong_installs_nothing(
    site: Site, cache: Path, monkeypatch: pytest.MonkeyPatch, members: dict[str, bytes], complaint: str
) -> None:
    grafana(site, monkeypatch, members)
    assert complaint in refused("grafana")
    assert left(cache) == []


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
from compose.binaries import obtain
try:
    obtain("loki")
except Exception as error:
    sys.stdout.write(str(error))
"""


@pytest.mark.parametrize("padding", [400_000, 0])
def test_a_file_that_grows_past_what_may_be_written(site: Site, cache: Path, padding: int) -> None:
    """With padding the download is too large; without, the program that comes out of it is."""
    zeros = PROGRAM + b"#" + bytes(300_000)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(f"loki-{PLATFORM}", zeros)
        file.writestr("noise", os.urandom(padding))
    publish_loki(site, out.getvalue())
    run = [sys.executable, "-c", LIMITED]
    said = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert ("no room for" if padding else "cannot install into") in said
    assert "nothing was installed" in said
    assert left(cache) == []


def test_a_full_disk(site: Site, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish_loki(site)
    disk = tmp_path / "cache"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root may mount a small file system")
    try:
        reason = refused("loki")
        assert "no room for" in reason
        assert "No space left on device" in reason
        assert "XDG_CACHE_HOME" in reason
        assert left(cache) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_cache_that_cannot_be_written_is_said(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_loki(site)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(ProgramUnavailable, match=r"cannot be written .*; set XDG_CACHE_HOME"):
        obtain("loki")


def test_two_callers_share_one_download(site: Site, cache: Path) -> None:
    publish_loki(site)
    site.slow = 0.1
    command = [sys.executable, "-m", "compose.binaries", "fetch", "loki"]
    callers = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = sorted(caller.communicate(timeout=60)[0].splitlines()[-1] for caller in callers)
    assert [caller.returncode for caller in callers] == [0, 0]
    assert "from cache" in said[0]
    assert "from release" in said[1]
    assert len(site.asked_for(LOKI)) == 1
    assert left(cache) == ["bin/loki"]


def test_offline_asks_nobody(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    publish_loki(site)
    monkeypatch.setenv("YARDSTICK_OFFLINE", "1")
    with pytest.raises(ProgramUnavailable, match="not tried, YARDSTICK_OFFLINE is set"):
        obtain("loki")
    assert site.asked == []
