"""Writes tests/tokenizer/goldens: small vocabularies, and the ids that llama.cpp gives for texts.json.

Needs llama-cpp-python, gguf, sentencepiece and protobuf. The vocabularies are trained on these texts, and the
byte-pair ones without cutting them into words: so their merges cross every border that a pre-tokenizer may
or may not draw, and a wrong border shows in the ids.
"""

from __future__ import annotations

import ctypes
import io
import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import gguf
import llama_cpp
import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from clarion.tokenizer import pretokenizer

GOLDENS = Path(__file__).parents[1] / "tests/tokenizer/goldens"
TEXTS: list[str] = json.loads((GOLDENS / "texts.json").read_text())
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
SPACE = "\u2581"

Metadata = dict[str, Any]

SPECIALS = {
    "<unk>": UNKNOWN,
    "<s>": CONTROL,
    "</s>": CONTROL,
    "<|im_start|>": CONTROL,
    "<|im_end|>": CONTROL,
    "<|endoftext|>": CONTROL,
    "<mask>": CONTROL,
    "[MASK]": CONTROL,
    "<tool>": USER_DEFINED,
}
CHARACTER_MAP = {  # what the unigram vocabulary normalises
    "\ufb01": "fi",
    "\ufb02": "fl",
    "e\u0301": "\u00e9",
    "n\u0303": "\u00f1",
    "\u3000": " ",
    "\u00a0": " ",
    "\t": " ",
    "\n": " ",
    "\u00bd": "1\u20442",
    "\u2460": "1",
    "\u2003": "",
    "\uff11": "1",
    "\uff12": "2",
    "\u200b": "",
    "...": "\u2026",
}
# Vocabularies whose tokens have roles by their texts, types or keys.
ROLES: list[tuple[dict[str, int], Metadata]] = [
    ({"a": NORMAL, "<|im_end|>": NORMAL, "</s>": CONTROL, "<|endoftext|>": CONTROL}, {"eos_token_id": 0}),
    ({"a": NORMAL, "<|end|>": CONTROL, "<|return|>": CONTROL, "<|call|>": CONTROL}, {"eos_token_id": 2}),
    ({"a": NORMAL, "<|end|>": CONTROL, "<|calls|>": CONTROL, "<|flush|>": CONTROL}, {"eos_token_id": 2}),
    ({"a": NORMAL, "<|end|>": CONTROL, "<|call|>": CONTROL}, {"eos_token_id": 0}),
    ({"a": NORMAL, "</s>": NORMAL, "<|tool_response>": NORMAL, "<eos>": CONTROL}, {"eos_token_id": 3}),
    ({"a": NORMAL, "<PAD>": NORMAL, "<|file_sep|>": NORMAL, "<REPO>": USER_DEFINED}, {"eos_token_id": 0}),
    ({"a": NORMAL, "<PAD>": NORMAL, "b": NORMAL}, {"eos_token_id": 0, "fim_pad_token_id": 2}),
    ({"a": NORMAL, "<|channel|>": CONTROL, "<|start|>": CONTROL, "<PRE>": NORMAL}, {"eos_token_id": 0}),
    ({"a": NORMAL, "b": NORMAL, "c": NORMAL}, {"eot_token_id": 1, "eom_token_id": 2, "eos_token_id": 0}),
    (dict.fromkeys("abcdefghijklmnop", NORMAL), {}),
    ({"a": NORMAL, "": NORMAL, "c": UNUSED, "d": 0, "<0x41>": BYTE, "\u0120x": NORMAL}, {"eos_token_id": 0}),
]


class Reference:
    """llama.cpp's tokenizer for some metadata."""

    def __init__(self, metadata: Metadata) -> None:
        with tempfile.NamedTemporaryFile(suffix=".gguf") as file:
            write_gguf(file.name, metadata)
            parameters = llama_cpp.llama_model_default_params()
            parameters.vocab_only = True
            self.model = llama_cpp.llama_model_load_from_file(file.name.encode(), parameters)
        if not self.model:
            raise SystemExit(f"llama.cpp does not load {metadata}")
        self.vocab = llama_cpp.llama_model_get_vocab(self.model)

    def encode(self, text: str, special: bool) -> list[int]:
        """The ids; `special` adds special tokens, and parses them."""
        data = text.encode()
        ids = (llama_cpp.llama_token * (2 * len(data) + 16))()
        count = llama_cpp.llama_tokenize(self.vocab, data, len(data), ids, len(ids), special, special)
        return list(ids[:count])

    def pieces(self) -> list[str]:
        """The bytes of every token, in hexadecimal."""
        pieces = []
        buffer = ctypes.create_string_buffer(256)
        for token in range(llama_cpp.llama_vocab_n_tokens(self.vocab)):
            size = llama_cpp.llama_token_to_piece(self.vocab, token, buffer, len(buffer), 0, True)
            pieces.append(buffer.raw[:size].hex())
        return pieces

    def end_tokens(self) -> list[int]:
        """The tokens that end generation."""
        count = llama_cpp.llama_vocab_n_tokens(self.vocab)
        return [token for token in range(count) if llama_cpp.llama_vocab_is_eog(self.vocab, token)]

    def close(self) -> None:
        """Frees the model."""
        llama_cpp.llama_model_free(self.model)


