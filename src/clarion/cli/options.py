"""Options that commands share."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Any, TypeVar, cast

import click

from clarion.cli.sections import FILE, Names, completing, option

file_name = FILE
F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_CACHE = "f16"
# As clarion.plan and clarion.model have them, which take long to import; a test compares.
CACHE_FORMATS = ("f32", "f16", "bf16", "q8_0", "q4_0")
ACTIVATIONS = ("fast", "high", "exact")
WEIGHTS = ("auto", "mapped", "copied", "moving")
GREATEST_DEFAULT_CONTEXT = 4096


def together(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Several options as one decorator, shown in the order given."""

    def decorate(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


def warn(text: str) -> None:
    """One line on standard error."""
    say(f"clarion: {text}")


def say(line: str) -> None:
    """The same, as it is. Where nobody can be told, what was asked for is done all the same."""
    with suppress(OSError):
        click.echo(line, err=True)


def printable(text: str) -> str:
    """What a terminal would obey is shown as Python writes it."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def cache(function: F) -> F:
    """--kv, and llama.cpp's names for its two halves; the command gets `kv`."""

    @option(
        "--kv",
        section="Context and cache",
        type=Names(CACHE_FORMATS),
        help="What the KV cache stores; keys and values apart: KEYS:VALUES.  [default: f16; f32 with exact "
        "activations]",
    )
    @option(
        "-ctk",
        "--cache-type-k",
        section="Context and cache",
        type=Names(CACHE_FORMATS),
        metavar="TYPE",
        help="The keys alone.",
    )
    @option(
        "-ctv",
        "--cache-type-v",
        section="Context and cache",
        type=Names(CACHE_FORMATS),
        metavar="TYPE",
        help="The values alone.",
    )
    @wraps(function)
    def command(kv: str | None, cache_type_k: str | None, cache_type_v: str | None, **others: Any) -> Any:
        if cache_type_k is not None or cache_type_v is not None:
            keys, _, values = (kv or DEFAULT_CACHE).partition(":")
            kv = f"{cache_type_k or keys}:{cache_type_v or values or keys}"
        return function(kv=kv, **others)

    return cast(F, command)


def hub(function: F) -> F:
    """llama.cpp's ways to name a model that is fetched if it is not here; the command gets `fetched_path`."""

    @option(
        "-hf",
        "-hfr",
        "--hf-repo",
        section="Model",
        metavar="NAME",
        help="One of Hugging Face's hub, OWNER/NAME or OWNER/NAME:QUANT; fetched if it is not here.",
    )
    @option("-hff", "--hf-file", section="Model", metavar="NAME", help="The file of -hf.")
    @option(
        "-mu",
        "--model-url",
        section="Model",
        metavar="ADDRESS",
        help="The address of a .gguf file; fetched if it is not here.",
    )
    @wraps(function)
    def command(hf_repo: str | None, hf_file: str | None, model_url: str | None, **others: Any) -> Any:
        if hf_file is not None and hf_repo is None:
            raise click.UsageError("-hff names a file of the repository that -hf names")
        if hf_repo is not None and model_url is not None:
            raise click.UsageError(f"the model is given more than once: {hf_repo} and {model_url}")
        path = None
        if hf_repo is not None:
            from clarion.library import hub_name

            path = _fetched(hub_name(hf_repo, hf_file))
        elif model_url is not None:
            path = _fetched(model_url)
        return function(fetched_path=path, **others)

    return cast(F, command)


def model(function: F) -> F:
    """-m, and the options of `hub`; the command gets `model_path`."""

    @option(
        "-m",
        "--model",
        "model_path",
        section="Model",
        type=FILE,
        metavar="FILE|NAME",
        help="The model: a GGUF file, or the name of one that clarion list shows.",
    )
    @hub
    @wraps(function)
    def command(model_path: str | None, fetched_path: str | None, **others: Any) -> Any:
        if model_path is not None and fetched_path is not None:
            raise click.UsageError(f"the model is given more than once: {model_path} and {fetched_path}")
        return function(model_path=model_path or fetched_path, **others)

    return cast(F, command)


def _fetched(name: str) -> str:
    """Where the model of this name lies, fetched if it is not here."""
    from clarion.cli.library import reporting
    from clarion.library import fetched

    with reporting() as report:
        return str(fetched(name, report).path)


def _check_threads(context: click.Context, parameter: click.Parameter, threads: int | None) -> int | None:
    """Warns of more threads than processors: they take turns, and all wait for the last."""
    if threads is not None and not context.resilient_parsing:
        from clarion.host.threads import MOST_THREADS, most_threads

        if (most := most_threads()) < threads <= MOST_THREADS:
            processors = f"{most} processor{'s' if most > 1 else ''}"
            warn(f"-t {threads} is more than the {processors} that this process may use: slower, not faster")
    return threads


def _isa_names() -> list[str]:
    from clarion.host import choices

    return [choice.name for choice in choices() if choice.usable]


debug = option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")
as_json = option("--json", "as_json", section="Output", is_flag=True, help="Print one JSON object.")
isa = option(
    "--isa",
    section="Speed",
    metavar="NAME",
    shell_complete=completing(_isa_names),
    help="Native module: generic, avx2, ...; clarion doctor lists them.  [default: the best]",
)


activations = option(
    "--activations",
    section="Speed",
    default="high",
    show_default=True,
    type=Names(ACTIVATIONS),
    help="What weights are multiplied with: 8-bit integers, 16-bit ones, or float32.",
)
_CONTEXT = (
    "Tokens of prompt and continuation at most.  [default: what the model was made for, "
    f"up to {GREATEST_DEFAULT_CONTEXT}]"
)


def compiled(batch: int, context: str = _CONTEXT) -> Callable[[F], F]:
    """What a program is compiled for; `batch` unless somebody asks for other steps; `context`: what -c is."""
    return together(
        option("-c", "--context", section="Context and cache", type=int, help=context),
        cache,
        activations,
        option(
            "-b",
            "--batch",
            section="Speed",
            type=int,
            default=batch,
            show_default=True,
            help="Tokens of a prompt computed at once.",
        ),
        isa,
    )


def template(section: str, variables: str = "What the template knows besides, as") -> Callable[[F], F]:
    """The chat template and its variables; `variables`: how their help begins, before an example."""
    return together(
        option(
            "--chat-template",
            section=section,
            metavar="FILE|JINJA|NAME",
            help="Another chat template than the model's; NAME is one of its further ones.",
        ),
        option(
            "--chat-template-kwargs",
            section=section,
            metavar="JSON",
            help=f"{variables} '{{\"enable_thinking\": false}}'.",
        ),
    )


program = compiled(256)
weights = option(
    "--weights",
    section="Speed",
    default="auto",
    show_default=True,
    type=Names(WEIGHTS),
    help="Where weights are read: where the file is mapped, in copies made first, or in copies made while "
    "the first texts are computed.",
)
threads = option(
    "-t",
    "--threads",
    section="Speed",
    type=int,
    callback=_check_threads,
    help="Threads that compute.  [default: the best number]",
)


def check_context(context: int | None, made_for: int) -> None:
    """Warns of a context that is longer than those that the model has seen."""
    if context is not None and context > made_for:
        warn(
            f"-c {context} is more than the {made_for} tokens that the model was made for: what comes after "
            "them is often nonsense"
        )
