"""A model that a server has, with the methods of one that is loaded."""

from __future__ import annotations

import base64
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, TypeVar, Unpack, overload

from clarion.client.described import ABSENT, Described
from clarion.client.fields import Asked, Messages, address, chat, completion, conversed
from clarion.client.http import Http
from clarion.client.jobs import Pieces, Post, Question, Whole
from clarion.client.texts import logprob
from clarion.client.wire import Wire
from clarion.errors import ParameterError, PicklingError, ServerError, UnsupportedError
from clarion.runtime.completion import Completion, TokenLogprob
from clarion.runtime.prompts import Prompt, check_ids, look
from clarion.runtime.sampling import (
    GREATEST_LOGPROBS,
    ChatOptions,
    Options,
    integer,
    number,
)
from clarion.runtime.streams import (
    AsyncTextStream,
    Progress,
    TextStream,
    hears,
    in_thread,
    wait,
    wait_async,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from clarion.plan.output import Pooling

    Floats = npt.NDArray[np.float32]

T = TypeVar("T")

# What a loaded model has and no server offers, and what to do instead.
_LOCAL: Final = {
    "logits": "score gives the log-probabilities of a text's tokens",
    "each_logits": "score gives the log-probabilities of a text's tokens",
    "metadata": "it is in the model's file",
    "tokenizer": "tokenize, detokenize and apply_chat_template ask the server",
    "program": "it is the plan of a model that this process computes",
    "isa": "it is the server's",
    "threads": "they are the server's",
    "load_seconds": "the server loads the model",
    "memory_bytes": "it is the server's memory",
    "bytes_per_token": "it is known of a model that this process computes",
    "byte_products_per_token": "it is known of a model that this process computes",
    "figures": "they are the server's; Completion.timings are those of a text",
    "settle": "the server's weights are its own",
    **dict.fromkeys(
        ("save_session", "asave_session", "load_session", "aload_session"),
        "what is remembered of a text stays on the server, in its cache",
    ),
}


def connect(
    url: str,
    *,
    api_key: str | None = None,
    model: str | None = None,
    timeout: float | None = 600.0,
    retries: int = 2,
) -> Connection:
    """A model on a server of Clarion, or another one that speaks OpenAI's protocol, as if it were loaded.

    Args:
        url: where the server is, with or without `/v1` at the end.
        api_key: that the server asks for.
        model: its name on the server; None: the first one that the server lists.
        timeout: seconds for which the server may say nothing; None: any time. While it computes a text, one
            of Clarion says so.
        retries: how many times a request is sent again that a server refuses for now, or that does not reach
            it; see `clarion.client.http`.

    Raises:
        UnreachableError: there is no server.
        AccessError: it wants another key.
        NameNotFoundError, ServerError: it has no such model.
        OverloadedError: it takes no requests now.
        ParameterError: an argument is not what is expected.
    """
    where = address(url)
    if api_key is not None and not (
        isinstance(api_key, str) and api_key.isascii() and api_key.isprintable() and api_key
    ):
        raise ParameterError("api_key: found one that is empty, or has characters beside ASCII's")
    if model is not None and not (isinstance(model, str) and model):
        raise ParameterError(f"model: found {model!r:.40}, expected a name")
    if timeout is not None and number("timeout", timeout, 0.0, 1e9) == 0:
        raise ParameterError("timeout: found 0, expected more, or None")
    wire = Wire(Http(where, api_key, timeout, integer("retries", retries, 0, 1000)))
    try:
        return Connection(wire, where, model)
    except BaseException:
        wire.close()
        raise


class Connection:
    """A model on a server. Any number of threads and event loops may use it at once.

    `connect` makes it. Its methods are those of `Model`, with the same options, results and errors. What an
    option does not say, the server does: its own options, else what the model's file recommends. After
    `close`, whatever asks the server raises ClosedError.

    Attributes:
        url: of the server.
        name: of the model.
        path: the name as a path, for who prints those of models.
    """

    def __init__(self, wire: Wire, url: str, model: str | None) -> None:
        """Use `connect`."""
        self.url = url
        self._wire = wire
        self._described = Described(wire, url, model)
        self._is_clarion = self._described.is_clarion
        self.name = self._described.name
        self.path = Path(self.name)
        self._forgotten = weakref.finalize(self, wire.close)
        self._forgotten.atexit = False

    @property
    def context(self) -> int | None:
        """Tokens of a prompt and its continuation at most; None where the server does not say it, as of a
        model that it has not loaded yet."""
        return self._described.number("context_length", "max_model_len")

    @property
    def n_vocab(self) -> int | None:
        """Tokens of the vocabulary, as `context`."""
        return self._described.number("n_vocab")

    @property
    def defaults(self) -> Options:
        """Empty: the server uses what the model's file recommends by itself."""
        return {}

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
        """Continues a text, or several together, as `Model.generate`. `progress` is called once, when the
        answer is there.

        Raises:
            ParameterError, ContextError, ...: as `Model.generate`.
            UnreachableError, OverloadedError, AccessError, ServerError: see `clarion.errors`.
        """
        found, several = look(prompt)
        hears(progress)
        job = Whole(completion(self._described.target, found, options))
        wait(self._wire, job, progress)
        return job.found if several else job.found[0]

    def stream(
        self, prompt: Prompt, *, progress: Progress | None = None, **options: Unpack[Options]
    ) -> TextStream:
        """`generate` that yields the text piece by piece; the stream's `completion` holds the rest."""
        hears(progress)
        return TextStream(self._wire, Pieces(self._asked(prompt, options)), progress, self)

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
        hears(progress)
        job = Whole(await in_thread(completion, self._described.target, found, options))
        await wait_async(self._wire, lambda: job, progress)
        return job.found if several else job.found[0]

    def astream(
        self, prompt: Prompt, *, progress: Progress | None = None, **options: Unpack[Options]
    ) -> AsyncTextStream:
        """`stream` for an event loop. Errors of the request come with the first piece."""
        hears(progress)
        return AsyncTextStream(self._wire, lambda: Pieces(self._asked(prompt, options)), progress)

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
        """Answers a conversation, as `Model.chat`. The server writes it, with its own chat template: an
        option `template` is refused. Where the last message is the assistant's, the answer goes on with it.

        Raises as `generate`, and:
            TemplateError: the model has no chat template, or it refuses the messages.
        """
        if stream:
            return self.chat_stream(messages, **options)
        job = Whole(self._answer(messages, options))
        wait(self._wire, job, options.get("progress"))
        return job.found[0]

    def chat_stream(self, messages: Messages, **options: Unpack[ChatOptions]) -> TextStream:
        """`chat` that yields the answer piece by piece."""
        asked = self._answer(messages, options)
        return TextStream(self._wire, Pieces(asked), options.get("progress"), self)

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
        job = Whole(await in_thread(self._answer, messages, options))
        await wait_async(self._wire, lambda: job, options.get("progress"))
        return job.found[0]

    def achat_stream(self, messages: Messages, **options: Unpack[ChatOptions]) -> AsyncTextStream:
        """`chat_stream` for an event loop. Errors of the request come with the first piece."""
        hears(options.get("progress"))
        return AsyncTextStream(
            self._wire, lambda: Pieces(self._answer(messages, options)), options.get("progress")
        )

    def tokenize_chat(
        self,
        messages: Messages,
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        template: str | None = None,
        **variables: Any,
    ) -> list[int]:
        """Token ids of a conversation, as `apply_chat_template` writes it. Raises as that."""
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

        Raises as `chat`.
        """
        fields = conversed(messages, tools=tools, template=template, variables=variables)
        if not add_generation_prompt:
            fields["add_generation_prompt"] = False
        return self._post("/apply-template", fields, lambda answer: str(answer["prompt"]))

    # ---- tokens -------------------------------------------------------------------------------------------

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """Token ids of a text, as `Model.tokenize`."""
        if not isinstance(text, str):
            raise ParameterError(f"text: found {text!r:.40}, expected a text")
        fields = {"content": text, "add_special": add_special, "parse_special": parse_special}
        return self._post("/tokenize", fields, lambda answer: list(map(int, answer["tokens"])))

    def detokenize(self, tokens: Iterable[int], *, skip_special: bool = False) -> str:
        """The text of token ids."""
        fields: dict[str, Any] = {"tokens": check_ids(tokens, self._described.target.n_vocab)}
        if skip_special:
            fields["skip_special"] = True
        return self._post("/detokenize", fields, lambda answer: str(answer["content"]))

    def score(self, tokens: Iterable[int], *, first: int = 1, top: int = 0) -> list[TokenLogprob]:
        """How probable the tokens from `first` on are, each after those before it, as `Model.score`."""
        job = self._scores(tokens, first, top)
        wait(self._wire, job)
        return job.found

    async def ascore(self, tokens: Iterable[int], *, first: int = 1, top: int = 0) -> list[TokenLogprob]:
        """`score` for an event loop. Cancelling the task ends the computation."""
        job = self._scores(tokens, first, top)
        await wait_async(self._wire, lambda: job)
        return job.found

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
        """The vectors of texts, as `Model.embed`: [n, width]; of one text that is no list [width]."""
        import numpy as np

        found, several = look(texts)
        given: list[Any] = [] if not several and not found else (found if several else [found])
        inputs = [
            each if isinstance(each, str) else check_ids(each, self._described.target.n_vocab)
            for each in given
        ]
        fields: dict[str, Any] = {"encoding_format": "base64"}
        options = {"pooling": pooling, "dimensions": dimensions, "prompt": prompt}
        fields |= {name: value for name, value in options.items() if value is not None}
        if truncate:
            fields["truncate"] = True
        if self._is_clarion and not normalize:
            fields["normalize"] = False
        sent = fields["input"] = inputs or ["a"]  # of no texts too, the server knows the width

        def rows(answer: Any) -> Floats:
            data = sorted(answer["data"], key=lambda each: int(each["index"]))
            found = np.array([_vector(each["embedding"]) for each in data], np.float32)
            if normalize and not self._is_clarion:
                found /= np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
            if len(found) != len(sent):
                raise ValueError(f"{len(found)} vectors of {len(sent)} texts")
            return found

        vectors = self._post("/v1/embeddings", fields, rows)[: len(inputs)]
        return vectors[0] if inputs and not several else vectors

    def rerank(self, query: str, documents: Iterable[str], *, truncate: bool = False) -> Floats:
        """How well each document answers a query, as `Model.rerank`: [n], higher is better."""
        import numpy as np

        if not isinstance(query, str):
            raise ParameterError(f"query: found {query!r:.40}, expected a text")
        if isinstance(documents, str | bytes) or not isinstance(documents, Iterable):
            raise ParameterError(f"documents: found {documents!r:.40}, expected a list of texts")
        given = list(documents)
        sent = given or [""]
        fields = {"query": query, "documents": sent, "truncate": truncate}

        def scores(answer: Any) -> Floats:
            found = np.full(len(sent), np.nan, np.float32)
            for each in answer["results"]:
                found[each["index"]] = each["relevance_score"]
            if np.isnan(found).any():
                raise ValueError("a document has no score")
            return found

        return self._post("/v1/rerank", fields, scores)[: len(given)]

    # ---- end ----------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Ends whatever is under way, with a ClosedError for its caller, and closes all connections."""
        self._wire.close()
        self._forgotten.detach()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Connection {self.name} at {self.url}{'' if self._forgotten.alive else ', closed'}>"

    def __reduce_ex__(self, _: object) -> NoReturn:
        raise PicklingError(
            f"{self.url}: a connection cannot be pickled or copied; pass on its url, and connect in each "
            f"process, or use one in all threads"
        )

    if not TYPE_CHECKING:  # to the type checker these names are unknown

        def __getattr__(self, name: str) -> Any:
            """Raises UnsupportedError for what only a loaded model has."""
            if (instead := _LOCAL.get(name)) is not None:
                raise UnsupportedError(f"{name}: a model on a server does not offer it; {instead}")
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    # ---- requests -----------------------------------------------------------------------------------------

    def _asked(self, prompt: Prompt, options: Options) -> Asked:
        found, several = look(prompt)
        if several:
            raise ParameterError(f"prompt: found {len(found)} prompts, expected a text or token ids")
        return completion(self._described.target, found, options)

    def _answer(self, messages: Messages, options: ChatOptions) -> Asked:
        hears(options.get("progress"))
        return chat(self._described.target, messages, options)

    def _scores(self, tokens: Iterable[int], first: int, top: int) -> Question[list[TokenLogprob]]:
        if not self._is_clarion:
            raise UnsupportedError("score: this server does not offer it; Clarion's servers do")
        ids = check_ids(tokens, self._described.target.n_vocab)
        first = integer("first", first, 1, max(1, len(ids)))
        fields = {"tokens": ids, "first": first, "top": integer("top", top, 0, GREATEST_LOGPROBS)}
        fields |= {"model": self.name}
        return Post("/clarion/score", fields, lambda answer: list(map(logprob, answer["logprobs"])))

    def _post(self, path: str, fields: dict[str, Any], read: Callable[[Any], T]) -> T:
        job = Post(path, {"model": self.name, **fields}, read)
        try:
            wait(self._wire, job)
        except ServerError as error:
            if self._is_clarion or error.status not in ABSENT:
                raise
            raise UnsupportedError(f"{self.url} has nothing at {path}; Clarion's servers do") from None
        return job.found


def _vector(found: str | list[float]) -> Any:
    import numpy as np

    if isinstance(found, str):
        return np.frombuffer(base64.b64decode(found), "<f4")
    return np.array(found, np.float32)
