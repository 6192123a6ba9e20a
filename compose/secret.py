"""Generated secrets: one file each, mode 600, made once and never overwritten."""

import os
import secrets
from pathlib import Path

NAMES = ("postgres", "redis", "rabbitmq", "files", "grafana", "s3")


def secret(folder: Path, name: str) -> str:
    """The secret of that name, generated on first use (43 characters of the URL-safe alphabet)."""
    file = folder / f"{name}-password"
    draft = folder / f".{name}.{os.getpid()}"
    if not file.exists():
        with os.fdopen(
            os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii"
        ) as out:
            out.write(secrets.token_urlsafe(32))
        # A link fails where the file is there already, so that of two runners one wins whole.
        try:
            os.link(draft, file)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return file.read_text("ascii").strip()


def values(folder: Path) -> dict[str, str]:
    """Every secret as the templates name it: `postgres_password` and so on."""
    return {f"{name}_password": secret(folder, name) for name in NAMES}
