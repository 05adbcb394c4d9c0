"""What a request says of reasoning: whether, how hard, how long.

Clients have many ways to say it. To the template go `enable_thinking` and `reasoning_effort`; a limit of
tokens is ours to keep. Where reasoning is not wanted and the template knows no way to say so, the limit is 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clarion.conversation.reasoning import Markers
from clarion.server.errors import bad
from clarion.server.messages import uses


@dataclass(frozen=True, slots=True)
class Thinking:
    """What is wanted.

    Attributes:
        variables: of the template.
        budget: tokens of reasoning at most; None: as many as there is room for.
    """

    variables: dict[str, Any]
    budget: int | None


def thinking(given: Mapping[str, Any], template: str, markers: Markers | None) -> Thinking:
    """What the fields of a request say, for a model with this template.

    Raises:
        RefusedError: 400, a field is of the wrong kind; it names the field.
    """
    variables = dict(_object(given, "chat_template_kwargs"))
    reasoning, anthropic = _object(given, "reasoning"), _object(given, "thinking")
    wanted = given.get("enable_thinking")
    if wanted is None:
        wanted = reasoning.get("enabled")
    if wanted is None and anthropic.get("type") in ("enabled", "disabled"):
        wanted = anthropic["type"] == "enabled"
    if wanted is not None and not isinstance(wanted, bool):
        raise bad("enable_thinking", f"found {wanted!r:.40}, expected true or false")
    effort = given.get("reasoning_effort") or reasoning.get("effort")
    if effort is not None and not isinstance(effort, str):
        raise bad("reasoning_effort", f"found {effort!r:.40}, expected a word such as low, medium or high")
    if effort == "none":
        wanted = False
    elif effort is not None:
        variables.setdefault("reasoning_effort", effort)
    if wanted is not None:
        variables.setdefault("enable_thinking", wanted)
    budget = _budget(given, reasoning, anthropic)
    is_off = variables.get("enable_thinking") is False
    if budget is None and is_off and markers is not None and not uses(template, "enable_thinking"):
        budget = 0
    return Thinking(variables, budget)


def _budget(
    given: Mapping[str, Any], reasoning: Mapping[str, Any], anthropic: Mapping[str, Any]
) -> int | None:
    for name, value in (
        ("thinking_budget", given.get("thinking_budget")),
        ("thinking_budget_tokens", given.get("thinking_budget_tokens")),
        ("reasoning.max_tokens", reasoning.get("max_tokens")),
        ("thinking.budget_tokens", anthropic.get("budget_tokens")),
    ):
        if value is None or value == -1:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise bad(name, f"found {value!r:.40}, expected a number of tokens from 0, or -1 for no limit")
        return value
    return None


def _object(given: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = given.get(name)
    if found is None:
        return {}
    if not isinstance(found, Mapping):
        raise bad(name, f"found {found!r:.40}, expected an object")
    return found
