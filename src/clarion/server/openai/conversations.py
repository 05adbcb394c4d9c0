"""From the messages of a request to the text that the model continues."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec

from clarion.conversation.fitting import fitting, room_for_answer
from clarion.conversation.reasoning import Markers, markers
from clarion.model import Model
from clarion.server import sampling
from clarion.server.call import Call
from clarion.server.errors import bad
from clarion.server.fields import Off, is_empty
from clarion.server.messages import for_template, uses
from clarion.server.openai.prompts import check_room
from clarion.server.openai.thinking import thinking
from clarion.tokenizer import chat as templates


def _is_text_alone(value: Any) -> bool:
    return value in (["text"], [])


UNSUPPORTED: Final[Mapping[str, Off]] = {
    **sampling.UNSUPPORTED,
    **dict.fromkeys(
        ("functions", "function_call", "audio", "web_search_options", "suffix", "echo"), is_empty
    ),
    "modalities": _is_text_alone,
}
_THINKING: Final = frozenset(
    {
        *("chat_template_kwargs", "enable_thinking", "reasoning_effort", "reasoning", "thinking"),
        *("thinking_budget", "thinking_budget_tokens"),
    }
)
HARMLESS: Final = sampling.HARMLESS | _THINKING | {"verbosity", "reasoning_format"}


class Messages(sampling.Sampling, kw_only=True):
    """The fields of a request that say what was said. What it says of reasoning is read by `thinking`."""

    model: str | None = None
    messages: list[Any] = msgspec.field(default_factory=list)
    tools: list[Any] = msgspec.field(default_factory=list)
    tool_choice: Any = None
    truncation: Literal["auto", "disabled"] | None = None


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation, ready to be written.

    Attributes:
        messages: as the template reads them, without the answer that the client has begun.
        begun: that answer.
        markers: how the template writes reasoning.
        budget: of reasoning.
    """

    model: Model
    messages: list[dict[str, Any]]
    begun: str
    markers: Markers | None
    budget: int | None
    _template: str | None
    _tools: list[dict[str, Any]]
    _variables: Mapping[str, Any]

    def text(
        self, messages: Sequence[Mapping[str, Any]] | None = None, *, add_generation_prompt: bool = True
    ) -> str:
        """The prompt, of all messages or of these."""
        written = self.model.apply_chat_template(
            self.messages if messages is None else messages,
            add_generation_prompt=add_generation_prompt,
            tools=self._tools or None,
            template=self._template,
            **self._variables,
        )
        return written + self.begun

    def ids(self, text: str) -> list[int]:
        """The ids of a prompt."""
        return self.model.tokenize(text, add_special=False, parse_special=True)


def conversation(call: Call, model: Model, request: Messages, given: Mapping[str, Any]) -> Conversation:
    """What a request says, for this model.

    Raises:
        RefusedError: 400, a field is not what is expected.
        TemplateError: the model has no chat template.
    """
    tools = [] if request.tool_choice == "none" else _functions(call, request.tools)
    chosen = call.server.settings.chat_template
    template = templates.choose(model.tokenizer.chat_templates, chosen, bool(tools))
    if tools and not uses(template, "tools"):
        call.ignored.append("tools")  # the template does not tell the model of any
        tools = []
    found = markers(template)
    wanted = thinking(given, template, found)
    known = {**call.server.settings.variables, **wanted.variables}
    reserved = {"messages", "tools", "add_generation_prompt", "template"} & set(known)
    if reserved:
        raise bad(f"chat_template_kwargs.{min(reserved)}", "it cannot be set")
    messages = for_template(request.messages, template)
    begun = _begun(messages)
    said = messages[:-1] if begun else messages
    return Conversation(model, said, begun, found, wanted.budget, chosen, tools, known)


def fitted(
    call: Call, said: Conversation, request: Messages, max_tokens: int | None
) -> tuple[str, list[int]]:
    """The prompt and its ids, with as many messages as fit where the oldest may be left out.

    Args:
        max_tokens: that the answer may have at most.

    Raises:
        ContextError: it is longer than the context.
    """
    context = said.model.context

    def write(messages: Sequence[Mapping[str, Any]]) -> tuple[str, list[int]]:
        text = said.text(messages)
        return text, said.ids(text)

    if request.truncation == "auto" or (request.truncation is None and call.server.settings.drop_oldest):
        room = room_for_answer(context, max_tokens)
        (text, ids), dropped = fitting(said.messages, write, lambda found: len(found[1]) + room <= context)
    else:
        (text, ids), dropped = write(said.messages), 0
    check_room(said.model, ids)
    call.dropped = dropped
    return text, ids


def check_length(messages: Sequence[Any], most: int) -> None:
    """
    Raises:
        RefusedError: 400, there are too many.
    """
    if len(messages) > most:
        raise bad("messages", f"found {len(messages)} messages, expected {most} at most (--max-messages)")


def _functions(call: Call, tools: list[Any]) -> list[dict[str, Any]]:
    """The tools that are functions. Others, of which some clients tell besides, are left out."""
    functions = []
    for i, tool in enumerate(tools):
        if not isinstance(tool, dict) or not isinstance(tool.get("type"), str):
            raise bad(f"tools[{i}]", f'found {tool!r:.40}, expected {{"type": "function", "function": ...}}')
        if tool["type"] != "function":
            call.ignored.append(f"tools[{i}]")
        elif not isinstance(tool.get("function"), dict):
            raise bad(f"tools[{i}].function", f"found {tool.get('function')!r:.40}, expected an object")
        else:
            functions.append(tool)
    return functions


def _begun(messages: list[dict[str, Any]]) -> str:
    """The answer that the client has begun, where the last message is one: the model goes on with it."""
    last = messages[-1]
    if last["role"] != "assistant" or last.get("tool_calls") or len(messages) < 2:
        return ""
    return last["content"] or ""
