"""What goes wrong with a request, as the client reads it: a status, and OpenAI's form of errors.

{"error": {"message": ..., "type": ..., "param": ..., "code": ...}}
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from clarion.errors import (
    ClarionError,
    ClosedError,
    ContextError,
    DeviceError,
    ParameterError,
    TemplateError,
    TokenizerError,
    UnsupportedError,
)

CLIENT_LEFT: Final = 499  # only in the log: nobody is there to read it


class RefusedError(ClarionError):
    """A request that is not answered.

    Attributes:
        status: of HTTP.
        kind: OpenAI's type of error.
        param: the field that it is about.
        code: a name that programs can rely on.
        headers: that the answer has besides.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = _KINDS.get(status, "invalid_request_error" if status < 500 else "server_error")
        self.param = param
        self.code = code
        self.headers = dict(headers or {})


class LeftError(ClarionError):
    """The client has gone: there is nobody to answer."""


class StalledError(LeftError):
    """The client does not read what it asked for."""


_KINDS: Final = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
# What an error of ours is to the client: a status and a code.
_STATUSES: Final[tuple[tuple[type[ClarionError], int, str | None], ...]] = (
    (ContextError, 400, "context_length_exceeded"),
    (ParameterError, 400, "invalid_value"),
    (TemplateError, 400, "chat_template"),
    (TokenizerError, 400, "invalid_text"),
    (UnsupportedError, 400, "unsupported"),
    (ClosedError, 503, "model_closed"),
    (DeviceError, 503, "out_of_memory"),
)
_FIELD: Final = re.compile(r"([A-Za-z_][\w.]*(?:\[[^\]]*\])*): ")


class Error(msgspec.Struct):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(msgspec.Struct):
    error: Error


def bad(param: str, message: str) -> RefusedError:
    """A field that is wrong; the message says what was found and what is expected."""
    return RefusedError(400, f"{param}: {message}", param=param, code="invalid_value")


def refusal(error: Exception) -> RefusedError:
    """Any error as the client shall see it. What we did not foresee is told without its details."""
    if isinstance(error, RefusedError):
        return error
    for kind, status, code in _STATUSES:
        if isinstance(error, kind):
            found = _FIELD.match(str(error)) if status == 400 else None
            param = re.sub(r"\[\"(\w+)\"\]", r".\1", found[1]) if found else None
            headers = {"retry-after": "5"} if status == 503 else None
            return RefusedError(status, str(error), param=param, code=code, headers=headers)
    if isinstance(error, ClarionError):
        return RefusedError(500, str(error), code="model_error")
    return RefusedError(500, "internal error: the server's log says more", code="internal_error")


def body(error: RefusedError) -> bytes:
    """The answer's body."""
    return msgspec.json.encode(ErrorBody(Error(str(error), error.kind, error.param, error.code)))
