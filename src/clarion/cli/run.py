"""`clarion run`: one prompt, one text."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from clarion.cli import options
from clarion.cli.exit_codes import INTERRUPTED

if TYPE_CHECKING:
    from clarion import Completion, Model, Options, TextStream

MEASURED_SECONDS = 0.1  # for the last line, where nothing is recorded


@click.command()
@click.argument("words", nargs=-1, metavar="[MODEL] [PROMPT]")
@options.model
@click.option("-p", "--prompt", metavar="TEXT", help="The prompt.")
@click.option("-f", "--file", metavar="FILE", help="Read the prompt from a file.")
@click.option("--ids-file", metavar="FILE", help="Read the prompt as token ids from a file.")
@click.option("-n", "--max-tokens", type=int, help="Tokens to generate at most.  [default: until the end]")
@click.option("--greedy", is_flag=True, help="Always the most probable token.")
@click.option("--temp", "temperature", type=float, help="Temperature.  [default: 0.8]")
@click.option("--top-k", type=int, help="The k most probable tokens; 0: all.  [default: 40]")
@click.option("--top-p", type=float, help="The tokens that reach this probability.  [default: 0.95]")
@click.option("--min-p", type=float, help="Tokens this probable, relative to the first.  [default: 0.05]")
@click.option("--typical", "typical_p", type=float, help="Tokens of typical information.  [default: 1]")
@click.option("--repeat-penalty", type=float, help="Divides logits of recent tokens.  [default: 1]")
@click.option("--presence-penalty", type=float, help="Subtracted from recent tokens.  [default: 0]")
@click.option("--frequency-penalty", type=float, help="Subtracted for each occurrence.  [default: 0]")
@click.option("--repeat-last-n", "penalty_window", type=int, help="Tokens that are recent.  [default: 64]")
@click.option("--dry-multiplier", type=float, help="Strength of the DRY penalty; 0: none.  [default: 0]")
@click.option("--dry-base", type=float, help="Its growth for each token repeated.  [default: 1.75]")
@click.option("--dry-allowed-length", type=int, help="Repetitions that cost nothing yet.  [default: 2]")
@click.option("--seed", type=int, help="The same seed draws the same text.  [default: random]")
@click.option("--stop", multiple=True, metavar="TEXT", help="Ends the text; may be given several times.")
@click.option("--ignore-eos", is_flag=True, help="Go on where the model would end.")
@options.plan
@options.weights
@options.threads
@click.option("--stats", is_flag=True, help="Print the statistics even if nobody watches standard error.")
@options.as_json
@options.debug
def run(
    words: tuple[str, ...],
    model_path: str | None,
    prompt: str | None,
    file: str | None,
    ids_file: str | None,
    context: int | None,
    batch: int,
    activations: str,
    kv: str | None,
    isa: str | None,
    weights: str,
    threads: int | None,
    stats: bool,
    as_json: bool,
    **sampling: Any,
) -> int:
    """Continues a text.

    Without MODEL, the model that comes with Clarion. The prompt stands on the command line, in a file (-f),
    or comes from standard input. The text goes to standard output, a line of statistics to standard error.
    Ctrl-C ends the text.
    """
    from clarion import load
    from clarion.cli.prompt import model_and_prompt, read_ids, read_text

    path, word = model_and_prompt(words, model_path, prompt, file, ids_file)
    chosen = _sampling(sampling)
    given = read_ids(ids_file) if ids_file is not None else read_text(prompt if word is None else word, file)
    with load(
        path,
        threads=threads,
        context=context,
        activations=activations,
        kv=kv,
        isa=isa,
        batch=batch,
        weights=weights,
    ) as model:
        stream = model.stream(given, **chosen)
        completion, interrupted = _follow(stream, quiet=as_json)
    # Measuring the bandwidth takes memory of its own: only after the model has given its back.
    if as_json:
        print(json.dumps(_report(model, completion)))
    elif stats or sys.stderr.isatty():
        print(_statistics(model, completion), file=sys.stderr)
    return INTERRUPTED if interrupted else 0


def _sampling(given: dict[str, Any]) -> Options:
    """The options that were given. As elsewhere, -n -1 and --seed -1 mean the same as leaving them out."""
    unset: dict[str, tuple[object, ...]] = {"max_tokens": (None, -1), "seed": (None, -1)}
    chosen: Any = {
        name: value
        for name, value in given.items()
        if value is not False and value not in unset.get(name, (None, ()))
    }
    return chosen  # type: ignore[no-any-return]


def _follow(stream: TextStream, *, quiet: bool) -> tuple[Completion, bool]:
    """Prints the text as it comes. Returns the completion, and whether Ctrl-C ended it."""
    interrupted = False
    try:
        for piece in stream:
            if not quiet:
                _print(piece)
    except KeyboardInterrupt:
        interrupted = True
    completion = stream.cancel()
    if not quiet:
        _print("\n")
    return completion, interrupted


def _print(text: str) -> None:
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
    sys.stdout.flush()


def _figures(model: Model, completion: Completion) -> dict[str, float]:
    """Of the speed of generation: what was measured, what the machine can do, and the share."""
    from clarion.devices.measure import peaks

    measured, _ = peaks(model.threads, model.isa, MEASURED_SECONDS)
    used = completion.timings.generation_rate * model.bytes_per_token
    return {"bandwidth": measured, "bandwidth_share": used / measured}


def _statistics(model: Model, completion: Completion) -> str:
    timings, figures = completion.timings, _figures(model, completion)
    return " · ".join(
        (
            f"load {model.load_seconds:.2f} s",
            f"first token {timings.first_token:.2f} s",
            f"prompt {timings.prompt_tokens} tokens, {timings.prompt_rate:.1f} tokens/s",
            f"generation {timings.generated_tokens} tokens, {timings.generation_rate:.1f} tokens/s",
            f"{figures['bandwidth_share']:.0%} of {figures['bandwidth'] / 1e9:.1f} GB/s",
            f"seed {completion.seed}",
        )
    )


def _report(model: Model, completion: Completion) -> dict[str, object]:
    timings = completion.timings
    return {
        "model": str(model.path),
        "text": completion.text,
        "tokens": completion.tokens,
        "finish_reason": completion.finish_reason,
        "stopped_by": completion.stopped_by,
        "seed": completion.seed,
        "isa": model.isa,
        "threads": model.threads,
        "load_seconds": model.load_seconds,
        "prompt_tokens": timings.prompt_tokens,
        "generated_tokens": timings.generated_tokens,
        "first_token_seconds": timings.first_token,
        "prompt_tokens_per_second": timings.prompt_rate,
        "generated_tokens_per_second": timings.generation_rate,
        **_figures(model, completion),
    }
