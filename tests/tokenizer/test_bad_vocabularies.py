"""What is wrong with a file's tokenizer ends in one error that names the key, and never in a crash."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

import clarion.gguf
from clarion.errors import ClarionError, FileError, TokenizerError, UnsupportedError
from clarion.tokenizer import Tokenizer, pretokenizer
from tests.tokenizer.files import TEXTS, ggml, golden

BPE = ggml(model="gpt2", pre="gpt-2", tokens=["a", "b", "ab", "c"], merges=["a b"])
SPM = ggml(model="llama", tokens=["<unk>", "a", "b", "ab"], scores=[0.0, -1.0, -2.0, -3.0])
UNIGRAM = ggml(
    model="t5", tokens=["<pad>", "</s>", "<unk>", "\u2581", "a"], scores=[0.0, 0.0, 0.0, -1.0, -2.0]
)
WORDS = ggml(model="bert", tokens=["\u2581a", "b"])
TRIE = ggml(model="rwkv", tokens=["a", "\\x62", "ab"])
KINDS = (BPE, SPM, UNIGRAM, WORDS, TRIE)


def without(metadata, key):
    return {name: value for name, value in metadata.items() if name != f"tokenizer.ggml.{key}"}


BAD = {
    "no tokens": (without(BPE, "tokens"), "tokens is missing or empty"),
    "empty tokens": (BPE | ggml(tokens=[]), "tokens is missing or empty"),
    "tokens of another type": (BPE | ggml(tokens=[1, 2]), "tokens is an array with 1"),
    "tokens not an array": (BPE | ggml(tokens="ab"), "tokens is 'ab', expected an array"),
    "the same token twice": (BPE | ggml(tokens=["a", "b", "ab", "a"]), "'a' at 0 and 3"),
    "scores shorter than tokens": (SPM | ggml(scores=[0.0]), "scores is an array of 1, expected one"),
    "scores of another type": (SPM | ggml(scores=["x"] * 4), "scores is an array of other values"),
    "scores without a number": (
        SPM | ggml(scores=[0.0, float("nan"), 0.0, 0.0]),
        "scores is an array with NaN",
    ),
    "types shorter than tokens": (SPM | ggml(token_type=[1, 1]), "token_type is an array of 2"),
    "types of another type": (SPM | ggml(token_type=[1.5] * 4), "token_type is an array of other values"),
    "no merges": (without(BPE, "merges"), "merges is missing"),
    "merge without a second symbol": (BPE | ggml(merges=["a b", "ab"]), "merges is 'ab' at 1"),
    "merge of nothing": (BPE | ggml(merges=[""]), "merges is '' at 0"),
    "merges of another type": (BPE | ggml(merges=[7]), "merges is an array with 7"),
    "id out of range": (BPE | ggml(bos_token_id=4), "bos_token_id is 4, expected an id below .* 4"),
    "negative id": (BPE | ggml(eos_token_id=-2), "eos_token_id is -2"),
    "id of another type": (BPE | ggml(eos_token_id="</s>"), "eos_token_id is '</s>', expected a token id"),
    "bool as id": (BPE | ggml(eos_token_id=True), "eos_token_id is True, expected a token id"),
    "end id out of range": (BPE | ggml(eot_token_id=99), "eot_token_id is 99"),
    "flag of another type": (BPE | ggml(add_bos_token=1), "add_bos_token is 1, expected a bool"),
    "template of another type": (
        BPE | {"tokenizer.chat_template": 5},
        "chat_template is 5, expected a string",
    ),
    "model of another type": (BPE | ggml(model=3), "model is 3, expected a string"),
    "BOS asked for but not there": (BPE | ggml(add_bos_token=True), "add_bos_token asks for a token"),
    "EOS asked for but not there": (
        ggml(model="rwkv", tokens=["a"]) | BPE | ggml(add_eos_token=True),
        "add_eos_token asks for a token",
    ),
    "no separator": (WORDS | ggml(bos_token_id=0), "asks for a token that tokenizer.ggml.seperator_token_id"),
    "character map too short": (UNIGRAM | ggml(precompiled_charsmap=[1]), "precompiled_charsmap is 1 bytes"),
    "character map longer than itself": (
        UNIGRAM | ggml(precompiled_charsmap=list(struct.pack("<II", 2**32 - 4, 0))),
        "precompiled_charsmap is a trie of 4294967292 in 8 bytes",
    ),
    "character map that points outside": (
        UNIGRAM | ggml(precompiled_charsmap=list(struct.pack("<IIB", 4, 0x3FFFFFFF, 0))),
        "precompiled_charsmap is a trie that points past its end",
    ),
}


@pytest.mark.parametrize(("metadata", "message"), BAD.values(), ids=BAD)
def test_bad_values(metadata, message):
    with pytest.raises(TokenizerError, match=rf"^tokenizer\..*{message}"):
        Tokenizer.from_metadata(metadata).encode("ab")


def test_unknown_pre_tokenizer():
    with pytest.raises(UnsupportedError, match=r"tokenizer\.ggml\.pre is 'gpt-9'; known are") as caught:
        Tokenizer.from_metadata(BPE | ggml(pre="gpt-9"))
    assert all(name in str(caught.value) for name in pretokenizer.names())


@pytest.mark.parametrize(
    ("metadata", "found"), [(without(BPE, "model"), "missing"), (ggml(model="x"), "'x'")]
)
def test_unknown_model(metadata, found):
    with pytest.raises(UnsupportedError, match=rf"tokenizer\.ggml\.model is {found}; known are llama, gpt2"):
        Tokenizer.from_metadata(metadata)


@pytest.mark.parametrize(
    ("metadata", "text", "message"),
    [
        (SPM | ggml(add_space_prefix=False), "x", "no token <0x78>"),
        (TRIE, "ax", "no token for the byte 0x78 and no unknown token"),
        (WORDS | ggml(bos_token_id=0, seperator_token_id=0), "x", "no tokens for 'x' and no unknown token"),
        (UNIGRAM | ggml(tokens=["a", "b"], scores=[0.0, 0.0]), "x", "no unknown token"),
    ],
)
def test_texts_without_tokens(metadata, text, message):
    with pytest.raises(TokenizerError, match=message):
        Tokenizer.from_metadata(metadata).encode(text, add_special=False)


def test_missing_ids_are_not_errors():
    """Converters write -1, as which no id of 32 bits exists."""
    tokenizer = Tokenizer.from_metadata(BPE | ggml(bos_token_id=0xFFFFFFFF, eos_token_id=-1))
    assert (tokenizer.bos, tokenizer.eos) == (None, None)


def test_ids_have_defaults():
    tokenizer = Tokenizer.from_metadata(BPE | ggml(tokens=list("abcdefghijklm")))
    assert (tokenizer.bos, tokenizer.eos) == (11, 11)
    assert Tokenizer.from_metadata(BPE).bos is None


def test_merges_need_no_tokens():
    """As in llama.cpp, a symbol that is no token is spelled, and bytes that cannot be are dropped."""
    tokenizer = Tokenizer.from_metadata(BPE | ggml(merges=["c c", "cc c", "a b"]))
    assert tokenizer.encode("cccab\u00e9", add_special=False) == [3, 3, 3, 2]


def test_tokens_that_are_no_utf8():
    tokenizer = Tokenizer.from_metadata(
        SPM | ggml(tokens=["<unk>", "a", "\udcff", "<0x00>"], token_type=[2, 1, 1, 6])
    )
    assert tokenizer.piece(2) == b"\xff"
    assert tokenizer.piece(3) == b"\x00"
    assert tokenizer.decode([2]) == "\ufffd"
    merging = Tokenizer.from_metadata(
        BPE | ggml(tokens=["a", "b", "ab", "\udcff"], merges=["\udcff a", "a b"])
    )
    assert merging.encode("ab", add_special=False) == [2]


def test_long_token():
    tokens = ["<unk>", "a", "b", "ab" * 500_000]
    tokenizer = Tokenizer.from_metadata(SPM | ggml(tokens=tokens, add_space_prefix=False))
    assert tokenizer.encode("abab", add_special=False) == [1, 2, 1, 2]
    assert len(tokenizer.piece(3)) == 1_000_000


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 20), st.floats(), st.text(max_size=3),
    st.lists(st.one_of(st.text(max_size=3), st.integers(-5, 300), st.floats()), max_size=8),
)  # fmt: skip
KEYS = (
    *("model", "pre", "tokens", "scores", "token_type", "merges", "precompiled_charsmap"),
    *("normalizer.lowercase", "normalizer.strip_accents"),
    *("bos_token_id", "eos_token_id", "eot_token_id", "unknown_token_id", "seperator_token_id"),
    *("add_bos_token", "add_eos_token", "add_space_prefix", "remove_extra_whitespaces"),
)


@given(base=st.sampled_from(KINDS), changes=st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=3))
def test_any_metadata_works_or_is_refused(base, changes):
    metadata = base | {f"tokenizer.ggml.{key}": value for key, value in changes.items()}
    with contextlib.suppress(ClarionError):
        tokenizer = Tokenizer.from_metadata(metadata)
        for text in ("", "ab", "a \u00e9<unk>\n"):
            tokenizer.decode(tokenizer.encode(text, parse_special=True))
        assert tokenizer.end_tokens <= set(range(tokenizer.vocab_size))


@given(data=st.binary(max_size=300))
def test_any_character_map_works_or_is_refused(data):
    metadata = golden("t5")["metadata"]
    good = bytes(metadata["tokenizer.ggml.precompiled_charsmap"])
    cut = min(len(good), len(data) * 7)
    tokenizer = Tokenizer.from_metadata(
        metadata | ggml(precompiled_charsmap=list(good[:4] + data + good[4 + cut :]))
    )
    with contextlib.suppress(TokenizerError):
        for text in TEXTS:
            tokenizer.encode(text)


def test_messages_are_short():
    for changes in (
        {"model": "x" * 10**6},
        {"pre": "x" * 10**6},
        {"tokens": ["y" * 10**6] * 2},
        {"merges": ["z" * 10**6]},
    ):
        with pytest.raises(ClarionError) as caught:
            Tokenizer.from_metadata(BPE | ggml(**changes)).encode("a")
        assert len(str(caught.value)) < 2000


def test_errors_name_the_file(tmp_path):
    path = tmp_path / "bad.gguf"
    with clarion.gguf.Writer(path, BPE | ggml(eos_token_id=77)):
        pass
    with pytest.raises(TokenizerError, match=r"bad\.gguf: tokenizer\.ggml\.eos_token_id is 77"):
        Tokenizer.from_gguf(path)


@pytest.mark.parametrize("merges", [["a b", "ab"], ["a b", "a b", " b"], ["a "]])
def test_merges_of_a_file_fail_as_others_do(tmp_path, merges):
    path = tmp_path / "bad.gguf"
    with clarion.gguf.Writer(path, BPE | ggml(merges=merges)):
        pass
    with pytest.raises(TokenizerError) as of_a_list:
        Tokenizer.from_metadata(BPE | ggml(merges=merges)).encode("ab")
    with pytest.raises(TokenizerError) as of_a_file:
        Tokenizer.from_gguf(path).encode("ab")
    assert str(of_a_file.value) == f"{path}: {of_a_list.value}"
    assert f"{merges[-1]!r} at {len(merges) - 1}, expected two symbols" in str(of_a_list.value)


@pytest.mark.parametrize(
    "merges", [["c c", "cc c", "a b"], ["a b", "c ab", "a b"], ["\udcff a", "a b", "x y"]]
)
def test_merges_of_a_file_encode_as_others_do(tmp_path, merges):
    """What no token has, doubles, and bytes that are no text."""
    path = tmp_path / "model.gguf"
    raw = [merge.encode(errors="surrogateescape") for merge in merges]
    with clarion.gguf.Writer(path, BPE | ggml(merges=raw)):
        pass
    listed, stored = Tokenizer.from_metadata(BPE | ggml(merges=merges)), Tokenizer.from_gguf(path)
    for text in ("ab", "cccab", "cabxyab", "aabb"):
        assert stored.encode(text) == listed.encode(text)


def test_truncated_file(tmp_path):
    path = tmp_path / "cut.gguf"
    with clarion.gguf.Writer(path, golden("llama")["metadata"]):
        pass
    whole = path.read_bytes()
    for size in range(0, len(whole), 997):
        path.write_bytes(whole[:size])
        with pytest.raises(FileError):
            Tokenizer.from_gguf(path)


def test_file_truncated_after_it_was_opened(tmp_path):
    path = tmp_path / "cut.gguf"
    with clarion.gguf.Writer(path, golden("llama")["metadata"]):
        pass
    tokenizer = Tokenizer.from_gguf(path)
    with path.open("r+b") as file:
        file.truncate(4096)
    with pytest.raises(FileError):
        tokenizer.encode("a")
