"""A checkpoint's tokenizer as metadata of a GGUF file.

Read are tokenizer.json, sentencepiece's tokenizer.model, or vocab.json with merges.txt; tokenizer_config.json
and the other small files beside them say what is special. Where there is a tokenizer.json, it is the truth,
and the result is compared with it before anything is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clarion.convert import (
    compare,
    families,
    library,
    pretokenizers,
    recognise,
    roles,
    sentencepiece,
    templates,
    texts,
    unigram,
    wordpiece,
)
from clarion.convert.checkpoint import Checkpoint
from clarion.convert.config import whole
from clarion.convert.library import parts
from clarion.convert.sentencepiece import BYTE, CONTROL, UNKNOWN, UNUSED, USER_DEFINED
from clarion.convert.tokens import MAX_ID, UNREACHABLE, Tokens, Vocabulary, ids_of
from clarion.errors import FileError, FormatError, ModelError, UnsupportedError
from clarion.tokenizer.pieces import ALPHABET
from clarion.tokenizer.settings import OWN
from clarion.tokenizer.special import NORMALIZED, SINGLE_WORD, STRIP_LEFT, STRIP_RIGHT
from clarion.tokenizer.vocabulary import SPACE

_BYTE_TOKENS = {f"<0x{byte:02X}>" for byte in range(256)}
_NEVER_IN_UTF8 = {0xC0, 0xC1, *range(0xF5, 0x100)}
_OPTIONS = {
    "lstrip": STRIP_LEFT,
    "rstrip": STRIP_RIGHT,
    "single_word": SINGLE_WORD,
    "normalized": NORMALIZED,
}


@dataclass(frozen=True, slots=True)
class _Added:
    """A token that is looked for before anything else; one that is special carries no text of its own."""

    text: str
    special: bool
    flags: int


def convert(checkpoint: Checkpoint, n_vocab: int) -> dict[str, Any]:
    """Metadata `tokenizer.*`, with exactly `n_vocab` tokens.

    Raises:
        FileError: there is no tokenizer.
        FormatError: a file is malformed.
        UnsupportedError: a tokenizer that GGUF files cannot express; the message names the part.
        ModelError: it has more tokens than the embedding has rows, or the id of a role is out of range.
    """
    settings = checkpoint.json("tokenizer_config.json") or {}
    chat = templates.convert(checkpoint, settings)
    raw = checkpoint.raw("tokenizer.json")
    if raw is None:
        return _without_library(checkpoint, settings, n_vocab) | chat
    where = f"{checkpoint.folder}/tokenizer.json"
    with library.guarded(where):
        return _like_library(checkpoint, texts.text(raw, where), settings, n_vocab, where) | chat


def _like_library(
    checkpoint: Checkpoint, text: str, settings: Mapping[str, Any], n_vocab: int, where: str
) -> dict[str, Any]:
    """Metadata that gives the ids of tokenizer.json."""
    values = texts.json(text.encode(), where)
    reference = library.parse(text, values, where)
    names = roles.named(checkpoint, settings)
    special = [*names.values(), *roles.more(checkpoint, settings)]
    decoder = _decoder(settings, checkpoint)
    if "added_tokens_decoder" not in settings:
        decoder = _beside_library(checkpoint, reference, special, n_vocab)
    library.add(reference, decoder, special, n_vocab, where)
    added = {
        token: _Added(entry.content, entry.special, _flags(_options(entry)))
        for token, entry in reference.get_added_tokens_decoder().items()
    }
    around = library.around(reference, values, n_vocab, where)

    def made(vocabulary: Vocabulary) -> dict[str, Any]:
        metadata = _metadata(checkpoint, vocabulary, added, names, n_vocab, around)
        compare.refuse_differences(metadata, reference, where)
        return metadata

    # Scores of tokenizer.model are the original ones. But not every file of this name is sentencepiece's, or
    # this checkpoint's.
    model = checkpoint.raw("tokenizer.model")
    if model is not None and _not_sentencepiece(model) is None:
        try:
            parsed = _from_sentencepiece(sentencepiece.parse(model, f"{checkpoint.folder}/tokenizer.model"))
            return made(_with_spaces_of(parsed, values, where))
        except (FormatError, UnsupportedError, ModelError):
            return made(_from_library(values, reference, where))
    return made(_from_library(values, reference, where))


def _without_library(checkpoint: Checkpoint, settings: Mapping[str, Any], n_vocab: int) -> dict[str, Any]:
    """Metadata of a checkpoint that has no tokenizer.json."""
    model = checkpoint.raw("tokenizer.model")
    vocab = checkpoint.json("vocab.json")
    path = f"{checkpoint.folder}/tokenizer.model"
    what = None if model is None else _not_sentencepiece(model)
    if model is not None and (what is None or vocab is None):
        if what is not None:
            raise FormatError(f"{path} {what}, expected a sentencepiece model, or tokenizer.json beside it")
        parsed = sentencepiece.parse(model, path)
        if parsed.normalized:
            raise UnsupportedError(
                f"{path}: normalizer_spec replaces characters or removes spaces, supported: identity"
            )
        vocabulary = _from_sentencepiece(parsed)
        if settings.get("add_prefix_space") is False:
            vocabulary.metadata["tokenizer.ggml.add_space_prefix"] = False
        elif settings.get("legacy") is False and vocabulary.metadata["tokenizer.ggml.add_space_prefix"]:
            vocabulary.metadata[OWN + "space_prefix"] = "first"
    elif vocab is not None:
        vocabulary = _from_vocab_json(vocab, checkpoint, settings)
    else:
        raise FileError(
            f"{checkpoint.folder}: no tokenizer, expected tokenizer.json, tokenizer.model, "
            f"or vocab.json and merges.txt"
        )
    names = roles.named(checkpoint, settings)
    added = _added_without_library(checkpoint, vocabulary.tokens, settings, names)
    metadata = _metadata(checkpoint, vocabulary, added, names, n_vocab, None)
    for role in ("bos", "eos"):
        wanted = settings.get(f"add_{role}_token")
        if type(wanted) is bool:
            metadata[f"tokenizer.ggml.add_{role}_token"] = wanted
        if metadata[f"tokenizer.ggml.add_{role}_token"] and f"tokenizer.ggml.{role}_token_id" not in metadata:
            raise ModelError(
                f"{checkpoint.folder}: add_{role}_token asks for a token that nothing names as {role}_token"
            )
    return metadata


def _not_sentencepiece(raw: bytes) -> str | None:
    """What a file called tokenizer.model is, where it is known to be none of sentencepiece."""
    if recognise.is_tiktoken(raw):
        return "is a vocabulary of tiktoken"
    return recognise.described(raw)


def _metadata(
    checkpoint: Checkpoint,
    vocabulary: Vocabulary,
    added: Mapping[int, _Added],
    names: Mapping[str, Mapping[str, Any]],
    n_vocab: int,
    around: tuple[Sequence[int], Sequence[int]] | None,
) -> dict[str, Any]:
    tokens = vocabulary.tokens
    for token, entry in sorted(added.items()):
        known = tokens.kinds[token] if token < len(tokens.kinds) else UNUSED
        if not (known in (UNKNOWN, BYTE) and tokens.texts[token] == entry.text):
            tokens.put(token, entry.text, CONTROL if entry.special else USER_DEFINED)
    if len(tokens.texts) > n_vocab:
        raise ModelError(
            f"{checkpoint.folder}: the tokenizer has {len(tokens.texts)} tokens, the embedding {n_vocab} rows"
        )
    ids = tokens.ids()
    padding = range(len(tokens.texts), n_vocab)
    all_texts = [_placeholder(i, ids) if text is None else text for i, text in enumerate(tokens.texts)]
    metadata: dict[str, Any] = {
        "tokenizer.ggml.model": vocabulary.kind,
        "tokenizer.ggml.tokens": all_texts + [_placeholder(i, ids) for i in padding],
        "tokenizer.ggml.token_type": np.array(tokens.kinds + [UNUSED] * len(padding), np.int32),
    }
    if vocabulary.merges is not None:
        metadata["tokenizer.ggml.merges"] = vocabulary.merges
    elif vocabulary.kind != "bert":
        scores = tokens.scores + [UNREACHABLE] * len(padding)
        metadata["tokenizer.ggml.scores"] = np.array(scores, np.float32)
    mergeable = vocabulary.mergeable
    unmerged = [
        token
        for text, token in ids.items()
        if mergeable is not None and text not in mergeable and tokens.kinds[token] != BYTE
    ]
    if unmerged:
        metadata[OWN + "unmerged_token_ids"] = np.array(unmerged, np.uint32)
    metadata |= vocabulary.metadata
    special, ends = roles.special_ids(
        vocabulary.kind, names, ids, checkpoint, n_vocab, around, vocabulary.known, added
    )
    metadata |= special
    if around is not None:
        metadata |= roles.added_around(metadata, *around)
    if around is not None or any(entry.flags for entry in added.values()):
        metadata[OWN + "added_token_ids"] = np.array(sorted(added), np.uint32)
        flags = [added[token].flags for token in sorted(added)]
        metadata[OWN + "added_token_flags"] = np.array(flags, np.uint32)
    if set(ends) - compare.end_tokens(metadata):
        metadata[OWN + "end_token_ids"] = np.array(ends, np.uint32)
    return metadata


def _placeholder(token: int, ids: Mapping[str, int]) -> str:
    """A text for an id without one, which no other token has."""
    text = f"[PAD{token}]"
    while text in ids:
        text += "_"
    return text


def _from_sentencepiece(model: sentencepiece.PieceModel) -> Vocabulary:
    tokens = Tokens([], [], [])
    for i, piece in enumerate(model.pieces):
        tokens.put(i, piece.text, piece.kind, piece.score)
    metadata: dict[str, Any] = {
        "tokenizer.ggml.add_space_prefix": model.add_space_prefix,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": False,
    }
    ids = {"bos": model.bos, "eos": model.eos, "unk": model.unknown, "pad": model.pad}
    known = {role: i for role, i in ids.items() if i >= 0}
    return Vocabulary("llama", tokens, None, metadata, known, frozenset(tokens.ids()))


def _with_spaces_of(vocabulary: Vocabulary, library: Mapping[str, Any], where: str) -> Vocabulary:
    """The vocabulary, with spaces treated as a tokenizer.json says."""
    metadata = vocabulary.metadata | _spaces(library, where)
    model = library.get("model")
    texts = _mergeable(_merges(model.get("merges"), where), model.get("vocab") or ()) if model else None
    return Vocabulary(vocabulary.kind, vocabulary.tokens, None, metadata, vocabulary.known, texts)


def _from_library(values: Mapping[str, Any], reference: Any, where: str) -> Vocabulary:
    model = values.get("model")
    kind = model.get("type", "BPE") if isinstance(model, dict) else model
    if kind == "WordPiece":
        return wordpiece.read(values, where)
    if kind == "Unigram":
        return unigram.read(values, where)
    if not isinstance(model, dict) or kind != "BPE":
        raise UnsupportedError(f"{where}: model is {kind!r:.80}, supported: BPE, WordPiece, Unigram")
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise UnsupportedError(f"{where}: {key} of model is {model[key]!r:.80}, supported: none")
    tokens, merges = ids_of(model.get("vocab"), where), _merges(model.get("merges"), where)
    if model.get("byte_fallback"):
        if model.get("ignore_merges"):
            raise UnsupportedError(f"{where}: ignore_merges of model with byte_fallback, supported: without")
        _score(tokens, merges, model)
        texts = _mergeable(merges, model["vocab"])
        return Vocabulary("llama", tokens, None, _spaces(values, where), {}, texts)
    texts = frozenset(model["vocab"])
    return Vocabulary("gpt2", tokens, merges, _byte_level(values, model, tokens, reference, where), {}, texts)


def _byte_level(
    values: Mapping[str, Any], model: Mapping[str, Any], tokens: Tokens, reference: Any, where: str
) -> dict[str, Any]:
    """Metadata of a vocabulary of bytes."""
    found = parts(values.get("pre_tokenizer"), "pretokenizers")
    if not any(part.get("type") == "ByteLevel" for part in found):
        raise UnsupportedError(f"{where}: neither byte_fallback nor a ByteLevel pre_tokenizer")
    if any(part.get("add_prefix_space") for part in found if part.get("type") == "ByteLevel"):
        raise UnsupportedError(f"{where}: ByteLevel with add_prefix_space, supported: without")
    metadata: dict[str, Any] = {}
    for part in parts(values.get("normalizer"), "normalizers"):
        if part.get("type") != "NFC":
            raise UnsupportedError(f"{where}: normalizer is {part.get('type')!r:.80}, supported: none or NFC")
        metadata[OWN + "normalizers"] = ["nfc"]
    lacking = {ALPHABET[byte] for byte in set(range(256)) - _NEVER_IN_UTF8} - set(tokens.ids())
    if model.get("unk_token") is not None and lacking:
        byte = min(ALPHABET.index(character) for character in lacking)
        raise UnsupportedError(
            f"{where}: unk_token stands for the byte 0x{byte:02X}, supported: a token for each byte"
        )
    ignore_merges = bool(model.get("ignore_merges"))
    pre = pretokenizers.name(reference, ignore_merges=ignore_merges, where=where)
    return metadata | {"tokenizer.ggml.pre": pre}


def _mergeable(merges: Iterable[str], vocabulary: Iterable[str]) -> frozenset[str]:
    """The texts that merging may give: single characters, and what the merges make of them."""
    characters = (text for text in vocabulary if len(text) == 1)
    return frozenset(merge.replace(" ", "", 1) for merge in merges).union(characters)


def _score(tokens: Tokens, merges: Sequence[str], model: Mapping[str, Any]) -> None:
    """Scores a vocabulary of merges of text, as sentencepiece has it: minus the rank of the token's merge."""
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(merges):
        ranks.setdefault(merge.replace(" ", "", 1), rank)
    for i, text in enumerate(tokens.texts):
        if text in _BYTE_TOKENS:
            tokens.kinds[i] = BYTE
        elif text == model.get("unk_token"):
            tokens.kinds[i] = UNKNOWN
        elif text is not None and len(text) > 1:
            tokens.scores[i] = -float(ranks[text]) if text in ranks else UNREACHABLE


