"""A model file, opened, bound to this machine and made ready."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from clarion.errors import (
    DeviceError,
)
from clarion.exiting import loading
from clarion.host import choose, native
from clarion.host.memory import memory
from clarion.host.numa import thread_nodes
from clarion.host.record import best_threads
from clarion.host.threads import MOST_THREADS
from clarion.model import Model
from clarion.plan.output import Output, Pooled
from clarion.plan.program import Program
from clarion.plan.sources import Sources
from clarion.programs import DEFAULT_OUTPUTS, make_program, open_file, texts_tokens, writes
from clarion.residency import Origin, make_store
from clarion.runtime.engine import Engine
from clarion.runtime.executor import Executor
from clarion.runtime.machine import first_node
from clarion.runtime.sampling import (
    GREATEST_COUNT,
    integer,
)
from clarion.runtime.states.memory import budget, most_slots, slot_bytes
from clarion.runtime.vectors import Embedder

LAST = Pooled("last")  # of models that are made to write


def load(
    path: str | os.PathLike[str] | None = None,
    *,
    threads: int | None = None,
    context: int | None = None,
    activations: str = "high",
    kv: str | Sequence[str] | None = None,
    isa: str | None = None,
    batch: int = 256,
    outputs: int = DEFAULT_OUTPUTS,
    cache_tokens: int | None = None,
    weights: str = "auto",
) -> Model:
    """Loads a GGUF model.

    Args:
        path: the file, or any part of a split one; or the name of a model on this machine, as
            "owner/name:Q4_K_M" (`clarion.library.find`); None: the model that comes with Clarion.
        threads: that compute; None: as many as `clarion doctor --measure` found to be the fastest, or one
            for each physical core that this process may use.
        context: tokens of a prompt and its continuation at most; None: what the model was trained for, up to
            4096.
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
        program = make_program(
            file, context=context, activations=activations, kv=kv, isa=isa, batch=batch, outputs=outputs
        )
        held = program.context if writes(program) else texts_tokens(program)
        if cache_tokens is not None:
            held = integer("cache_tokens", cache_tokens, program.context, GREATEST_COUNT)
        n_slots = most_slots(program, memory().total // 4)
        _check_memory(_states_bytes(program, held, n_slots), program.arena_bytes, held)
        sources = Sources(program.weights, file.tensors)
        origin = Origin(module, sources, program.read_together, thread_nodes(n_threads))
        store = make_store(program.weights, weights, origin)
        stack.callback(store.close)
        file.check()
        executor = Executor(program, store, n_slots=n_slots, cache_tokens=held, threads=n_threads, isa=isa)
        store.start()
        engine = None
        if writes(program):
            engine = Engine(
                executor,
                executor.memory.states(),
                max_tokens=program.max_tokens,
                max_outputs=program.max_outputs,
                check=file.check,
                node=first_node(n_threads),
                source=file.path.name,
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
                    context=context,
                    activations=activations,
                    kv=kv,
                    isa=isa,
                    batch=batch,
                    output=output or LAST,
                )
                held, n_slots = texts_tokens(of_vectors), most_slots(of_vectors, memory().total // 4)
                _check_memory(_states_bytes(of_vectors, held, n_slots), of_vectors.arena_bytes, held)
                other = Executor(
                    of_vectors, store, n_slots=n_slots, cache_tokens=held, threads=n_threads, isa=isa
                )
                return Embedder(other, batch, file.check, node)

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


def _states_bytes(program: Program, held: int, n_slots: int) -> int:
    """Of states for so many tokens, and of slots."""
    return budget(program, held) + n_slots * slot_bytes(program)


def _check_memory(states_bytes: int, arena_bytes: int, held: int) -> None:
    total = memory().total
    if states_bytes + arena_bytes > total:
        raise DeviceError(
            f"a KV cache of {held} tokens takes {states_bytes / 1e9:.1f} GB and the workspace "
            f"{arena_bytes / 1e9:.1f} GB, but this machine has {total / 1e9:.1f} GB of memory; "
            f"load the model with a shorter context"
        )
