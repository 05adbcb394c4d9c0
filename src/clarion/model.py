"""A model, loaded and ready: text in, text out."""

from __future__ import annotations

import operator
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, cast

import numpy as np

from clarion._native import sampling
from clarion.devices import choose, native
from clarion.devices.hierarchy import Node, hierarchy
from clarion.devices.memory import memory
from clarion.devices.numa import free_because, masks, thread_nodes
from clarion.devices.record import best_threads
from clarion.errors import (
    ContextError,
    DeviceError,
    ModelError,
    ParameterError,
    TemplateError,
    UnsupportedError,
)
from clarion.gguf import File
from clarion.models import build
from clarion.plan import Plan, compile
from clarion.plan.observe import Observer
from clarion.residency import Copied, Mapped, Moving, Panels, Residency
from clarion.residency.panels import Core
from clarion.residency.space import best_place
from clarion.runtime.completion import Completion
from clarion.runtime.core import PAGE_SIZE, Floats
from clarion.runtime.cost import byte_products_per_token, bytes_per_token
from clarion.runtime.engine import Engine
from clarion.runtime.jobs import Generation, Put, Scoring
from clarion.runtime.sampling import GREATEST_COUNT, Options, Parameters, integer
from clarion.runtime.streams import AsyncTextStream, MakeJob, TextStream, wait, wait_all, wait_async

if TYPE_CHECKING:
    from clarion.tokenizer import Tokenizer

Prompt = str | Iterable[int]
Messages = Sequence[Mapping[str, Any]]

