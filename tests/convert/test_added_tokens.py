"""Added tokens are found where the checkpoint's own tokenizer finds them, whatever their options."""

import json

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, normalizers

import clarion
from clarion.convert import compare, vocabulary
from clarion.convert.checkpoint import Checkpoint
from clarion.errors import ClarionError, FormatError, UnsupportedError
from clarion.gguf import File
from tests.convert.checkpoints import (
    bytes_tokenizer,
    converted,
    differences,
    metaspace,
    sentencepiece_model,
    text_tokenizer,
    write,
)

TEXTS = [
    *(
        "hello  <|user|>  hello",
        "<|user|>\nthe king",
        "kings king king's seeking",
        "<|user|>user",
        "x<<a>>x y",
    ),
    *(
        " <|user|>",
        "<|user|> ",
        "<|user|><|user|>",
        "\n\n<|user|>\n\n",
        "a\u3000<|user|>\u00a0\u2003b\x1c<|user|>",
    ),
    *("_king", "king1", "-king-", "\u00e9king", "king\u0301", "<|end|> king <|end|>the king", "the KING", ""),
]
OPTIONS = ("lstrip", "rstrip", "single_word", "normalized", "special")


@pytest.mark.parametrize("make", [bytes_tokenizer, text_tokenizer])
@pytest.mark.parametrize("bits", range(32))
def test_every_option(tmp_path, make, bits):
    options = {name: bool(bits >> i & 1) for i, name in enumerate(OPTIONS)}
    tokenizer = make(added=[AddedToken("<|user|>", **options), AddedToken("king", **options)])
    assert differences(converted(tmp_path, tokenizer), tokenizer, TEXTS) == []


@pytest.mark.parametrize(
    ("added", "text"),
    [
        (("<<a", "<a>>x"), "x<<a>>x y<a>>x<<a"),
        (("ab", "bcd", "abc"), "abcd bcd ab abcabcd"),
        (("  ", "   ", "\n\n", "\n"), "a  b   c    d\n\n\n e\n"),
        (("<x>", "<x><y>", "<y>z"), "<x><y>z <y>z<x>"),
        (("a", "aa", "aaa"), "aaaaa aaaa aa a"),
    ],
)
def test_the_leftmost_is_taken_and_then_the_longest(tmp_path, added, text):
    tokenizer = bytes_tokenizer(added=added)
    assert differences(converted(tmp_path, tokenizer), tokenizer, [text, text[1:], text * 2]) == []


def test_white_space_that_two_tokens_want(tmp_path):
    strip = {"lstrip": True, "rstrip": True, "normalized": False}
    added = [AddedToken("<r>", **strip), AddedToken("\n", rstrip=True), AddedToken("  ", **strip)]
    tokenizer = bytes_tokenizer(added=added)
    texts = ["a <r> <r> b", "<r>\n\n<r>", "<r>  \n  <r>", "  <r>\n"]
    assert differences(converted(tmp_path, tokenizer), tokenizer, texts) == []


def test_a_token_of_the_vocabulary_that_is_added_as_well(tmp_path):
    tokenizer = bytes_tokenizer()
    tokenizer.add_tokens([AddedToken("king", single_word=True), AddedToken("the", lstrip=True)])
    texts = ["king kings the other there", "king", " the"]
    assert differences(converted(tmp_path, tokenizer), tokenizer, texts) == []


def test_an_added_token_is_not_made_by_merging(tmp_path):
    """In a vocabulary of text, any two neighbours that are a token together would be merged."""
    tokenizer = text_tokenizer(
        added=[AddedToken("kq", single_word=True), AddedToken("\u00df", single_word=True)]
    )
    path = converted(tmp_path, tokenizer)
    assert differences(path, tokenizer, ["akqa", "kq", "xkq kq", "stra\u00dfe \u00df"]) == []


def test_an_added_token_is_not_a_whole_word(tmp_path):
    """Where words that are tokens are not merged, an added one that is not alone is no such word."""
    tokenizer = bytes_tokenizer(added=[AddedToken("kings", single_word=True), AddedToken("q", lstrip=True)])
    values = json.loads(tokenizer.to_str())
    values["model"]["ignore_merges"] = True
    pattern = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}"
    pattern += "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    values["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, byte_level]}
    tokenizer = Tokenizer.from_str(json.dumps(values))
    path = converted(tmp_path, tokenizer)
    assert differences(path, tokenizer, ["_kings kings", "kings1 1kings'kings", "a q"]) == []


def test_options_in_tokenizer_config(tmp_path):
    """They win, as in transformers."""
    tokenizer = bytes_tokenizer(added=["<|user|>"])
    token = tokenizer.token_to_id("<|user|>")
    options = {"content": "<|user|>", "lstrip": True, "rstrip": True, "special": True, "single_word": False}
    decoder = {"added_tokens_decoder": {str(token): {**options, "normalized": False}}}
    path = converted(tmp_path, tokenizer, decoder)
    tokenizer.add_tokens([AddedToken("<|user|>", lstrip=True, rstrip=True, special=True, normalized=False)])
    assert differences(path, tokenizer, TEXTS) == []
    assert clarion.Tokenizer.from_gguf(path).is_special(token)


