"""Vectors of texts, and how well documents answer a query: what a loaded model computes beside text."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from clarion.errors import ClosedError, ContextError, ModelError, ParameterError, UnsupportedError
from clarion.exiting import loading
from clarion.models.keys import shown
from clarion.plan.output import Output, Pooled, Pooling, Ranks
from clarion.runtime.prompts import Prompt
from clarion.runtime.sampling import integer
from clarion.runtime.vectors import Embedder
from clarion.tokenizer.settings import DEFAULT_PROMPT, PROMPTS, Fields

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import numpy.typing as npt

    from clarion.tokenizer import Tokenizer

    Floats = npt.NDArray[np.float32]

_RERANK = "tokenizer.chat_template.rerank"  # of decoders that judge: a text with {query} and {document}
_PLACES = re.compile(r"(\{query\}|\{document\})")


def _closed(output: Output | None) -> Embedder:
    raise ClosedError("the model is closed")


@dataclass(frozen=True, slots=True)
class _Ids:
    """The tokens of what is computed: those that may be cut at their end, and what stands around them."""

    before: list[int]
    text: list[int]
    after: list[int]

    def __len__(self) -> int:
        return len(self.before) + len(self.text) + len(self.after)


class Vectors:
    """The embedders of one model, each made when it is first asked for."""

    def __init__(
        self,
        name: str,
        metadata: Mapping[str, object],
        n_types: int,
        make: Callable[[Output | None], Embedder],
    ) -> None:
        """
        Args:
            name: of the file, for errors.
            n_types: types of tokens that the model was trained with, rows of the tensor `token_types.weight`.
            make: gives the embedder of an output; None: of what the file is made for.
        """
        self._name = name
        self._metadata = metadata
        self._n_types = n_types
        self._make = make
        self._made: dict[Output | None, Embedder] = {}
        self._lock = threading.RLock()
        self._is_closed = False
        self._process = os.getpid()

    def embed(
        self,
        tokenizer: Tokenizer,
        texts: Prompt | Iterable[Prompt],
        *,
        pooling: Pooling | None,
        normalize: bool,
        dimensions: int | None,
        prompt: str | None,
        truncate: bool,
    ) -> Floats:
        """See `Model.embed`."""
        import numpy as np

        self._check()
        if pooling is not None and not (isinstance(pooling, str) and pooling in get_args(Pooling)):
            known = ", ".join(get_args(Pooling))
            raise ParameterError(f"pooling: found {pooling!r:.40}, expected one of {known}, or None")
        prefix = self._prefix(prompt)
        found, single = self._texts_or_ids(texts)
        ids = [
            self._fitting(f"text {i}", "text", _text_ids(tokenizer, prefix, text), truncate)
            for i, text in enumerate(found)
        ]
        embedder = self._embedder(None if pooling is None else Pooled(pooling))
        if isinstance(embedder.output, Ranks):
            embedder = self._embedder(Pooled(embedder.output.how))
        rows = embedder.rows(ids)
        if dimensions is not None:
            rows = rows[:, : integer("dimensions", dimensions, 1, rows.shape[1])]
        if not np.isfinite(rows).all():
            raise ModelError(f"{self._name}: the vectors are not numbers: is the model's file sound?")
        if normalize:
            rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        result: Floats = np.ascontiguousarray(rows[0] if single else rows, np.float32)
        return result

    def rerank(self, tokenizer: Tokenizer, query: str, documents: Iterable[str], *, truncate: bool) -> Floats:
        """See `Model.rerank`."""
        import numpy as np

        self._check()
        if not isinstance(query, str):
            raise ParameterError(f"query: found {query!r:.40}, expected a text")
        all_documents = self._texts("documents", documents)
        embedder = self._embedder(Ranks("last" if _RERANK in self._metadata else "cls"))
        if self._n_types > 1:
            raise UnsupportedError(
                f"{self._name}: the classifier was trained with {self._n_types} types of tokens (rows of "
                f"token_types.weight), one for the query and one for the document; only one type is "
                f"implemented"
            )
        pairs = [
            self._fitting(f"document {i}", "document", self._pair(tokenizer, query, document), truncate)
            for i, document in enumerate(all_documents)
        ]
        scores = embedder.rows(pairs)  # [n, labels]
        if not np.isfinite(scores).all():
            raise ModelError(f"{self._name}: the scores are not numbers: is the model's file sound?")
        if scores.shape[1] == 2:  # yes and no
            scores = 1 / (1 + np.exp(np.clip(scores[:, 1:] - scores[:, :1], -80, 80)))
        elif scores.shape[1] != 1:
            raise ModelError(
                f"{self._name}: the classifier has {scores.shape[1]} labels; ranking needs one, or yes and no"
            )
        return np.ascontiguousarray(scores[:, 0], np.float32)

    @property
    def prompts(self) -> dict[str, str]:
        """What stands before texts of a kind, by the kind's name."""
        prefix = f"{PROMPTS}."
        return {
            key.removeprefix(prefix): value
            for key, value in self._metadata.items()
            if key.startswith(prefix) and isinstance(value, str)
        }

    def close(self) -> None:
        """Ends what is computed, and forgets the executors: their memory is freed with them. From then on
        nothing is made."""
        if os.getpid() != self._process:
            return
        self._is_closed = True  # who waits for the lock, or has it, sees that
        with self._lock:
            made = list(self._made.values())
        for embedder in made:
            embedder.close()
        self._made = {}
        self._make = _closed  # it knows the model's executor, and so its threads

    def exit(self) -> None:
        """Before `close`, when the interpreter exits."""
        for embedder in list(self._made.values()):
            embedder.exit()

    def is_here(self) -> bool:
        """Whether one of the threads that compute asks."""
        return any(embedder.is_here() for embedder in list(self._made.values()))

    def _check(self) -> None:
        """Raises ClosedError after `close`, or in a forked process, whose lock may be held for ever."""
        if os.getpid() != self._process:
            raise ClosedError("the model was loaded by another process; load it again after a fork")
        if self._is_closed:
            raise ClosedError("the model is closed")

    def _embedder(self, output: Output | None) -> Embedder:
        if (found := self._made.get(output)) is not None:
            return found
        self._check()
        with (
            loading,
            self._lock,
        ):  # in this order: who exits waits for those who load, and then takes the lock
            self._check()
            if output not in self._made:
                made = self._make(output)
                self._check()
                self._made[output] = made
            return self._made[output]

    def _prefix(self, prompt: str | None) -> str:
        if prompt is None:
            prompt = Fields(self._metadata, f"{self._name}: ").text(DEFAULT_PROMPT)
        if prompt is None or prompt == "":
            return ""
        prompts = self.prompts
        if not isinstance(prompt, str) or prompt not in prompts:
            known = ", ".join(sorted(prompts)) or "none"
            raise ParameterError(f"prompt: found {prompt!r:.40}, expected one that the file names: {known}")
        return prompts[prompt]

    def _texts_or_ids(self, texts: Prompt | Iterable[Prompt]) -> tuple[list[str | list[int]], bool]:
        """The texts, each a text or token ids, and whether there was only one that is no list of texts."""
        if isinstance(texts, str):
            return [texts], True
        if not isinstance(texts, Iterable) or isinstance(texts, bytes | bytearray | memoryview):
            raise ParameterError(f"texts: found {texts!r:.40}, expected a list of texts")
        items: list[Any] = list(texts)
        if items and all(type(item) is int for item in items):
            return [items], True
        for i, item in enumerate(items):
            is_ids = isinstance(item, list | tuple) and all(type(token) is int for token in item)
            if not isinstance(item, str) and not is_ids:
                raise ParameterError(
                    f"texts: found {item!r:.40} as number {i}, expected texts, or token ids, alone"
                )
        return [item if isinstance(item, str) else list(item) for item in items], False

    def _texts(self, what: str, texts: Iterable[str]) -> list[str]:
        if isinstance(texts, Iterable) and not isinstance(texts, str | bytes | bytearray | memoryview):
            found = list(texts)
            wrong = next((i for i, text in enumerate(found) if not isinstance(text, str)), None)
            if wrong is None:
                return found
            raise ParameterError(
                f"{what}: found {found[wrong]!r:.40} as number {wrong}, expected texts alone"
            )
        raise ParameterError(f"{what}: found {texts!r:.40}, expected a list of texts")

    def _fitting(self, what: str, part: str, ids: _Ids, truncate: bool) -> list[int]:
        """The tokens; where they are too many and may be cut, as many of the part's as there is room for.

        what: its name and number, for errors; part: what may be cut, in words.
        """
        n = len(ids)
        if n == 0:
            raise ParameterError(f"{what}: found no tokens, expected at least one")
        context = self._embedder(None).context
        if n <= context:
            return [*ids.before, *ids.text, *ids.after]
        around = n - len(ids.text)
        others = "the query and what stands beside it" if part == "document" else "what stands around it"
        if not truncate:
            raise ContextError(
                f"{what}: {n} tokens are more than the context of {context} ({len(ids.text)} of the {part}, "
                f"{around} of {others}); shorten it, or let it be cut (truncate=True in Python, --truncate "
                f"on the command line)"
            )
        if around >= context:
            raise ContextError(
                f"{what}: no token of the {part} fits into the context of {context}: {others} has {around}, "
                f"the {part} {len(ids.text)}"
            )
        return [*ids.before, *ids.text[: context - around], *ids.after]

    def _pair(self, tokenizer: Tokenizer, query: str, document: str) -> _Ids:
        """The tokens of a query and a document, as the model judges them."""
        if _RERANK not in self._metadata:
            first = tokenizer.encode(query)
            second = tokenizer.encode(document, add_special=False)
            return _Ids([*first, *tokenizer.between], second, list(tokenizer.after))
        texts = {"{query}": query, "{document}": document}
        parts = self._template()
        at = parts.index("{document}")
        sides: tuple[list[int], list[int]] = ([], [])
        for i, part in enumerate(parts):
            if i != at:
                sides[i > at].extend(
                    tokenizer.encode(
                        texts.get(part, part), add_special=False, parse_special=part not in texts
                    )
                )
        return _Ids(sides[0], tokenizer.encode(document, add_special=False), sides[1])

    def _template(self) -> list[str]:
        """The file's text that the model judges, cut where the query and the document stand in it."""
        template = self._metadata[_RERANK]
        parts = _PLACES.split(template) if isinstance(template, str) else []
        if parts.count("{query}") != 1 or parts.count("{document}") != 1:
            raise ModelError(
                f"{self._name}: {_RERANK} is {shown(template)}, expected a text with {{query}} and "
                f"{{document}} once each"
            )
        return parts


def _text_ids(tokenizer: Tokenizer, prefix: str, text: str | list[int]) -> _Ids:
    """The tokens of a text behind a prompt, which is not cut. Ids are taken as they are, without one."""
    if not isinstance(text, str):
        wrong = next((token for token in text if not 0 <= token < tokenizer.vocab_size), None)
        if wrong is not None:
            raise ParameterError(f"texts: found token {wrong}, expected 0 to {tokenizer.vocab_size - 1}")
        return _Ids([], text, [])
    ids = tokenizer.encode(f"{prefix}{text}")
    n_after = len(tokenizer.after)
    n_before = len(tokenizer.encode(prefix)) - n_after if prefix else len(tokenizer.before)
    n_before = min(n_before, len(ids) - n_after)
    end = len(ids) - n_after
    return _Ids(ids[:n_before], ids[n_before:end], ids[end:])
