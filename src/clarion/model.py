"""A model, loaded and ready: text in, text out."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Unpack, cast, overload

from clarion.errors import (
    ModelError,
    ParameterError,
    PicklingError,
    TemplateError,
    UnsupportedError,
)
from clarion.exiting import after_fork
from clarion.gguf import File
from clarion.models.keys import n_token_types
from clarion.plan import Program
from clarion.plan.output import Output, Pooling
from clarion.residency import Store
from clarion.runtime.completion import Completion, TokenLogprob
from clarion.runtime.cost import byte_products_per_token, bytes_per_token
from clarion.runtime.engine import Engine
from clarion.runtime.figures import Figures
from clarion.runtime.filing import loading, saving
from clarion.runtime.prompts import Prompt, check_ids, is_short, look
from clarion.runtime.recommended import recommended
from clarion.runtime.request import Request, Score
from clarion.runtime.requests import Breakers, Requests
from clarion.runtime.resources import Resources
from clarion.runtime.sampling import (
    ChatOptions,
    Options,
    integer,
)
from clarion.runtime.streams import (
    AsyncTextStream,
    Progress,
    TextStream,
    hears,
    in_thread,
    wait,
    wait_all,
    wait_all_async,
    wait_async,
)
from clarion.runtime.vectors import Embedder
from clarion.vectors import Vectors

# numpy takes half of the start of a command, and is imported where arrays are asked for.
if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from clarion.tokenizer import Tokenizer

    Floats = npt.NDArray[np.float32]

Messages = Iterable[Mapping[str, Any]]


class Model:
    """A loaded model. Any number of threads and event loops may use it at once; their texts share batches.

    `load` makes it. After `close`, whatever computes raises ClosedError.

    Attributes:
        path: the file it came from.
        metadata: the file's keys and values.
        program: what one step computes.
        isa: the native module in use.
        threads: that compute.
        context: tokens of a prompt and its continuation at most.
        n_vocab: tokens of the vocabulary, the width of `logits`.
        load_seconds: how long loading took.
        memory_bytes: of weights, states and workspace, once all of them are in use; `embed` of a model that
            writes text has states and a workspace of its own besides.
    """

    def __init__(
        self,
        file: File,
        program: Program,
        engine: Engine | None,
        embedder: Callable[[Output | None], Embedder],
        *,
        isa: str,
        threads: int,
        store: Store,
        load_seconds: float,
        memory_bytes: int,
        resources: ExitStack,
    ) -> None:
        """Use `load`. A model that writes no text has no engine. `resources` is closed last."""
        self.path: Path = file.path
        self.metadata = file.metadata
        self.program = program
        self.isa = isa
        self.threads = threads
        self.context = program.context
        self.n_vocab = program.n_vocab
        self.load_seconds = load_seconds
        self.memory_bytes = memory_bytes
        self._writer = engine
        self._store = store
        self._tokenizer: Tokenizer | None = None
        self._breakers = Breakers()
        self._vectors = Vectors(file.path.name, file.metadata, n_token_types(file.tensors), embedder)
        # Also called when the model is forgotten without `close`.
        self._resources = Resources(engine, self._vectors, store, resources)
        self._forgotten = weakref.finalize(self, self._resources.close)
        self._forgotten.atexit = False

    # ---- text ---------------------------------------------------------------------------------------------

    @overload
    def generate(  # type: ignore[overload-overlap]  # a text is also a sequence of texts
        self, prompt: Prompt, *, progress: Progress | None = None, **options: Unpack[Options]
    ) -> Completion: ...

    @overload
    def generate(
        self, prompt: Iterable[Prompt], *, progress: Progress | None = None, **options: Unpack[Options]
    ) -> list[Completion]: ...

    def generate(
        self,
        prompt: Prompt | Iterable[Prompt],
        *,
        progress: Progress | None = None,
        **options: Unpack[Options],
    ) -> Completion | list[Completion]:
        """Continues a text, or several together.

        Args:
            prompt: a text, in which special tokens are ordinary characters, or token ids; or a list of
                these. For a list the result is one: what each would give alone, in the same order, computed
                in the same steps. Where no seed is given, each has one of its own.
            progress: called as `progress(done, total)` with tokens of the prompt, by this thread while it
                waits, after each step that computes some of them. Of several, with the sums.
            options: see `clarion.runtime.sampling.Parameters`.

        Raises:
            ParameterError: an option or a token id is out of range, or the prompt has no tokens.
            ContextError: the prompt leaves no room in the context.
            ModelError: the model's logits are not numbers.
            FileError: the model's file changed while it was in use.
            Of several, none is computed where one is refused; the message says which.
        """
        found, several = look(prompt)
        if several:
            requests, hear = self._requests.generations(found, options, progress)
            return cast(list[Completion], wait_all(self._engine, requests, self.program.max_outputs, hear))
        request = self._requests.generation(found, options, reports=hears(progress))
        return cast(Completion, wait(self._engine, request, progress))

    def stream(
        self, prompt: Prompt, *, progress: Progress | None = None, **options: Unpack[Options]
    ) -> TextStream:
        """`generate` that yields the text piece by piece; the stream's `completion` holds the rest.

        `progress` is called while the first piece is waited for.
        """
        request = self._requests.generation(prompt, options, streams=True, reports=hears(progress))
        return TextStream(self._engine, request, progress, self)

    @overload
    async def agenerate(  # type: ignore[overload-overlap]
        self, prompt: Prompt, *, progress: Progress | None = None, **options: Unpack[Options]
    ) -> Completion: ...

    @overload
    async def agenerate(
        self, prompt: Iterable[Prompt], *, progress: Progress | None = None, **options: Unpack[Options]
    ) -> list[Completion]: ...

    async def agenerate(
        self,
        prompt: Prompt | Iterable[Prompt],
        *,
        progress: Progress | None = None,
        **options: Unpack[Options],
    ) -> Completion | list[Completion]:
        """`generate` for an event loop. Cancelling the task ends the computation."""
        found, several = look(prompt)
        if several:
            requests, hear = await in_thread(self._requests.generations, found, options, progress)
            results = await wait_all_async(self._engine, requests, self.program.max_outputs, hear)
            return cast(list[Completion], results)
        prepare = partial(self._requests.generation, found, options, reports=hears(progress))
        at_once = self._is_quick(found, options)
        return cast(Completion, await wait_async(self._engine, prepare, progress, at_once=at_once))

    def astream(
        self, prompt: Prompt, *, progress: Progress | None = None, **options: Unpack[Options]
    ) -> AsyncTextStream:
        """`stream` for an event loop. Errors of the request come with the first piece."""
        prepare = partial(self._requests.generation, prompt, options, streams=True, reports=hears(progress))
        return AsyncTextStream(self._engine, prepare, progress, at_once=self._is_quick(prompt, options))

    def _is_quick(self, prompt: object, options: Options) -> bool:
        """Whether a request is made in less time than another thread takes to begin with it."""
        return self._tokenizer is not None and is_short(prompt) and not options.get("dry_multiplier")

    # ---- conversations ------------------------------------------------------------------------------------

    @overload
    def chat(
        self, messages: Messages, *, stream: Literal[False] = False, **options: Unpack[ChatOptions]
    ) -> Completion: ...

    @overload
    def chat(
        self, messages: Messages, *, stream: Literal[True], **options: Unpack[ChatOptions]
    ) -> TextStream: ...

    def chat(
        self, messages: Messages, *, stream: bool = False, **options: Unpack[ChatOptions]
    ) -> Completion | TextStream:
        """Answers a conversation, written with the model's own chat template.

        Args:
            messages: dictionaries with "role" and "content".
            stream: give a TextStream, as `chat_stream` does.
            options: `tools` and `template`, as for `apply_chat_template`, whose other variables stand in the
                dictionary `variables`; `progress` and the options of `generate`.

        Raises:
            ParameterError: a message lacks what it needs; or as `generate`.
            TemplateError: the model has no chat template, or it refuses the messages.
        """
        if stream:
            return self.chat_stream(messages, **options)
        progress = options.get("progress")
        prepare = self._answer(messages, options, streams=False)
        return cast(Completion, wait(self._engine, prepare(), progress))

    def chat_stream(self, messages: Messages, **options: Unpack[ChatOptions]) -> TextStream:
        """`chat` that yields the answer piece by piece."""
        prepare = self._answer(messages, options, streams=True)
        return TextStream(self._engine, prepare(), options.get("progress"), self)

    @overload
    async def achat(
        self, messages: Messages, *, stream: Literal[False] = False, **options: Unpack[ChatOptions]
    ) -> Completion: ...

    @overload
    async def achat(
        self, messages: Messages, *, stream: Literal[True], **options: Unpack[ChatOptions]
    ) -> AsyncTextStream: ...

    async def achat(
        self, messages: Messages, *, stream: bool = False, **options: Unpack[ChatOptions]
    ) -> Completion | AsyncTextStream:
        """`chat` for an event loop. Cancelling the task ends the computation."""
        if stream:
            return self.achat_stream(messages, **options)
        prepare = self._answer(messages, options, streams=False)
        return cast(Completion, await wait_async(self._engine, prepare, options.get("progress")))

    def achat_stream(self, messages: Messages, **options: Unpack[ChatOptions]) -> AsyncTextStream:
        """`chat_stream` for an event loop. Errors of the request come with the first piece."""
        prepare = self._answer(messages, options, streams=True)
        return AsyncTextStream(self._engine, prepare, options.get("progress"))

    def tokenize_chat(
        self,
        messages: Messages,
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        template: str | None = None,
        **variables: Any,
    ) -> list[int]:
        """Token ids of a conversation, as `apply_chat_template` writes it.

        This is the way from messages to ids: the template says itself which special tokens stand where, so
        none is added to its text.

        Raises:
            ParameterError, TemplateError: as `apply_chat_template`.
        """
        text = self.apply_chat_template(
            messages, add_generation_prompt=add_generation_prompt, tools=tools, template=template, **variables
        )
        return self.tokenize(text, add_special=False, parse_special=True)

    def apply_chat_template(
        self,
        messages: Messages,
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        template: str | None = None,
        **variables: Any,
    ) -> str:
        """The conversation as one text, in which special tokens are meant as such.

        Args:
            messages: dictionaries with "role" and "content", which is a text or a list of parts.
            add_generation_prompt: let the text end where the model's answer begins.
            tools: descriptions of functions that the model may call.
            template: the name of one of the file's templates (`tokenizer.chat_templates`), or a text in
                Jinja; None: "tool_use" where tools are given and the file has it, else "default".
            variables: what else the template knows, such as `enable_thinking`.

        Raises:
            ParameterError: a message lacks what it needs; the message names its number and the field.
            TemplateError: the model has no such chat template, or it refuses the messages.
        """
        from clarion.tokenizer import chat

        try:
            return chat.apply(
                self.tokenizer,
                messages,
                add_generation_prompt=add_generation_prompt,
                tools=tools,
                template=template,
                **variables,
            )
        except TemplateError as error:
            raise TemplateError(f"{self.path}: {error}") from None

    # ---- tokens -------------------------------------------------------------------------------------------

    @property
    def tokenizer(self) -> Tokenizer:
        """The file's own tokenizer, built when it is first used."""
        if self._tokenizer is None:
            with _building:
                if self._tokenizer is None:
                    from clarion.tokenizer import Tokenizer

                    self._tokenizer = Tokenizer.from_metadata(self.metadata)
        return self._tokenizer

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """Token ids of a text.

        Args:
            add_special: with the tokens that the model expects at beginning and end.
            parse_special: whether names of control tokens in the text stand for them. A text that begins with
                the BOS, as chat templates write it, then gets nothing before it.
        """
        ids = self.tokenizer.encode(text, add_special=add_special, parse_special=parse_special)
        before = list(self.tokenizer.before) if add_special and parse_special else []
        begins_itself = before[:1] == ids[len(before) :][:1]
        return ids[len(before) :] if before and begins_itself else ids

    def detokenize(self, tokens: Iterable[int], *, skip_special: bool = False) -> str:
        """The text of token ids."""
        return self.tokenizer.decode(check_ids(tokens, self.n_vocab), skip_special=skip_special)

    def logits(self, tokens: Iterable[int], *, first: int = 0, out: Floats | None = None) -> Floats:
        """The logits after every token from `first` on: float32 [T - first, n_vocab].

        Row t predicts token first + t + 1. What is not asked for takes no time: the last layer and the output
        are computed for these rows only. With `out`, of as many rows or more, the result is a view of it: for
        large vocabularies new memory each time costs as much as a tenth of the computation.

        Raises:
            ContextError: more tokens than the context holds.
            ParameterError: `first` is not 0 to T, or `out` is no float32 array that can hold the rows.
        """
        ids = self._requests.check_text(tokens)
        n = len(ids) - integer("first", first, 0, len(ids))
        import numpy as np

        if out is None:
            out = np.empty((n, self.n_vocab), np.float32)
        elif out.dtype != np.float32 or out.ndim != 2 or len(out) < n or out.shape[1] != self.n_vocab:
            raise ParameterError(
                f"out is {out.dtype} {list(out.shape)}, expected float32 of at least {[n, self.n_vocab]}"
            )
        rows = out[:n]

        def take_rows(row: int, logits: memoryview) -> None:
            rows[row : row + len(logits)] = logits

        if n > 0:
            wait(self._engine, Request(tuple(ids), Score(first, take_rows)))
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

        import numpy as np

        def request(i: int, tokens: Iterable[int], first: int) -> Request:
            ids = self._requests.check_text(tokens)
            integer("first", first, 0, len(ids) - 1)
            return Request(tuple(ids), Score(first, lambda row, logits: take(i, row, np.asarray(logits))))

        requests = (request(i, tokens, first) for i, (tokens, first) in enumerate(texts))
        wait_all(self._engine, requests, self.program.max_outputs)

    def score(self, tokens: Iterable[int], *, first: int = 1, top: int = 0) -> list[TokenLogprob]:
        """How probable the tokens from `first` on are, each after those before it: [T - first].

        The first token, which stands after nothing, has no probability: `first` is at least 1. They are the
        model's own, as those that `logprobs` asks `generate` for, which has the options of a text.

        Args:
            first: what is before is computed, or taken from the cache, and costs no more than in a prompt.
            top: for each place, so many of the most probable tokens there.

        Raises:
            ParameterError: a token id, `first` or `top` is out of range.
            ContextError: more tokens than the context holds.
            ModelError: the model's logits are not numbers.
        """
        scores = self._requests.scores(tokens, first, top)
        if scores.request is not None:
            wait(self._engine, scores.request)
        return scores.found

    async def ascore(self, tokens: Iterable[int], *, first: int = 1, top: int = 0) -> list[TokenLogprob]:
        """`score` for an event loop. Cancelling the task ends the computation."""
        scores = await in_thread(self._requests.scores, tokens, first, top)
        if (request := scores.request) is not None:
            await wait_async(self._engine, lambda: request)
        return scores.found

    # ---- sessions -----------------------------------------------------------------------------------------

    def save_session(self, path: str | os.PathLike[str], tokens: Iterable[int]) -> int:
        """Writes what the model remembers of tokens to a file, in place of what was there, and returns how
        many bytes it has. What is not in the cache is computed first; other texts go on meanwhile.

        Raises:
            ParameterError: a token id is out of range, or there are no tokens.
            ContextError: more tokens than the context holds.
            FileError: the file cannot be written; what was there is untouched.
        """
        return cast(int, wait(self._engine, self._saving(path, tokens)))

    async def asave_session(self, path: str | os.PathLike[str], tokens: Iterable[int]) -> int:
        """`save_session` for an event loop. Cancelling the task leaves what was at `path` as it was."""
        return cast(int, await wait_async(self._engine, partial(self._saving, path, tokens)))

    def load_session(self, path: str | os.PathLike[str]) -> list[int]:
        """Reads what `save_session` wrote, and returns its tokens: a prompt that begins like them computes
        only what is new. They are retained as those of a text that has ended, until their room is needed.

        Raises:
            FileError, FormatError: the file cannot be read, is no session, or damaged.
            ParameterError: it was saved by another model, or with other formats of states.
            ContextError: it has more tokens than the context.
        """
        tokens, request = self._loading(path)
        if request is not None:
            wait(self._engine, request)
        return tokens

    async def aload_session(self, path: str | os.PathLike[str]) -> list[int]:
        """`load_session` for an event loop."""
        tokens, request = await in_thread(self._loading, path)
        if request is not None:
            await wait_async(self._engine, lambda: request)
        return tokens

    # ---- vectors ------------------------------------------------------------------------------------------

    def embed(
        self,
        texts: Prompt | Iterable[Prompt],
        *,
        pooling: Pooling | None = None,
        normalize: bool = True,
        dimensions: int | None = None,
        prompt: str | None = None,
        truncate: bool = False,
    ) -> Floats:
        """The vectors of texts: [n, width] in their order; of one text that is no list [width].

        Args:
            texts: one, or several; those of any lengths share batches. Each is a text, or token ids, which
                are taken as they are.
            pooling: how one vector is made of a text's rows: "mean", "cls" (the first) or "last"; None: as
                the file says, else "last" for models that write text.
            normalize: each vector is divided by its length.
            dimensions: only the first so many elements, for models that were trained for that.
            prompt: the name, in the file, of what stands before such texts ("query", "document"); None: what
                the file names for texts of which nobody says it, most often nothing; "": nothing.
            truncate: texts that are longer than the context lose their ends; else they are an error.

        Raises:
            ParameterError: an argument is out of range, or a text has no tokens.
            ContextError: a text is longer than the context, or nothing of it is left where it is cut.
            UnsupportedError: the model has no vectors.
            ClosedError: the model is closed, or belongs to another process.
        """
        return self._vectors.embed(
            self.tokenizer,
            texts,
            pooling=pooling,
            normalize=normalize,
            dimensions=dimensions,
            prompt=prompt,
            truncate=truncate,
        )

    def rerank(self, query: str, documents: Iterable[str], *, truncate: bool = False) -> Floats:
        """How well each document answers a query, as the model's classifier judges: [n], higher is better.

        truncate: documents lose their ends where they do not fit; the query stays whole.

        Raises:
            UnsupportedError: the model has no classifier.
            ContextError: query and document are longer than the context, unless `truncate`; or the query
                leaves no room for a document.
        """
        return self._vectors.rerank(self.tokenizer, query, documents, truncate=truncate)

    # ---- figures ------------------------------------------------------------------------------------------

    @cached_property
    def bytes_per_token(self) -> int:
        """Bytes of weights that generating one token reads."""
        return bytes_per_token(self.program)

    @property
    def defaults(self) -> Options:
        """Sampling options that the file recommends, which `generate` takes: `**model.defaults`. Empty where
        it recommends none. `generate` itself does not look at them.

        Raises:
            ModelError: one of them is out of range.
        """
        try:
            return recommended(self.metadata)
        except ModelError as error:
            raise ModelError(f"{self.path}: {error}") from error

    @property
    def figures(self) -> Figures:
        """What is running and waiting, what the cache holds, and totals since loading. It costs a few
        microseconds; of a model that writes no text all are 0."""
        return Figures() if self._writer is None else self._writer.figures(self.bytes_per_token)

    @property
    def byte_products_per_token(self) -> int:
        """Products of bytes that one token of a prompt takes."""
        return byte_products_per_token(self.program)

    def settle(self) -> None:
        """Waits until weights that move into huge pages have done so: from then on speeds stay the same."""
        self._store.settle()

    # ---- end ----------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Ends whatever runs, with a ClosedError for its caller, and frees threads and memory."""
        self._resources.close()
        self._forgotten.detach()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        h = self.program.hyperparameters
        size = f"{h.n_parameters / 1e6:.0f} M parameters"
        return (
            f"<Model {self.path.name}: {h.architecture}, {size}{'' if self._forgotten.alive else ', closed'}>"
        )

    def __reduce_ex__(self, _: object) -> NoReturn:
        raise PicklingError(
            f"{self.path}: a model cannot be pickled or copied, it is threads and memory of this process; "
            f"pass on its path and call `clarion.load` in each process, or use one model in all threads"
        )

    # ---- requests -----------------------------------------------------------------------------------------

    @property
    def _engine(self) -> Engine:
        """What writes text.

        Raises:
            UnsupportedError: the model writes none.
        """
        if self._writer is None:
            raise UnsupportedError(
                f"{self.path}: {self.program.hyperparameters.architecture} is no model that writes text; "
                f"it makes vectors of texts: `embed` in Python, `clarion embed` on the command line"
            )
        return self._writer

    @property
    def _requests(self) -> Requests:
        """What makes those for the engine, where there is one. It keeps the model alive."""
        _ = self._engine
        return Requests(self.program, self._breakers, lambda: self.tokenizer, self.tokenize)

    def _saving(self, path: str | os.PathLike[str], tokens: Iterable[int]) -> Request:
        engine = self._engine
        ids = self._requests.check_text(tokens)
        return saving(path, ids, engine.layout, self.path, engine.start_disk)

    def _loading(self, path: str | os.PathLike[str]) -> tuple[list[int], Request | None]:
        engine = self._engine
        return loading(path, engine.layout, self.context, engine.start_disk)

    def _answer(self, messages: Messages, options: ChatOptions, *, streams: bool) -> Callable[[], Request]:
        """What makes the request that answers a conversation."""
        rest: dict[str, Any] = dict(options)
        progress, variables = rest.pop("progress", None), rest.pop("variables", None) or {}
        chosen = {name: rest.pop(name, None) for name in ("tools", "template")}
        if not isinstance(variables, Mapping) or not all(isinstance(name, str) for name in variables):
            raise ParameterError(f"variables: found {variables!r:.40}, expected a dictionary of names")
        for name in ("messages", *chosen):
            if name in variables:
                raise ParameterError(f"variables: found {name!r}, which is an argument of its own")
        tokenize = partial(self.tokenize_chat, messages, **chosen, **variables)
        return partial(
            self._requests.generation,
            tokenize,
            cast(Options, rest),
            streams=streams,
            reports=hears(progress),
        )


# Held while the tokenizer of any model is built. Two would not be built sooner side by side: that is Python.
_building = threading.Lock()


def _forget_builders() -> None:
    """In a forked process nobody builds: who did has stayed behind."""
    global _building
    _building = threading.Lock()


after_fork(_forget_builders)
