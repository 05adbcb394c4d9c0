"""A model file, opened, bound to this machine and made ready."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypedDict, Unpack

from clarion.errors import DeviceError, ParameterError
from clarion.exiting import loading
from clarion.gguf import File
from clarion.host import choose, native
from clarion.host.memory import memory
from clarion.host.numa import thread_nodes
from clarion.host.record import best_threads
from clarion.host.threads import MOST_THREADS
from clarion.model import Model
from clarion.plan.output import Output, Pooled
from clarion.plan.program import Program
from clarion.plan.sources import Sources
from clarion.programs import (
    DEFAULT_OUTPUTS,
    MAX_CONTEXT,
    default_context,
    make_plan,
    make_program,
    open_file,
    texts_tokens,
    writes,
)
from clarion.residency import Origin, make_store
from clarion.runtime.engine import Engine
from clarion.runtime.executor import Executor
from clarion.runtime.identity import identity
from clarion.runtime.machine import first_node
from clarion.runtime.sampling import (
    GREATEST_COUNT,
    integer,
)
from clarion.runtime.states.memory import budget, longest_context, most_slots, slot_bytes
from clarion.runtime.states.states import States
from clarion.runtime.vectors import Embedder

if TYPE_CHECKING:
    from clarion.runtime.keeping import Keeper

LAST = Pooled("last")  # of models that are made to write
GREATEST_BYTES = 2**62
DEFAULT_PREFIX_BYTES = 4_000_000_000


def load(
    path: str | os.PathLike[str] | None = None,
    *,
    threads: int | None = None,
    context: int | Literal["most"] | None = None,
    activations: str = "high",
    kv: str | Sequence[str] | None = None,
    isa: str | None = None,
    batch: int = 256,
    outputs: int = DEFAULT_OUTPUTS,
    cache_tokens: int | None = None,
    cache_bytes: int | None = None,
    prefix_dir: str | os.PathLike[str] | None = None,
    prefix_bytes: int = DEFAULT_PREFIX_BYTES,
    weights: str = "auto",
) -> Model:
    """Loads a GGUF model.

    Args:
        path: the file, or any part of a split one; or the name of a model on this machine, as
            "owner/name:Q4_K_M" (`clarion.library.find`); None: the model that comes with Clarion.
        threads: that compute; None: as many as `clarion doctor --measure` found to be the fastest, or one
            for each physical core that this process may use.
        context: tokens of a prompt and its continuation at most; None: what the model was trained for, up to
            4096; "most": what it was trained for, as far as one such text fits into `cache_bytes`, or into a
            quarter of the available memory.
        activations: what quantised weights are multiplied with: "fast" (8-bit integers, 16-bit ones where
            only wanted rows are read), "high" (16-bit) or "exact" (float32).
        kv: what keys and values are stored as, one of "f32", "f16", "bf16", "q8_0", "q4_0", or two as
            "q8_0:f16" or ("q8_0", "f16"); None: "f32" where activations are exact, else "f16".
        isa: the native module to use; None: the best one for this processor.
        batch: tokens computed at once at most.
        outputs: rows of logits in one batch at most, and so texts that are generated at once. `Model.logits`
            is faster with more of them.
        cache_tokens: tokens that the KV cache holds, of all texts together; None: `context`. Requests that
            find no room wait in line.
        cache_bytes: in its place, how many bytes the cache has; what `context` tokens take at least.
        prefix_dir: a folder in which texts are kept when they have ended, so that what begins like them is
            not computed again after a restart either. Several processes may use one. A model that writes no
            text keeps none.
        prefix_bytes: what the files of this model in the folder take at most; those used least recently are
            removed.
        weights: "mapped" reads them where the file is mapped. Copies, in the order of products and in huge
            pages, are read up to twice as fast, and take up to a second for each GB: "copied" makes them
            first, "moving" while the first texts are computed. "auto": "copied" up to 32 MB, "moving" up
            to half of the available memory, else "mapped".

    Raises:
        FileError: the file cannot be read, or breaks a rule of its format (FormatError), or nothing is called
            so (NameNotFoundError).
        UnsupportedError, ModelError: the model is of a kind that is not implemented, or contradicts itself.
        ParameterError: an argument is out of range.
        DeviceError: the processor lacks the instruction set, or the machine the memory or the threads.
    """
    started = time.perf_counter()
    isa = choose(isa).name
    module = native(isa)
    n_threads = best_threads(isa) if threads is None else integer("threads", threads, 1, MOST_THREADS)
    with _refused(n_threads), loading, ExitStack() as stack:
        file = stack.enter_context(open_file(path))
        sized = _sized(
            file,
            context,
            cache_tokens,
            cache_bytes,
            activations=activations,
            kv=kv,
            isa=isa,
            batch=batch,
            outputs=outputs,
        )
        program = sized.program
        sized.check()
        sources = Sources(program.weights, file.tensors)
        origin = Origin(module, sources, program.read_together, thread_nodes(n_threads))
        store = make_store(program.weights, weights, origin)
        stack.callback(store.close)
        file.check()

        def bound(sized: _Sized) -> Executor:
            """A program, over the weights of this model."""
            return Executor(
                sized.program,
                store,
                n_slots=sized.n_slots,
                cache_bytes=sized.cache_bytes,
                threads=n_threads,
                isa=isa,
            )

        executor = bound(sized)
        store.start()
        engine = None
        if writes(program):
            states = executor.memory.states(lambda: identity(file, program))
            keeper = None if prefix_dir is None else _keeper(prefix_dir, prefix_bytes, states)
            engine = Engine(
                executor,
                states,
                max_tokens=program.max_tokens,
                max_outputs=program.max_outputs,
                check=file.check,
                node=first_node(n_threads),
                source=file.path.name,
                keeper=keeper,
            )
            stack.callback(engine.close)

        def embedder(output: Output | None) -> Embedder:
            """Of what the file is made for, or of what is wanted, over the same weights."""
            node = first_node(n_threads)
            if output is None and engine is None:
                return Embedder(executor, batch, file.check, node)
            with _refused(n_threads):
                of_vectors = make_program(
                    file,
                    context=None if isinstance(context, str) else context,
                    activations=activations,
                    kv=kv,
                    isa=isa,
                    batch=batch,
                    output=output or LAST,
                )
                also = _Sized.of_tokens(of_vectors, texts_tokens(of_vectors))
                also.check()
                return Embedder(bound(also), batch, file.check, node)

        if store.reads_file:
            # While the first prompt is tokenized; earlier, it would take a core from the program's threads.
            file.populate()
        return Model(
            file,
            program,
            engine,
            embedder,
            isa=isa,
            threads=n_threads,
            store=store,
            load_seconds=time.perf_counter() - started,
            memory_bytes=sized.memory_bytes,
            resources=stack.pop_all(),
        )


@contextmanager
def _refused(threads: int) -> Iterator[None]:
    """What the system refuses to a model that is loaded is a DeviceError."""
    try:
        yield
    except MemoryError as error:
        raise DeviceError(
            "the system has no memory left for the model's states and workspace; "
            "load it with a shorter context or fewer cache_tokens"
        ) from error
    except RuntimeError as error:  # of Python's threads and of those of C++, which have no class of their own
        if type(error) is not RuntimeError:
            raise
        raise DeviceError(f"the system refuses threads of a model with {threads}: {error}") from error


def _keeper(prefix_dir: str | os.PathLike[str], prefix_bytes: int, states: States) -> Keeper:
    """What keeps prefixes in a folder."""
    from clarion.runtime.keeping import Keeper  # who keeps none starts without it
    from clarion.runtime.states.folder import PrefixFolder

    folder = PrefixFolder(
        prefix_dir,
        integer("prefix_bytes", prefix_bytes, 0, GREATEST_BYTES),
        states.layout,
        context=states.context,
        anywhere=not states.points.needed,
    )
    return Keeper(folder, states)


class Compiled(TypedDict, total=False):
    """The arguments of `load` that a program depends on, but for the context."""

    activations: str
    kv: str | Sequence[str] | None
    isa: str | None
    batch: int
    outputs: int


@dataclass(frozen=True, slots=True)
class _Sized:
    """A program, and how much memory it gets for states.

    Attributes:
        cache_bytes: that all texts share.
        n_slots: texts that have a state at once.
        held: what the cache holds, in words.
    """

    program: Program
    cache_bytes: int
    n_slots: int
    held: str

    @classmethod
    def of_bytes(cls, program: Program, cache_bytes: int, held: str) -> _Sized:
        return cls(program, cache_bytes, most_slots(program, memory().total // 4), held)

    @classmethod
    def of_tokens(cls, program: Program, tokens: int) -> _Sized:
        return cls.of_bytes(program, budget(program, tokens), f"{tokens} tokens")

    @property
    def states_bytes(self) -> int:
        return self.cache_bytes + self.n_slots * slot_bytes(self.program)

    @property
    def memory_bytes(self) -> int:
        """Of weights, states and workspace."""
        weights = sum(weight.n_bytes for weight in self.program.weights)
        return weights + self.states_bytes + self.program.arena_bytes

    def check(self) -> None:
        """Raises DeviceError where the machine has less memory than states and workspace take."""
        total = memory().total
        if self.states_bytes + self.program.arena_bytes > total:
            raise DeviceError(
                f"a KV cache of {self.held} takes {self.states_bytes / 1e9:.1f} GB and the workspace "
                f"{self.program.arena_bytes / 1e9:.1f} GB, but this machine has {total / 1e9:.1f} GB of "
                f"memory; load the model with a shorter context"
            )


def needed_bytes(
    path: str | os.PathLike[str] | None = None,
    *,
    context: int | Literal["most"] | None = None,
    cache_tokens: int | None = None,
    cache_bytes: int | None = None,
    **how: Unpack[Compiled],
) -> int:
    """The bytes of weights, states and workspace that a model would have after `load` with the same
    arguments: its `Model.memory_bytes`. No weight is read.

    Raises as `load`.
    """
    with open_file(path) as file:
        return _sized(file, context, cache_tokens, cache_bytes, **how).memory_bytes


def _sized(
    file: File,
    context: int | Literal["most"] | None,
    cache_tokens: int | None,
    cache_bytes: int | None,
    **how: Unpack[Compiled],
) -> _Sized:
    """What `load` would make for these arguments."""
    if cache_bytes is not None:
        if cache_tokens is not None:
            raise ParameterError("cache_bytes: found cache_tokens too, expected one of them")
        cache_bytes = integer("cache_bytes", cache_bytes, 0, GREATEST_BYTES)
    if isinstance(context, str):
        program = _longest(file, context, cache_bytes, **how)
    else:
        program = make_program(file, context=context, **how)
    held = program.context if writes(program) else texts_tokens(program)
    if cache_tokens is not None:
        held = integer("cache_tokens", cache_tokens, program.context, GREATEST_COUNT)
    if cache_bytes is None:
        return _Sized.of_tokens(program, held)
    least = budget(program, None if writes(program) else held)
    if cache_bytes < least:
        raise ParameterError(
            f"cache_bytes: found {cache_bytes}, expected at least {least} for a context of {program.context}"
        )
    there = cache_bytes if program.state_groups else 0
    return _Sized.of_bytes(program, there, f"{there} bytes")


def _longest(file: File, context: str, cache_bytes: int | None, **how: Unpack[Compiled]) -> Program:
    """The program of the longest context that the cache has room for."""
    if context != "most":
        raise ParameterError(f'context: found {context!r}, expected a number of tokens or "most"')
    if not writes(make_plan(file)):
        return make_program(file, **how)
    there = memory().available // 4 if cache_bytes is None else cache_bytes
    program = make_program(file, context=default_context(file, MAX_CONTEXT), **how)
    longest = longest_context(program, there)
    if longest == 0:
        least = budget(replace(program, context=1), 1)
        raise ParameterError(f"cache_bytes: found {there}, expected at least {least}, what one token takes")
    return program if longest == program.context else make_program(file, context=longest, **how)