def _spaces(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Metadata that says where a text's spaces become U+2581, and where one is put before it."""
    steps: list[str] = []
    for part in parts(values.get("normalizer"), "normalizers"):
        kind = part.get("type")
        if kind == "Prepend" and part.get("prepend") == SPACE:
            steps.append("prepend_space")
        elif kind == "Replace" and part.get("pattern") == {"String": " "} and part.get("content") == SPACE:
            steps.append("escape_space")
        elif kind == "NFC":
            steps.append("nfc")
        else:
            raise UnsupportedError(
                f"{where}: normalizer is {dict(part)!r:.120}, supported: NFC, Prepend and Replace that write "
                f"spaces as {SPACE}"
            )
    prefix, escaped = "never", "escape_space" in steps
    metadata: dict[str, Any] = {}
    for part in parts(values.get("pre_tokenizer"), "pretokenizers"):
        kind = part.get("type")
        if kind == "Split" and part.get("pattern") == {"String": " "} and escaped:
            continue  # there are no spaces left
        if kind != "Metaspace" or part.get("replacement") != SPACE:
            raise UnsupportedError(
                f"{where}: pre_tokenizer is {dict(part)!r:.120}, supported with byte_fallback: Metaspace"
            )
        scheme = "always" if part.get("add_prefix_space", True) else "never"
        scheme = part.get("prepend_scheme", scheme)
        prefix = {"always": "unless_space", "first": "first"}.get(str(scheme), prefix)
        metadata[OWN + "split_at_spaces"] = metadata.get(OWN + "split_at_spaces", False) or part.get(
            "split", True
        )
        escaped = True
    if not escaped:
        raise UnsupportedError(f"{where}: byte_fallback without {SPACE} for spaces, supported: with")
    metadata["tokenizer.ggml.add_space_prefix"] = "prepend_space" in steps or prefix != "never"
    metadata[OWN + "space_prefix"] = prefix
    if steps:
        metadata[OWN + "normalizers"] = steps
    return metadata


def _from_vocab_json(vocab: Any, checkpoint: Checkpoint, settings: Mapping[str, Any]) -> Vocabulary:
    text = checkpoint.text("merges.txt") or ""
    lines = [line for line in text.split("\n") if line and not line.startswith("#version")]
    merges = _merges(lines, f"{checkpoint.folder}/merges.txt")
    metadata: dict[str, Any] = {"tokenizer.ggml.add_bos_token": False, "tokenizer.ggml.add_eos_token": False}
    # What cuts a text into words is no file here, but the class that transformers load.
    of_class = str(settings.get("tokenizer_class")).removesuffix("Fast") == "Qwen2Tokenizer"
    found = families.recognise(checkpoint.config)
    if of_class or (found and found[1].words == "qwen2"):
        metadata |= {"tokenizer.ggml.pre": "qwen2", OWN + "normalizers": ["nfc"]}
    else:
        metadata["tokenizer.ggml.pre"] = "gpt-2"
    return Vocabulary("gpt2", ids_of(vocab, f"{checkpoint.folder}/vocab.json"), merges, metadata, {})


def _merges(merges: Any, where: str) -> list[str]:
    """Pairs, written as one string or as two."""
    pairs = []
    for merge in merges if isinstance(merges, list) else ():
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(s, str) for s in pair):
            raise FormatError(f"{where}: merge is {merge!r:.80}, expected two texts")
        pairs.append(f"{pair[0]} {pair[1]}")
    if not pairs:
        raise FormatError(f"{where}: no merges")
    return pairs


