"""From a text to the token ids that a model continues: one turn of chat, or the text as it is."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from clarion.cli.options import warn
from clarion.errors import ParameterError

if TYPE_CHECKING:
    from clarion import Model, Tokenizer

# Of the templates' variables, those that are given elsewhere.
_RESERVED = frozenset({"messages", "add_generation_prompt", "tools", "template", "bos_token", "eos_token"})


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the command line says about chat.

    Attributes:
        raw: continue the text, also where there is a chat template.
        system: what the system says first.
        template: another chat template: Jinja, a file that holds it, or the name of one more of the model's.
        variables: a JSON object that the template knows besides the messages.
        parse_special: names of control tokens in a text to continue stand for them.
    """

    raw: bool
    system: str | None
    template: str | None
    variables: str | None
    parse_special: bool

    def check(self, *, ids: bool) -> None:
        """Raises UsageError for wishes that contradict each other; `ids`: whether token ids are given."""
        chat = {
            "--system": self.system,
            "--chat-template": self.template,
            "--chat-template-kwargs": self.variables,
        }
        wanted = next((name for name, value in chat.items() if value is not None), None)
        if wanted is not None and (ids or self.raw):
            other = "--ids-file" if ids else "--raw"
            raise click.UsageError(f"{wanted} is for a turn of chat, which {other} is not")
        template_variables(self.variables)

    def tokens(self, model: Model, text: str) -> tuple[list[int], str | None]:
        """The ids of a text and, where they are a turn of chat, the line that says so."""
        if self.raw or (model.tokenizer.chat_template is None and self.template is None):
            for name, value in (("--system", self.system), ("--chat-template-kwargs", self.variables)):
                if value is not None:
                    raise ParameterError(
                        f"{model.path}: the model has no chat template (tokenizer.chat_template), "
                        f"which {name} needs; --chat-template gives one"
                    )
            if not self.parse_special:
                warn_of_names(model.tokenizer, text)
            return model.tokenize(text, parse_special=self.parse_special), None
        if not self.parse_special and (names := _listed(model.tokenizer, text)):
            warn(
                f"the prompt holds {names}, read as control tokens in a turn of chat; "
                f"--raw --parse-special takes a text that is written in the template already"
            )
        messages = [{"role": "user", "content": text}]
        if self.system is not None:
            messages.insert(0, {"role": "system", "content": self.system})
        template = None if self.template is None else find_template(self.template)
        ids = model.tokenize_chat(messages, template=template, **template_variables(self.variables))
        whose = "the model's" if self.template is None else "the given"
        return ids, f"answering one turn of chat, in {whose} chat template; --raw continues the text instead"


def find_template(wanted: str) -> str:
    """What a word says of the template: Jinja or a name as they are, of a file its content."""
    is_path = "/" in wanted or wanted.endswith((".jinja", ".jinja2", ".txt")) or os.path.isfile(wanted)
    if "{{" in wanted or "{%" in wanted or not is_path:
        return wanted
    from clarion.cli.prompt import read_text

    return read_text(None, wanted)


def template_variables(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        variables = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ParameterError(f"--chat-template-kwargs: found {text[:40]!r}, no JSON: {error}") from None
    if not isinstance(variables, dict):
        raise ParameterError(f"--chat-template-kwargs: found {text[:40]!r}, expected a JSON object")
    if reserved := _RESERVED & set(variables):
        raise ParameterError(f"--chat-template-kwargs: {min(reserved)} cannot be set")
    return variables


def warn_of_names(tokenizer: Tokenizer, text: str) -> None:
    """Says so if a text, whose names of control tokens are to be characters, has any."""
    if names := _listed(tokenizer, text):
        warn(f"the text holds {names}, read as ordinary characters; --parse-special reads control tokens")


def _listed(tokenizer: Tokenizer, text: str) -> str:
    names = tokenizer.control_tokens(text)
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
