"""Calls of tools in what a model wrote, in the format that its chat template teaches.

| format | a call | families |
|---|---|---|
| `tag` | `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, or in it `<function=NAME>` with \
`<parameter=KEY>` | Hermes, Qwen, SmolLM |
| `brackets` | `[TOOL_CALLS][{"name": ..., "arguments": {...}}]`, or `[TOOL_CALLS]NAME[ARGS]{...}` | Mistral |
| `json` | the whole text is `{"name": ..., "parameters": {...}}` | Llama 3 |
| `harmony` | a message to `functions.NAME`, which `reasoning.py` has taken apart | gpt-oss |
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final, Literal

from clarion.conversation.reasoning import Markers, Part, markers

Format = Literal["tag", "brackets", "json", "harmony"]
Tool = Mapping[str, Any]

_TAG: Final = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)
_FUNCTION: Final = re.compile(r"<function=([^>]+)>(.*?)(?:</function>|\Z)", re.DOTALL)
_PARAMETER: Final = re.compile(r"<parameter=([^>]+)>(.*?)(?:</parameter>|(?=<parameter=)|\Z)", re.DOTALL)
_BRACKETS: Final = "[TOOL_CALLS]"
_ALL_CALLS: Final = Markers(_BRACKETS, "[/TOOL_CALLS]")  # they are the last of an answer
_NAMED: Final = re.compile(r"\s*([\w.-]+)(?:\[CALL_ID\]\w*)?\[ARGS\]")
_PYTHON: Final = "<|python_tag|>"
_DECODER: Final = json.JSONDecoder()
_NUMBERS: Final = count(1)


@dataclass(frozen=True, slots=True)
class Call:
    """A call that a model asks for.

    Attributes:
        name: of the tool.
        arguments: by name.
        error: why it cannot be read; then the rest may be empty.
        id: 9 letters and digits, as the strictest templates want them.
    """

    name: str
    arguments: dict[str, Any]
    error: str | None = None
    id: str = field(default_factory=lambda: f"call{next(_NUMBERS) % 100_000:05d}")

    def as_message(self) -> dict[str, Any]:
        """As messages have it under `tool_calls`."""
        function = {"name": self.name or "unknown", "arguments": self.arguments}
        return {"id": self.id, "type": "function", "function": function}


def call_format(template: str) -> Format | None:
    """How a chat template teaches to call tools; None: it does not, or in a way that is not known here."""
    if not re.search(r"\btools\b", template):
        return None
    found = markers(template)
    if found is not None and found.harmony:
        return "harmony"
    if "<tool_call>" in template:
        return "tag"
    if _BRACKETS in template:
        return "brackets"
    if _PYTHON in template or re.search(r'\\?"parameters\\?"\s*:', template):
        return "json"
    return None


def call_marks(format: Format) -> Markers | None:
    """What stands around calls in an answer, so that they need not be shown as text; None: nothing."""
    return {"tag": Markers("<tool_call>", "</tool_call>"), "brackets": _ALL_CALLS}.get(format)


def find_calls(
    text: str, parts: Iterable[Part], format: Format, tools: Sequence[Tool]
) -> tuple[str, list[Call]]:
    """What a model said beside calls, and the calls.

    Args:
        text: the answer, without reasoning.
        parts: the calls that the splitter has found (harmony).
        tools: as the template got them; their schemas say what values are that are no JSON.
    """
    match format:
        case "harmony":
            return text, [_of_json(part.text, str(part.to).removeprefix("functions.")) for part in parts]
        case "tag":
            calls = [_tagged(found[1], tools) for found in _TAG.finditer(text)]
            return _TAG.sub("", text).strip("\n"), calls
        case "brackets":
            before, *rest = text.split(_BRACKETS)
            return before.rstrip(), [call for piece in rest for call in _bracketed(piece)]
        case "json":
            calls = _bare(text, tools)
            return ("" if calls else text), calls


def _tagged(body: str, tools: Sequence[Tool]) -> Call:
    function = _FUNCTION.search(body)
    if function is None:
        return _of_object(body)
    name = function[1].strip()
    types = _types(name, tools)
    arguments = {}
    for found in _PARAMETER.finditer(function[2]):
        key, value = found[1].strip(), found[2].removeprefix("\n").removesuffix("\n")
        arguments[key] = value if types.get(key) == "string" else _value(value)
    return Call(name, arguments)


def _bracketed(piece: str) -> list[Call]:
    if not piece.lstrip().startswith("["):
        calls: list[Call] = []
        at = 0
        while (found := _NAMED.match(piece, at)) is not None:
            try:
                arguments, at = _DECODER.raw_decode(piece, found.end())
            except (ValueError, RecursionError) as error:
                return [*calls, Call(found[1], {}, f"its arguments are no JSON: {error}")]
            calls.append(_checked(found[1], arguments))
        return calls or [Call("", {}, "it has no name")]
    try:
        listed, _ = _DECODER.raw_decode(piece.lstrip())
    except (ValueError, RecursionError) as error:
        return [Call("", {}, f"it is no JSON: {error}")]
    return [_of_value(item) for item in listed]


def _bare(text: str, tools: Sequence[Tool]) -> list[Call]:
    """The calls that a text consists of; none where it is anything else."""
    left, calls = text.strip().removeprefix(_PYTHON).strip(), []
    names = {_function(tool).get("name") for tool in tools}
    while left:
        try:
            value, end = _DECODER.raw_decode(left)
        except (ValueError, RecursionError):
            return []
        if not isinstance(value, dict) or value.get("name") not in names:
            return []
        calls.append(_of_value(value))
        left = left[end:].lstrip("; \n")
    return calls


def _of_object(body: str) -> Call:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        return Call("", {}, f"it is no JSON: {error}")
    return _of_value(value)


def _of_value(value: object) -> Call:
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return Call("", {}, 'it is no object with a "name"')
    return _checked(value["name"], value.get("arguments", value.get("parameters", {})))


def _of_json(text: str, name: str) -> Call:
    try:
        return _checked(name, json.loads(text))
    except (ValueError, RecursionError) as error:
        return Call(name, {}, f"its arguments are no JSON: {error}")


def _checked(name: str, arguments: object) -> Call:
    if isinstance(arguments, str):  # JSON in JSON
        arguments = _value(arguments)
    if not isinstance(arguments, dict):
        return Call(name, {}, "its arguments are no object")
    return Call(name, arguments)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _types(name: str, tools: Sequence[Tool]) -> dict[str, Any]:
    """The types of a tool's parameters, as its schema has them."""
    for tool in tools:
        function = _function(tool)
        if function.get("name") == name:
            properties = (function.get("parameters") or {}).get("properties") or {}
            return {
                key: schema.get("type") for key, schema in properties.items() if isinstance(schema, Mapping)
            }
    return {}


def _function(tool: Tool) -> Mapping[str, Any]:
    function: Mapping[str, Any] = tool.get("function", tool)
    return function
