"""Tiny checkpoints with any tokenizer, made on the spot."""

import json
import struct

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

import clarion
from clarion.convert import convert
from tests.convert.files import write_safetensors

CORPUS = [
    "the king and the queen went to the old house",
    "hello world, user and assistant said hello",
    "naïve café déjà vu, the bird can't fly! 123 456",
] * 10
SPECIALS = ("<|begin|>", "<|end|>", "<|eot|>")
WIDTH, N_HEAD, N_FF = 16, 2, 32


def bytes_tokenizer(added=(), specials=SPECIALS):
    """Byte-pair encoding over bytes. Added are texts, or tokens with options."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator(CORPUS, trainer)
    made.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in specials])
    for token in added:
        made.add_tokens([token])
    return made


def text_tokenizer(normalizer=("Prepend", "Replace"), pre_tokenizer=None, added=()):
    """Byte-pair encoding of text with bytes for what is missing, spaces as U+2581."""
    from tokenizers import normalizers

    made = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.pre_tokenizer = pre_tokenizers.Metaspace("\u2581", "never", split=True)
    specials = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=360, special_tokens=specials, show_progress=False)
    made.train_from_iterator(CORPUS, trainer)
    steps = {"Prepend": normalizers.Prepend("\u2581"), "Replace": normalizers.Replace(" ", "\u2581")}
    made.normalizer = normalizers.Sequence([steps[name] for name in normalizer]) if normalizer else None
    values = json.loads(made.to_str())
    values["pre_tokenizer"] = pre_tokenizer
    # Bytes are no added tokens: only the trainer wants them to be.
    values["added_tokens"] = [token for token in values["added_tokens"] if token["id"] < 3]
    made = Tokenizer.from_str(json.dumps(values))
    for token in added:
        made.add_tokens([token])
    return made


def metaspace(scheme, split):
    return {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": scheme, "split": split}


def around(tokenizer, single):
    """The tokenizer with a template of what stands around a text, as `<s> $A`."""
    tokens = [(text, tokenizer.token_to_id(text)) for text in single.split() if text != "$A"]
    tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=tokens)
    return tokenizer


def weights(n_vocab, tied=False):
    random = np.random.default_rng(0)
    half = WIDTH // 2
    shapes = {"self_attn.q_proj": (WIDTH, WIDTH), "self_attn.k_proj": (half, WIDTH)}
    shapes |= {"self_attn.v_proj": (half, WIDTH), "self_attn.o_proj": (WIDTH, WIDTH)}
    shapes |= {"mlp.gate_proj": (N_FF, WIDTH), "mlp.up_proj": (N_FF, WIDTH), "mlp.down_proj": (WIDTH, N_FF)}
    shapes |= {"input_layernorm": (WIDTH,), "post_attention_layernorm": (WIDTH,)}
    named = {f"model.layers.0.{name}.weight": shape for name, shape in shapes.items()}
    named |= {"model.embed_tokens.weight": (n_vocab, WIDTH), "model.norm.weight": (WIDTH,)}
    if not tied:
        named["lm_head.weight"] = (n_vocab, WIDTH)
    return {name: random.normal(0, 0.3, shape).astype(np.float32) for name, shape in named.items()}


def config(n_vocab, **changes):
    values = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": WIDTH}
    values |= {"num_hidden_layers": 1, "num_attention_heads": N_HEAD, "num_key_value_heads": 1}
    values |= {"intermediate_size": N_FF, "vocab_size": n_vocab, "max_position_embeddings": 64}
    values |= {"rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu"}
    return values | {"tie_word_embeddings": False, "bos_token_id": None, "eos_token_id": None} | changes


def write(folder, tokenizer, settings=None, generation=None, files=None, spare=8, **changes):
    """A checkpoint. `files` are more of them by path, as text or bytes; None takes one away."""
    folder.mkdir(parents=True)
    n_vocab = tokenizer.get_vocab_size() + spare
    contents = {
        "config.json": json.dumps(config(n_vocab, **changes)),
        "tokenizer.json": tokenizer.to_str(),
        "tokenizer_config.json": json.dumps(
            {"tokenizer_class": "PreTrainedTokenizerFast"} | (settings or {})
        ),
        "generation_config.json": None if generation is None else json.dumps(generation),
    }
    for name, content in (contents | (files or {})).items():
        if content is not None:
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
    write_safetensors(
        folder / "model.safetensors", weights(n_vocab, bool(changes.get("tie_word_embeddings")))
    )
    return folder


def converted(folder, tokenizer, *arguments, **options):
    """The checkpoint's file."""
    (path,) = convert(
        write(folder / "checkpoint", tokenizer, *arguments, **options), folder / "m.gguf", "f32"
    )
    return path


def differences(path, tokenizer, texts):
    """Where the file's tokenizer gives other ids than the checkpoint's, with special tokens and without."""
    ours = clarion.Tokenizer.from_gguf(path)
    found = []
    for text in texts:
        for special in (True, False):
            expected = tokenizer.encode(text, add_special_tokens=special).ids
            ids = ours.encode(text, add_special=special, parse_special=True)
            if ids != expected:
                found.append((text, special, ids, expected))
    return found


def _varint(value):
    raw = b""
    while value > 0x7F:
        raw += bytes((value & 0x7F | 0x80,))
        value >>= 7
    return raw + bytes((value,))


def _field(number, value):
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def sentencepiece_model(tokenizer, normalizer=None):
    """A tokenizer of text as sentencepiece's file: scores are minus the ranks of merges.

    Args:
        normalizer: further fields of its normalizer_spec by their numbers.
    """
    model = json.loads(tokenizer.to_str())["model"]
    merges = ["".join(merge) for merge in model["merges"]]
    raw = b""
    for text, _ in sorted(model["vocab"].items(), key=lambda pair: pair[1]):
        kind = {"<unk>": 2, "<s>": 3, "</s>": 3}.get(text, 6 if text.startswith("<0x") else 1)
        score = -float(merges.index(text)) if text in merges else 0.0
        packed = b"\x15" + struct.pack("<f", score)  # field 2, four bytes
        raw += _field(1, _field(1, text.encode()) + packed + _field(3, kind))
    fields = {3: 1, 4: 0} | (normalizer or {})
    return raw + _field(2, _field(3, 2)) + _field(3, b"".join(_field(*field) for field in fields.items()))
