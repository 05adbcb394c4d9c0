"""`clarion run`: one prompt, one text."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from clarion.cli import options, statistics
from clarion.cli.exit_codes import INTERRUPTED
from clarion.cli.progress import counter
from clarion.cli.sampling import chosen as chosen_options
from clarion.cli.sampling import sampling
from clarion.cli.sections import FILE, Command, option
from clarion.errors import ParameterError

if TYPE_CHECKING:
    from clarion import Completion, Model, Options
    from clarion.runtime.completion import FinishReason

PROMPT = "Prompt"


@click.command(cls=Command)
@click.argument("words", nargs=-1, metavar="[MODEL] [PROMPT]", type=FILE)
@options.model
@option("-p", "--prompt", section=PROMPT, metavar="TEXT", help="The prompt.")
@option("-f", "--file", section=PROMPT, type=FILE, metavar="FILE", help="Read the prompt from a file.")
@option(
    "--ids-file",
    section=PROMPT,
    type=FILE,
    metavar="FILE",
    help="Read the prompt as token ids: numbers in a text, .npy, or 32-bit integers.",
)
@option("-sys", "--system", section=PROMPT, metavar="TEXT", help="What the system says before the prompt.")
@option(
    "--raw",
    section=PROMPT,
    is_flag=True,
    help="Continue the prompt, also where the model has a chat template.",
)
@options.template(PROMPT)
@option(
    "--parse-special",
    section=PROMPT,
    is_flag=True,
    help="Names of control tokens in the prompt stand for them.",
)
@option(
    "-e",
    "--escape/--no-escape",
    "escape",
    section=PROMPT,
    default=None,
    help=r"Read \n, \t, \\, \xHH ... in typed texts as what they stand for.  [default: no-escape]",
)
@sampling
@options.program
@options.weights
@options.threads
@option(
    "--stats",
    section="Output",
    is_flag=True,
    help="Print the statistics even if nobody watches standard error.",
)
@options.as_json
@options.debug
def run(
    words: tuple[str, ...],
    model_path: str | None,
    prompt: str | None,
    file: str | None,
    ids_file: str | None,
    system: str | None,
    raw: bool,
    chat_template: str | None,
    chat_template_kwargs: str | None,
    parse_special: bool,
    escape: bool | None,
    context: int | None,
    batch: int,
    activations: str,
    kv: str | None,
    isa: str | None,
    weights: str,
    threads: int | None,
    stats: bool,
    as_json: bool,
    **given_sampling: Any,
) -> int:
    """Answers a prompt, or continues a text.

    A model with a chat template answers the prompt as one turn of chat; --raw continues it instead, as
    models without such a template do. Without MODEL, the model that comes with Clarion continues the text.
    The prompt stands on the command line, in a file (-f), or comes from standard input (-). The text goes to
    standard output, a line of statistics to standard error. Ctrl-C ends the text.
    """
    from clarion import load
    from clarion.cli.prompt import check_names, check_utf8, model_and_prompt, read_ids, read_text, unescape
    from clarion.cli.turn import Wishes

    path, word = model_and_prompt(words, model_path, prompt, file, ids_file)
    check_names(words, path, word, prompt, file, ids_file)
    typed = prompt if word is None else word
    check_utf8("the prompt", typed or "")
    if escape:
        typed, system = (text and unescape(text) for text in (typed, system))
        given_sampling["stop"] = tuple(map(unescape, given_sampling["stop"]))
    elif escape is None and typed is not None and r"\n" in typed:
        options.warn(
            r"the prompt holds \n, here two characters; -e reads it as a newline, --no-escape does not"
        )
    wishes = Wishes(raw, system, chat_template, chat_template_kwargs, parse_special)
    wishes.check(ids=ids_file is not None)
    chosen = chosen_options(given_sampling)
    given = read_ids(ids_file) if ids_file is not None else read_text(typed, file)
    if not given:
        raise ParameterError(f"{_source(typed, file, ids_file)}: the prompt is empty")
    if isinstance(given, str) and not given.strip():
        options.warn(f"{_source(typed, file, ids_file)}: the prompt is only white space")
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
        options.check_context(context, model.program.hyperparameters.context_length)
        ids, chat = (given, None) if isinstance(given, list) else wishes.tokens(model, given)
        completion, interrupted = _follow(model, ids, chosen, chat, quiet=as_json)
    if as_json:
        print(json.dumps(statistics.report(model, completion, chat is not None)))
    elif stats or sys.stderr.isatty():
        options.say(statistics.line(model, completion))
    return INTERRUPTED if interrupted else 0


def _source(typed: str | None, file: str | None, ids_file: str | None) -> str:
    """How an error calls the place where the prompt came from."""
    source = next((value for value in (ids_file, file, typed) if value is not None), "-")
    if source == "-":
        return "standard input"
    return source if typed is None else "the command line"


def _follow(
    model: Model, ids: list[int], chosen: Options, note: str | None, *, quiet: bool
) -> tuple[Completion, bool]:
    """Prints the text as it comes. Returns the completion, and whether Ctrl-C ended it.

    The note comes first, if nothing is wrong with the prompt.

    A prompt of several steps shows how far it is, until the first piece. With `max_tokens` 0 it is computed,
    and the one token that comes of it is dropped.
    """
    interrupted = False
    only_prompt = chosen.get("max_tokens") == 0
    quiet |= only_prompt
    with ExitStack() as shown:
        long = len(ids) > model.program.max_tokens
        progress = shown.enter_context(counter("prompt")) if long else None
        with model.stream(
            ids, progress=progress, **(chosen | {"max_tokens": 1} if only_prompt else chosen)
        ) as stream:
            if note is not None:
                options.warn(note)
            try:
                for piece in stream:
                    shown.close()
                    if not quiet:
                        _print(piece)
            except KeyboardInterrupt:
                interrupted = True
            completion = stream.cancel()
    if not quiet:
        _print("\n")
    return _without_text(completion) if only_prompt else completion, interrupted


def _without_text(completion: Completion) -> Completion:
    from dataclasses import replace

    reason: FinishReason = "cancelled" if completion.finish_reason == "cancelled" else "length"
    timings = replace(completion.timings, generated_tokens=0, generation=0.0)
    return replace(
        completion, text="", tokens=(), logprobs=None, finish_reason=reason, stopped_by=None, timings=timings
    )


def _print(text: str) -> None:
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
    sys.stdout.flush()