BUILT_IN = "tale-q8_0.gguf"
# A context that nobody asked for is not longer than this: the cache of a long one outgrows the weights.
DEFAULT_CONTEXT = 4096
MAX_CONTEXT = 2**24
MAX_THREADS = 1024
WEIGHTS = ("auto", "mapped", "copied", "moving")
MAX_BATCH = 65_536
DEFAULT_OUTPUTS = 32  # a row of logits of a large vocabulary takes 600 kB


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
        path: the file, or any part of a split one; None: the model that comes with Clarion.
        threads: that compute; None: as many as `clarion doctor --measure` found to be the fastest, or one
            for each physical core that this process may use.
        context: tokens of a prompt and its continuation at most; None: what the model was trained for, up to
            4096.
        activations: what quantised weights are multiplied with: "fast" (8-bit integers), "high" (16-bit) or
            "exact" (float32).
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
        FileError: the file cannot be read, or breaks a rule of its format (FormatError).
        UnsupportedError, ModelError: the model is of a kind that is not implemented, or contradicts itself.
        ParameterError: an argument is out of range.
        DeviceError: the processor lacks the instruction set, or the machine the memory.
    """
    started = time.perf_counter()
    isa = choose(isa).name
    core = native(isa)
    n_threads = best_threads(isa) if threads is None else integer("threads", threads, 1, MAX_THREADS)
    with ExitStack() as stack:
        file = stack.enter_context(open_file(path))
        plan = make_plan(
            file, context=context, activations=activations, kv=kv, isa=isa, batch=batch, outputs=outputs
        )
        held = plan.context
        if cache_tokens is not None:
            held = integer("cache_tokens", cache_tokens, plan.context, GREATEST_COUNT)
        n_pages = -(-held // PAGE_SIZE)
        _check_memory(n_pages * PAGE_SIZE * plan.kv_bytes_per_token, plan.arena_bytes, held)
        nodes, free = thread_nodes(n_threads), free_because(n_threads)
        machine = core.Machine(n_threads, **hierarchy().cache_bytes, processors=b"" if free else masks(nodes))
        residency = _residency(plan, Mapped(file.tensors), weights, core, nodes)
        file.check()
        program = core.Program(machine, plan.native_spec(residency))
        mover = residency if isinstance(residency, Moving) else None
        if mover is not None:
            stack.callback(mover.stop)
            mover.start(program)
        engine = Engine(
            program,
            core.KvCache(list(plan.kv_layers), n_pages, PAGE_SIZE, plan.kv.keys, plan.kv.values),
            sampling.Sampler(plan.n_vocab),
            n_pages=n_pages,
            context=plan.context,
            max_tokens=plan.max_tokens,
            max_outputs=plan.max_outputs,
            check=file.check,
            mover=mover,
            node=None if free else nodes[0],
        )
        if not isinstance(residency, Copied):
            # While the first prompt is tokenized; earlier, it would take a core from the program's threads.
            file.populate()
        return Model(
            file,
            plan,
            engine,
            isa=isa,
            threads=n_threads,
            mover=mover,
            load_seconds=time.perf_counter() - started,
            resources=stack.pop_all(),
        )


@contextmanager
def open_file(path: str | os.PathLike[str] | None = None) -> Iterator[File]:
    """The model file at `path`; None: the one that comes with Clarion."""
    with ExitStack() as stack:
        if path is None:
            from importlib import resources

            path = stack.enter_context(resources.as_file(resources.files("clarion") / "data" / BUILT_IN))
        yield stack.enter_context(File.open(path))


def make_plan(
    file: File,
    *,
    context: int | None = None,
    activations: str = "high",
    kv: str | Sequence[str] | None = None,
    isa: str | None = None,
    batch: int = 256,
    outputs: int = DEFAULT_OUTPUTS,
    observe: Observer | None = None,
) -> Plan:
    """What `load` would compute with, for the same arguments; `observe` as for `clarion.plan.compile`."""
    batch = integer("batch", batch, 1, MAX_BATCH)
    try:
        graph = build(file.metadata, file.tensors)
    except (ModelError, UnsupportedError) as error:
        raise type(error)(f"{file.path}: {error}") from error
    if context is None:
        context = min(graph.hyperparameters.context_length, DEFAULT_CONTEXT)
    return compile(
        graph,
        activations=cast(Any, activations),
        kv=kv,
        max_tokens=batch,
        max_outputs=min(batch, integer("outputs", outputs, 1, MAX_BATCH)),
        context=integer("context", context, 1, MAX_CONTEXT),
        bf16=native(isa).MULTIPLIES_BF16,
        observe=observe,
        row_bytes=native(isa).encoded_row_bytes,
    )


def _residency(plan: Plan, mapped: Mapped, weights: str, core: Core, nodes: Sequence[Node]) -> Residency:
    if weights not in WEIGHTS:
        raise ParameterError(f"weights: found {weights!r}, expected one of {', '.join(WEIGHTS)}")
    n_bytes = sum(weight.n_bytes for weight in plan.weights)
    if weights == "auto":
        weights = best_place(n_bytes, memory().available)
    names = [weight.name for weight in plan.weights]
    panels = Panels(core, plan.weights)
    try:
        if weights == "copied":
            return Copied(mapped, names, panels, plan.read_together, nodes)
        if weights == "moving":
            matrices = [weight.rows > 1 for weight in plan.weights]
            return Moving(mapped, names, matrices, panels, plan.read_together, nodes)
    except MemoryError:
        gigabytes = n_bytes / 1e9
        raise DeviceError(f"a copy of the weights takes {gigabytes:.1f} GB: load them mapped") from None
    return mapped


def _check_memory(cache_bytes: int, arena_bytes: int, held: int) -> None:
    total = memory().total
    if cache_bytes + arena_bytes > total:
        raise DeviceError(
            f"a KV cache of {held} tokens takes {cache_bytes / 1e9:.1f} GB and the workspace "
            f"{arena_bytes / 1e9:.1f} GB, but this machine has {total / 1e9:.1f} GB of memory; "
            f"load the model with a shorter context"
        )


class Model:
    """A loaded model. Any number of threads and event loops may use it at once; their texts share batches.

    `load` makes it. Every method raises ClosedError after `close`.

    Attributes:
        path: the file it came from.
        metadata: the file's keys and values.
        plan: what one step computes.
        isa: the native module in use.
        threads: that compute.
        context: tokens of a prompt and its continuation at most.
        n_vocab: tokens of the vocabulary, the width of `logits`.
        load_seconds: how long loading took.
    """

    def __init__(
        self,
        file: File,
        plan: Plan,
        engine: Engine,
        *,
        isa: str,
        threads: int,
        mover: Moving | None,
        load_seconds: float,
        resources: ExitStack,
    ) -> None:
        """Use `load`. `resources` is closed last."""
        self.path: Path = file.path
        self.metadata = file.metadata
        self.plan = plan
        self.isa = isa
        self.threads = threads
        self.context = plan.context
        self.n_vocab = plan.n_vocab
        self.load_seconds = load_seconds
        self._engine = engine
        self._mover = mover
        self._tokenizer: Tokenizer | None = None
        self._tokenizer_lock = threading.Lock()
        self._breakers: dict[tuple[str, ...], list[int]] = {}
        # Also called when the model is forgotten without `close`, and at the interpreter's end.
        self._close = weakref.finalize(self, _close, engine, resources)

    # ---- text ---------------------------------------------------------------------------------------------

    def generate(self, prompt: Prompt, **options: Unpack[Options]) -> Completion:
        """Continues a text.

        Args:
            prompt: a text, in which special tokens are ordinary characters, or token ids.
            options: see `clarion.runtime.sampling.Parameters`.

        Raises:
            ParameterError: an option or a token id is out of range, or the prompt has no tokens.
            ContextError: the prompt leaves no room in the context.
            ModelError: the model's logits are not numbers.
            FileError: the model's file changed while it was in use.
        """
        return cast(Completion, wait(self._engine, self._generation(prompt, options, streams=False)))

    def stream(self, prompt: Prompt, **options: Unpack[Options]) -> TextStream:
        """`generate` that yields the text piece by piece; the stream's `completion` holds the rest."""
        return TextStream(self._engine, self._generation(prompt, options, streams=True))

    async def agenerate(self, prompt: Prompt, **options: Unpack[Options]) -> Completion:
        """`generate` for an event loop. Cancelling the task ends the computation."""
        make_job = self._generation(prompt, options, streams=False)
        return cast(Completion, await wait_async(self._engine, make_job))

    def astream(self, prompt: Prompt, **options: Unpack[Options]) -> AsyncTextStream:
        """`stream` for an event loop. Errors of the request come with the first piece."""
        return AsyncTextStream(self._engine, self._generation(prompt, options, streams=True))

    def chat(self, messages: Messages, **options: Unpack[Options]) -> Completion:
        """Answers a conversation, written with the model's own chat template.

        Args:
            messages: dictionaries with "role" and "content".
            options: as for `generate`.

        Raises:
            TemplateError: the model has no chat template, or it refuses the messages.
        """
        return self.generate(self.tokenize_chat(messages), **options)

    def tokenize_chat(
        self,
        messages: Messages,
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **variables: Any,
    ) -> list[int]:
        """Token ids of a conversation, as the model's own chat template writes it.

        This is the way from messages to ids: the template says itself which special tokens stand where, so
        none is added to its text.

        Raises:
            TemplateError: the model has no chat template, or it refuses the messages.
        """
        text = self.apply_chat_template(
            messages, add_generation_prompt=add_generation_prompt, tools=tools, **variables
        )
        return self.tokenize(text, add_special=False, parse_special=True)

    def apply_chat_template(
        self,
        messages: Messages,
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **variables: Any,
    ) -> str:
        """The conversation as one text, in which special tokens are meant as such.

        Raises:
            TemplateError: the model has no chat template, or it refuses the messages.
        """
        from clarion.tokenizer.template import render

        tokenizer = self.tokenizer
        if tokenizer.chat_template is None:
            raise TemplateError(f"{self.path}: the model has no chat template (tokenizer.chat_template)")
        return render(
            tokenizer.chat_template,
            messages,
            add_generation_prompt=add_generation_prompt,
            tools=tools,
            bos_token=self._token_text(tokenizer.bos),
            eos_token=self._token_text(tokenizer.eos),
            **variables,
        )

    # ---- tokens -------------------------------------------------------------------------------------------

    @property
    def tokenizer(self) -> Tokenizer:
        """The file's own tokenizer, built when it is first used."""
        with self._tokenizer_lock:
            if self._tokenizer is None:
                from clarion.tokenizer import Tokenizer

                self._tokenizer = Tokenizer.from_metadata(self.metadata)
            return self._tokenizer

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """Token ids of a text.

        Args:
            add_special: with the tokens that the model expects at beginning and end.
            parse_special: whether names of control tokens in the text stand for them.
        """
        return self.tokenizer.encode(text, add_special=add_special, parse_special=parse_special)

    def detokenize(self, tokens: Iterable[int], *, skip_special: bool = False) -> str:
        """The text of token ids."""
        return self.tokenizer.decode(self._check_ids(tokens), skip_special=skip_special)

    def logits(self, tokens: Iterable[int], *, first: int = 0, out: Floats | None = None) -> Floats:
        """The logits after every token from `first` on: float32 [T - first, n_vocab].

        Row t predicts token first + t + 1. What is not asked for takes no time: the last layer and the output
        are computed for these rows only. With `out`, of as many rows or more, the result is a view of it: for
        large vocabularies new memory each time costs as much as a tenth of the computation.

        Raises:
            ContextError: more tokens than the context holds.
            ParameterError: `first` is not 0 to T, or `out` is no float32 array that can hold the rows.
        """
        ids = self._check_ids(tokens)
        if len(ids) > self.context:
            raise ContextError(f"{len(ids)} tokens are more than the context of {self.context}")
        n = len(ids) - integer("first", first, 0, len(ids))
        if out is None:
            out = np.empty((n, self.n_vocab), np.float32)
        elif out.dtype != np.float32 or out.ndim != 2 or len(out) < n or out.shape[1] != self.n_vocab:
            raise ParameterError(
                f"out is {out.dtype} {list(out.shape)}, expected float32 of at least {[n, self.n_vocab]}"
            )
        rows = out[:n]

        def take(row: int, logits: Floats) -> None:
            rows[row : row + len(logits)] = logits

        if n > 0:
            wait(self._engine, lambda put: Scoring(ids, first, take, put))
        return rows

    def each_logits(
        self, texts: Iterable[tuple[Iterable[int], int]], take: Callable[[int, int, Floats], None]
    ) -> None:
        """The logits of many texts, as `logits` has them; as many as the cache has room for share steps.

        Args:
            texts: the tokens of each, and its `first`.
            take: called as `take(i, row, logits)` with row, row + 1, ... of text i, in the order of rows but
                of any texts, by the engine's thread. `logits` [n, n_vocab] is a view that lasts as long as
                the call: nothing is copied. While it works, nothing is computed.

        Raises:
            ContextError, ParameterError: as `logits`; texts before the one that is refused may be computed.
        """

        def job(i: int, tokens: Iterable[int], first: int) -> MakeJob:
            ids = self._check_ids(tokens)
            if len(ids) > self.context:
                raise ContextError(f"{len(ids)} tokens are more than the context of {self.context}")
            integer("first", first, 0, len(ids) - 1)
            return lambda put: Scoring(ids, first, partial(take, i), put)

        jobs = (job(i, tokens, first) for i, (tokens, first) in enumerate(texts))
        wait_all(self._engine, jobs, self.plan.max_outputs)

    # ---- figures ------------------------------------------------------------------------------------------

    @property
    def bytes_per_token(self) -> int:
        """Bytes of weights that generating one token reads."""
        return bytes_per_token(self.plan)

    @property
    def byte_products_per_token(self) -> int:
        """Products of bytes that one token of a prompt takes."""
        return byte_products_per_token(self.plan)

    def settle(self) -> None:
        """Waits until weights that move into huge pages have done so: from then on speeds stay the same."""
        if self._mover is not None:
            self._mover.join()

    # ---- end ----------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Ends whatever runs, with a ClosedError for its caller, and frees threads and memory."""
        self._close()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        h = self.plan.hyperparameters
        return f"<Model {self.path.name}: {h.architecture}, {h.n_parameters / 1e6:.0f} M parameters>"

    # ---- requests -----------------------------------------------------------------------------------------

    def _generation(self, prompt: Prompt, options: Options, *, streams: bool) -> MakeJob:
        def make(put: Put) -> Generation:
            parameters = Parameters.parse(options)
            parameters.check_tokens(self.n_vocab)
            ids = self.tokenize(prompt) if isinstance(prompt, str) else self._check_ids(prompt)
            if not ids:
                raise ParameterError("prompt: found no tokens, expected at least one")
            room = self.context - len(ids)
            if room < 1:
                raise ContextError(
                    f"the prompt of {len(ids)} tokens leaves no room in the context of {self.context}"
                )
            if parameters.max_tokens is not None:
                room = min(room, parameters.max_tokens)
            breakers = self._breaker_tokens(parameters.dry_breakers) if parameters.dry_multiplier else []
            return Generation(
                ids,
                parameters,
                room=room,
                state=sampling.SamplerState(self.n_vocab, parameters.native(breakers)),
                decoder=self.tokenizer.stream() if parameters.detokenize else None,
                end_tokens=() if parameters.ignore_eos else self.tokenizer.end_tokens,
                streams=streams,
                put=put,
            )

        return make

    def _check_ids(self, tokens: Iterable[int]) -> list[int]:
        if not isinstance(tokens, Iterable) or isinstance(tokens, str | bytes):
            raise ParameterError(f"tokens: found {tokens!r:.40}, expected token ids")
        ids = []
        for i, token in enumerate(tokens):
            try:
                ids.append(operator.index(token))
            except TypeError:
                raise ParameterError(f"token {i}: found {token!r}, expected a token id") from None
            if not 0 <= ids[-1] < self.n_vocab:
                raise ParameterError(f"token {i}: found {ids[-1]}, expected 0 to {self.n_vocab - 1}")
        return ids

    def _breaker_tokens(self, strings: tuple[str, ...]) -> list[int]:
        """Tokens whose text contains one of the strings."""
        if strings not in self._breakers:
            wanted = [string.encode() for string in strings]
            self._breakers[strings] = [
                token
                for token, piece in enumerate(self.tokenizer.pieces)
                if any(string in piece for string in wanted)
            ]
        return self._breakers[strings]

    def _token_text(self, token: int | None) -> str:
        return "" if token is None else self.tokenizer.decode([token])


def _close(engine: Engine, resources: ExitStack) -> None:
    engine.close()
    resources.close()
