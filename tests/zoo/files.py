"""Small texts and networks for these tests."""

from __future__ import annotations

import lzma
from pathlib import Path

import numpy as np

from zoo.config import Model, Recipe, Shape
from zoo.corpus import Tokens

SENTENCES = ("Once there was a king.", "The wolf ran home.", '"Come in," said the old woman.', "It snowed.")
SHAPES = {
    "llama": Shape("llama", 2, 256, 4, 2, 256),
    "qwen3moe": Shape("qwen3moe", 2, 256, 4, 2, 32, n_expert=8, n_expert_used=2),
    "bitnet": Shape("bitnet", 2, 256, 4, 2, 256),
}


def model(family: str, **recipe: float) -> Model:
    figures = {
        "seed": 1,
        "steps": 6,
        "context": 32,
        "batch": 128,
        "micro_batch": 64,
        "warmup": 2,
        "cooldown": 0.5,
        "matrix_rate": 0.01,
        "table_rate": 0.003,
        "vector_rate": 0.003,
        "weight_decay": 0.01,
        "balance": 0.01,
    }
    return Model("small", "cpu", "a small one", SHAPES[family], Recipe(**(figures | recipe)))


def write_corpus(folder: Path, n_documents: int = 40) -> Path:
    """Documents of random sentences, in both splits."""
    random = np.random.default_rng(5)
    for split, n in (("train", n_documents), ("valid", n_documents // 4)):
        documents = ("\n\n".join(" ".join(random.choice(SENTENCES, 6)) for _ in range(3)) for _ in range(n))
        with lzma.open(folder / f"{split}.txt.xz", "wt") as file:
            file.writelines(f"{document}\n<|endoftext|>\n" for document in documents)
    return folder


def numbered(*lengths: int) -> Tokens:
    """Documents of these lengths; all their ids are different."""
    return Tokens(np.arange(sum(lengths), dtype=np.uint16), np.cumsum([0, *lengths], dtype=np.int64))
