#!/usr/bin/env python3
"""Makes the built-in model: a GGUF file whose matrices are quantised to Q8_0.

    python scripts/make_builtin_model.py tale-f16.gguf src/clarion/data/tale-q8_0.gguf

Metadata and tokenizer are kept as they are, vectors stay F32, and what a reader of the file should know
about its licence is added. Needs Clarion itself and the `gguf` package (`pip install .[test]`), whose
quantiser rounds like llama.cpp's: equal input gives an equal file.
"""

from __future__ import annotations

import sys

import gguf
import numpy as np

from clarion.gguf import File, Writer

FACTS = {
    # It was trained on windows of this length; with more in view it loses its words after 400 tokens.
    "llama.attention.sliding_window": np.uint32(256),
    "general.license": "CC0-1.0",
    "general.description": "Trained from scratch on English stories in the public domain.",
    "general.languages": ["en"],
    "general.file_type": np.uint32(gguf.LlamaFileType.MOSTLY_Q8_0),
    "general.quantization_version": np.uint32(gguf.GGML_QUANT_VERSION),
}


def main(source: str, target: str) -> None:
    with File.open(source) as file, Writer(target, {**file.metadata.exact(), **FACTS}) as writer:
        for tensor in file.tensors.values():
            kind = gguf.GGMLQuantizationType[tensor.format.name]
            values = gguf.quants.dequantize(tensor.data, kind).reshape(tensor.shape)
            format = "Q8_0" if len(tensor.shape) == 2 else "F32"
            writer.add(
                tensor.name,
                tensor.shape,
                format,
                gguf.quants.quantize(values, gguf.GGMLQuantizationType[format]),
            )


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2])