def write_gguf(path: str, metadata: Metadata) -> None:
    """A file that holds nothing but metadata."""
    array = gguf.GGUFValueType.ARRAY
    element_types = {
        "scores": gguf.GGUFValueType.FLOAT32,
        "token_type": gguf.GGUFValueType.INT32,
        "precompiled_charsmap": gguf.GGUFValueType.UINT8,
    }
    writer = gguf.GGUFWriter(path, "llama")
    for key, value in metadata.items():
        element_type = element_types.get(key.removeprefix("tokenizer.ggml."))
        if element_type is not None:
            writer.add_key_value(key, value, array, sub_type=element_type)
        elif isinstance(value, list):
            writer.add_array(key, value)
        elif isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        else:
            writer.add_string(key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def ggml(**values: Any) -> Metadata:
    """Metadata of the tokenizer."""
    return {
        f"tokenizer.ggml.{key.replace('normalizer_', 'normalizer.')}": value for key, value in values.items()
    }


def with_specials(tokens: list[str], types: list[int]) -> Metadata:
    """A vocabulary with the special tokens after its own, and their ids."""
    for text, kind in SPECIALS.items():
        if text not in tokens:
            tokens.append(text)
            types.append(kind)
    return ggml(
        tokens=tokens,
        token_type=types,
        bos_token_id=tokens.index("<s>"),
        eos_token_id=tokens.index("</s>"),
        unknown_token_id=tokens.index("<unk>"),
    )


def byte_tokens() -> list[str]:
    """Names of the 256 bytes."""
    return [f"<0x{byte:02X}>" for byte in range(256)]


def train_byte_pairs(byte_level: bool) -> Metadata:
    """Merges over whole texts, and not over words."""
    trainer = trainers.BpeTrainer(vocab_size=1300, min_frequency=1, show_progress=False)
    tokenizer = Tokenizer(models.BPE())
    texts = TEXTS * 2
    if byte_level:
        trainer.initial_alphabet = pre_tokenizers.ByteLevel.alphabet()
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    else:
        trainer.limit_alphabet = 300
        # llama.cpp cuts tokens at NUL.
        lines = (line for text in texts for line in text.replace(" ", SPACE).splitlines(keepends=True))
        texts = [line.replace("\0", "") for line in lines]
    tokenizer.train_from_iterator(texts, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    types = [NORMAL] * len(tokens)
    if byte_level:
        # A merge without its token, and a byte without one: what files do not promise.
        for missing in (model["merges"][40], model["merges"][90], ["\u0122", ""]):
            types.pop(tokens.index("".join(missing)))
            tokens.remove("".join(missing))
    else:
        tokens = [token for token in tokens if token not in byte_tokens()]
        types = [NORMAL] * len(tokens) + [BYTE] * 255
        tokens += [name for name in byte_tokens() if name != "<0xF0>"]
    merges = [" ".join(pair) for pair in model["merges"]]
    return ggml(model="gpt2") | with_specials(tokens, types) | ggml(merges=merges)


def train_sentencepiece(kind: str) -> Metadata:
    """A SentencePiece vocabulary: `bpe` with bytes, `unigram` with normalisation."""
    options: dict[str, Any] = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as rules:
        if kind == "unigram":
            for source, target in CHARACTER_MAP.items():
                columns = (" ".join(f"{ord(character):X}" for character in text) for text in (source, target))
                rules.write("\t".join(columns) + "\n")
            rules.flush()
            options = {"normalization_rule_tsv": rules.name}
        output = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(line for text in TEXTS for line in text.splitlines() if "\0" not in line),
            model_writer=output,
            model_type=kind,
            vocab_size=760,
            character_coverage=0.98,
            byte_fallback=kind == "bpe",
            allow_whitespace_only_pieces=True,
            user_defined_symbols=["<tool>"],
            hard_vocab_limit=False,
            minloglevel=2,
            **options,
        )
    model = sentencepiece_model_pb2.ModelProto.FromString(output.getvalue())
    tokens = [piece.piece for piece in model.pieces]
    types = [piece.type for piece in model.pieces]
    scores = [piece.score for piece in model.pieces]
    metadata = with_specials(tokens, types)
    scores += [-1000.0] * (len(tokens) - len(scores))
    metadata |= ggml(model="llama" if kind == "bpe" else "t5", scores=scores)
    if kind == "unigram":
        metadata |= ggml(precompiled_charsmap=list(model.normalizer_spec.precompiled_charsmap))
    return metadata


def train_wordpiece() -> Metadata:
    """Pieces that begin a word have U+2581 before them."""
    trainer = trainers.WordPieceTrainer(vocab_size=700, min_frequency=1, show_progress=False)
    tokenizer = Tokenizer(models.WordPiece())
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator([text.lower() for text in TEXTS], trainer)
    pieces = tokenizer.get_vocab()
    tokens = [
        piece.removeprefix("##") if piece.startswith("##") else SPACE + piece
        for piece in sorted(pieces, key=pieces.get)
        if len(piece) > 1
    ]
    metadata = with_specials(tokens, [NORMAL] * len(tokens))
    return metadata | ggml(model="bert", seperator_token_id=metadata["tokenizer.ggml.eos_token_id"])


def make_trie() -> Metadata:
    """All bytes but one, and frequent strings."""
    counts: Counter[bytes] = Counter()
    for data in (text.encode() for text in TEXTS):
        for size in (2, 3, 4, 5, 8, 13):
            counts.update(data[begin : begin + size] for begin in range(len(data) - size + 1))
    strings = [bytes((byte,)) for byte in range(256) if byte != 0xC8]
    strings += [string for string, _ in counts.most_common(500)]
    tokens = ["<s>"] + [repr(string)[2:-1].replace("\\'", "'") for string in strings]
    metadata = with_specials(tokens, [CONTROL] + [NORMAL] * len(strings))
    return metadata | ggml(model="rwkv")


def names(byte_level: bool) -> list[Metadata]:
    """The pre-tokenizers of this kind that llama.cpp has in the same way."""
    found = {name: pretokenizer.find(name) for name in pretokenizer.names()}
    return [
        ggml(pre=name)
        for name, rules in found.items()
        if rules and rules.byte_level == byte_level and not rules.drop_spaces
    ]


def make_cases(metadata: Metadata, variants: list[Metadata]) -> list[dict[str, Any]]:
    """The ids of all texts for each variant, of which those with equal results share one case."""
    cases: dict[str, dict[str, Any]] = {}
    for variant in variants:
        reference = Reference(metadata | variant)
        ids = [[reference.encode(text, special) for special in (False, True)] for text in TEXTS]
        case = cases.setdefault(json.dumps(ids), {"variants": [], "ids": ids})
        case["variants"].append(variant)
        reference.close()
    return list(cases.values())


def save(name: str, golden: object) -> None:
    """Compact JSON, in lines of one value of the outer list."""
    path = GOLDENS / f"{name}.json"
    path.write_text(json.dumps(golden, separators=(",", ":")) + "\n")
    print(f"{path.name}: {path.stat().st_size} bytes")


def main() -> None:
    """Makes every file but texts.json."""
    flags = [{}, ggml(add_space_prefix=False), ggml(add_bos_token=False, add_eos_token=True)]
    plans = {
        "gpt2": (train_byte_pairs(byte_level=True), names(byte_level=True)),
        "gpt2-text": (train_byte_pairs(byte_level=False), names(byte_level=False)),
        "llama": (train_sentencepiece("bpe"), [*flags, {"general.name": "Phi-3 Mini"}]),
        "t5": (
            train_sentencepiece("unigram"),
            [*flags, *(ggml(remove_extra_whitespaces=True, add_space_prefix=flag) for flag in (True, False))],
        ),
        "bert": (
            train_wordpiece(),
            [{}, ggml(normalizer_lowercase=False), ggml(normalizer_strip_accents=False)],
        ),
        "rwkv": (make_trie(), [{}]),
    }
    for name, (metadata, variants) in plans.items():
        save(name, {"metadata": metadata, "cases": make_cases(metadata, variants)})

    roles = []
    for tokens, keys in ROLES:
        metadata = ggml(model="gpt2", pre="gpt-2", merges=["a b"], tokens=list(tokens), **keys)
        metadata |= ggml(token_type=list(tokens.values()))
        reference = Reference(metadata)
        roles.append({"metadata": metadata, "end": reference.end_tokens(), "pieces": reference.pieces()})
        reference.close()
    save("roles", roles)


if __name__ == "__main__":
    main()
