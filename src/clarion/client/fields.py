"""What a caller gives, prompts, messages and options, as the fields of a request."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast
from urllib.parse import urlsplit

from clarion.errors import ParameterError, UnsupportedError
from clarion.runtime.prompts import Prompt, check_ids, look
from clarion.runtime.sampling import ChatOptions, Options, Parameters, random_seed

Messages = Iterable[Mapping[str, Any]]

# Options that servers know by other names, which are those of llama-server.
_NAMES: Final = {
    "penalty_window": "repeat_last_n",
    "dry_window": "dry_penalty_last_n",
    "dry_breakers": "dry_sequence_breakers",
}
_APART: Final = frozenset({"stop", "greedy", "detokenize", "logprobs", "logit_bias", "seed"})
_EXCLUDED: Final = -100.0  # OpenAI's bias of a token that never comes


@dataclass(frozen=True, slots=True)
class Target:
    """Whom requests are for.

    Attributes:
        model: its name.
        is_clarion: whether the server knows what OpenAI's form has no place for.
        n_vocab: tokens of its vocabulary, if that is known.
    """

    model: str | None
    is_clarion: bool
    n_vocab: int | None


@dataclass(frozen=True, slots=True)
class Asked:
    """A request for one text or several.

    Attributes:
        path: of the endpoint.
        fields: what is sent.
        n: texts.
        seed: of the text; -1: nobody knows.
        detokenize: whether there is a text.
        has_details: whether the answer has a field `clarion`.
    """

    path: str
    fields: dict[str, Any] = field(repr=False)
    n: int
    seed: int
    detokenize: bool
    has_details: bool


def address(url: object) -> str:
    """The address of a server: what is before `/v1`, and `http` where no scheme is named.

    Raises:
        ParameterError: it is no address.
    """
    text = url.strip() if isinstance(url, str) else ""
    if text and not re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
        text = f"http://{text}"
    try:
        parts = urlsplit(text)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname)
        _ = parts.port  # which is checked when it is read
    except ValueError:
        is_address = False
    if not is_address or parts.query or parts.fragment or not text.isprintable() or " " in text:
        raise ParameterError(f"url: found {url!r:.80}, expected an address such as http://127.0.0.1:8080")
    return text.rstrip("/").removesuffix("/v1").rstrip("/")


def completion(target: Target, prompt: Prompt | Iterable[Prompt], options: Options) -> Asked:
    """A request that continues one prompt or several.

    Raises:
        ParameterError: an option or a prompt is not what is expected.
        UnsupportedError: the server cannot do what an option asks for.
    """
    parameters = _parameters(target, options)
    found, several = look(prompt)
    prompts = found if several else [found]
    given = [each if isinstance(each, str) else check_ids(each, target.n_vocab) for each in prompts]
    if not all(each or isinstance(each, str) for each in given):
        raise ParameterError("prompt: found no tokens, expected at least one")
    fields: dict[str, Any] = {"prompt": given if several else given[0]}
    if parameters.logprobs is not None:
        fields["logprobs"] = parameters.logprobs
    return _asked(target, "/v1/completions", fields, options, parameters, len(given))


def chat(target: Target, messages: Messages, options: ChatOptions) -> Asked:
    """A request that answers a conversation. Raises as `completion`."""
    rest: dict[str, Any] = dict(options)
    rest.pop("progress", None)
    chosen = {name: rest.pop(name, None) for name in ("tools", "template", "variables")}
    conversation = conversed(messages, **chosen)
    wanted = cast(Options, rest)
    parameters = _parameters(target, wanted)
    if parameters.logprobs is not None:
        conversation |= {"logprobs": True, "top_logprobs": parameters.logprobs}
    if target.is_clarion:
        conversation["truncation"] = "disabled"  # what is too long is an error, as a model has it
    return _asked(target, "/v1/chat/completions", conversation, wanted, parameters, 1)


def conversed(messages: Messages, *, tools: Any, template: str | None, variables: Any) -> dict[str, Any]:
    """The fields of a conversation."""
    from clarion.tokenizer.chat import check

    if template is not None:
        raise UnsupportedError(
            "template: the server writes conversations with its own chat template; write it here and send "
            "the text: generate(prompt)"
        )
    if variables is not None and not (
        isinstance(variables, Mapping) and all(isinstance(name, str) for name in variables)
    ):
        raise ParameterError(f"variables: found {variables!r:.40}, expected a dictionary of names")
    for name in ("messages", "tools", "template"):
        if name in (variables or ()):
            raise ParameterError(f"variables: found {name!r}, which is an argument of its own")
    fields: dict[str, Any] = {"messages": check(messages)}
    if tools:
        fields["tools"] = list(tools)
    if variables:
        fields["chat_template_kwargs"] = dict(variables)
    return fields


def _parameters(target: Target, options: Options) -> Parameters:
    """The options, checked as a model does."""
    parameters = Parameters.parse(options)
    if target.n_vocab is not None:
        parameters.check_tokens(target.n_vocab)
    if parameters.logprobs is not None and not target.is_clarion:
        raise UnsupportedError(
            "logprobs: this server does not say which tokens they belong to; Clarion's servers do"
        )
    return parameters


def _asked(
    target: Target, path: str, fields: dict[str, Any], options: Options, parameters: Parameters, n: int
) -> Asked:
    given = {name for name, value in options.items() if value is not None}
    # Iterables are read once, so the values are those that were parsed.
    fields |= {_NAMES.get(name, name): getattr(parameters, name) for name in sorted(given - _APART)}
    if parameters.greedy:
        fields["temperature"] = 0.0
    texts = [stop for stop in parameters.stop if isinstance(stop, str)]
    if texts and parameters.detokenize:  # where there is no text, strings do not stop it
        fields["stop"] = texts
    if ids := [stop for stop in parameters.stop if isinstance(stop, int)]:
        fields["stop_token_ids"] = ids
    if parameters.logit_bias:
        fields["logit_bias"] = _bias(target, parameters.logit_bias)
    seed = parameters.seed
    if "seed" not in given and n > 1:
        seed = -1  # each has one of its own
    elif "seed" not in given:
        # Others take no more than 31 bits.
        seed = seed if target.is_clarion else random_seed() >> 33
    if seed >= 0:
        fields["seed"] = seed
    if target.model is not None:
        fields["model"] = target.model
    if target.is_clarion:
        fields["clarion"] = True
    return Asked(path, fields, n, seed, parameters.detokenize, target.is_clarion)


def _bias(target: Target, bias: Mapping[int, float]) -> Any:
    if target.is_clarion:
        return [[token, False if added == -math.inf else added] for token, added in bias.items()]
    return {str(token): max(added, _EXCLUDED) for token, added in bias.items()}
