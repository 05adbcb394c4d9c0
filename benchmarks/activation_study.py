"""How far 8-bit activations are from exact arithmetic, and what each way of improving them costs.

    python benchmarks/activation_study.py MODEL.gguf --text TEXT.txt --json results.json
    python benchmarks/activation_study.py MODEL.gguf --text TEXT.txt --statistics

computes the model's plan in float32 with numpy, with every input of a quantised product encoded and decoded
by each way of the list `WAYS` (or of those that are named), and compares the logits with those of inputs that
are left as they are. It prints a Markdown table; --json keeps the figures and adds to those that are there.
With --sensitivity one kind of input is encoded at a time, with --statistics the program prints instead where
the error of `fast` comes from. One thread is the fastest on a machine that does other work:
OPENBLAS_NUM_THREADS=1.

The text is cut into chunks of 512 tokens; all tokens but each chunk's first are scored. A way is a few words
with commas between them:

    bits=16             16 bits instead of 8
    group=16            columns that share a scale, instead of 32
    scale=search|offset the scale with the least error, or a scale and an offset
    round=sum|gram      roundings that keep the sum of a block; or that take errors back where the weights
                        of the block's other columns resemble those of the rounded one
    smooth=4            columns divided by powers of two up to 2^4, with which integer weights of 4 bits could
                        be multiplied and still fit bytes; the columns are those that are large for 32 tokens
                        from all of the vocabulary. smooth=room: as far as each input's weights have room
    wide=8              the quad, of 4 columns, that is largest in its block has 16 bits, and the block the
                        scale of the others, where that lowers the square of the scale by more than 8 times
                        the mean square of the row's scales
    ratio=3             the same where the quad's largest element is more than 3 times that of the others
    times=2             tries that twice in each block
    whole=8             blocks whose scale's square is more than 8 times the row's mean square have 16 bits
    top=512             one `wide` quad for so many columns, or one `unit`
    unit=block|column   gets a remainder in 8 bits: 32 columns, or a column, which the block's scale then
                        leaves out
    max=10              units whose largest element is more than so many times the row's root mean square
    weighted            errors count with the squares of the weights of their columns
    inputs=REGEX        `wide` is for these inputs only; for the others it is `others=GAIN`, if that is there
    only=REGEX          other inputs stay as they are
    high=REGEX          these inputs have 16 bits
    wanted              inputs that are computed for wanted rows only, of which a prompt has one, have 16 bits

Costs are shares of a prompt's products: those of one wanted row count nothing.

An input's name is that of the first matrix that reads it, such as blk.3.attn_q.weight.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clarion.evaluate.chunks import beginning
from clarion.gguf import File
from clarion.host import native
from clarion.plan.interpret import Text
from clarion.plan.ir import Node, Value
from clarion.plan.narrow import narrow
from clarion.plan.operations import OPERATIONS
from clarion.plan.precision import precision
from clarion.plan.sources import Sources
from clarion.plan.weight import Weight
from clarion.programs import make_plan
from clarion.tokenizer import Tokenizer

Array = npt.NDArray[Any]

CONTEXT = 512
BLOCK = 32
CALIBRATION = 32  # tokens
LIMIT, HIGH_LIMIT = 127, 32639
# What a second product costs, in products of a block of 32 columns with one token: that of a block, with what
# it takes to find it; and that of a quad or column. With VNNI a block takes twelve instructions for 16 rows
# of weights (eight products of quads, a conversion, the scales, the sum), a quad on its own about eleven: its
# place, its weights, their offset, one product, a conversion, the scales, the sum, the end of the loop.
BLOCK_COST, QUAD_COST = 1.5, 0.9
HIGH_COST = 1.0

WAYS = [
    "fast",
    "bits=16",
    "group=16",
    "scale=search",
    "scale=offset",
    "round=sum",
    "round=gram",
    "smooth=4",
    "unit=block,top=512",
    "unit=block,max=12",
    "unit=column,top=512",
    "unit=column,max=6",
    "whole=8",
    "wide=4",
    "wide=8",
    "high=attn_q",
    "high=token_embd",
    "wanted",
    "wanted,group=16",
    "wanted,scale=offset",
    "wanted,round=gram",
    "wanted,smooth=4",
    "wanted,smooth=room",
    "wanted,smooth=room,wide=8",
    "wanted,unit=block,max=12",
    "wanted,whole=4",
    "wanted,whole=8",
    "wanted,wide=4",
    "wanted,wide=6",
    "wanted,wide=8",
    "wanted,wide=12",
    "wanted,wide=16",
    "wanted,ratio=2",
    "wanted,ratio=3",
    "wanted,wide=6,top=512",
    "wanted,wide=7",
    "wanted,wide=8,times=2",
    "wanted,wide=8,weighted",
    "wanted,wide=4,inputs=attn_q|ffn_gate,others=16",
]
SITE_KINDS = ["attn_q", "attn_output", "ffn_gate", "ffn_down", "token_embd"]


# ---- encodings --------------------------------------------------------------------------------------------


@dataclass
class Site:
    """An input that is encoded, and the matrices that it is multiplied with."""

    name: str
    matrices: list[Array]
    counted: bool  # whether every token of a prompt is multiplied: not where only wanted rows are
    room: int  # bits by which all its integer weights may grow and still fit unsigned bytes
    squares: Array | None = None  # mean squares of its columns, of the tokens that choose what is smoothed

    @property
    def kind(self) -> str:
        return self.name.split(".")[-2]

    @cached_property
    def rows(self) -> int:
        """Rows of weights that each token of a prompt is multiplied with."""
        return sum(len(matrix) for matrix in self.matrices) if self.counted else 0

    @cached_property
    def column_energy(self) -> Array:
        """The mean square of each column's weights, of which the mean is 1."""
        energy = np.sum([(matrix * matrix).sum(0) for matrix in self.matrices], axis=0)
        relative: Array = energy / energy.mean()
        return relative

    def factors(self, smooth: str) -> Array:
        """For each column the power of two by which it is larger than its block's others, within limits."""
        most = self.room if smooth == "room" else int(smooth)
        if self.squares is None:
            raise SystemExit(f"{self.name} was not computed before")
        blocks = np.sqrt(self.squares).reshape(-1, BLOCK) + np.float32(1e-30)
        ratio = np.log2(blocks / np.quantile(blocks, 0.9, axis=1, keepdims=True))
        found: Array = np.exp2(np.clip(np.rint(ratio), 0, most)).astype(np.float32).reshape(-1)
        return found

    @cached_property
    def feedback(self) -> Array:
        """For each block, how a column's error is spread over the columns behind it: [blocks, 32, 32]."""
        width = self.matrices[0].shape[1]
        found = []
        for k in range(0, width, BLOCK):
            parts = [matrix[:, k : k + BLOCK].astype(np.float64) for matrix in self.matrices]
            gram = np.sum([part.T @ part for part in parts], axis=0)
            gram = gram + np.eye(BLOCK) * 1e-6 * np.trace(gram) / BLOCK
            upper = np.linalg.cholesky(np.linalg.inv(gram)).T
            found.append(upper / np.diag(upper)[:, None])
        return np.array(found, np.float32)


