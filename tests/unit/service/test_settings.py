"""Where settings come from, which are refused, and that none is undocumented."""

import os
import re
from pathlib import Path

import certifi
import pytest
from pydantic import ValidationError

from service.settings import Settings, SettingsError, load_migration_settings, load_settings
from service.settings.__main__ import example
from service.settings.loading import GROUPS

DATABASE = "postgresql://u:pw@h:5432/d"
REDIS = "redis://:pw@h:6379/0"
LONG = "k7Jq-vX2mB9s_dW4tYz8LrN1pHc6FgA3eU5"


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the service is set."""
    prefixes = tuple(str(group.model_config["env_prefix"]) for group in GROUPS)
    for name in list(os.environ):
        if name.startswith(prefixes):
            monkeypatch.delenv(name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / ".env").write_text(
        f"DATABASE_URL={DATABASE}\nREDIS_URL={REDIS}\nAPP_PORT=1001\nAPP_NAME=base\n"
    )
    return tmp_path


def faults(folder: Path) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load_settings(folder)
    assert str(caught.value).splitlines() == caught.value.faults
    return caught.value.faults


def test_the_process_wins_over_the_environments_file_and_that_over_the_base(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / ".env.staging").write_text(
        f"APP_PORT=1002\nAPP_HOST=staging.example\nFILES_SIGNING_KEY={LONG}\n"
    )
    (folder / ".env.development").write_text("APP_PORT=1003\n")
    assert load_settings(folder).app.port == 1003
    monkeypatch.setenv("APP_ENV", "staging")
    app = load_settings(folder).app
    assert (app.name, app.port, app.host) == ("base", 1002, "staging.example")
    monkeypatch.setenv("APP_PORT", "1004")
    assert load_settings(folder).app.port == 1004


def test_the_base_file_may_name_the_environment(folder: Path) -> None:
    (folder / ".env").write_text(f"APP_ENV=test\nDATABASE_URL={DATABASE}\nREDIS_URL={REDIS}\n")
    (folder / ".env.test").write_text("APP_PORT=1005\n")
    app = load_settings(folder).app
    assert (app.env, app.port) == ("test", 1005)


def test_settings_are_frozen_and_hide_their_secrets(folder: Path) -> None:
    settings = load_settings(folder)
    with pytest.raises(ValidationError):
        settings.app.port = 1  # type: ignore[misc]
    assert ":pw@" not in repr(settings)
    assert settings.database.url.get_secret_value() == DATABASE


def test_every_fault_of_every_group_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        "APP_PORT=0\nQUEUE_CONCURRENCY=none\nOUTBOX_BATCH=0\nTELEMETRY_OTLP_ENDPOINT=x\n"
    )
    names = [fault.partition(":")[0] for fault in faults(tmp_path)]
    assert names == [
        "APP_PORT",
        "DATABASE_URL",
        "REDIS_URL",
        "QUEUE_CONCURRENCY",
        "OUTBOX_BATCH",
        "TELEMETRY_OTLP_ENDPOINT",
    ]
    assert all("; example: " in fault for fault in faults(tmp_path))


@pytest.mark.parametrize(
    "url",
    ["", "x", "mysql://u:hidden@h/d", "postgresql://", "postgresql://h/d", "postgresql://u:hidden@h", "postgresql://u:hidden@h:no/d"],
)  # fmt: skip
def test_a_wrong_url_is_told_without_being_repeated(
    folder: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    [fault] = faults(folder)
    assert fault.startswith("DATABASE_URL: ")
    assert "hidden" not in fault


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("DATABASE_POOLSIZE", "DATABASE_POOL_SIZE"),
        ("QUEUE_CONCURENCY", "QUEUE_CONCURRENCY"),
        ("TELEMETRY_OTLP_ENDPIONT", "TELEMETRY_OTLP_ENDPOINT"),
    ],
)
def test_a_misspelt_variable_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, near: str
) -> None:
    monkeypatch.setenv(name, "5")
    assert faults(folder) == [f"{name}: is not a setting (found in the environment); did you mean {near}?"]
    monkeypatch.delenv(name)
    with (folder / ".env").open("a") as file:
        file.write(f"{name}=5\n")
    assert faults(folder) == [f"{name}: is not a setting (found in .env); did you mean {near}?"]


def test_what_an_orchestrator_puts_into_every_process_is_not_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("REDIS_PORT", "tcp://10.0.0.1:6379")
    monkeypatch.setenv("REDIS_PORT_6379_TCP_ADDR", "10.0.0.1")
    load_settings(folder)
    monkeypatch.setenv("REDIS_PORT", "6379")
    assert faults(folder)[0].startswith("REDIS_PORT: is not a setting")


@pytest.mark.parametrize(
    ("password", "fault"),
    [
        ("", "has no password"),
        ("change-me", "is a placeholder"),
        ("changeme-changeme-changeme-changeme-changeme", "is a placeholder"),
        ("password-password-password-password-password", "is a placeholder"),
        ("x" * 40, "is a placeholder"),
        (LONG[:31], "shorter than 32"),
        (LONG, None),
    ],
)
def test_production_takes_real_secrets_only(
    folder: Path, monkeypatch: pytest.MonkeyPatch, password: str, fault: str | None
) -> None:
    monkeypatch.setenv("DATABASE_URL", f"postgresql://u:{password}@h/d")
    monkeypatch.setenv("REDIS_URL", f"redis://:{LONG}@h/0")
    monkeypatch.setenv("FILES_SIGNING_KEY", LONG)
    assert load_settings(folder).app.env == "development"
    monkeypatch.setenv("APP_ENV", "production")
    if fault is None:
        assert isinstance(load_settings(folder), Settings)
        return
    [told] = faults(folder)
    assert told.startswith("DATABASE_URL: ")
    assert fault in told
    assert not password or password not in told


def test_production_has_no_debug(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, scheme in (("DATABASE_URL", "postgresql://u"), ("REDIS_URL", "redis://")):
        monkeypatch.setenv(name, f"{scheme}:{LONG}@h/0")
    monkeypatch.setenv("FILES_SIGNING_KEY", LONG)
    monkeypatch.setenv("APP_ENV", "production")
    monkeypatch.setenv("APP_DEBUG", "true")
    assert faults(folder) == ["APP_DEBUG: is refused in production; example: APP_DEBUG=false"]


def test_a_migration_needs_the_database_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", DATABASE)
    assert load_migration_settings(tmp_path).url.get_secret_value() == DATABASE


def test_the_example_file_is_what_the_settings_say() -> None:
    committed = Path(__file__).parents[3] / ".env.example"
    assert committed.read_text() == example(), "run: python -m service.settings --example > .env.example"


def test_the_example_file_is_complete_and_starts(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(example())
    assert load_settings(tmp_path).database.pool_size == 10
    uncommented = "\n".join(
        line[1:] if line.startswith("#") and "=" in line and " " not in line.partition("=")[0] else line
        for line in example().splitlines()
    )
    for group in GROUPS:
        for field in group.model_fields:
            assert f"{group.variable(field)}=" in uncommented
    # The one example that must exist to be taken.
    certificates = certifi.where()
    (tmp_path / ".env").write_text(
        re.sub("(?m)^DATABASE_TLS_CA=.*$", f"DATABASE_TLS_CA={certificates}", uncommented)
    )
    load_settings(tmp_path)


def test_a_signing_key_is_made_up_in_development_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", DATABASE)
    monkeypatch.setenv("REDIS_URL", REDIS)
    keys = {load_settings(folder).files.signing_key.get_secret_value() for _ in range(2)}
    assert len(keys) == 2
    assert all(len(key) >= 32 for key in keys)
    monkeypatch.setenv("APP_ENV", "staging")
    [told] = faults(folder)
    assert told.startswith("FILES_SIGNING_KEY: is missing; example: ")
    monkeypatch.setenv("FILES_SIGNING_KEY", LONG)
    assert load_settings(folder).files.signing_key.get_secret_value() == LONG
