"""Into which items a program's operations split, and what each of them takes, without weights or threads.

The counts are those that `begin` of each native kernel returns; the comments name the file. Shapes come from
a compiled program, which needs a file's metadata only, so a model of any size can be looked at anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from random_model import Shape, tensors

from clarion.gguf.formats import Format, format_named
from clarion.models import build
from clarion.plan import Program, Target, compile
from clarion.plan.program import Buffer
from clarion.programs import host_target
from clarion.runtime.cost import BYTE_PRODUCTS

# native/kernels/rows.h
ITEM_ELEMENTS = 8192
LEAST_ITEM_ELEMENTS = 2048
# native/kernels/attention.cpp
TILE_QUERIES = 64
ITEM_PRODUCTS = 1 << 18
SPAN_POSITIONS = 1024
ITEMS_PER_THREAD = 8
MOST_SPANS = 128
# native/kernels/product.h and linear.cpp
MOST_TOKENS = 256
WHOLE_TILES = 24
PANEL_ROWS = 16

# Of operations that treat rows one by one: which operands' widths make the elements of a row, and which one's
# rows are counted. Inputs are numbers, outputs numbers from 10 on.
_ROWS: dict[str, tuple[tuple[int, ...], int]] = {
    **dict.fromkeys(("rms_norm", "layer_norm", "head_norm", "rope"), ((0,), 0)),
    **dict.fromkeys(("mul_vector", "add_vector", "mul_rows", "temperature"), ((0,), 0)),
    **dict.fromkeys(("silu", "mul", "add", "swiglu", "gelu", "geglu", "relu_squared"), ((10,), 10)),
    **dict.fromkeys(("swiglu_clamped", "logistic", "tanh", "softplus", "scale"), ((10,), 10)),
    **dict.fromkeys(("embed", "embed_positions", "encode"), ((10,), 10)),
    "rope_kv": ((0, 1, 2), 0),
    "kv_write": ((0, 1), 0),
    "select": ((0,), 10),
    "rope_table": ((10,), 10),
}
_IN_PIECES = frozenset({"encode", "silu", "mul", "add", "swiglu", "gelu", "geglu", "rope_kv"})
_ROPE_TABLE_FACTOR = 16  # a sine costs as much as so many elements: native/kernels/rope.cpp


@dataclass(frozen=True, slots=True)
class Tiling:
    """Sizes from the caches of a core: native/machine/tiling.cpp. All after `item_bytes` are rules that are
    not there; 0 is what kernels do.

    Attributes:
        in_pieces: rows of operations that treat elements or blocks one by one are cut at an item's elements.
        few_heads: products that an item of attention has at least.
        each: tiles of queries become smaller until attention has so many items for each thread.
        item_tokens: items of products have fewer bytes where more tokens than these meet them.
        items_each: blocks of tokens become shorter until a product has so many items for each thread.
        tapered: the last quarter of a lane's panels are items of one panel each.
    """

    l2: int = 1 << 20
    least_tokens: int = 48
    few_tokens: int = 16
    item_bytes: int = 256 << 10
    in_pieces: bool = False
    few_heads: int = 0
    each: int = 0
    item_tokens: int = 0
    items_each: int = 0
    tapered: bool = False

    @property
    def activation_bytes(self) -> int:
        return self.l2 // 2


@dataclass(frozen=True, slots=True)
class Batch:
    """Tokens of some sequences: of each the position of its first token, and how many there are."""

    sequences: tuple[tuple[int, int], ...]
    n_outputs: int

    @property
    def n_tokens(self) -> int:
        return sum(n for _, n in self.sequences)

    def rows(self, buffer: Buffer) -> int:
        of = {"tokens": self.n_tokens, "outputs": self.n_outputs, "batch": 1}
        return of[buffer.rows] * (1 if buffer.rows == "batch" else buffer.slots_per_token)


PAST = 256  # positions before a text's token
WORK = {
    "prompt of 256": Batch(((0, 256),), 1),
    "16 texts": Batch(((PAST, 1),) * 16, 16),
    "one text": Batch(((PAST, 1),), 1),
}


@dataclass(frozen=True, slots=True)
class Item:
    """What one item takes.

    Attributes:
        bytes: of weights or of the cache, read from memory.
        weights: that are decoded, once for each time they are read.
        products: of weights and activations, of bytes; of 16-bit activations each counts twice.
        fused: products of floats, of attention.
        elements: of rows, read and written.
        at: where in the bytes of its operation it reads, from 0 to 1: the node that has them follows.
    """

    bytes: float = 0.0
    weights: float = 0.0
    products: float = 0.0
    fused: float = 0.0
    elements: float = 0.0
    at: float = 0.0


@dataclass(frozen=True, eq=False)
class Work:
    """One operation of a program for one batch."""

    op: str
    items: tuple[Item, ...]

    @cached_property
    def total(self) -> Item:
        """All items together."""
        return Item(
            *(
                sum(getattr(item, name) for item in self.items)
                for name in ("bytes", "weights", "products", "fused", "elements")
            )
        )


class UnknownOperationError(Exception):
    """An operation whose items are not described here."""


def work_of(program: Program, batch: Batch, threads: int, tiling: Tiling | None = None) -> list[Work]:
    """The operations of a program with their items, as native code splits them for so many threads.

    Raises:
        UnknownOperationError: the program has one that is not described here.
    """
    found: dict[object, Work] = {}
    result = []
    for op in program.ops:
        key = _likeness(program, op)
        if key not in found:
            found[key] = _Split(program, op, batch, threads, tiling or Tiling()).work()
        result.append(found[key])
    return result


def _likeness(program: Program, op: Any) -> object:
    """Operations with the same one split alike."""
    values = [
        (b.kind, b.rows, b.width, b.slots_per_token)
        for b in (program.buffers[i] for i in (*op.inputs, *op.outputs) if i >= 0)
    ]
    weights = [
        (w.format, w.rows, w.cols, w.experts) for w in (program.weights[i] for i in op.weights if i >= 0)
    ]
    ints = tuple(sorted((name, value) for name, value in op.ints.items() if name != "state"))
    return op.op, tuple(values), tuple(weights), ints


@dataclass(frozen=True, slots=True)
class Matrix:
    """Panels of one matrix: `Panels` in native/kernels/linear.cpp."""

    panels: int
    panel_bytes: int
    panel_weights: int


class _Split:
    """One operation, for one batch."""

    def __init__(self, program: Program, op: Any, batch: Batch, threads: int, tiling: Tiling) -> None:
        self._program, self._op, self._batch = program, op, batch
        self._threads, self._tiling = threads, tiling

    def work(self) -> Work:
        name = self._op.op
        if name == "linear":
            items = self._linear()
        elif name == "attention":
            items = self._attention()
        elif name in _ROWS:
            of, counted = _ROWS[name]
            elements = sum(self._operand(i).width for i in of)
            elements *= _ROPE_TABLE_FACTOR if name == "rope_table" else 1
            items = self._in_rows(self._operand(counted), elements)
        else:
            raise UnknownOperationError(f"operation {name!r}: its items are not described")
        return Work(name, tuple(items))

    def _operand(self, i: int) -> Buffer:
        return self._program.buffers[self._op.outputs[i - 10] if i >= 10 else self._op.inputs[i]]

    def _in_rows(self, counted: Buffer, elements: int) -> list[Item]:
        rows = self._batch.rows(counted)
        enough = min(max(rows * elements // (4 * self._threads), LEAST_ITEM_ELEMENTS), ITEM_ELEMENTS)
        if self._tiling.in_pieces and self._op.op in _IN_PIECES and elements > enough:
            rows, elements = rows * -(-elements // enough), enough
        per_item = max(1, enough // elements)
        each = [min(per_item, rows - first) for first in range(0, rows, per_item)]
        return [Item(elements=n * elements, at=i / len(each)) for i, n in enumerate(each)]

    def _linear(self) -> list[Item]:
        program, tiling, source = self._program, self._tiling, self._operand(0)
        n_tokens = self._batch.rows(source)
        weights = [program.weights[i] for i in self._op.weights[: len(self._op.outputs)]]
        matrices = [
            Matrix(-(-w.rows // PANEL_ROWS), PANEL_ROWS * w.n_bytes // w.rows, PANEL_ROWS * w.cols)
            for w in weights
        ]
        block = block_of(n_tokens, program_row_bytes(source), tiling)
        per_block = items_per_block(matrices, n_tokens, self._threads, tiling)
        wanted = tiling.items_each * self._threads
        while per_block * -(-n_tokens // block) < wanted and block > WHOLE_TILES and n_tokens > WHOLE_TILES:
            block = (block - 1) // WHOLE_TILES * WHOLE_TILES
        cut = shared_out(matrices, per_block)
        if tiling.tapered and n_tokens <= tiling.few_tokens:
            cut = tapered(cut, matrices, self._threads)
        times = BYTE_PRODUCTS.get(source.kind, 0)
        items = []
        for first in range(0, n_tokens, block):
            n = min(block, n_tokens - first)
            for i, (n_bytes, n_weights) in enumerate(cut):
                products, fused = (times * n * n_weights, 0) if times else (0, n * n_weights)
                items.append(Item(n_bytes, n_weights, products, fused, at=i / len(cut)))
        return items

    def _attention(self) -> list[Item]:
        ints, batch = self._op.ints, self._batch
        group = ints["n_head"] // ints["n_head_kv"]
        per_tile = max(1, TILE_QUERIES // group)
        dims = ints["head_dim"] + ints["dim_v"]
        window = ints["window"]
        if ints["chunked"] or not ints["causal"]:
            raise UnknownOperationError("attention that is chunked or sees both directions: not described")
        n_head_kv, threads = ints["n_head_kv"], self._threads
        while True:
            tiles: list[list[tuple[int, int]]] = []  # of each the ranges that its tokens see
            for begin, n in batch.sequences:
                seen = [(max(0, p - window + 1) if window else 0, p) for p in range(begin, begin + n)]
                tiles += [seen[i : i + per_tile] for i in range(0, n, per_tile)]
            longest = max(map(len, tiles))
            if longest <= 4 or len(tiles) * n_head_kv >= self._tiling.each * threads:
                break
            per_tile = longest // 2
        ranges = [one for tile in tiles for one in tile]
        products = sum((last + 1 - first) * group * dims for first, last in ranges)
        first_span = min(first for first, _ in ranges) // SPAN_POSITIONS
        spans = max(last for _, last in ranges) // SPAN_POSITIONS + 1 - first_span
        rows = max(map(len, tiles)) * group
        few = len(tiles) * n_head_kv < ITEMS_PER_THREAD * threads and threads > 1
        if not (few and len(tiles) * n_head_kv * spans * rows <= ints["n_head"] * MOST_SPANS):
            spans = 1
        each = max(1, products // (len(tiles) * spans))
        heads = min(max(-(-(self._tiling.few_heads or ITEM_PRODUCTS) // each), 1), n_head_kv)
        shares = -(-n_head_kv // heads)
        element = 2  # bytes of a key's or value's element, in f16
        items = []
        for number in range(len(tiles) * shares * spans):
            share, span = divmod(number, spans)
            back, part = divmod(share, shares)
            tile = tiles[len(tiles) - 1 - back]
            n_heads = min(heads, n_head_kv - part * heads)
            low = (first_span + span) * SPAN_POSITIONS if spans > 1 else 0
            high = low + SPAN_POSITIONS if spans > 1 else math.inf
            seen = [max(0, min(last + 1, high) - max(first, low)) for first, last in tile]
            items.append(
                Item(
                    bytes=max(seen) * dims * element * n_heads,
                    fused=sum(seen) * group * dims * n_heads,
                    at=number / (len(tiles) * shares * spans),
                )
            )
        return items


def program_row_bytes(buffer: Buffer) -> int:
    """Bytes from one row of a buffer to the next on this machine."""
    return int(host_target().row_bytes(buffer.kind, buffer.width))


def block_of(n_tokens: int, row_bytes: int, tiling: Tiling) -> int:
    """Tokens that meet a panel at a time: `Linear::begin` in native/kernels/linear.cpp."""
    if n_tokens == 0:
        return 1
    most = min(max(tiling.activation_bytes // row_bytes, tiling.least_tokens), MOST_TOKENS - WHOLE_TILES)
    blocks = -(-n_tokens // most)
    if blocks == 1:
        return n_tokens
    each = -(-n_tokens // blocks)
    return -(-each // WHOLE_TILES) * WHOLE_TILES


def items_per_block(matrices: Sequence[Matrix], n_tokens: int, threads: int, tiling: Tiling) -> int:
    """Items that share the panels of some matrices: `Linear::begin` and `Panels`."""
    single = sum(m.panels for m in matrices)
    if n_tokens > tiling.few_tokens:
        return single
    n_bytes, item_bytes = sum(m.panels * m.panel_bytes for m in matrices), tiling.item_bytes
    if 0 < tiling.item_tokens < n_tokens:
        item_bytes = item_bytes * tiling.item_tokens // n_tokens
    return min(single, threads * (n_bytes // (threads * item_bytes) + 1))


def shared_out(matrices: Sequence[Matrix], n: int) -> list[tuple[int, int]]:
    """Bytes and weights of each of n items: an item has the panels that begin in its part of the bytes."""
    total = sum(m.panels * m.panel_bytes for m in matrices)
    n_bytes, n_weights = [0] * n, [0] * n
    begin = 0
    for m in matrices:
        ends = [min(max(-(-(total * i // n - begin) // m.panel_bytes), 0), m.panels) for i in range(n + 1)]
        for i in range(n):
            panels = ends[i + 1] - ends[i]
            n_bytes[i] += panels * m.panel_bytes
            n_weights[i] += panels * m.panel_weights
        begin += m.panels * m.panel_bytes
    return list(zip(n_bytes, n_weights, strict=True))


def tapered(
    cut: Sequence[tuple[int, int]], matrices: Sequence[Matrix], threads: int
) -> list[tuple[int, int]]:
    """The last quarter of each thread's items, one item at least, cut into panels."""
    least = min(m.panel_weights for m in matrices)
    result = []
    for t in range(threads):
        mine = list(cut[len(cut) * t // threads : len(cut) * (t + 1) // threads])
        whole = len(mine) - -(-len(mine) // 4)
        result += mine[:whole]
        for n_bytes, n_weights in mine[whole:]:
            panels = max(1, n_weights // least)
            result += [(n_bytes // panels, n_weights // panels)] * panels
    return result


# ---- programs of models that nobody has to have


@dataclass(frozen=True, slots=True)
class _Bytes:
    """How many bytes there would be."""

    nbytes: int

    def tobytes(self) -> bytes:
        raise AssertionError("a shape has no bytes")


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A tensor without bytes."""

    name: str
    format: Format
    shape: tuple[int, ...]

    @property
    def view(self) -> _Bytes:
        return _Bytes(self.format.n_bytes(self.shape))


SHAPES: Mapping[str, Shape] = {
    "1B": Shape(),
    "7B": Shape(4096, 32, 32, 8, 128, 14336, 32000, 32768, 1000000, 0),
}


def program_of(
    shape: Shape, recipe: str = "Q4_K_M", activations: str = "high", target: Target | None = None
) -> Program:
    """The program of a model of the `llama` architecture, from its metadata alone."""
    keys = {
        "block_count": shape.layers,
        "context_length": shape.context,
        "embedding_length": shape.width,
        "feed_forward_length": shape.ffn,
        "attention.head_count": shape.heads,
        "attention.head_count_kv": shape.kv_heads,
        "attention.key_length": shape.head,
        "attention.value_length": shape.head,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.dimension_count": shape.head,
        "rope.freq_base": float(shape.rope_base),
        "vocab_size": shape.vocabulary,
    }
    metadata = {"general.architecture": "llama", **{f"llama.{name}": value for name, value in keys.items()}}
    files = {name: _Tensor(name, format_named(format), size) for name, format, size in tensors(shape, recipe)}
    plan = build(metadata, files, context=1024).plan()
    how: Any = activations
    return compile(
        plan, target or host_target(), activations=how, max_tokens=256, max_outputs=32, context=1024
    )
