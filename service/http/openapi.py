"""The contract: what OpenAPI says beyond the routes themselves."""

import warnings
from typing import Any

from fastapi import FastAPI

from service.http.envelope import Failure

ANY_FAILURE: dict[int | str, dict[str, Any]] = {
    "default": {"model": Failure, "description": "Any other failure has this frame"}
}
_FAILURE = {"$ref": f"#/components/schemas/{Failure.__name__}"}
BEARER = {
    "type": "http",
    "scheme": "bearer",
    "bearerFormat": "JWT",
    "description": "An access token; routes that need one say so",
}


class Api(FastAPI):
    """FastAPI with the bearer scheme declared. It closes no route by itself."""

    def openapi(self) -> dict[str, Any]:
        """The document, made once."""
        if self.openapi_schema is None:
            with warnings.catch_warnings():
                # Of routes that serve HEAD themselves, which are left out below.
                warnings.filterwarnings("ignore", "Duplicate Operation ID")
                schema = super().openapi()
            schema.setdefault("components", {}).setdefault("securitySchemes", {}).setdefault("bearer", BEARER)
            for methods in schema["paths"].values():
                # Every GET has its HEAD.
                methods.pop("head", None)
                for operation in methods.values():
                    _correct_failures(operation["responses"])
            self.openapi_schema = schema
        return self.openapi_schema


def _correct_failures(responses: dict[str, Any]) -> None:
    """A failure is JSON also where the success is a stream, whose type FastAPI gives to both."""
    for response in responses.values():
        content = response.get("content", {})
        for media_type, found in list(content.items()):
            if found.get("schema") == _FAILURE and media_type != "application/json":
                content["application/json"] = content.pop(media_type)
