"""What was said: the messages of a conversation, in exchanges that can be taken back and brought back.

An exchange is a message of the user and all that followed it: calls of tools, their results, the answer. A
history belongs to one face, which changes it between answers; it has no lock.

Reasoning is kept beside the answer and given to the template under the name that the template reads. What of
it the model sees again is the template's choice, which it was trained with: most show it only since the user
spoke last, as long as tools are called. So the next prompt begins as the last one did, as far as the template
lets it, and the prefix cache finds it.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from clarion.errors import ParameterError
from clarion.tokenizer import chat

Message = dict[str, Any]

# Fields in which templates look for the reasoning of a message.
_FIELDS: Final = ("reasoning_content", "thinking", "reasoning")
KEPT: Final = _FIELDS[0]  # the one that a history itself uses


def reasoning_field(template: str) -> str | None:
    """The field of a message in which a chat template looks for reasoning; None: it looks for none."""
    for name in _FIELDS:
        quoted = rf"['\"]{name}['\"]"
        if re.search(rf"\.{name}\b|\[\s*{quoted}\s*\]|{quoted}\s+in\b|get\(\s*{quoted}", template):
            return name
    return None


class History:
    """The messages of a conversation.

    Attributes:
        system: what the system says first; None: nothing.
        exchanges: the messages of each, the user's first.
        undone: exchanges that were taken back, the last one last.
    """

    def __init__(self, system: str | None = None) -> None:
        self.system = system
        self.exchanges: list[list[Message]] = []
        self.undone: list[list[Message]] = []

    def __len__(self) -> int:
        return len(self.exchanges)

    # ---- what is said -------------------------------------------------------------------------------------

    def ask(self, text: str) -> None:
        """The user speaks: an exchange begins."""
        self.exchanges.append([{"role": "user", "content": text}])
        self.undone.clear()

    def answer(
        self, content: str, reasoning: str = "", calls: Sequence[Mapping[str, Any]] | None = None
    ) -> None:
        """The model speaks, or calls tools, within the last exchange.

        Args:
            calls: as templates take them: {"id": ..., "type": "function", "function": {"name", "arguments"}}.
        """
        message: Message = {"role": "assistant", "content": content}
        if reasoning:
            message[KEPT] = reasoning
        if calls:
            message["tool_calls"] = [dict(call) for call in calls]
        self.exchanges[-1].append(message)

    def result(self, call: Mapping[str, Any], content: str) -> None:
        """What came of a call of the last answer."""
        self.exchanges[-1].append(
            {
                "role": "tool",
                "tool_call_id": call["id"],
                "name": call["function"]["name"],
                "content": content,
            }
        )

    # ---- what is taken back -------------------------------------------------------------------------------

    @property
    def last_text(self) -> str | None:
        """What the user said last."""
        return self.exchanges[-1][0]["content"] if self.exchanges else None

    def undo(self) -> list[Message] | None:
        """Takes the last exchange back, for `redo`; None: there is none."""
        if not self.exchanges:
            return None
        self.undone.append(self.exchanges.pop())
        return self.undone[-1]

    def redo(self) -> list[Message] | None:
        """Brings back what was taken back last."""
        if not self.undone:
            return None
        self.exchanges.append(self.undone.pop())
        return self.exchanges[-1]

    def drop_oldest(self) -> list[Message] | None:
        """Forgets the oldest exchange; None: there is none but the last one."""
        return self.exchanges.pop(0) if len(self.exchanges) > 1 else None

    def clear(self) -> None:
        """Forgets all exchanges. What the system says stays."""
        self.exchanges.clear()
        self.undone.clear()

    def copied(self) -> History:
        """A history that goes on apart from this one."""
        return copy.deepcopy(self)

    # ---- what others get ----------------------------------------------------------------------------------

    def messages(self, template: str) -> list[Message]:
        """All messages, as this chat template reads them."""
        field = reasoning_field(template)
        first: list[Message] = [] if self.system is None else [{"role": "system", "content": self.system}]
        return first + [_read(message, field) for exchange in self.exchanges for message in exchange]

    def as_json(self) -> list[Message]:
        """All messages, as `from_json` takes them."""
        return self.messages(f"message.{KEPT}")

    @classmethod
    def from_json(cls, messages: object) -> History:
        """The history of messages that were saved.

        Raises:
            ParameterError: they are no messages, or in an order that no conversation has.
        """
        checked = chat.check(cast(Any, messages)) if messages != [] else []
        history = cls()
        for i, message in enumerate(checked):
            role = message["role"]
            if not isinstance(message.get("content", ""), str):
                found = "a list" if isinstance(message["content"], list) else repr(message["content"])[:40]
                raise ParameterError(f'messages[{i}]["content"]: found {found}, expected a text')
            if role == "system" and i == 0:
                history.system = message["content"]
            elif role == "user":
                history.exchanges.append([message])
            elif history.exchanges and role in ("assistant", "tool"):
                history.exchanges[-1].append(message)
            else:
                expected = "assistant or tool" if history.exchanges else "user"
                raise ParameterError(f'messages[{i}]["role"]: found {role!r}, expected {expected}')
        return history


def _read(message: Message, field: str | None) -> Message:
    """A message as a template reads it, whose field of reasoning is `field`."""
    if KEPT not in message or field == KEPT:
        return dict(message)
    rest = {name: value for name, value in message.items() if name != KEPT}
    if field is None:
        return rest
    rest[field] = message[KEPT]
    if field == "thinking" and message.get("tool_calls"):
        # Harmony's template refuses both before a call; the reasoning is what the model needs.
        rest["content"] = ""
    return rest