def test_tokens_that_only_tokenizer_config_names(tmp_path):
    tokenizer = bytes_tokenizer()
    named = {"eos_token": "king", "additional_special_tokens": ["<tool>"], "image_token": "<image>"}
    path = converted(tmp_path, tokenizer, named)
    tokenizer.add_special_tokens(["king", "<image>", "<tool>"])
    assert differences(path, tokenizer, ["a king<image> <tool>", "kings"]) == []


def test_special_tokens_that_only_special_tokens_map_names(tmp_path):
    tokenizer = bytes_tokenizer()
    special = {"additional_special_tokens": ["<tool>", {"content": "king", "lstrip": True}]}
    path = converted(tmp_path, tokenizer, files={"special_tokens_map.json": json.dumps(special)})
    tokenizer.add_special_tokens(["<tool>", AddedToken("king", lstrip=True)])
    assert differences(path, tokenizer, ["a king <tool>", "kings"]) == []


@pytest.mark.parametrize("found", [5, [5], {"a": 5}, "<x>", ["\ud800"]])
def test_special_tokens_that_are_none(tmp_path, found):
    with pytest.raises(
        FormatError, match=r"tokenizer_config\.json: extra_special_tokens is .*, expected tokens"
    ):
        converted(tmp_path, bytes_tokenizer(), {"extra_special_tokens": found})


def test_a_padding_token_that_the_embedding_has_no_row_for(tmp_path):
    tokenizer = bytes_tokenizer()
    path = converted(tmp_path, tokenizer, {"pad_token": "<pad>"}, spare=0)
    assert differences(path, tokenizer, ["a <pad>"]) == []


@pytest.mark.parametrize("special", [True, False])
def test_tokens_that_only_added_tokens_has(tmp_path, special):
    """As transformers, which read the file where tokenizer_config.json lists no tokens, add them."""
    tokenizer = bytes_tokenizer()
    n_tokens = tokenizer.get_vocab_size()
    added = {"<x>": n_tokens + 1, "<w>": n_tokens, "<|eot|>": tokenizer.token_to_id("<|eot|>")}
    settings = {"additional_special_tokens": ["<x>"]} if special else {}
    files = {"added_tokens.json": json.dumps(added)}
    path = converted(tmp_path, tokenizer, settings, files=files)
    tokenizer.add_tokens(["<w>", AddedToken("<x>", special=special, normalized=not special)])
    assert differences(path, tokenizer, ["a<x>b <w>", "<|eot|> <x>"]) == []
    ours = clarion.Tokenizer.from_gguf(path)
    assert [ours.is_special(token) for token in (n_tokens, n_tokens + 1)] == [False, special]


def test_tokens_of_added_tokens_that_the_embedding_has_no_row_for(tmp_path):
    tokenizer = bytes_tokenizer()
    files = {"added_tokens.json": json.dumps({"[PAD]": tokenizer.get_vocab_size()})}
    path = converted(tmp_path, tokenizer, {"pad_token": "[PAD]"}, files=files, spare=0)
    assert differences(path, tokenizer, ["a [PAD]"]) == []


@pytest.mark.parametrize("files", ["vocab.json", "tokenizer.model"])
def test_options_without_tokenizer_json(tmp_path, files):
    """The tokens in added_tokens_decoder are those of tokenizer.json, and so are the ids."""
    strip = {"lstrip": True, "rstrip": True, "normalized": False}
    make = bytes_tokenizer if files == "vocab.json" else text_tokenizer
    word = AddedToken("<x>", single_word=True, normalized=False)
    tokenizer = make(added=[AddedToken("<|user|>", special=True, **strip), word])
    decoder = {
        token: {"content": entry.content, **{option: getattr(entry, option) for option in OPTIONS}}
        for token, entry in tokenizer.get_added_tokens_decoder().items()
    }
    model = json.loads(tokenizer.to_str())["model"]
    merges = "\n".join(" ".join(merge) for merge in model["merges"])
    contents = {"vocab.json": json.dumps(model["vocab"]), "merges.txt": merges}
    if files == "tokenizer.model":
        contents = {"tokenizer.model": sentencepiece_model(tokenizer)}
    settings = {"added_tokens_decoder": decoder, "add_bos_token": False}
    path = converted(tmp_path, tokenizer, settings, files={"tokenizer.json": None, **contents})
    texts = ["a  <|user|>  b", "a<x>b <x>", "<|user|>\nthe king"]
    assert differences(path, tokenizer, texts) == []