def _decoder(settings: Mapping[str, Any], checkpoint: Checkpoint) -> dict[int, Mapping[str, Any]]:
    """`added_tokens_decoder`: added tokens by their ids."""
    found: dict[int, Mapping[str, Any]] = {}
    decoder = settings.get("added_tokens_decoder")
    for token, entry in decoder.items() if isinstance(decoder, dict) else ():
        where = f"{checkpoint.folder}/tokenizer_config.json"
        if not token.isdecimal() or not isinstance(entry, dict) or not isinstance(entry.get("content"), str):
            raise FormatError(f"{where}: added token {entry!r:.80} has id {token!r:.80}")
        found[int(token)] = entry
    return found


def _added_tokens(checkpoint: Checkpoint) -> dict[int, str]:
    """The texts in added_tokens.json, by their ids."""
    where = f"{checkpoint.folder}/added_tokens.json"
    found = {}
    for text, value in (checkpoint.json("added_tokens.json") or {}).items():
        number = whole(value)
        if number is None or not 0 <= number < MAX_ID:
            raise FormatError(f"{where}: added token {text!r:.80} has id {value!r:.80}")
        found[number] = text
    return found


def _beside_library(
    checkpoint: Checkpoint, reference: Any, special: Iterable[Mapping[str, Any]], n_vocab: int
) -> dict[int, Mapping[str, Any]]:
    """What added_tokens.json adds to a tokenizer.json, as transformers read it.

    Those that the embedding has no row for are left out: they are padding of a training, as a rule.
    """
    contents = {entry["content"] for entry in special}
    known = reference.get_added_tokens_decoder()
    return {
        token: {"content": text, "normalized": text not in contents, "special": text in contents}
        for token, text in _added_tokens(checkpoint).items()
        if token not in known and token < n_vocab
    }


