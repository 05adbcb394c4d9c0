"""A model's card: what it is, how far it was trained, and what was measured, in Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from zoo.config import Model
from zoo.schedule import Progress

CONTEXT = 256  # tokens in a chunk; the second half of each is scored, as `clarion eval` does


@dataclass(frozen=True, slots=True)
class Measured:
    """A perplexity and its standard error."""

    perplexity: float
    error: float


@dataclass(frozen=True, slots=True)
class File:
    """A written file and what Clarion's default activations measure on it."""

    path: Path
    n_bytes: int
    measured: Measured


@dataclass(frozen=True, slots=True)
class Facts:
    """What a card states beside the configuration.

    Attributes:
        trained: the network in the arithmetic of its training, float32 sums.
        files: exports, and other files to compare with.
        counts: slots of each expert on the held-out text, [layers, experts].
        zeros: the share of zeros among ternary weights.
        sample: a greedy continuation.
    """

    progress: Progress
    device: str
    trained: Measured
    files: Sequence[File]
    n_train_tokens: int
    counts: list[list[int]] = field(default_factory=list)
    zeros: float | None = None
    sample: str = ""


def card(model: Model, facts: Facts) -> str:
    """The card as Markdown; the picture `NAME.svg` is expected beside it."""
    shape, recipe, progress = model.shape, model.recipe, facts.progress
    rows = [
        ("architecture", f"`{shape.family}`: {_architecture(model)}"),
        ("parameters", _parameters(model)),
        (
            "tokenizer",
            "byte-level BPE of 4096 tokens, the same for all models here",
        ),
        (
            "began with",
            f"`{progress.started_from}`" if progress.started_from else "random weights",
        ),
        ("seen", _seen(model, facts)),
        (
            "steps",
            f"{progress.step:,} of {recipe.batch:,} tokens; rates fell in the last {progress.cooldown:,}",
        ),
        ("optimizer", _optimizer(model)),
        ("seed", str(recipe.seed)),
        ("wall time", f"{progress.seconds / 60:.0f} minutes, {facts.device}"),
        ("text", "stories in the public domain in the United States, first published before 1929"),
        ("licence of the weights", "CC0 1.0"),
    ]
    parts = [
        f"# {model.name}\n\n{model.about[0].upper()}{model.about[1:]}. Size `{model.size}`.\n",
        _table(("", ""), rows),
        f"![loss]({model.name}.svg)\n",
        "## Held-out perplexity\n\n"
        f"Two books that are not in the training text; contexts of {CONTEXT}, the second half of each scored "
        "(`clarion eval`), ± standard error.\n",
        _table(("", "MB", "perplexity", "nats a token"), [_trained(facts), *map(_file, facts.files)]),
    ]
    if facts.counts:
        parts.append(_balance(facts.counts))
    if facts.zeros is not None:
        parts.append(f"## Ternary weights\n\n{facts.zeros:.1%} of the weights in the layers are zero.\n")
    if facts.sample:
        quoted = "\n".join(f"> {line}".rstrip() for line in facts.sample.splitlines())
        parts.append(f"## What it writes\n\n{quoted}\n")
    return "\n".join(parts)


def _architecture(model: Model) -> str:
    shape = model.shape
    plural = "s" if shape.n_layer > 1 else ""
    experts = (
        f"{shape.n_expert} experts of {shape.n_ff}, {shape.n_expert_used} used" if shape.n_expert else ""
    )
    return (
        f"{shape.n_layer} layer{plural}, width {shape.n_embd}, {shape.n_head} heads, "
        f"{shape.n_head_kv} KV heads, "
        f"{experts or f'FFN {shape.n_ff}'}, tied embeddings"
    )


def _parameters(model: Model) -> str:
    total = f"{model.shape.n_parameters / 1e6:.2f} million"
    if not model.shape.n_expert:
        return total
    return f"{total}, of which a token uses {model.shape.n_active / 1e6:.2f}"


def _seen(model: Model, facts: Facts) -> str:
    n = facts.progress.step * model.recipe.batch
    passes = n / facts.n_train_tokens
    return (
        f"{n / 1e6:.2f} million tokens, {passes:.2f} passes over the text, contexts of {model.recipe.context}"
    )


def _optimizer(model: Model) -> str:
    recipe = model.recipe
    return (
        f"Muon {recipe.matrix_rate:g} for matrices, AdamW {recipe.table_rate:g} for the embedding and "
        f"{recipe.vector_rate:g} for vectors; bfloat16 products"
    )


def _trained(facts: Facts) -> tuple[str, ...]:
    return ("as trained, float32", "", *_figures(facts.trained))


def _file(file: File) -> tuple[str, ...]:
    return (f"`{file.path.name}`", f"{file.n_bytes / 1e6:.1f}", *_figures(file.measured))


def _figures(measured: Measured) -> tuple[str, str]:
    return f"{measured.perplexity:.2f} ± {measured.error:.2f}", f"{math.log(measured.perplexity):.4f}"


def _balance(counts: list[list[int]]) -> str:
    rows = []
    for layer, row in enumerate(counts):
        mean = sum(row) / len(row)
        entropy = -sum(n / sum(row) * math.log(n / sum(row)) for n in row if n)
        rows.append(
            (str(layer), f"{min(row) / mean:.2f}", f"{max(row) / mean:.2f}", f"{math.exp(entropy):.1f}")
        )
    return (
        "## Balance\n\nHow often experts are used on the held-out text, relative to the mean, and the number "
        "of equally used experts that would be as hard to predict (exp of the entropy).\n\n"
        + _table(("layer", "least", "most", "effective experts"), rows)
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
