"""`clarion bench`: how fast a model runs here, beside what the machine can do at most."""

from __future__ import annotations

import json
from contextlib import ExitStack
from statistics import median
from typing import TYPE_CHECKING, Any

import click

from clarion.cli import options
from clarion.cli.progress import counter
from clarion.errors import ParameterError

if TYPE_CHECKING:
    from clarion import Model, Options
    from clarion.evaluate.summary import Summary


@click.command()
@click.argument("model", required=False, type=options.file_name)
@options.model
@click.option(
    "-p",
    "--prompt-tokens",
    metavar="N",
    type=int,
    default=256,
    show_default=True,
    help="Length of the prompt.",
)
@click.option(
    "-n", "--max-tokens", metavar="N", type=int, default=64, show_default=True, help="Tokens to generate."
)
@click.option("-t", "--threads", help="Numbers of threads, as 1,2.  [default: the best number]")
@click.option(
    "-r", "--rounds", metavar="N", type=int, default=5, show_default=True, help="Measurements of each."
)
@options.program
@options.as_json
@options.debug
def bench(
    model: str | None,
    model_path: str | None,
    prompt_tokens: int,
    max_tokens: int,
    threads: str | None,
    rounds: int,
    context: int | None,
    batch: int,
    activations: str,
    kv: str | None,
    isa: str | None,
    as_json: bool,
) -> None:
    """Measures prompt and generation speed.

    Each round takes all numbers of threads in turn, so that whatever else the machine does meets all of them.
    Speeds are medians, with the least and the greatest behind them. Shares are of the read bandwidth
    (generation) and of the products of bytes (prompt) that the same threads reach in loops that do nothing
    else, as `clarion doctor --measure` recorded them, else measured after the rounds.
    """
    from clarion import load
    from clarion.evaluate.summary import Summary
    from clarion.host import choose
    from clarion.host.record import best_threads
    from clarion.programs import open_file

    for name, value in (("-p", prompt_tokens), ("-n", max_tokens), ("-r", rounds)):
        if value < 1:
            raise ParameterError(f"{name}: found {value}, expected at least 1")
    counts = _counts(threads) if threads is not None else [best_threads(choose(isa).name)]
    path = model or model_path
    with open_file(path) as file:
        summary = Summary.of(file)
    context = context or max(prompt_tokens + 1, max_tokens + 2)
    with ExitStack() as stack:
        models = []
        for count in counts:
            loaded = load(
                path,
                threads=count,
                context=context,
                activations=activations,
                kv=kv,
                isa=isa,
                batch=batch,
            )
            models.append(stack.enter_context(loaded))
            loaded.settle()
        rates: list[list[tuple[float, float]]] = [[] for _ in models]
        with counter("bench") as progress:
            for turn in range(rounds + 1):
                for i, loaded in enumerate(models):
                    progress(turn * len(models) + i, (rounds + 1) * len(models))
                    rates[i].append(_rates(loaded, turn, prompt_tokens, max_tokens))
        # The first turn only warms the caches up.
        results = [_result(loaded, pairs[1:]) for loaded, pairs in zip(models, rates, strict=True)]
        report = {
            "model": str(models[0].path),
            **summary.report(),
            "isa": models[0].isa,
            "activations": activations,
            "prompt_tokens": prompt_tokens,
            "generated_tokens": max_tokens,
            "rounds": rounds,
            "results": results,
        }
    print(json.dumps(report) if as_json else _table(report, results, summary))


def _counts(text: str) -> list[int]:
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise ParameterError(f"-t: found {text!r}, expected numbers of threads, as 1,2") from None


def _rates(model: Model, turn: int, n_prompt: int, n_generated: int) -> tuple[float, float]:
    """Tokens/s of a prompt, and of generation after a prompt of one token."""
    import numpy as np

    # Other tokens in every turn: nothing of an earlier prompt can be reused.
    tokens = np.random.default_rng(turn).integers(0, model.n_vocab, n_prompt)
    fixed: Options = {"greedy": True, "ignore_eos": True, "detokenize": False}
    one: Options = {**fixed, "max_tokens": 1}
    many: Options = {**fixed, "max_tokens": n_generated + 1}
    prompt = model.generate(tokens, **one)
    generation = model.generate(tokens[:1], **many)
    return prompt.timings.prompt_rate, generation.timings.generation_rate


def _result(model: Model, rates: list[tuple[float, float]]) -> dict[str, Any]:
    from clarion.runtime.measure import peaks

    prompt, generation = map(list, zip(*rates, strict=True))
    read, multiply = peaks(model.threads, model.isa)
    return {
        "threads": model.threads,
        "prompt": prompt,
        "generation": generation,
        "prompt_median": median(prompt),
        "generation_median": median(generation),
        "bandwidth": read,
        "bandwidth_share": median(generation) * model.bytes_per_token / read,
        "multiply": multiply,
        "multiply_share": median(prompt) * model.byte_products_per_token / multiply,
    }


def _table(report: dict[str, Any], results: list[dict[str, Any]], summary: Summary) -> str:
    rows = [("threads", "prompt tokens/s", "of products", "generation tokens/s", "of bandwidth")]
    for result in results:
        share = f"{result['multiply_share']:.0%}" if result["multiply_share"] else "none"  # all in float
        products = f"{share} of {result['multiply'] / 1e9:.0f} G/s"
        bandwidth = f"{result['bandwidth_share']:.0%} of {result['bandwidth'] / 1e9:.1f} GB/s"
        prompt, generation = _spread(result["prompt"]), _spread(result["generation"])
        rows.append((str(result["threads"]), prompt, products, generation, bandwidth))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    head = (
        f"{report['model']}: {summary}; {report['isa']}, {report['activations']} activations, "
        f"{report['prompt_tokens']} prompt tokens, {report['generated_tokens']} generated, "
        f"{report['rounds']} rounds"
    )
    return "\n".join((head, *lines))


def _spread(rates: list[float]) -> str:
    return f"{median(rates):.1f} ({min(rates):.1f} to {max(rates):.1f})"