def _added_without_library(
    checkpoint: Checkpoint,
    tokens: Tokens,
    settings: Mapping[str, Any],
    names: Mapping[str, Mapping[str, Any]],
) -> dict[int, _Added]:
    """Tokens that files beside a vocabulary add to it, and those that it says are special itself."""
    added = {
        token: _Added(text, kind != USER_DEFINED, 0)
        for token, (text, kind) in enumerate(zip(tokens.texts, tokens.kinds, strict=True))
        if text is not None and kind in (UNKNOWN, CONTROL, USER_DEFINED)
    }
    special = {str(entry["content"]) for entry in names.values()}
    for number, text in _added_tokens(checkpoint).items():
        added[number] = _Added(text, text in special, 0)
    for token, entry in _decoder(settings, checkpoint).items():
        added[token] = _Added(str(entry["content"]), bool(entry.get("special")), _flags(entry) & ~NORMALIZED)
    ids = tokens.ids() | {entry.text: token for token, entry in added.items()}
    for named in names.values():
        found = ids.get(str(named["content"]))
        if found is not None:
            flags = added[found].flags if found in added else _flags(named) & ~NORMALIZED
            added[found] = _Added(str(named["content"]), True, flags)
    return {token: entry for token, entry in added.items() if entry.text}


def _options(token: Any) -> dict[str, Any]:
    """The options of a token of the library."""
    return {option: getattr(token, option) for option in _OPTIONS}


def _flags(options: Mapping[str, Any]) -> int:
    return sum(flag for option, flag in _OPTIONS.items() if options.get(option))
