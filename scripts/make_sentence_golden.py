#!/usr/bin/env python3
"""Makes tests/end_to_end/sentences.npz: what transformers make of real sentences with all-MiniLM-L6-v2.

Run by hand, where torch and transformers are:

    /tmp/goldens/bin/pip install torch==2.13.0 transformers==5.24.0 pytest==9.2.0
    PYTHONPATH=. /tmp/goldens/bin/python scripts/make_sentence_golden.py

The file holds vectors [500, 384] in float16, of the mean of a sentence's rows, of length 1, in float64.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
import transformers

from tests.end_to_end.sentences import sentences
from tests.real_models import minilm

ROOT = Path(__file__).parent.parent
N = 500


@torch.no_grad()
def main() -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm())
    model = transformers.AutoModel.from_pretrained(minilm(), attn_implementation="eager").double().eval()
    texts = sentences(N)
    vectors = []
    for text in texts:
        ids = tokenizer(text, return_tensors="pt", truncation=False)["input_ids"]
        rows = model(ids).last_hidden_state[0].numpy()
        mean = rows.mean(0)
        vectors.append(mean / np.linalg.norm(mean))
    digest = sha256("\0".join(texts).encode()).hexdigest()
    np.savez_compressed(
        ROOT / "tests" / "end_to_end" / "sentences.npz", vectors=np.float16(vectors), digest=digest
    )
    print(f"{len(texts)} texts of {min(map(len, texts))} to {max(map(len, texts))} characters")


if __name__ == "__main__":
    main()
