"""Encoding, decoding and streaming, beyond what the goldens fix."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

import clarion.gguf
from clarion.errors import ParameterError, TokenizerError
from clarion.tokenizer import Tokenizer, pretokenizer
from clarion.tokenizer.pieces import ALPHABET
from tests.tokenizer.files import TEXTS, VOCABULARIES, ggml, golden, tokenizer

BYTES = Tokenizer.from_metadata(
    ggml(model="gpt2", pre="gpt-2", merges=["a b", "\u0120 ab"], tokens=[*ALPHABET, "ab", "\u0120ab", "</s>"])
)
LOSSLESS = {"bytes": BYTES, "llama": tokenizer("llama")}
SPACES = "\u2581"  # which stands for a space in SentencePiece


def streamed(stream, ids):
    return [stream.feed(token) for token in ids] + [stream.finish()]


@pytest.mark.parametrize("name", LOSSLESS)
@given(text=st.text())
def test_decode_undoes_encode(name, text):
    found = LOSSLESS[name].decode(LOSSLESS[name].encode(text, add_special=False))
    assert found == (text if name == "bytes" else text.replace(SPACES, " "))


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("name", LOSSLESS)
def test_decode_undoes_encode_of_golden_texts(name, text):
    text = text.replace("<tool>", "")  # a space follows where a user-defined token was found
    ids = LOSSLESS[name].encode(text)
    found = LOSSLESS[name].decode(ids, skip_special=True)
    assert found == (text if name == "bytes" else text.replace(SPACES, " "))


@pytest.mark.parametrize("name", VOCABULARIES)
@given(text=st.text(), special=st.booleans())
def test_ids_are_in_the_vocabulary(name, text, special):
    ids = tokenizer(name).encode(text, parse_special=special)
    assert all(0 <= token < tokenizer(name).vocab_size for token in ids)


@pytest.mark.parametrize("name", VOCABULARIES)
@given(data=st.data())
def test_stream_gives_whole_characters(name, data):
    subject = tokenizer(name)
    ids = data.draw(st.lists(st.integers(0, subject.vocab_size - 1)))
    parts = streamed(subject.stream(), ids)
    whole = b"".join(map(subject.piece, ids)).decode("utf-8", "replace")
    assert "".join(parts) == whole
    assert all("\ufffd" not in part or "\ufffd" in whole for part in parts)


def test_stream_waits_for_the_rest_of_a_character():
    subject = tokenizer("llama")
    ids = subject.encode("\U0001f9e8", add_special=False)[-4:]
    assert [subject.piece(token) for token in ids] == [b"\xf0", b"\x9f", b"\xa7", b"\xa8"]
    assert streamed(subject.stream(), ids) == ["", "", "", "\U0001f9e8", ""]
    assert streamed(subject.stream(), ids[:3]) == ["", "", "", "\ufffd"]
    assert "".join(streamed(subject.stream(), [ids[0], subject.encode("a")[-1]])) == "\ufffd a"


def test_stream_can_be_used_again():
    subject = tokenizer("llama")
    ids = subject.encode("\U0001f9e8", add_special=False)[-4:]
    stream = subject.stream()
    assert stream.feed(ids[0]) == ""
    assert stream.finish() == "\ufffd"
    assert "".join(streamed(stream, ids)) == "\U0001f9e8"


def test_special_tokens_are_shown_or_skipped():
    subject = tokenizer("llama")
    ids = subject.encode("<s>a</s>", add_special=False, parse_special=True)
    assert subject.decode(ids) == "<s>a</s>"
    assert subject.decode(ids, skip_special=True) == "a"
    assert "".join(streamed(subject.stream(skip_special=True), ids)) == " a"


def test_control_tokens_are_parsed_on_request_only():
    subject = tokenizer("llama")
    tokens = golden("llama")["metadata"]["tokenizer.ggml.tokens"]
    control, user_defined = tokens.index("<|im_end|>"), tokens.index("<tool>")
    assert control not in subject.encode("a<|im_end|>b")
    assert control in subject.encode("a<|im_end|>b", parse_special=True)
    assert user_defined in subject.encode("a<tool>b")


def test_longer_special_tokens_come_first():
    metadata = ggml(
        model="gpt2",
        pre="gpt-2",
        merges=["a b"],
        tokens=["a", "b", "c", "ab", "abc", "bc"],
        token_type=[1, 1, 1, 4, 4, 4],
    )
    assert Tokenizer.from_metadata(metadata).encode("abcab", add_special=False) == [4, 3]


def test_empty_text():
    assert tokenizer("llama").encode("", add_special=False) == []
    assert tokenizer("llama").encode("") == [tokenizer("llama").bos]
    assert tokenizer("llama").decode([]) == ""


@pytest.mark.parametrize("text", ["a\ud800b", "\udfff"])
def test_lone_surrogates_are_refused(text):
    with pytest.raises(
        TokenizerError, match=f"character {len(text) // 2} of the text is half a surrogate pair"
    ):
        tokenizer("llama").encode(text)


@pytest.mark.parametrize("text", [5, None, b"abc", ["abc"]])
def test_what_is_no_text_is_refused(text):
    with pytest.raises(ParameterError, match=r"^text: found .*, expected a text$"):
        tokenizer("llama").encode(text)


@pytest.mark.parametrize("token", [-1, 10**6])
def test_ids_outside_the_vocabulary_are_refused(token):
    subject = tokenizer("llama")
    for use in (subject.piece, subject.stream().feed, lambda token: subject.decode([token])):
        with pytest.raises(
            TokenizerError, match=f"token {token} is not in the vocabulary of {subject.vocab_size}"
        ):
            use(token)


def test_pieces_are_a_sequence():
    subject = tokenizer("gpt2")
    assert len(subject.pieces) == subject.vocab_size
    assert subject.pieces[-1] == b"[MASK]"
    assert subject.pieces[10:12] == [subject.piece(10), subject.piece(11)]


def test_nothing_is_read_before_it_is_needed():
    class Unread(list):
        def __iter__(self):
            raise AssertionError

    metadata = {**golden("llama")["metadata"]}
    for key, value in metadata.items():
        if isinstance(value, list):
            metadata[key] = Unread(value)
    subject = Tokenizer.from_metadata(metadata)
    assert subject.bos == 1
    assert subject.vocab_size == len(metadata["tokenizer.ggml.tokens"])
    with pytest.raises(AssertionError):
        subject.encode("a")


def test_the_library_is_imported_only_by_who_needs_it():
    program = "import clarion.tokenizer, sys; print(*({'tokenizers', 'jinja2', 'numpy'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""


@pytest.mark.parametrize("name", pretokenizer.names())
def test_words_are_the_whole_text(name):
    rules = pretokenizer.find(name)
    for text in TEXTS:
        assert "".join(rules.split(text)) == text


@pytest.mark.parametrize(
    "name", {pretokenizer.find(name).patterns: name for name in pretokenizer.names()}.values()
)
def test_long_runs_take_linear_time(name):
    begin = time.process_time()
    for unit in (" ", "\n", "a", "A", "\u4e2d", "1", "\t ", "'s"):
        text = unit * 40_000 + "x"
        assert "".join(pretokenizer.find(name).split(text)) == text
    assert time.process_time() - begin < 5  # quadratic time would be ten times as much


@pytest.mark.parametrize("name", VOCABULARIES)
def test_long_texts(name):
    text = "hello world " * 5000 + "x" * 50_000 + " " * 50_000
    assert len(tokenizer(name).encode(text)) > 10


@pytest.mark.parametrize("name", VOCABULARIES)
def test_from_gguf_file_with_nothing_but_a_vocabulary(tmp_path, name):
    metadata = {**golden(name)["metadata"], **ggml(pre="gpt-2")}
    path = tmp_path / "vocabulary.gguf"
    with clarion.gguf.Writer(path, {"general.architecture": "llama", **metadata}):
        pass
    subject = Tokenizer.from_gguf(path)
    expected = Tokenizer.from_metadata(metadata)
    for text in TEXTS:
        assert subject.encode(text) == expected.encode(text)
    assert list(subject.pieces) == list(expected.pieces)


def test_the_names_of_control_tokens_in_a_text():
    subject = tokenizer("llama")
    for text, names in (
        ("no name", []),
        ("", []),
        ("a</s>b<s></s>", ["</s>", "<s>"]),
        ("<s", []),
    ):
        assert subject.control_tokens(text) == names
        special = [token for token in subject.encode(text, False, True) if subject.is_special(token)]
        assert {subject.piece(token).decode() for token in special} == set(names)
