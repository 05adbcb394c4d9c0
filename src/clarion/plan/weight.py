"""What an operation multiplies with or looks up: a tensor of a file, or a part of one, under a name.

A plan holds no bytes. It says of which tensor, and of which part of that, a weight is made (`WeightSource`);
`clarion.plan.sources` finds the bytes when a plan is bound. A new kind of source is a class here and in the
union: the type checker then names every place that must know it.
"""

from __future__ import annotations

from dataclasses import dataclass

from clarion.errors import ModelError, UnsupportedError

# Products over these read plain float32 activations; products over every other format read encoded ones. An
# element is a whole number of bytes.
FLOAT_FORMATS = frozenset({"F64", "F32", "F16", "BF16"})

Range = tuple[int, int]  # from the first up to, but without, the second


@dataclass(frozen=True, slots=True)
class Whole:
    """All of a tensor."""

    tensor: str


@dataclass(frozen=True, slots=True)
class Slice:
    """Some matrices of a tensor, some rows of these, some columns of these rows.

    Its bytes are one piece of the tensor's, which nobody copies; `extent` says which slices are that.
    """

    tensor: str
    experts: Range
    rows: Range
    cols: Range
    begin: int  # of the bytes, among those of the tensor


WeightSource = Whole | Slice


@dataclass(frozen=True, slots=True)
class Weight:
    """`experts` matrices of `rows` × `cols` in a format; a vector is one row.

    Attributes:
        name: what the machine and the messages call it; the tensor's own name where it is all of a tensor.
        source: the tensor, or the part of one.
    """

    name: str
    source: WeightSource
    format: str
    type_id: int
    rows: int
    cols: int
    experts: int
    n_bytes: int

    @property
    def is_float(self) -> bool:
        return self.format in FLOAT_FORMATS

    @property
    def shape(self) -> tuple[int, ...]:
        if self.experts > 1:
            return (self.experts, self.rows, self.cols)
        return (self.rows, self.cols) if self.rows > 1 else (self.cols,)


def part(weight: Weight, experts: slice, rows: slice, cols: slice) -> Weight:
    """A part of a weight that is all of a tensor; slices have no steps, and count from the end as usual.

    Raises:
        ModelError: a slice that is empty or has a step.
        UnsupportedError: the bytes of the part are no one piece of the tensor's (`extent`).
    """
    ranges: list[Range] = []
    for what, chosen, n in (
        ("experts", experts, weight.experts),
        ("rows", rows, weight.rows),
        ("columns", cols, weight.cols),
    ):
        begin, end, step = chosen.indices(n)
        if step != 1 or begin >= end:
            raise ModelError(f"tensor {weight.name!r}: {what} {chosen} of {n} are none, or not in order")
        ranges.append((begin, end))
    if ranges == [(0, weight.experts), (0, weight.rows), (0, weight.cols)]:
        return weight
    of_experts, of_rows, of_cols = ranges
    begin, end = extent(weight, of_experts, of_rows, of_cols)
    names = [f"{a}:{b}" for a, b in ranges]
    return Weight(
        f"{weight.name}[{', '.join(names)}]",
        Slice(weight.name, of_experts, of_rows, of_cols, begin),
        weight.format,
        weight.type_id,
        of_rows[1] - of_rows[0],
        of_cols[1] - of_cols[0],
        of_experts[1] - of_experts[0],
        end - begin,
    )


def extent(whole: Weight, experts: Range, rows: Range, cols: Range) -> Range:
    """Where the bytes of a part lie among those of the tensor.

    Rows lie one behind the other, and so do matrices. Rows of one matrix, or whole matrices, are thus one
    piece, in every format; so are elements of one row of floats.

    Raises:
        UnsupportedError: the part is several pieces: some columns of several rows, or some rows of several
            matrices; or columns that might cut a block.
    """
    row_bytes = whole.n_bytes // (whole.experts * whole.rows)
    begin = (experts[0] * whole.rows + rows[0]) * row_bytes
    n_rows = (experts[1] - experts[0]) * (rows[1] - rows[0])
    all_rows, all_cols = rows == (0, whole.rows), cols == (0, whole.cols)
    if all_cols and (all_rows or experts[1] - experts[0] == 1):
        return begin, begin + n_rows * row_bytes
    if n_rows == 1 and whole.is_float:
        element = row_bytes // whole.cols
        return begin + cols[0] * element, begin + cols[1] * element
    raise UnsupportedError(
        f"tensor {whole.name!r} in {whole.format}: experts {experts}, rows {rows} and columns {cols} "
        "are no one piece of bytes; expected rows of one matrix, or whole matrices, with all their columns"
    )
