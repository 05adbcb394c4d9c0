"""Writes docs/operations.md, the operation table as a page.

PYTHONPATH=src python scripts/make_operations_page.py docs/operations.md
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

from clarion.plan.operation import ANY_FLOAT, ENCODED, I32, Input, Operation, Output, Reads, Tensor, Writes
from clarion.plan.operations import OPERATIONS

INTRODUCTION = """\
# Operations

Every operation that a plan may hold, as `clarion/plan/operations.py` has it;
`scripts/make_operations_page.py` writes this page. Buffers hold rows of float32 unless an operand says
otherwise: `encoded` is ready to be multiplied (`fast`, 8-bit integers; `high`, 16-bit; `bf16`), `i32` are
integers. `…` marks what there may be several of, `?` what may be absent.

| rows | |
|---|---|
| `R` | any rows, the same for every operand that says R |
| `T`, `O` | one for each token, one for each wanted output |
| `B` | either of these, the same for every operand that says B or S |
| `S` | k for each of B: *slots*, one for each expert that is used |
| `1` | one for the whole batch |

Where all operands have rows R, B or S, each row of a result depends on these rows alone: the operation can
be computed for some of them.

A width is a product of numbers, parameters (an array counts as its length) and sizes. A size, as `n`, is
whatever the first operand has that names it; one that ends in `_i` is counted anew for each of several
outputs. An absent weight is -1 in a plan; every parameter is always given (`eps` is 0 where there is no
gain). A buffer that is changed in place is the same buffer as input and as output.

The meaning of an operation is its definition, a few lines of numpy: in float64 they are the engine `exact`
([evaluating](evaluate.md)) and what every kernel is tested against.

"""


def page() -> str:
    lines = ["| operation | in | out | weights | parameters | meaning |", "|---|---|---|---|---|---|"]
    lines += [row(entry) for entry in OPERATIONS.values()]
    return INTRODUCTION + "\n".join(lines) + "\n"


def row(entry: Operation) -> str:
    meaning = " ".join(inspect.cleandoc(entry.definition.__doc__ or "").split())
    cells = (
        f"`{entry.name}`",
        ", ".join(map(buffer, entry.inputs)),
        ", ".join(map(buffer, entry.outputs)),
        ", ".join(map(weight, entry.weights)),
        ", ".join(parameters(entry)),
        " ".join([meaning, *traits(entry)]).replace("|", "\\|"),
    )
    return f"| {' | '.join(cells)} |"


def buffer(operand: Input | Output) -> str:
    kinds = {ANY_FLOAT: " f32 or encoded", ENCODED: " encoded", I32: " i32"}.get(operand.kinds, "")
    rows = operand.rows.replace("|", " or ")
    return f"{operand.name}{kinds} [{rows}, {operand.width}]{mark(operand)}"


def weight(tensor: Tensor) -> str:
    return f"{tensor.name} [{', '.join(tensor.shape)}]{mark(tensor)}"


def mark(operand: Input | Output | Tensor) -> str:
    optional = getattr(operand, "optional", False) or getattr(operand, "copy_of", "")
    return ("…" if getattr(operand, "many", False) else "") + ("?" if optional else "")


def parameters(entry: Operation) -> list[str]:
    given = inspect.signature(entry.definition).parameters.values()
    return [
        f"`{p.name}` {p.annotation}" for p in given if p.kind is p.KEYWORD_ONLY and p.annotation != "Batch"
    ]


def traits(entry: Operation) -> list[str]:
    found = [f"`{output.name}` is `{output.in_place}`." for output in entry.outputs if output.in_place]
    found += [
        f"`{output.name}` may take the place of `{output.may_alias}`."
        for output in entry.outputs
        if output.may_alias
    ]
    match entry.state:
        case Reads(kind):
            found.append(f"Reads its state, `{kind.__name__}`.")
        case Writes(kind):
            found.append(f"Writes its state, `{kind.__name__}`.")
        case None:
            pass
    return found


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
