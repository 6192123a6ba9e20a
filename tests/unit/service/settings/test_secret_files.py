"""Secrets given as files: what is taken, what wins, and that a fault tells nothing of what is inside."""

from pathlib import Path

import pytest

from service.settings import SettingsError, load_migration_settings, load_settings

SECRET = "Zk3-hidden-Qm7pT9wXr2VbNc5Ld8Hs"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DATABASE_URL", "postgresql://yardstick@db/yardstick")
    monkeypatch.setenv("REDIS_URL", "redis://cache/0")
    secret(tmp_path / "password", SECRET)
    return tmp_path


def secret(file: Path, text: str, mode: int = 0o600) -> Path:
    file.write_text(text)
    file.chmod(mode)
    return file


def faults(folder: Path) -> list[str]:
    with pytest.raises(SettingsError) as raised:
        load_settings(folder)
    return raised.value.faults


def test_a_url_from_a_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL")
    url = f"postgresql://yardstick:{SECRET}@db/yardstick"
    monkeypatch.setenv("DATABASE_URL_FILE", str(secret(folder / "url", url + "\n")))
    assert load_settings(folder).database.url.get_secret_value() == url
    assert load_migration_settings(folder).url.get_secret_value() == url


@pytest.mark.parametrize(("password", "quoted"), [(SECRET, SECRET), ("p@ss/w:rd%", "p%40ss%2Fw%3Ard%25")])
def test_a_password_from_a_file_goes_into_the_url(
    folder: Path, monkeypatch: pytest.MonkeyPatch, password: str, quoted: str
) -> None:
    file = secret(folder / "password", password)
    monkeypatch.setenv("DATABASE_PASSWORD_FILE", str(file))
    monkeypatch.setenv("REDIS_PASSWORD_FILE", str(file))
    settings = load_settings(folder)
    assert settings.database.url.get_secret_value() == f"postgresql://yardstick:{quoted}@db/yardstick"
    assert settings.redis.url.get_secret_value() == f"redis://:{quoted}@cache/0"
    assert password not in repr(settings)


def test_two_passwords_are_one_too_many(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://:another@cache/0")
    monkeypatch.setenv("REDIS_PASSWORD_FILE", str(folder / "password"))
    [fault] = faults(folder)
    assert fault.startswith("REDIS_URL: has a password of its own")
    assert SECRET not in fault
    assert "another" not in fault


@pytest.mark.parametrize(
    ("text", "mode", "told"),
    [
        (None, 0o600, "is not there"),
        ("", 0o600, "is empty"),
        (" \n", 0o600, "is empty"),
        (SECRET, 0o604, "is open to every user (mode 604); chmod 600 closes it"),
        (SECRET, 0o602, "is open to every user"),
        (f"{SECRET}\n{SECRET}\n", 0o600, "has more than one line"),
        (SECRET * 3000, 0o600, "is larger than"),
    ],
)
def test_a_file_that_cannot_be_used(
    folder: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, mode: int, told: str
) -> None:
    file = folder / "other"
    if text is not None:
        secret(file, text, mode)
    monkeypatch.setenv("FILES_SIGNING_KEY_FILE", str(file))
    [fault] = faults(folder)
    assert fault.startswith(f"FILES_SIGNING_KEY_FILE: {file} ")
    assert told in fault
    assert fault.endswith("; example: FILES_SIGNING_KEY_FILE=/run/secrets/files-signing-key")
    assert SECRET not in fault


def test_a_folder_is_no_secret(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FILES_SIGNING_KEY_FILE", str(folder))
    assert "is not a file" in faults(folder)[0]


def test_a_secret_and_its_file_are_one_too_many(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL_FILE", str(folder / "password"))
    [fault] = faults(folder)
    assert fault == "DATABASE_URL_FILE: DATABASE_URL is set too; keep one of them"


def test_the_environment_wins_over_the_file_of_settings_in_either_form(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REDIS_URL")
    (folder / ".env").write_text("REDIS_URL=redis://from-dotenv/0\n")
    monkeypatch.setenv("REDIS_URL_FILE", str(secret(folder / "redis", "redis://from-file/0")))
    assert load_settings(folder).redis.url.get_secret_value() == "redis://from-file/0"
    (folder / ".env").write_text(f"REDIS_URL_FILE={folder / 'redis'}\n")
    monkeypatch.delenv("REDIS_URL_FILE")
    assert load_settings(folder).redis.url.get_secret_value() == "redis://from-file/0"
    monkeypatch.setenv("REDIS_URL", "redis://from-environment/0")
    assert load_settings(folder).redis.url.get_secret_value() == "redis://from-environment/0"


def test_only_secrets_come_from_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_PORT_FILE", str(folder / "password"))
    assert faults(folder)[0].startswith("APP_PORT_FILE: is not a setting")


def test_production_looks_into_the_files_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_ENV", "production")
    for name in ("DATABASE_PASSWORD_FILE", "REDIS_PASSWORD_FILE", "FILES_SIGNING_KEY_FILE"):
        monkeypatch.setenv(name, str(secret(folder / name, SECRET * 2)))
    assert load_settings(folder).app.env == "production"
    secret(folder / "FILES_SIGNING_KEY_FILE", "change-me-to-something-of-32-characters")
    [fault] = faults(folder)
    assert fault.startswith("FILES_SIGNING_KEY: is a placeholder")
