"""What the first words mean: a command, a model, a text, or something that is not there."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence

import click

from clarion.cli.suggest import nearest

# Commands of other programs, those that are to come first, and what to do today.
ELSEWHERE = {
    **dict.fromkeys(("server", "start"), "use clarion serve MODEL"),
    **dict.fromkeys(("download", "get", "fetch", "install"), "use clarion pull NAME"),
    **dict.fromkeys(("ls", "models", "tags"), "use clarion list"),
    **dict.fromkeys(("remove", "delete", "uninstall"), "use clarion rm NAME"),
    "stop": "clarion serve ends with Ctrl-C, and other commands load a model for themselves",
    **dict.fromkeys(("cp", "create", "push"), "models are files, and clarion list says how they are called"),
    **dict.fromkeys(("info", "card"), "use clarion show MODEL"),
    **dict.fromkeys(("dump", "gguf-dump", "metadata"), "use clarion inspect MODEL"),
    **dict.fromkeys(("generate", "complete", "completion", "cli", "main", "prompt"), "use clarion run"),
    **dict.fromkeys(("perplexity", "ppl", "evaluate", "kld"), "use clarion eval"),
    **dict.fromkeys(("validate", "verify", "test"), "use clarion check MODEL"),
    **dict.fromkeys(("benchmark", "speed"), "use clarion bench"),
    **dict.fromkeys(("tokenise", "detokenize", "tokens"), "use clarion tokenize"),
    **dict.fromkeys(("gguf-split", "shard"), "use clarion split, or clarion merge"),
    **dict.fromkeys(("embedding", "embeddings", "vectors"), "use clarion embed MODEL"),
    **dict.fromkeys(("rank", "reranking", "score"), "use clarion rerank MODEL"),
}
# No other words are looked for on this machine.
_MAY_NAME = re.compile(r"[A-Za-z0-9][\w./:@+?=&%~-]*", re.ASCII)


def command_line(words: Sequence[str], commands: Collection[str], options: Collection[str]) -> list[str]:
    """The words with a command before them.

    `clarion MODEL.gguf ...`, `clarion -m FILE ...` and `clarion "a text"` mean `clarion run ...`;
    `help [COMMAND]` and `version` are options.

    Args:
        commands: those that there are.
        options: those that stand before a command.

    Raises:
        click.UsageError: the first word is none of these.
    """
    words = list(words)
    if words and words[0] == "--debug" and len(words) > 1:  # it belongs to the command
        words = [words[1], words[0], *words[2:]]
    if not words or words[0] in commands or words[0] in options:
        return words
    first = words[0]
    if first == "help":
        return _help(words[1:], commands)
    if first in ("version", "-V") or words == ["-v"]:
        return ["--version"]
    if first.lower() not in ELSEWHERE and (
        names_a_model(first) or first.startswith("-") or re.search(r"\s", first.strip())
    ):
        return ["run", *words]
    raise click.UsageError(_unknown(first, commands))


def _help(words: Sequence[str], commands: Collection[str]) -> list[str]:
    if not words or words[0] in ("help", "version", "--help", "-h", "--version"):
        return ["--help"]
    if words[0] in commands:
        return [words[0], "--help"]
    raise click.UsageError(_unknown(words[0], commands))


def names_a_model(word: str) -> bool:
    """Whether a word is that of a model's file, there or not, or the name of a model on this machine."""
    if word.lower().endswith(".gguf") or os.path.isfile(word):
        return True
    if not _MAY_NAME.fullmatch(word) or os.path.isdir(word):
        return False
    from clarion.library import is_here

    return is_here(word)


def _unknown(word: str, commands: Collection[str]) -> str:
    """No such command, what was meant, and the list."""
    from clarion.names import looks_like_a_model, missing

    what = f"No such command {word!r}"
    if word.lower() in ELSEWHERE:
        hint = ELSEWHERE[word.lower()]
    elif (meant := nearest(word, [*commands, "help", "version"])) is not None and word:
        hint = f"did you mean {meant}?"
    elif os.path.isdir(word):
        from clarion.gguf.kinds import instead

        hint = instead(word, "a model") or "this is a folder, not a model"
    elif looks_like_a_model(word):
        hint = f"as a model: {missing(word)}"
    elif word.strip():
        hint = f"a text to continue stands after run: clarion run {word}"
    else:
        hint = "it is empty"
    end = "" if hint.endswith("?") else ";"
    return f"{what}: {hint}{end} commands: {', '.join(commands)}"
