"""Write a GGUF file of a real model's shape, filled with random weights.

Speed depends on shapes and formats, not on what the weights say, so a benchmark needs no download:

    python benchmarks/random_model.py llama-1b.gguf                # Llama 3.2 1B as Q4_K_M, 0.80 GB
    python benchmarks/random_model.py small.gguf --type Q8_0 --shape width=512,layers=4,ffn=1536

Every value is drawn from a seeded generator: equal arguments give equal bytes. Needs the `gguf` package
(`pip install .[test]`).
"""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFWriter, LlamaFileType, TokenType
from random_weights import BLOCK_FORMATS, PLAIN, random_rows

WEIGHT_STD = 0.02  # keeps activations of order one through any number of layers (each is normed anew)


@dataclass(frozen=True, slots=True)
class Shape:
    """A model of the `llama` architecture. The default is Llama 3.2 1B."""

    width: int = 2048
    layers: int = 16
    heads: int = 32
    kv_heads: int = 8
    head: int = 64
    ffn: int = 8192
    vocabulary: int = 128256
    context: int = 131072
    rope_base: int = 500000
    tied: int = 1

    @classmethod
    def parse(cls, text: str) -> Shape:
        """Read `width=512,layers=4`: what is not named keeps its default."""
        changes = {}
        for item in filter(None, text.split(",")):
            name, _, value = item.partition("=")
            if name not in {field.name for field in fields(cls)}:
                raise ValueError(
                    f"unknown dimension {name!r}; known: {', '.join(f.name for f in fields(cls))}"
                )
            changes[name] = int(value)
        return replace(cls(), **changes)


# llama.cpp's mixtures: what most tensors get, and what the output and half of attn_v and ffn_down get.
MIXTURES = {"Q4_K_M": ("Q4_K", "Q6_K"), "Q5_K_M": ("Q5_K", "Q6_K")}
RECIPES = (*MIXTURES, *BLOCK_FORMATS, *PLAIN)


def use_more_bits(layer: int, layers: int) -> bool:
    """Whether llama.cpp's Q4_K_M and Q5_K_M give this layer's attn_v and ffn_down six bits."""
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def tensors(shape: Shape, recipe: str) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Yield (name, format, shape) in the order in which they are written."""

    def pick(layer: int | None, name: str) -> str:
        most, more = MIXTURES.get(recipe, (recipe, recipe))
        if layer is None or (name in ("attn_v", "ffn_down") and use_more_bits(layer, shape.layers)):
            return more
        return most

    q, kv = shape.heads * shape.head, shape.kv_heads * shape.head
    yield "token_embd.weight", pick(None, "token_embd"), (shape.vocabulary, shape.width)
    for layer in range(shape.layers):
        block = {
            "attn_q": (q, shape.width),
            "attn_k": (kv, shape.width),
            "attn_v": (kv, shape.width),
            "attn_output": (shape.width, q),
            "ffn_gate": (shape.ffn, shape.width),
            "ffn_up": (shape.ffn, shape.width),
            "ffn_down": (shape.width, shape.ffn),
        }
        yield f"blk.{layer}.attn_norm.weight", "F32", (shape.width,)
        yield f"blk.{layer}.ffn_norm.weight", "F32", (shape.width,)
        for name, dimensions in block.items():
            yield f"blk.{layer}.{name}.weight", pick(layer, name), dimensions
    yield "output_norm.weight", "F32", (shape.width,)
    if not shape.tied:
        yield "output.weight", pick(None, "output"), (shape.vocabulary, shape.width)


def byte_letters() -> list[str]:
    """Return GPT-2's 256 letters: printable bytes stand for themselves, the others move up past U+0100."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    spare = itertools.count(0x100)
    return [chr(byte if byte in printable else next(spare)) for byte in range(256)]


def vocabulary(size: int) -> tuple[list[str], list[int], list[str]]:
    """Return (tokens, types, merges): the bytes, pairs and triples of them, control tokens at the end."""
    letters = byte_letters()
    specials = ["<|begin_of_text|>", "<|end_of_text|>"]
    specials += [f"<|reserved_special_token_{n}|>" for n in range(max(0, min(256, size // 16) - 2))]
    pairs = itertools.product(letters, letters)
    triples = ((a + b, c) for a, b in itertools.product(letters, letters) for c in letters)
    wanted = size - len(letters) - len(specials)
    if wanted < 0:
        raise ValueError(f"a vocabulary needs at least {len(letters) + len(specials)} tokens, found {size}")
    merges = list(itertools.islice(itertools.chain(pairs, triples), wanted))
    tokens = [*letters, *("".join(pair) for pair in merges), *specials]
    types = [TokenType.NORMAL] * (size - len(specials)) + [TokenType.CONTROL] * len(specials)
    return tokens, [int(kind) for kind in types], [" ".join(pair) for pair in merges]


def write(
    path: str | os.PathLike[str], shape: Shape | None = None, recipe: str = "Q4_K_M", seed: int = 1
) -> None:
    """Write the model. The file appears at `path` only when it is complete."""
    shape = shape or Shape()
    generator = np.random.default_rng(seed)
    partial = Path(f"{os.fspath(path)}.part")
    writer = GGUFWriter(partial, "llama")
    writer.add_name(f"random {recipe}")
    file_type = "ALL_F32" if recipe == "F32" else f"MOSTLY_{recipe}"
    writer.add_file_type(getattr(LlamaFileType, file_type, LlamaFileType.GUESSED))
    writer.add_block_count(shape.layers)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_feed_forward_length(shape.ffn)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head)
    writer.add_value_length(shape.head)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(shape.head)
    writer.add_rope_freq_base(float(shape.rope_base))
    writer.add_vocab_size(shape.vocabulary)
    tokens, types, merges = vocabulary(shape.vocabulary)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(tokens.index("<|begin_of_text|>"))
    writer.add_eos_token_id(tokens.index("<|end_of_text|>"))
    writer.add_add_bos_token(True)
    table = list(tensors(shape, recipe))
    for name, format, dimensions in table:
        kind = GGMLQuantizationType[format]
        block_size, block_bytes = GGML_QUANT_SIZES[kind]
        row_bytes = dimensions[-1] // block_size * block_bytes
        byte_shape = (*dimensions[:-1], row_bytes)
        writer.add_tensor_info(name, byte_shape, np.dtype(np.uint8), int(np.prod(byte_shape)), raw_dtype=kind)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for _, format, dimensions in table:
            writer.write_tensor_data(random_rows(generator, format, dimensions, WEIGHT_STD))
        writer.close()
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Write a GGUF file of a real model's shape, filled with random weights."
    )
    parser.add_argument("path", type=Path)
    parser.add_argument(
        "--shape", type=Shape.parse, default=Shape(), help="e.g. width=512,layers=4 (default: Llama 3.2 1B)"
    )
    parser.add_argument("--type", default="Q4_K_M", choices=RECIPES)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    write(arguments.path, arguments.shape, arguments.type, arguments.seed)
    print(f"{arguments.path}: {arguments.path.stat().st_size / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
