"""What a model is worth on the held-out text: in the arithmetic of its training, and as a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from clarion.evaluate.chunks import Chunk, halves
from clarion.evaluate.figures import Perplexity
from clarion.evaluate.request import Request, run
from clarion.tokenizer import Tokenizer
from zoo.card import CONTEXT, Measured
from zoo.corpus import TOKENIZER
from zoo.network import Network


def files(paths: Sequence[Path], text: str) -> list[Measured]:
    """GGUF files, computed by Clarion with its default activations."""
    evaluation = run(Request(list(paths), text, context=CONTEXT, threads=1))
    figures = [Perplexity.of(track.surprise) for track in evaluation.models]
    return [Measured(f.value, f.error) for f in figures]


def network(net: Network, text: str) -> Measured:
    """The network itself on the same chunks, without autocast."""
    surprises = []
    with torch.no_grad():
        for chunk in chunks(text):
            logits = net(torch.tensor([chunk.tokens]))[0, chunk.first :]  # [n, V]
            targets = torch.tensor(chunk.targets)
            surprises.append(functional.cross_entropy(logits.float(), targets, reduction="none").double())
    figures = Perplexity.of(torch.cat(surprises).numpy())
    return Measured(figures.value, figures.error)


def balance(net: Network, text: str) -> list[list[int]]:
    """How often each expert of each layer is used on the text: [layers, experts]."""
    counts = [np.zeros(net.shape.n_expert, np.int64) for _ in net.experts()]
    with torch.no_grad():
        for chunk in chunks(text):
            net(torch.tensor([chunk.tokens]))
            for total, layer in zip(counts, net.experts(), strict=True):
                total += layer.counts.numpy()
    return [total.tolist() for total in counts]


def chunks(text: str) -> list[Chunk]:
    """The text as `clarion eval -c 256` cuts it."""
    tokenizer = Tokenizer.from_gguf(TOKENIZER)
    return list(halves(tokenizer.encode(text), CONTEXT, tokenizer.bos))