def room(weights: str) -> int:
    """How often integer weights of a format can be doubled and still fit bytes, as far as its name tells."""
    bits = re.match(r"Q(\d)_", weights)
    return 8 - int(bits[1]) if bits else 0


def words(way: str) -> dict[str, str]:
    """The options of a way; a word without a value is one that is there."""
    return {key: value for key, _, value in (word.partition("=") for word in way.split(","))}


@dataclass
class Encoder:
    """Encodes and decodes inputs, and counts what that costs."""

    way: str
    products: float = 0.0  # multiplications of 32 columns of a row of weights
    extra: float = 0.0  # what second products cost, in those
    second: float = 0.0  # products that are done for a second part, whatever one costs
    options: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.options = words(self.way)

    @property
    def cost(self) -> float:
        return self.extra / max(self.products, 1)

    def __call__(self, x: Array, site: Site) -> Array:
        """x [T, K]: what its encoding stands for."""
        options = self.options
        if "exact" in options:
            return x
        if "smooth" in options:
            factors = site.factors(options["smooth"])
            return self.encoded(x / factors, site) * factors
        return self.encoded(x, site)

    def encoded(self, x: Array, site: Site) -> Array:
        options = self.options
        if "only" in options and not re.search(options["only"], site.name):
            return x
        width = x.shape[1]
        if width % BLOCK:
            raise SystemExit(f"{site.name}: {width} columns, expected a multiple of {BLOCK}")
        n_blocks = x.size / BLOCK
        self.products += n_blocks * site.rows
        high = options.get("bits") == "16"
        if "wanted" in options and not site.counted:
            high = True
        if not high and "high" in options and re.search(options["high"], site.name):
            high = True
            self.add(n_blocks, HIGH_COST, site)
        if high:
            return rounded(x, BLOCK, HIGH_LIMIT)
        if "wide" in options or "ratio" in options:
            gain = options.get("wide", "0")
            if not re.search(options.get("inputs", ""), site.name):
                gain = options.get("others", "inf")
            x_hat, wide = with_wide_quads(
                x,
                float(gain),
                int(options.get("times", 1)),
                site.column_energy if "weighted" in options else np.ones(width, np.float32),
                round(width / float(options["top"])) if "top" in options else width,
                float(options.get("ratio", 1)),
            )
            self.add(float(wide.sum()), QUAD_COST, site)
            return x_hat
        if "whole" in options:
            x_hat, wide = with_wide_blocks(x, float(options["whole"]))
            self.add(float(wide.sum()), BLOCK_COST, site)
            return x_hat
        if "unit" in options:
            x_hat, n_units = self.with_remainders(x, site)
            self.add(n_units, BLOCK_COST if options["unit"] == "block" else QUAD_COST, site)
            return x_hat
        return self.plain(x, site)

    def add(self, count: float, cost: float, site: Site) -> None:
        self.second += count * site.rows
        self.extra += count * cost * site.rows

    def plain(self, x: Array, site: Site) -> Array:
        options = self.options
        group = int(options.get("group", BLOCK))
        if options.get("scale") == "search":
            return searched(x, site.column_energy)
        if options.get("scale") == "offset":
            return with_offset(x)
        if options.get("round") == "sum":
            return keeping_sums(x)
        if options.get("round") == "gram":
            return fed_back(x, site.feedback)
        return rounded(x, group, LIMIT)

    def with_remainders(self, x: Array, site: Site) -> tuple[Array, float]:
        """x with remainders for some units, and how many these are."""
        options = self.options
        unit = {"block": BLOCK, "column": 1}[options["unit"]]
        size = np.abs(x).reshape(len(x), -1, unit).max(2)  # [T, units]
        score = size * size
        if "weighted" in options:
            score = score * site.column_energy.reshape(-1, unit).mean(1)
        chosen = np.ones(score.shape, bool)
        if "top" in options:
            most = max(1, round(x.shape[1] / float(options["top"])))
            chosen &= score >= np.sort(score, 1)[:, -most, None]
        if "max" in options:
            chosen &= score > float(options["max"]) ** 2 * (x * x).mean(1, keepdims=True)
        columns = np.repeat(chosen, unit, axis=1)
        n_units = float(chosen.sum())
        if unit == BLOCK:
            x_hat = rounded(x, BLOCK, LIMIT)
            step = np.repeat(size / LIMIT, BLOCK, axis=1) / 254
            with np.errstate(divide="ignore", invalid="ignore"):
                finer = np.where(step > 0, np.rint((x - x_hat) / step) * step, 0)
            return np.where(columns, x_hat + finer, x_hat), n_units
        # What is left out of the block's scale has 16 bits of its own.
        rest = rounded(np.where(columns, np.float32(0), x), BLOCK, LIMIT)
        return np.where(columns, rounded(x, 1, HIGH_LIMIT), rest), n_units


