"""Options that commands share."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

import click

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_CACHE = "f16"


def together(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Several options as one decorator, shown in the order given."""

    def decorate(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


def cache(function: F) -> F:
    """--kv, and llama.cpp's names for its two halves; the command gets `kv`."""

    @click.option("--kv", help="What the KV cache stores: f32, f16, bf16, q8_0, q4_0, or two as KEYS:VALUES.")
    @click.option("-ctk", "--cache-type-k", metavar="TYPE", help="The keys alone.")
    @click.option("-ctv", "--cache-type-v", metavar="TYPE", help="The values alone.")
    @wraps(function)
    def command(kv: str | None, cache_type_k: str | None, cache_type_v: str | None, **others: Any) -> Any:
        if cache_type_k is not None or cache_type_v is not None:
            keys, _, values = (kv or DEFAULT_CACHE).partition(":")
            kv = f"{cache_type_k or keys}:{cache_type_v or values or keys}"
        return function(kv=kv, **others)

    return cast(F, command)


debug = click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")
model = click.option("-m", "--model", "model_path", metavar="FILE", help="The model, a GGUF file.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
isa = click.option("--isa", metavar="NAME", help="Native module: generic, avx2, ...; doctor lists them.")


def planned(batch: int) -> Callable[[F], F]:
    """What a plan is made for; `batch` unless somebody asks for other steps."""
    return together(
        click.option("-c", "--context", type=int, help="Tokens of prompt and continuation at most."),
        click.option(
            "-b", "--batch", type=int, default=batch, show_default=True, help="Tokens computed at once."
        ),
        click.option(
            "--activations", default="high", show_default=True, help="fast (8 bits), high (16 bits) or exact."
        ),
        cache,
        isa,
    )


plan = planned(256)
weights = click.option(
    "--weights",
    default="auto",
    show_default=True,
    help="Where weights are read: where the file is mapped (mapped), in huge pages from the first token on "
    "(copied), or from when a copy is there (moving).",
)
threads = click.option("-t", "--threads", type=int, help="Threads that compute.  [default: the best number]")
