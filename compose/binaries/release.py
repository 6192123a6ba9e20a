"""Installing the pinned official release of a program."""

from __future__ import annotations

import os
from pathlib import Path

from compose.binaries import archive, download, places
from compose.binaries.errors import SourceError
from compose.binaries.places import Report
from compose.binaries.table import Entry, this_platform


def install(entry: Entry, report: Report) -> None:
    """Bring the release's programs into the cache; what is verified is the archive, before it is opened.

    Raises:
        SourceError: if this platform has no release, or it cannot be had, checked or installed.
    """
    release = entry.release
    on = this_platform()
    if on not in release.platforms:
        raise SourceError(f"version {entry.version} is not published for {on}")
    base = os.environ.get("YARDSTICK_RELEASE_BASE", "").rstrip("/") or release.base
    url = base + release.fill(release.path, entry.version, on)
    name = url.rpartition("/")[2]
    sha256 = release.sha256.get(on)
    if sha256 is None:
        report(f"{entry.name}: asking for the publisher's checksums")
        sha256 = download.published_sha256(base + release.fill(release.checksums, entry.version, on), name)
    report(f"{entry.name}: downloading {url}")
    # The version is in the name: some archives have none in theirs, and parts do not mix.
    part = places.downloads() / f"{entry.group}-{entry.version}-{name}.part"
    file = download.fetch(url, sha256, part, report)
    # The suffix tells how to open it.
    packed = file.rename(file.with_suffix(""))
    try:
        report(f"{entry.name}: unpacking {name}")
        if release.tree:
            archive.install_tree(packed, release.members[entry.name], tree(entry))
        else:
            members = {each: release.fill(path, entry.version, on) for each, path in release.members.items()}
            archive.install_files(packed, members, places.binaries())
    finally:
        packed.unlink(missing_ok=True)


def tree(entry: Entry) -> Path:
    """Where a program that needs its whole archive is installed."""
    return places.cache() / f"{entry.name}-{entry.version}"


def installed(entry: Entry) -> Path:
    """Where the cache has the program, or would have it."""
    if entry.release.tree:
        return tree(entry) / entry.release.members[entry.name]
    return places.binaries() / entry.name