def with_wide_quads(
    x: Array, gain: float, times: int, energy: Array, most: int, ratio: float
) -> tuple[Array, Array]:
    """Blocks of 8 bits in which some quads have 16 bits, so that the scale is that of the others; and which
    quads these are [T, blocks, 8].

    The largest quad of a block becomes wide where that lowers the square of the block's scale by more than
    `gain` times the mean square of the row's scales, and is `ratio` times as large as the others; at most so
    many of a row, those that lower it most. That is tried `times` times. `energy` weighs the columns.
    """
    quads = np.abs(x).reshape(len(x), -1, BLOCK // 4, 4).max(3)  # [T, blocks, 8]
    weights = energy.reshape(-1, BLOCK).mean(1)
    wide = np.zeros(quads.shape, bool)
    largest = quads.max(2)
    wanted = gain * (largest * largest * weights).mean(1, keepdims=True)
    narrow = quads.copy()
    for _ in range(times):
        first = narrow.argmax(2)[..., None]
        without = narrow.copy()
        np.put_along_axis(without, first, 0, 2)
        lowers = (narrow.max(2) ** 2 - without.max(2) ** 2) * weights
        chosen = (lowers > wanted) & (narrow.max(2) > ratio * without.max(2))
        if most < lowers.shape[1]:
            chosen &= lowers >= np.sort(lowers, 1)[:, -most, None]
        wide |= chosen[..., None] & (np.arange(BLOCK // 4) == first)
        narrow = np.where(chosen[..., None], without, narrow)
    scale = np.maximum(narrow.max(2) / np.float32(LIMIT), largest / np.float32(HIGH_LIMIT))[..., None]
    blocks = x.reshape(len(x), -1, BLOCK)
    with np.errstate(divide="ignore", invalid="ignore"):
        x_hat = np.where(scale > 0, np.rint(blocks / scale) * scale, 0)
    return x_hat.astype(np.float32).reshape(x.shape), wide


def with_wide_blocks(x: Array, gain: float) -> tuple[Array, Array]:
    """Blocks of 16 bits where the square of a block's scale is more than `gain` times the mean square of the
    row's, and of 8 bits elsewhere; and which those are [T, blocks]."""
    largest = np.abs(x).reshape(len(x), -1, BLOCK).max(2)
    wide = largest**2 > gain * (largest**2).mean(1, keepdims=True)
    x_hat = np.where(np.repeat(wide, BLOCK, axis=1), rounded(x, BLOCK, HIGH_LIMIT), rounded(x, BLOCK, LIMIT))
    return x_hat, wide


def rounded(x: Array, group: int, limit: int) -> Array:
    """Integers up to the limit, with one scale for each group of columns."""
    blocks = x.reshape(len(x), -1, group)
    largest = np.abs(blocks).max(2, keepdims=True)
    with np.errstate(divide="ignore"):
        inverse = np.where(largest > 0, np.float32(limit) / largest, 0)
    x_hat: Array = (np.rint(blocks * inverse) * (largest / np.float32(limit))).reshape(x.shape)
    return x_hat


def searched(x: Array, energy: Array) -> Array:
    """The scale, of a few up to a tenth smaller, whose error is least where the weights' squares count."""
    blocks = x.reshape(len(x), -1, BLOCK)
    importance = energy.reshape(1, -1, BLOCK)
    largest = np.abs(blocks).max(2, keepdims=True) + np.float32(1e-30)
    best, least = np.zeros_like(blocks), np.full(largest.shape, np.inf, np.float32)
    for step in range(16):
        scale = largest / np.float32(LIMIT * (1 + step * 0.004))
        x_hat = np.clip(np.rint(blocks / scale), -LIMIT, LIMIT) * scale
        error = ((x_hat - blocks) ** 2 * importance).sum(2, keepdims=True)
        best = np.where(error < least, x_hat, best)
        least = np.minimum(error, least)
    return best.reshape(x.shape)


def with_offset(x: Array) -> Array:
    """254 steps from the least to the largest element of each block."""
    blocks = x.reshape(len(x), -1, BLOCK)
    low, up = blocks.min(2, keepdims=True), blocks.max(2, keepdims=True)
    middle = (low + up) / 2
    scale = (up - low) / 254 + np.float32(1e-30)
    x_hat: Array = (np.rint((blocks - middle) / scale) * scale + middle).reshape(x.shape)
    return x_hat


def keeping_sums(x: Array) -> Array:
    """Each error is carried to the next column of the block."""
    blocks = x.reshape(len(x), -1, BLOCK)
    scale = np.abs(blocks).max(2) / np.float32(LIMIT) + np.float32(1e-30)
    x_hat, carried = np.empty_like(blocks), np.zeros_like(scale)
    for k in range(BLOCK):
        wanted = blocks[..., k] + carried
        x_hat[..., k] = np.clip(np.rint(wanted / scale), -LIMIT, LIMIT) * scale
        carried = wanted - x_hat[..., k]
    return x_hat.reshape(x.shape)


def fed_back(x: Array, feedback: Array) -> Array:
    """Each error is taken back by the columns behind it in the block, as far as their weights resemble it."""
    blocks = x.reshape(len(x), -1, BLOCK).copy()
    scale = np.abs(blocks).max(2) / np.float32(LIMIT) + np.float32(1e-30)
    for k in range(BLOCK):
        wanted = blocks[..., k].copy()
        blocks[..., k] = np.clip(np.rint(wanted / scale), -LIMIT, LIMIT) * scale
        error = wanted - blocks[..., k]
        blocks[..., k + 1 :] -= error[..., None] * feedback[None, :, k, k + 1 :]
    return blocks.reshape(x.shape)


# ---- the model --------------------------------------------------------------------------------------------


class Model:
    """A file's plan, computed in float32, with inputs of products as an encoder gives them."""

    def __init__(self, file: File) -> None:
        self._plan = make_plan(file, CONTEXT)
        kept = self._plan.kept()
        self._nodes = precision(narrow(self._plan.nodes(), kept), "high", kept)  # where, not in how many bits
        self._sources = Sources(self._plan.weights, file.tensors)
        self._decoded: dict[str, Array] = {}
        self._sites: dict[Value, Site] = {}
        for node in self._nodes:
            if node.op == "encode":
                readers = [other for other in self._nodes if node.outputs[0] in other.inputs]
                weights = [w for reader in readers for w in reader.weights if w is not None and w.rows > 1]
                self._sites[node.outputs[0]] = Site(
                    weights[0].name,
                    [self._stored(weight, 2) for weight in weights],
                    node.outputs[0].rows == "tokens",
                    min(room(weight.format) for weight in weights),
                )

    @property
    def sites(self) -> list[Site]:
        return list(self._sites.values())

    def _stored(self, weight: Weight, n_axes: int) -> Array:
        if weight.name not in self._decoded:
            data = np.ascontiguousarray(self._sources[weight.name].view).reshape(-1)
            count = weight.experts * weight.rows * weight.cols
            decoded = native().dequantize(weight.type_id, data, count)
            self._decoded[weight.name] = decoded.reshape(weight.experts, weight.rows, weight.cols)
        found = self._decoded[weight.name]
        return found.reshape(found.shape[-n_axes:])

    def logits(self, tokens: Sequence[int], first: int, encode: Callable[[Array, Site], Array]) -> Array:
        """The logits after every token from `first` on: [T - first, n_vocab]."""
        text = Text(np, np.asarray(tokens, np.int64), first, self._plan.states)
        wanted = self._plan.outputs[0].value
        values: dict[Value, Array] = {}
        last_use = {value: at for at, node in enumerate(self._nodes) for value in node.inputs}
        for at, node in enumerate(self._nodes):
            results = self._compute(node, [values[value] for value in node.inputs], text, encode)
            for value, result in zip(node.outputs, results, strict=True):
                values[value] = np.asarray(result, np.float32)
            for value in node.inputs:
                if last_use[value] == at:
                    values.pop(value, None)
        return next(array for value, array in values.items() if value.name == wanted)

    def _compute(
        self, node: Node, inputs: list[Array], text: Text, encode: Callable[[Array, Site], Array]
    ) -> Sequence[Array]:
        if node.op == "encode":
            return [encode(inputs[0], self._sites[node.outputs[0]])]
        return OPERATIONS[node.op].compute(
            np,
            inputs,
            [None if weight is None else partial(self._stored, weight) for weight in node.weights],
            {**node.ints, **node.floats, **node.arrays},
            text,
            len(node.outputs),
        )


# ---- figures ----------------------------------------------------------------------------------------------


@dataclass
class Reference:
    """Logits of exact inputs, and the probabilities that they mean."""

    logits: Array
    p: Array
    log_p_targets: Array
    targets: Array

    @classmethod
    def of(cls, logits: Array, targets: Sequence[int]) -> Reference:
        p = np.empty_like(logits)
        log_p = np.empty(len(targets))
        for row, target in enumerate(targets):
            shifted = logits[row] - logits[row].max()
            np.exp(shifted, out=p[row])
            total = p[row].sum()
            p[row] /= total
            log_p[row] = shifted[target] - np.log(total)
        return cls(logits, p, log_p, np.asarray(targets))

    def compare(self, logits: Array) -> tuple[Array, Array, Array]:
        """For each token the divergence from these, the target's log probability, whether the choice is the
        same. With d the differences of the logits less their mean, the divergence is
        ln(1 + Σ p (eᵈ - 1 - d)), in which nothing cancels."""
        divergence, log_p = np.empty(len(logits)), np.empty(len(logits))
        for row, (ours, reference, p) in enumerate(zip(logits, self.logits, self.p, strict=True)):
            d = ours - reference
            d -= p @ d
            divergence[row] = np.log1p(np.float64(p @ (np.expm1(d) - d)))
            log_p[row] = self.log_p_targets[row] + d[self.targets[row]] - divergence[row]
        return divergence, log_p, logits.argmax(1) == self.logits.argmax(1)


@dataclass
class Study:
    """A model, some chunks of a text, and their logits in exact arithmetic."""

    model: Model
    chunks: list[tuple[list[int], list[int]]]
    references: list[Reference]

    @classmethod
    def of(cls, file: File, text: str, n_chunks: int) -> Study:
        model = Model(file)
        tokenizer = Tokenizer.from_gguf(file.path)
        chunks = list(cut(tokenizer.encode(text), beginning(tokenizer), n_chunks))
        exact = Encoder("exact")
        n_vocab = len(model.logits(chunks[0][0][:2], 1, exact)[0])
        spread = np.linspace(0, n_vocab, CALIBRATION, endpoint=False).astype(int).tolist()

        def observe(x: Array, site: Site) -> Array:
            row = x[-(CALIBRATION - 1) :]  # without a text's first token, which is like no other
            site.squares = (row * row).mean(0)
            return x

        model.logits(spread, 1, observe)
        references = [Reference.of(model.logits(seen, 1, exact), targets) for seen, targets in chunks]
        return cls(model, chunks, references)

    def measure(self, way: str) -> dict[str, Any]:
        encoder = Encoder(way)
        begin = time.perf_counter()
        found = [
            reference.compare(self.model.logits(seen, 1, encoder))
            for (seen, _), reference in zip(self.chunks, self.references, strict=True)
        ]
        divergence, log_p, same = (np.concatenate(parts) for parts in zip(*found, strict=True))
        reference = np.concatenate([reference.log_p_targets for reference in self.references])
        return {
            "way": way,
            "cost": encoder.cost,
            "second": encoder.second / max(encoder.products, 1),
            "mean": float(divergence.mean()),
            "error": float(divergence.std() / np.sqrt(len(divergence))),
            "p999": float(np.quantile(divergence, 0.999)),
            "greatest": float(divergence.max()),
            "same_choice": float(same.mean()),
            "perplexity": float(np.exp(-log_p.mean())),
            "reference_perplexity": float(np.exp(-reference.mean())),
            "tokens": len(divergence),
            "seconds": time.perf_counter() - begin,
        }


def cut(tokens: Sequence[int], bos: int | None, most: int) -> Iterator[tuple[list[int], list[int]]]:
    """Chunks of tokens, of which all but the first are scored, and what follows each of these."""
    for begin in range(0, min(len(tokens) - 1, most * CONTEXT) - CONTEXT + 1, CONTEXT):
        seen = list(tokens[begin : begin + CONTEXT])
        if bos is not None:
            seen[0] = bos
        yield seen, list(tokens[begin + 2 : begin + CONTEXT + 1])


def table(rows: Sequence[dict[str, Any]]) -> str:
    base = next((row["mean"] for row in rows if row["way"] == "fast"), None)
    lines = [
        "| way | cost | mean KLD | of `fast` | 99.9% | greatest | same choice | perplexity |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        share = f"{row['mean'] / base:.3f}" if base else ""
        lines.append(
            f"| `{row['way']}` | {row['cost']:.1%} | {row['mean']:.2e} | {share} | {row['p999']:.1e} | "
            f"{row['greatest']:.1e} | {row['same_choice']:.2%} | {row['perplexity']:.4f} |"
        )
    return "\n".join(lines)


def statistics(study: Study) -> str:
    """Where the error of `fast` comes from: how much of what is expected lies where, by kinds of inputs."""
    figures: dict[str, list[list[float]]] = {}

    def observe(x: Array, site: Site) -> Array:
        row = x[-(CONTEXT - 1) :]  # without a text's first token, which is like no other
        blocks = np.sort(np.abs(row).reshape(len(row), -1, BLOCK), 2)
        largest, second = blocks[..., -1], blocks[..., -2]
        energy = (row * row).sum(1, keepdims=True)
        noise = largest**2 * (BLOCK / 12 / LIMIT**2) / energy  # [T, blocks]
        columns = np.zeros(row.shape[1])
        at = np.abs(row).reshape(blocks.shape).argmax(2) + np.arange(blocks.shape[1]) * BLOCK
        np.add.at(columns, at, noise)
        few = max(1, round(0.05 * noise.shape[1]))
        fewer = max(1, round(0.01 * len(columns)))
        figures.setdefault(site.kind, []).append(
            [
                float(noise.sum(1).mean()),
                float(np.sort(noise, 1)[:, -few:].sum() / noise.sum()),
                float(np.sort(noise.sum(0))[-few:].sum() / noise.sum()),
                float(np.sort(columns)[-fewer:].sum() / columns.sum()),
                float((noise * (second / np.maximum(largest, 1e-30)) ** 2).sum() / noise.sum()),
                float(np.sqrt((largest**2 / (energy / row.shape[1])).max())),
            ]
        )
        return rounded(x, BLOCK, LIMIT)

    for seen, _ in study.chunks[:2]:
        study.model.logits(seen, 1, observe)
    lines = [
        "| input | error of energy | 5% of a row's blocks | 5% of blocks, the same for all rows "
        "| 1% of columns, as largest ones | left without the largest column | largest / rms |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for kind, rows in figures.items():
        mean = np.mean(rows, 0)
        shares = " | ".join(f"{share:.0%}" for share in mean[1:5])
        lines.append(f"| {kind} | {mean[0]:.1e} | {shares} | {mean[5]:.0f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("ways", nargs="*", help="ways to measure, instead of all")
    parser.add_argument("--text", type=Path, default=Path(__file__).with_name("held_out.txt"))
    parser.add_argument("--chunks", type=int, default=8)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--statistics", action="store_true")
    parser.add_argument("--sensitivity", action="store_true", help="encode one kind of input at a time")
    arguments = parser.parse_args()
    ways = arguments.ways or WAYS
    if arguments.sensitivity:
        ways = ["fast", *(f"only={kind}" for kind in SITE_KINDS)]
    rows: list[dict[str, Any]] = []
    if arguments.json and arguments.json.exists():
        rows = json.loads(arguments.json.read_text())
    with File.open(arguments.model) as file:
        study = Study.of(file, arguments.text.read_text(encoding="utf-8"), arguments.chunks)
        if arguments.statistics:
            print(statistics(study))
            return
        for way in ways:
            if any(row["way"] == way for row in rows):
                continue
            rows.append(study.measure(way))
            print(table(rows[-1:]).splitlines()[-1], flush=True)
            if arguments.json:
                arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    print(table([row for row in rows if row["way"] in ways]))


if __name__ == "__main__":
    main()
