"""The group of the file store."""

import re
import secrets
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import SettingsConfigDict

from service.settings.groups import Group, Seconds, check_url


class FilesSettings(Group):
    """Files on the local disk or in S3."""

    title = "Files"
    model_config = SettingsConfigDict(env_prefix="FILES_")

    engine: Literal["local", "s3"] = Field("local", description="Where files are kept")
    api_enabled: bool | None = Field(
        None,
        description="Whether /v1/files answers, to anybody. Unset: in development and test only; true is "
        "refused in production, where signed links work all the same",
        examples=[False],
    )
    root: Path = Field(Path("data/files"), description="Folder of the local engine")
    max_bytes: int = Field(52_428_800, ge=1, le=80 << 30, description="Largest upload")
    allowed_types: str = Field(
        "image/png,image/jpeg,image/gif,image/webp,application/pdf,text/plain,text/csv,application/json,"
        "application/zip,application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        description="Types that may be uploaded, by content, separated by commas",
    )
    public_url: str = Field(
        "http://127.0.0.1:8000",
        description="Where clients reach the API, for the local engine's signed links; empty: no host",
    )
    signing_key: SecretStr = Field(
        default_factory=lambda: SecretStr(secrets.token_urlsafe(32)),
        description="Key of the local engine's signed links, the same in every process. Unset, which only "
        "development and test take: a new one in each process",
        examples=["change-me-to-32-characters-or-more"],
    )
    url_seconds: int = Field(
        900, ge=1, le=604_800, description="Life of a signed link when none is asked for"
    )
    s3_endpoint: str = Field(
        "", description="URL of an S3 server; empty means Amazon's", examples=["http://127.0.0.1:9000"]
    )
    s3_public_endpoint: str = Field(
        "",
        description="The same server as clients reach it, for signed links; empty: as above",
        examples=["https://files.example.com"],
    )
    s3_bucket: str = Field(
        "", validate_default=True, description="Bucket; needed by the s3 engine", examples=["yardstick-files"]
    )
    s3_region: str = Field("us-east-1", description="Region", min_length=1)
    s3_access_key: str = Field(
        "", description="Access key; without one, the machine's own role is used", examples=["yardstick"]
    )
    s3_secret_key: SecretStr | None = Field(
        None, validate_default=True, description="Secret of the access key", examples=["change-me"]
    )
    s3_connect_timeout_seconds: Seconds = Field(5.0, description="Longest wait for a connection")
    s3_read_timeout_seconds: Seconds = Field(30.0, description="Longest silence of the server")
    s3_retries: int = Field(3, ge=0, le=20, description="Retries of a request after a fault")

    @property
    def types(self) -> frozenset[str]:
        """The accepted types."""
        return frozenset(self.allowed_types.split(","))

    @field_validator("public_url", "s3_endpoint", "s3_public_endpoint")
    @classmethod
    def _endpoint(cls, value: str) -> str:
        if value:
            check_url(SecretStr(value), ("http", "https"))
        return value

    @field_validator("allowed_types")
    @classmethod
    def _types(cls, value: str) -> str:
        kinds = [kind.strip() for kind in value.split(",")]
        if wrong := [kind for kind in kinds if not re.fullmatch(r"[a-z]+/[a-z0-9][a-z0-9.+-]*", kind)]:
            raise ValueError(f"holds {wrong[0]!r}, which is no type such as image/png")
        return ",".join(kinds)

    @field_validator("s3_bucket")
    @classmethod
    def _bucket(cls, value: str, info: ValidationInfo) -> str:
        if info.data.get("engine") == "s3" and not value:
            raise ValueError("is needed by FILES_ENGINE=s3")
        return value

    @field_validator("s3_secret_key")
    @classmethod
    def _pair(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if bool(info.data.get("s3_access_key")) != (value is not None):
            raise ValueError("goes together with FILES_S3_ACCESS_KEY: set both or neither")
        return value
