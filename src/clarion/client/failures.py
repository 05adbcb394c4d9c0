"""What went wrong on a server, as the error that Python would have raised there.

Clarion's servers name the class, `{"error": {...}, "clarion": "ContextError"}`, and the message is the one
that was raised. Of others, the status and the code say what they can.
"""

from __future__ import annotations

import json
from typing import Any, Final

import clarion.errors as errors
from clarion.errors import (
    AccessError,
    ClarionError,
    ContextError,
    OverloadedError,
    ParameterError,
    ServerError,
    UnreachableError,
)

_CONTEXT_CODES: Final = ("context_length_exceeded", "exceed_context_size_error")


def failure(url: str, status: int, content: bytes) -> ClarionError:
    """The error of an answer with this status."""
    try:
        found = json.loads(content)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        text = content[:200].decode("utf-8", "replace").strip()
        found = {"error": text or f"the server answers with status {status}"}
    return _failure(url, status, found)


def failure_of_event(url: str, found: dict[str, Any]) -> ClarionError:
    """The error that stands in the place of the rest of an answer."""
    error = found["error"]
    code = error.get("code") if isinstance(error, dict) else None
    return _failure(url, code if isinstance(code, int) else None, found)


def unreachable(url: str, error: Exception) -> UnreachableError:
    """Nothing came back."""
    why = str(error) or type(error).__name__
    return UnreachableError(
        f"{url} cannot be reached: {why}; is the server running, and is this its address?"
    )


def _failure(url: str, status: int | None, found: dict[str, Any]) -> ClarionError:
    error = found.get("error", found)
    message, code, kind = error, None, None
    if isinstance(error, dict):
        message = error.get("message") or error.get("detail") or json.dumps(error)
        code, kind = error.get("code"), error.get("type")
    text = str(message)
    own = _known(found.get("clarion"))
    if own is not None:
        return own(text)
    where = f"{url}: {text}"
    if status in (401, 403):
        return AccessError(f"{where} (api_key)" if status == 401 else where, status)
    if status in (429, 503):
        return OverloadedError(where, status)
    if code in _CONTEXT_CODES or kind in _CONTEXT_CODES:
        return ContextError(where)
    if status in (400, 413, 422):
        return ParameterError(where)
    return ServerError(where, status)


def _known(name: object) -> type[ClarionError] | None:
    """The class of errors of this name."""
    found = getattr(errors, name, None) if isinstance(name, str) else None
    return found if isinstance(found, type) and issubclass(found, ClarionError) else None
