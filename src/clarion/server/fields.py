"""A request's JSON, checked against a type: what is wrong is named, and nothing is left out in silence.

A field that a type knows is checked. One of `unsupported` would change the answer and is not implemented: it
is refused, unless its value asks for nothing. One of `harmless` is accepted. Any other is ignored, and the
answer's header `x-clarion-ignored` names it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import msgspec

from clarion.server.call import Call
from clarion.server.errors import RefusedError, bad

T = TypeVar("T", bound=msgspec.Struct)

# Whether a value asks for nothing.
Off = Callable[[Any], bool]

_WHERE: Final = re.compile(r"(.*) - at `(?:key in )?\$?\.?([^`]*)`")
_decode: Final = msgspec.json.Decoder().decode


def is_empty(value: Any) -> bool:
    """Whether a value asks for nothing because it is none, no, zero or empty."""
    return not value


async def read(
    call: Call, kind: type[T], *, unsupported: Mapping[str, Off], harmless: frozenset[str]
) -> tuple[T, dict[str, Any]]:
    """The request's body as a value of the type, and as it came.

    Raises:
        RefusedError: 400; it names the field, what was found and what is expected.
    """
    content = await call.body()
    try:
        given = _decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RefusedError(400, f"the request's body is no JSON: {error}", code="invalid_json") from None
    if not isinstance(given, dict):
        raise RefusedError(
            400, f"the request's body is {_name(given)}, expected an object of JSON", code="invalid_json"
        )
    known = kind.__struct_fields__
    for name, value in given.items():
        if name in known or name in harmless or value is None:
            continue
        if name not in unsupported:
            call.ignored.append(name)
        elif not unsupported[name](value):
            raise RefusedError(400, f"{name}: not implemented", param=name, code="unsupported_parameter")
    # None means the same as leaving a field out.
    fields = {name: value for name, value in given.items() if name in known and value is not None}
    try:
        return msgspec.convert(fields, kind), given
    except (msgspec.ValidationError, RecursionError) as error:
        raise _wrong(str(error)) from None


def _wrong(message: str) -> RefusedError:
    """`Expected `int`, got `str` - at `$.n`` in our words."""
    found = _WHERE.fullmatch(message)
    if found is None:
        missing = re.search(r"missing required field `(\w+)`", message)
        return (
            bad(missing[1], "it is missing") if missing else RefusedError(400, message, code="invalid_value")
        )
    expected = re.fullmatch(r"Expected (.*), got (.*)", found[1])
    if expected is None:
        return bad(found[2], found[1][:1].lower() + found[1][1:])
    return bad(found[2], f"found {expected[2].strip('`')}, expected {expected[1].strip('`')}")


def _name(value: object) -> str:
    kinds = {list: "a list", str: "a text", int: "a number", float: "a number", bool: "a truth value"}
    return kinds.get(type(value), "null")
