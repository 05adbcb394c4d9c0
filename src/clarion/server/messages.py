"""The messages of a request, as chat templates of local models take them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from clarion.conversation.history import reasoning_field
from clarion.server.changing_lines import without_changing_lines
from clarion.server.errors import RefusedError, bad

_LEADING: Final = ("system", "developer")  # roles of instructions
# Under these names clients give back what the model reasoned.
_REASONING: Final = ("reasoning_content", "reasoning", "thinking")
_IMAGES: Final = "images, sound and files are not implemented: found a part of type"


def for_template(messages: Sequence[Any], template: str) -> list[dict[str, Any]]:
    """The messages as this template reads them.

    Texts in parts become one text, as templates of models that only read text want it. Instructions at the
    beginning become one message, since many templates know just one; where they do not know the role
    "developer", that is "system". Reasoning stands where the template looks for it. Lines that change in each
    request are left out.

    Raises:
        RefusedError: 400, a message or a part is not what is expected; it names the place.
    """
    if not messages:
        raise bad("messages", 'found none, expected a list such as [{"role": "user", "content": "Hello"}]')
    known = [_message(f"messages[{i}]", message) for i, message in enumerate(messages)]
    knows_developer = "developer" in template
    for message in known:
        if message["role"] == "developer" and not knows_developer:
            message["role"] = "system"
    field = reasoning_field(template)
    return [_with_reasoning(message, field) for message in _joined(known)]


def _message(where: str, message: Any) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise bad(where, f'found {message!r:.40}, expected an object with "role" and "content"')
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or not role:
        raise bad(f"{where}.role", f'found {role!r:.40}, expected a role such as "user"')
    if isinstance(content, list):
        content = "\n".join(_part(f"{where}.content[{i}]", part) for i, part in enumerate(content))
    elif content is not None and not isinstance(content, str):
        raise bad(f"{where}.content", f"found {content!r:.40}, expected a text or a list of parts")
    if content is None and not any(
        message.get(name) for name in ("tool_calls", "function_call", *_REASONING)
    ):
        if role != "assistant":
            raise bad(f"{where}.content", "found none, expected a text")
        content = ""
    if content is not None and role in _LEADING:
        content = without_changing_lines(content)
    return {**message, "content": content}


def _part(where: str, part: Any) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping) or not isinstance(part.get("type"), str):
        raise bad(where, f'found {part!r:.40}, expected a part such as {{"type": "text", "text": "Hello"}}')
    if part["type"] not in ("text", "input_text", "output_text", "refusal"):
        raise RefusedError(
            400, f"{where}: {_IMAGES} {part['type'][:40]!r}", param=where, code="unsupported_content"
        )
    text = part.get("refusal" if part["type"] == "refusal" else "text")
    if not isinstance(text, str):
        raise bad(f"{where}.text", f"found {text!r:.40}, expected a text")
    return text


def _joined(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Several instructions at the beginning become one message."""
    n = next((i for i, message in enumerate(messages) if message["role"] not in _LEADING), len(messages))
    texts = [message["content"] for message in messages[:n] if message["content"]]
    if n < 1 or (n == 1 and texts):
        return messages
    if not texts:  # nothing but a line that was left out
        return messages[n:] or messages
    return [{**messages[0], "content": "\n\n".join(texts)}, *messages[n:]]


def _with_reasoning(message: dict[str, Any], field: str | None) -> dict[str, Any]:
    found = next((message[name] for name in _REASONING if isinstance(message.get(name), str)), None)
    if found is None:
        return message
    rest = {name: value for name, value in message.items() if name not in _REASONING}
    return rest if field is None else {**rest, field: found}


def uses(template: str, name: str) -> bool:
    """Whether a template knows a variable."""
    return re.search(rf"\b{re.escape(name)}\b", template) is not None
