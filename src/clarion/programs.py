"""What the model of a file computes, and the program that this machine computes it with."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, cast

from clarion.errors import ModelError, ParameterError, TokenizerError, UnsupportedError
from clarion.gguf import File
from clarion.gguf.texts import as_path
from clarion.host import native
from clarion.models import build, context_length
from clarion.plan import Plan, Program, Target, compile
from clarion.plan.observe import Observer
from clarion.plan.output import Logits, Output, Pooled, Ranks
from clarion.runtime.sampling import integer
from clarion.runtime.states.pages import PAGE_SIZE
from clarion.tokenizer.settings import TEXT_LENGTH, Fields

BUILT_IN = "tale-q8_0.gguf"
# A context that nobody asked for is not longer than this: the cache of a long one outgrows the weights.
DEFAULT_CONTEXT = 4096
MAX_CONTEXT = 2**24
MAX_BATCH = 65_536
MAX_WHOLE = 2**20  # tokens of one run: native/machine/program.cpp
LONGEST_TEXT = 8192  # tokens of one that becomes a vector, where nobody asked for more
MOST_TEXTS = 256  # that become vectors in one batch
DEFAULT_OUTPUTS = 32  # a row of logits of a large vocabulary takes 600 kB


@contextmanager
def open_file(path: str | os.PathLike[str] | None = None) -> Iterator[File]:
    """The model at this path or of this name (`clarion.library`); None: the one that comes with Clarion."""
    with ExitStack() as stack:
        if path is None:
            from importlib import resources

            path = stack.enter_context(resources.as_file(resources.files("clarion") / "data" / BUILT_IN))
        elif not os.path.lexists(as_path(path)):
            from clarion.library import find

            path = find(path).path
        yield stack.enter_context(File.open(path))


def default_context(file: File, most: int = DEFAULT_CONTEXT) -> int:
    """The longest sequence of a model where nobody says one. Raises as `make_plan`."""
    with _of(file):
        return min(context_length(file.metadata), most)


def _longest_text(file: File) -> int:
    """Tokens at most of a text that becomes a vector, where nobody says: what the file says of texts, of
    which its model may have seen shorter ones than it has positions for."""
    with _of(file):
        return min(Fields(file.metadata).count(TEXT_LENGTH, LONGEST_TEXT), LONGEST_TEXT)


def make_plan(file: File, context: int | None = None, output: Output | None = None) -> Plan:
    """What the model of a file computes, for sequences of at most `context` tokens; None: `default_context`.

    output: what is wanted of it; None: what the file is made for.

    Raises UnsupportedError and ModelError, as `load`."""
    context = default_context(file) if context is None else context
    with _of(file):
        return build(file.metadata, file.tensors, output=output, context=context).plan()


@contextmanager
def _of(file: File) -> Iterator[None]:
    """Errors within begin with the file's name."""
    try:
        yield
    except (ModelError, ParameterError, TokenizerError, UnsupportedError) as error:
        raise type(error)(f"{file.path}: {error}") from error


def writes(made: Plan | Program) -> bool:
    """Whether it gives logits, of which text is made."""
    return any(isinstance(output, Logits) for output in made.outputs)


def in_pieces(made: Plan | Program) -> bool:
    """Whether texts become vectors piece by piece: no token sees those behind it, and the last one's row is
    the result."""
    wanted = all(isinstance(output, Pooled | Ranks) and output.how == "last" for output in made.outputs)
    return wanted and all(op.ints.get("causal", 1) for op in made.ops)


def texts_tokens(program: Program) -> int:
    """Tokens that states must hold where texts become vectors: those of a batch, each text in pages of its
    own, and a long one that is computed in pieces."""
    of_pieces = program.context if in_pieces(program) else 0
    return of_pieces + program.max_tokens + program.max_outputs * PAGE_SIZE


def host_target(isa: str | None = None) -> Target:
    """This machine, as a program is compiled for it: what its native module can do."""
    module = native(isa)
    return Target(row_bytes=module.encoded_row_bytes, bf16=module.MULTIPLIES_BF16)


def make_program(
    file: File,
    *,
    context: int | None = None,
    activations: str = "high",
    kv: str | Sequence[str] | None = None,
    isa: str | None = None,
    batch: int = 256,
    outputs: int = DEFAULT_OUTPUTS,
    observe: Observer | None = None,
    output: Output | None = None,
) -> Program:
    """What `load` would compute with, for the same arguments; `observe` as for `clarion.plan.compile`, and
    `output` as for `make_plan`. Where texts become vectors, one batch holds the whole context, unless they
    are computed in pieces."""
    batch = integer("batch", batch, 1, MAX_BATCH)
    longest = None if context is None else integer("context", context, 1, MAX_CONTEXT)
    plan = make_plan(file, longest, output)
    if not writes(plan):
        longest = default_context(file, _longest_text(file)) if longest is None else longest
        plan = make_plan(file, longest, output)
        outputs = MOST_TEXTS
        if in_pieces(plan):
            batch = min(batch, longest)
        elif longest > MAX_WHOLE:
            raise ParameterError(
                f"{file.path}: context: found {longest}, expected at most {MAX_WHOLE}: for these vectors all "
                f"of a text is computed at once"
            )
        else:
            batch = longest
    elif longest is None:
        longest = default_context(file)
    return compile(
        plan,
        host_target(isa),
        activations=cast(Any, activations),
        kv=kv,
        max_tokens=batch,
        max_outputs=min(batch, integer("outputs", outputs, 1, MAX_BATCH)),
        context=longest,
        observe=observe,
    )
