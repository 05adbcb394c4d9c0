"""What goes wrong with a request, as the client reads it: a status, and OpenAI's form of errors.

{"error": {"message": ..., "type": ..., "param": ..., "code": ...}, "clarion": ...}

`clarion` is the name of the class of `clarion.errors` that Python would have raised, where there is one.
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
        origin: the name of the class that Python would have raised.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        origin: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = _KINDS.get(status, "invalid_request_error" if status < 500 else "server_error")
        self.param = param
        self.code = code
        self.headers = dict(headers or {})
        self.origin = _ORIGINS.get(code or "") if origin is None else origin


class LeftError(ClarionError):
    """The client has gone: there is nobody to answer."""


class StalledError(LeftError):
    """The client does not read what it asked for."""


_KINDS: Final = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
# What Python says to what is refused with these codes.
_ORIGINS: Final = {
    **dict.fromkeys(("invalid_value", "invalid_json"), "ParameterError"),
    **dict.fromkeys(("unsupported_parameter", "unsupported_content"), "UnsupportedError"),
    "model_not_found": "NameNotFoundError",
    "closing": "OverloadedError",
}
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


class _Error(msgspec.Struct):
    message: str
    type: str
    param: str | None
    code: str | None


class _Body(msgspec.Struct):
    error: _Error
    clarion: str | msgspec.UnsetType


def bad(param: str, message: str) -> RefusedError:
    """A field that is wrong; the message says what was found and what is expected."""
    return RefusedError(400, f"{param}: {message}", param=param, code="invalid_value")


def refusal(error: Exception) -> RefusedError:
    """Any error as the client shall see it. What we did not foresee is told without its details."""
    if isinstance(error, RefusedError):
        if error.origin is None and isinstance(error.__cause__, ClarionError):
            error.origin = _origin(error.__cause__)
        return error
    for kind, status, code in _STATUSES:
        if isinstance(error, kind):
            found = _FIELD.match(str(error)) if status == 400 else None
            param = re.sub(r"\[\"(\w+)\"\]", r".\1", found[1]) if found else None
            headers = {"retry-after": "5"} if status == 503 else None
            return RefusedError(
                status, str(error), param=param, code=code, headers=headers, origin=_origin(error)
            )
    if isinstance(error, ClarionError):
        return RefusedError(500, str(error), code="model_error", origin=_origin(error))
    return RefusedError(500, "internal error: the server's log says more", code="internal_error")


def body(error: RefusedError) -> bytes:
    """The answer's body."""
    origin = msgspec.UNSET if error.origin is None else error.origin
    return msgspec.json.encode(_Body(_Error(str(error), error.kind, error.param, error.code), origin))


def _origin(error: ClarionError) -> str:
    """The nearest class of the tree of errors."""
    return next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "clarion.errors")
