#!/usr/bin/env python3
"""Makes goldens of tests/models/goldens/encoders, as scripts/make_family_goldens.py does those of models that
write: tiny random checkpoints, converted, and what transformers give for them.

    /tmp/goldens/bin/python scripts/make_encoder_goldens.py [NAME ...]

Each golden is NAME.gguf.xz and NAME.npz: ids [T], and rows [T, n_embd] of the last layer or, of a classifier,
scores [1, n_labels].
"""

from __future__ import annotations

import lzma
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers
from make_family_goldens import (
    GOLDENS,
    N_TOKENS,
    ROOT,
    Doubled,
    Golden,
    random_weights,
    shape,
    write_tokenizer,
)

from clarion.convert import convert

sys.path.insert(0, str(ROOT / "src"))
ENCODERS = GOLDENS / "encoders"
VECTORS, CLASSIFIER = transformers.AutoModel, transformers.AutoModelForSequenceClassification
MODERN = {"global_attn_every_n_layers": 3, "pad_token_id": 1, "cls_token_id": 2, "sep_token_id": 3}


def encoder(**more):
    return {name: value for name, value in shape(**more).items() if name != "num_key_value_heads"} | {
        "pad_token_id": 1
    }


GOLDENS_TABLE: dict[str, Golden] = {
    "bert": Golden("bert", encoder(), loader=VECTORS),
    "bert-classifier": Golden("bert", encoder(heads=2, num_labels=1), loader=CLASSIFIER),
    "xlm-roberta": Golden("xlm-roberta", encoder(type_vocab_size=1), loader=VECTORS),
    "xlm-roberta-classifier": Golden(
        "xlm-roberta", encoder(type_vocab_size=1, num_labels=1), loader=CLASSIFIER
    ),
    "roberta": Golden("roberta", encoder(heads=2, width=24, type_vocab_size=1), loader=VECTORS),
    "nomic-bert": Golden("nomic_bert", encoder(head_dim=8), loader=VECTORS),
    "jina-v3": Golden("jina_embeddings_v3", encoder(type_vocab_size=1), loader=VECTORS),
    "modern-bert": Golden("modernbert", encoder(layers=4, local_attention=12, **MODERN), loader=VECTORS),
    "modern-bert-classifier": Golden(
        "modernbert",
        encoder(layers=2, local_attention=8, classifier_pooling="mean", num_labels=1, **MODERN),
        loader=CLASSIFIER,
    ),
}


@torch.no_grad()
def make(name: str, golden: Golden) -> None:
    rng = np.random.default_rng(golden.seed)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, path = Path(folder, "checkpoint"), Path(folder, "model.gguf")
        checkpoint.mkdir()
        n_vocab = write_tokenizer(checkpoint, golden.tokenizer)
        figures = golden.config | {"vocab_size": n_vocab, "eos_token_id": 1, "bos_token_id": None}
        config = transformers.AutoConfig.for_model(golden.kind, **figures)
        with Doubled():
            model = golden.loader.from_config(config, attn_implementation="eager").double().eval()
        random_weights(model, golden.seed)
        ids = torch.from_numpy(rng.integers(4, n_vocab, (1, N_TOKENS)))
        with Doubled():
            found = model(ids, attention_mask=torch.ones_like(ids))
        rows = found.logits if golden.loader is CLASSIFIER else found.last_hidden_state[0]
        model.float().save_pretrained(checkpoint)
        convert(checkpoint, path, type="F32")
        data = path.read_bytes()
    ENCODERS.mkdir(exist_ok=True)
    (ENCODERS / f"{name}.gguf.xz").write_bytes(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))
    np.savez_compressed(
        ENCODERS / f"{name}.npz",
        ids=ids[0].numpy().astype(np.int32),
        rows=rows.numpy().astype(np.float32),
        kind=golden.kind,
    )
    size = sum(path.stat().st_size for path in ENCODERS.glob(f"{name}.*"))
    print(f"{name:24} rows {rows.std():.2f}  {size:7} bytes", flush=True)


def main() -> None:
    for name in sys.argv[1:] or GOLDENS_TABLE:
        make(name, GOLDENS_TABLE[name])


if __name__ == "__main__":
    main()