def test_an_id_that_the_library_does_not_take(tmp_path):
    """It counts on from the vocabulary, whatever the file says; then the ids are the library's."""
    tokenizer = bytes_tokenizer()
    values = json.loads(tokenizer.to_str())
    values["added_tokens"][-1]["id"] += 3
    path = converted(tmp_path, tokenizer, files={"tokenizer.json": json.dumps(values)})
    assert differences(path, tokenizer, ["a<|eot|>", "<|begin|>"]) == []


def test_normalisation_by_nfc(tmp_path):
    tokenizer = bytes_tokenizer(added=[AddedToken("\u00e9t\u00e9", normalized=True), "<x>"])
    tokenizer.normalizer = normalizers.NFC()
    texts = ["cafe\u0301", "e\u0301te\u0301 <x>", "A\u030a<x>a\u0300"]
    assert differences(converted(tmp_path, tokenizer), tokenizer, texts) == []


def test_what_cannot_be_said_is_refused_by_name(tmp_path, monkeypatch):
    """Whatever is read wrong, the comparison finds it: here, a reader that knows no options."""
    tokenizer = bytes_tokenizer(added=[AddedToken("<|user|>", rstrip=True, special=True)])
    monkeypatch.setattr(vocabulary, "_flags", lambda options: 0)
    with pytest.raises(
        UnsupportedError, match=r"tokenizer\.json: added token '<\|user\|>' \(rstrip\): as metadata"
    ):
        converted(tmp_path, tokenizer)
    assert not list(tmp_path.glob("*.gguf"))


def test_two_tokens_that_are_the_same_when_normalised(tmp_path):
    tokenizer = text_tokenizer(
        added=[AddedToken("a b", normalized=True), AddedToken("a\u2581b", normalized=True)]
    )
    with pytest.raises(UnsupportedError, match=r"added tokens 'a b' .* and 'a.b' .* are the same"):
        converted(tmp_path, tokenizer)


def test_an_option_that_is_neither_true_nor_false(tmp_path):
    decoder = {"added_tokens_decoder": {"333": {"content": "<x>", "lstrip": "yes"}}}
    with pytest.raises(FormatError, match=r"added token .*yes"):
        converted(tmp_path, bytes_tokenizer(), decoder)


def test_files_without_the_keys_are_read_as_ever(tmp_path):
    """Without them, the longest token goes first in the whole text, and swallows nothing."""
    tokenizer = bytes_tokenizer(added=["<<a", AddedToken("<a>>x", rstrip=True)])
    with File.open(converted(tmp_path, tokenizer)) as file:
        metadata = {
            key: value for key, value in file.metadata.items() if not key.startswith("tokenizer.clarion.")
        }
        found = clarion.Tokenizer.from_metadata(metadata).encode("x<<a>>x y", add_special=False)
    pieces = ["x", "<", "<a>>x", "\u0120", "y"]
    assert found == [tokenizer.token_to_id(piece) for piece in pieces]


TOKEN = st.one_of(
    st.sampled_from(["king", "the", "<x>", "\u2581the", "  ", "\n\n", "<|eot|>"]),
    st.text("ab<> _\u00e9\u3000\n'1", min_size=1, max_size=4),
)
ADDED = st.lists(st.tuples(TOKEN, st.tuples(*[st.booleans()] * 5)), max_size=4)
KINDS = {
    "bytes": bytes_tokenizer().to_str(),
    "text": text_tokenizer().to_str(),
    **{
        f"{scheme} {split}": text_tokenizer(None, metaspace(scheme, split)).to_str()
        for scheme in ("always", "first", "never")
        for split in (False, True)
    },
}


@settings(max_examples=40)  # each is a conversion
@given(st.sampled_from(sorted(KINDS)), ADDED, st.data())
def test_ids_are_the_library_s_or_the_checkpoint_is_refused(tmp_path_factory, kind, added, data):
    tokenizer = Tokenizer.from_str(KINDS[kind])
    for text, options in added:
        tokenizer.add_tokens([AddedToken(text, **dict(zip(OPTIONS, options, strict=True)))])
    folder = tmp_path_factory.getbasetemp() / "property"
    if not folder.exists():
        write(folder, tokenizer)
    (folder / "tokenizer.json").write_text(tokenizer.to_str())
    try:
        metadata = vocabulary.convert(Checkpoint(folder), 1000)
    except ClarionError:
        return
    ours = clarion.Tokenizer.from_metadata(compare._plain(metadata))
    words = [text for text, _ in added] + ["the", "king", " ", "a", "s", "\n", "<s>", "<|eot|>"]
    text = "".join(data.draw(st.lists(st.sampled_from(words), max_size=8)))
    try:
        with vocabulary.library.guarded("the library"):
            expected = tokenizer.encode(text).ids
    except FormatError:  # it panics at some tokens of white space
        assume(False)
    assert ours.encode(text, parse_special=True) == expected
