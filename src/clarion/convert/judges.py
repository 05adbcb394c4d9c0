"""Models that judge in words how well a document answers a query: Qwen 3 Reranker.

Its checkpoint is that of a model that writes, and says what it is for in its name alone. The score is the
probability of "yes" against "no" behind a text of a certain form, so that the file needs only these two rows
of the head, as a classifier. [Zhang et al., 2025, Qwen3 Embedding]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from clarion.convert.checkpoint import Checkpoint
from clarion.convert.config import whole
from clarion.errors import FormatError
from clarion.models.family import Computed, HuggingFace, Made

_ANSWERS = ("yes", "no")
_TEMPLATE = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the "
    'Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
    "<Instruct>: Given a web search query, retrieve relevant passages that answer the query\n"
    "<Query>: {query}\n<Document>: {document}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
)
METADATA = {"tokenizer.chat_template.rerank": _TEMPLATE}


def is_judge(name: str, config: Mapping[str, Any]) -> bool:
    """Whether a checkpoint of this name is such a model."""
    return config.get("model_type") == "qwen3" and "reranker" in name.lower()


def judging(kind: HuggingFace, checkpoint: Checkpoint) -> HuggingFace:
    """The kind of checkpoint, whose file has a classifier.

    Raises:
        FormatError: the vocabulary has no "yes" or "no".
    """
    rows = [_token(checkpoint, answer) for answer in _ANSWERS]
    tied = checkpoint.config.get("tie_word_embeddings") is True
    head = "model.embed_tokens.weight" if tied else "lm_head.weight"
    return replace(
        kind,
        tensors={**kind.tensors, "cls.output.weight": Made(head, lambda _, x: x[rows])},
        keys={
            **kind.keys,
            "pooling_type": Computed(lambda _: 4),
            "classifier.output_labels": Computed(lambda _: list(_ANSWERS)),
        },
    )


def _token(checkpoint: Checkpoint, text: str) -> int:
    """The id of a word of the vocabulary."""
    model = (checkpoint.json("tokenizer.json") or {}).get("model") or {}
    vocabulary = model.get("vocab") or checkpoint.json("vocab.json") or {}
    token = whole(vocabulary.get(text)) if isinstance(vocabulary, Mapping) else None
    if token is None:
        raise FormatError(f"{checkpoint.folder}: the vocabulary has no token {text!r}, which judging needs")
    return token
