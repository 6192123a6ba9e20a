"""Secrets from files: `DATABASE_URL_FILE=/run/secrets/database-url` in place of `DATABASE_URL`.

A variable is seen by every child process and by whoever may inspect the container; a file is not. Only
secrets can be given so, and a fault never repeats what stands in the file.
"""

import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import get_args

from pydantic import SecretStr

from service.settings.groups import Group

SUFFIX = "_FILE"
_LARGEST = 65_536


class SecretFileError(Exception):
    """A file that cannot be used; the text names the variable, what is wrong and what to do."""


def secret_fields(group: type[Group]) -> dict[str, str]:
    """The variable that names a file, by the field that takes what is in it."""
    return {
        field: f"{group.variable(field)}{SUFFIX}"
        for field, info in group.model_fields.items()
        if info.annotation is SecretStr or SecretStr in get_args(info.annotation)
    }


def from_files(
    group: type[Group], sources: Iterable[Mapping[str, str | None]]
) -> tuple[dict[str, SecretStr], list[str]]:
    """The group's secrets that are given as files.

    Args:
        sources: names and values, the one that wins last: a variable of a later source, in either form,
            takes the place of both forms in an earlier one.

    Returns:
        The secrets by field, and a line for each fault.
    """
    found: dict[str, SecretStr] = {}
    faults = []
    layers = [{name.upper(): value for name, value in source.items()} for source in sources]
    for field, variable in secret_fields(group).items():
        plain = group.variable(field)
        layer = next((one for one in reversed(layers) if one.get(variable) or plain in one), {})
        named = layer.get(variable)
        if not named:
            continue
        if plain in layer:
            faults.append(f"{variable}: {plain} is set too; keep one of them")
            continue
        try:
            found[field] = SecretStr(read_secret(Path(named)))
        except SecretFileError as error:
            faults.append(f"{variable}: {error}; example: {variable}=/run/secrets/{_file_name(plain)}")
    return found, faults


def read_secret(file: Path) -> str:
    """What stands in a file, without the line's end.

    Raises:
        SecretFileError: if it is not there, is no file, is empty, more than a line, or open to everybody.
    """
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise SecretFileError(f"{file} is not there") from None
    except OSError as error:
        raise SecretFileError(f"{file} cannot be read ({error.strerror})") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise SecretFileError(f"{file} is not a file")
        if status.st_mode & (stat.S_IROTH | stat.S_IWOTH):
            mode = stat.S_IMODE(status.st_mode)
            raise SecretFileError(f"{file} is open to every user (mode {mode:o}); chmod 600 closes it")
        content = os.read(descriptor, _LARGEST + 1)
    finally:
        os.close(descriptor)
    if len(content) > _LARGEST:
        raise SecretFileError(f"{file} is larger than {_LARGEST} bytes")
    try:
        text = content.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise SecretFileError(f"{file} is not UTF-8 text") from None
    if not text.strip():
        raise SecretFileError(f"{file} is empty")
    if "\n" in text or "\0" in text:
        raise SecretFileError(f"{file} has more than one line")
    return text


def _file_name(variable: str) -> str:
    return variable.lower().replace("_", "-")
