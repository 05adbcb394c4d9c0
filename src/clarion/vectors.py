"""Vectors of texts, and how well documents answer a query: what a loaded model computes beside text."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, get_args

from clarion.errors import ClosedError, ContextError, ModelError, ParameterError, UnsupportedError
from clarion.models.keys import TOKEN_TYPES
from clarion.plan.output import Output, Pooled, Pooling, Ranks
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


def _closed(output: Output | None) -> Embedder:
    raise ClosedError("the model is closed")


class Vectors:
    """The embedders of one model, each made when it is first asked for."""

    def __init__(
        self,
        name: str,
        metadata: Mapping[str, object],
        make: Callable[[Output | None], Embedder],
    ) -> None:
        """`make` gives the embedder of an output; None: of what the file is made for."""
        self._name = name
        self._metadata = metadata
        self._make = make
        self._made: dict[Output | None, Embedder] = {}
        self._lock = threading.Lock()

    def embed(
        self,
        tokenizer: Tokenizer,
        texts: str | Sequence[str],
        *,
        pooling: Pooling | None,
        normalize: bool,
        dimensions: int | None,
        prompt: str | None,
        truncate: bool,
    ) -> Floats:
        """See `Model.embed`."""
        import numpy as np

        if pooling is not None and pooling not in get_args(Pooling):
            known = ", ".join(get_args(Pooling))
            raise ParameterError(f"pooling: found {pooling!r:.40}, expected one of {known}, or None")
        single = isinstance(texts, str)
        prefix = self._prefix(prompt)
        ids = [
            self._fitting(f"text {i}", tokenizer, tokenizer.encode(f"{prefix}{text}"), truncate)
            for i, text in enumerate([texts] if single else self._texts("texts", texts))
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

    def rerank(self, tokenizer: Tokenizer, query: str, documents: Sequence[str], *, truncate: bool) -> Floats:
        """See `Model.rerank`."""
        import numpy as np

        if not isinstance(query, str):
            raise ParameterError(f"query: found {query!r:.40}, expected a text")
        embedder = self._embedder(Ranks("last" if _RERANK in self._metadata else "cls"))
        types = self._metadata.get(TOKEN_TYPES, 1)
        if isinstance(types, int) and types > 1:
            raise UnsupportedError(
                f"{self._name}: the classifier was trained with {types} types of tokens (token_type_count), "
                f"one for the query and one for the document; only one type is implemented"
            )
        pairs = [
            self._fitting(f"document {i}", tokenizer, self._pair(tokenizer, query, document), truncate)
            for i, document in enumerate(self._texts("documents", documents))
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
        """Ends what is computed, and forgets the executors: their memory is freed with them."""
        made, self._made = self._made, {}
        self._make = _closed
        for embedder in made.values():
            embedder.close()

    def _embedder(self, output: Output | None) -> Embedder:
        with self._lock:
            if output not in self._made:
                self._made[output] = self._make(output)
            return self._made[output]

    def _prefix(self, prompt: str | None) -> str:
        prompts = self.prompts
        if prompt is None:
            prompt = Fields(self._metadata, f"{self._name}: ").text(DEFAULT_PROMPT)
        if not prompt:
            return ""
        if prompt not in prompts:
            known = ", ".join(sorted(prompts)) or "none"
            raise ParameterError(f"prompt: found {prompt!r:.40}, expected one that the file names: {known}")
        return prompts[prompt]

    def _texts(self, what: str, texts: Sequence[str]) -> list[str]:
        if isinstance(texts, str | bytes) or not all(isinstance(text, str) for text in texts):
            raise ParameterError(f"{what}: found {texts!r:.40}, expected a list of texts")
        return list(texts)

    def _fitting(self, what: str, tokenizer: Tokenizer, ids: list[int], truncate: bool) -> list[int]:
        """The ids; where they are too many and may be cut, as many as fit, and what ends a text."""
        if not ids:
            raise ParameterError(f"{what}: found no tokens, expected at least one")
        context = self._embedder(None).context
        if len(ids) <= context:
            return ids
        if not truncate:
            raise ContextError(
                f"{what}: {len(ids)} tokens are more than the context of {context}; shorten it, or let it be "
                f"cut (truncate=True in Python, --truncate on the command line)"
            )
        end = list(tokenizer.after)
        return ids[: context - len(end)] + end

    def _pair(self, tokenizer: Tokenizer, query: str, document: str) -> list[int]:
        """The tokens of a query and a document, as the model judges them."""
        template = self._metadata.get(_RERANK)
        if not isinstance(template, str):
            first, second = (tokenizer.encode(text) for text in (query, document))
            return [*first, *tokenizer.between, *second[len(tokenizer.before) :]]
        before, _, rest = template.partition("{query}")
        between, _, after = rest.partition("{document}")
        ids: list[int] = []
        for i, text in enumerate((before, query, between, document, after)):
            ids += tokenizer.encode(text, add_special=False, parse_special=i % 2 == 0)
        return ids
