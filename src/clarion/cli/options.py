"""Options that commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def together(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Several options as one decorator, shown in the order given."""

    def decorate(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


debug = click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")
model = click.option("-m", "--model", "model_path", metavar="FILE", help="The model, a GGUF file.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
isa = click.option("--isa", metavar="NAME", help="Native module: generic, avx2, ...; doctor lists them.")
plan = together(
    click.option("-c", "--context", type=int, help="Tokens of prompt and continuation at most."),
    click.option("-b", "--batch", type=int, default=256, show_default=True, help="Tokens computed at once."),
    click.option(
        "--activations", default="high", show_default=True, help="fast (8 bits), high (16 bits) or exact."
    ),
    click.option("--kv", help="What the KV cache stores: f16 or f32."),
    isa,
)
weights = click.option(
    "--weights",
    default="auto",
    show_default=True,
    help="Read weights where the file is mapped (mapped), or from a copy in huge pages (copied).",
)
threads = click.option("-t", "--threads", type=int, help="Threads that compute.  [default: the best number]")
