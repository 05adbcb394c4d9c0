"""Conversations: messages checked, the template chosen, the text written."""

from __future__ import annotations

import re
import reprlib
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

from clarion.errors import ParameterError, TemplateError

if TYPE_CHECKING:
    from clarion.tokenizer import Tokenizer

EXAMPLE: Final = '[{"role": "user", "content": "Hello"}]'
# What a message may hold instead of a content.
_OTHER_CONTENTS: Final = ("tool_calls", "function_call", "reasoning_content", "reasoning", "thinking")
# Roles whose content may be an object: what a function returned.
_RESULT_ROLES: Final = ("tool", "function", "ipython", "environment", "observation")


def apply(
    tokenizer: Tokenizer,
    messages: Iterable[Mapping[str, Any]],
    *,
    add_generation_prompt: bool = True,
    tools: Sequence[Mapping[str, Any]] | None = None,
    template: str | None = None,
    **variables: Any,
) -> str:
    """The conversation as one text, in which special tokens are meant as such.

    Args:
        messages: see `check`.
        add_generation_prompt: let the text end where the model's answer begins.
        tools: descriptions of functions that the model may call.
        template: see `choose`.
        variables: what else the template knows.

    Raises:
        ParameterError: a message or the tools are not what templates take.
        TemplateError: there is no such template, or it refuses the messages.
    """
    from clarion.tokenizer.template import render

    checked = check(messages)
    _check_tools(tools)
    source = choose(tokenizer.chat_templates, template, bool(tools))
    if tools and not re.search(r"\btools\b", source):
        text = "the chat template does not use tools: the model is not told of them"
        warnings.warn(text, stacklevel=_frames_of_clarion() + 1)
    tokens = {
        f"{name}_token": "" if token is None else tokenizer.decode([token])
        for name, token in (("bos", tokenizer.bos), ("eos", tokenizer.eos))
    }
    return render(
        source, checked, add_generation_prompt=add_generation_prompt, tools=tools, **(tokens | variables)
    )


def choose(templates: Mapping[str, str], template: str | None, has_tools: bool) -> str:
    """The template that a caller means.

    Args:
        templates: those of the file, by name.
        template: a name among them, or a text in Jinja, which holds `{{` or `{%`; None: "tool_use" where
            there are tools and the file has it, else "default".

    Raises:
        TemplateError: there is none of that name.
    """
    if template is not None and not isinstance(template, str):
        raise ParameterError(f"template: found {template!r:.40}, expected a name or a text in Jinja")
    if template is not None and re.search(r"{[{%]", template):
        return template
    name = template
    if name is None:
        name = "tool_use" if has_tools and "tool_use" in templates else "default"
    if name in templates:
        return templates[name]
    if not templates:
        raise TemplateError("the model has no chat template (tokenizer.chat_template)")
    raise TemplateError(
        f"the model has no chat template named {name!r}; found: {', '.join(sorted(templates))}"
    )


def check(messages: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The messages as a list, if they are what chat templates take.

    A message is a mapping with a role, and a content: a text, or a list of parts. It may lack the content
    where it holds calls of tools or the model's reasoning instead.

    Raises:
        ParameterError: one is not; the message names its number and the field.
    """
    if isinstance(messages, str | bytes | Mapping) or not isinstance(messages, Iterable):
        raise ParameterError(
            f"messages: found {_brief(messages)}, expected a list of messages such as {EXAMPLE}"
        )
    checked = [_check_message(f"messages[{i}]", message) for i, message in enumerate(messages)]
    if not checked:
        raise ParameterError(f"messages: found none, expected a list of messages such as {EXAMPLE}")
    return checked


def _check_message(name: str, message: object) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise ParameterError(
            f'{name}: found {_brief(message)}, expected a dictionary with "role" and "content"'
        )
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or not role:
        found = "none" if "role" not in message else _brief(role)
        raise ParameterError(f'{name}["role"]: found {found}, expected a role such as "user"')
    if content is None:
        if not any(message.get(other) for other in _OTHER_CONTENTS):
            found = "None" if "content" in message else "none"
            raise ParameterError(f'{name}["content"]: found {found}, expected a text')
    elif isinstance(content, Sequence) and not isinstance(content, str | bytes | bytearray):
        for i, part in enumerate(content):
            _check_part(f'{name}["content"][{i}]', part)
    elif not isinstance(content, str) and not (isinstance(content, Mapping) and role in _RESULT_ROLES):
        raise ParameterError(
            f'{name}["content"]: found {_brief(content)}, expected a text or a list of parts'
        )
    return dict(message)


def _check_part(name: str, part: object) -> None:
    if isinstance(part, str):
        return
    if not isinstance(part, Mapping) or not isinstance(part.get("type"), str):
        raise ParameterError(
            f'{name}: found {_brief(part)}, expected a part such as {{"type": "text", "text": "Hello"}}'
        )
    if part["type"] == "text" and not isinstance(part.get("text"), str):
        raise ParameterError(f'{name}["text"]: found {_brief(part.get("text"))}, expected a text')


def _check_tools(tools: object) -> None:
    if tools is None:
        return
    if not isinstance(tools, Sequence) or isinstance(tools, str | bytes):
        raise ParameterError(f"tools: found {_brief(tools)}, expected a list of descriptions")
    for i, tool in enumerate(tools):
        if not isinstance(tool, Mapping):
            raise ParameterError(
                f"tools[{i}]: found {_brief(tool)}, expected a dictionary that describes a function"
            )


def _brief(value: object) -> str:
    return reprlib.repr(value)


def _frames_of_clarion() -> int:
    """How many calls of our own lie between here and whoever called: a warning points at their line."""
    frame: FrameType | None = sys._getframe(1)
    n = 0
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "clarion":
        frame, n = frame.f_back, n + 1
    return n
