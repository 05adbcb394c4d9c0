"""The files of a checkpoint as people have them: from Windows, from other tools, half downloaded."""

import base64
import json
import os
import subprocess
import sys
import threading

import pytest

import clarion
from clarion.convert import convert, library
from clarion.errors import FileError, FormatError, ModelError, UnsupportedError
from clarion.gguf import File
from tests.convert.checkpoints import (
    around,
    bytes_tokenizer,
    config,
    converted,
    differences,
    metaspace,
    sentencepiece_model,
    text_tokenizer,
    weights,
    write,
)
from tests.convert.files import write_safetensors

TEXTS = ["the king said hello", " a\nb", "<|eot|>"]
BOM = "\ufeff"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 499723\n"
TIKTOKEN = "".join(f"{base64.b64encode(bytes((byte,))).decode()} {byte}\n" for byte in range(256))


def templates(path):
    with File.open(path) as file:
        return {
            key.removeprefix("tokenizer.chat_template").removeprefix("."): file.metadata[key]
            for key in file.metadata
            if key.startswith("tokenizer.chat_template") and key != "tokenizer.chat_templates"
        }


# ---- templates -----------------------------------------------------------------------------------------

FOLDER = "additional_chat_templates"


@pytest.mark.parametrize(
    ("settings", "files", "expected"),
    [
        ({"chat_template": "A"}, {}, {"": "A"}),
        ({"chat_template": "A"}, {"chat_template.jinja": "B"}, {"": "B"}),
        ({"chat_template": "A"}, {"chat_template.json": '{"chat_template": "C"}'}, {"": "A"}),
        ({}, {"chat_template.json": '{"chat_template": "C"}'}, {"": "C"}),
        (
            {"chat_template": {"default": "A", "rag": "R", "tool_use": "U"}},
            {f"{FOLDER}/tool_use.jinja": "T"},
            {"": "A", "rag": "R", "tool_use": "T"},
        ),
        ({}, {"chat_template.jinja": "B", "chat_template.json": '{"chat_template": "C"}'}, {"": "B"}),
        ({}, {"chat_template.jinja": "B", f"{FOLDER}/tool_use.jinja": "T"}, {"": "B", "tool_use": "T"}),
        (
            {"chat_template": [{"name": "default", "template": "A"}, {"name": "rag", "template": "R"}]},
            {"chat_template.jinja": "B", f"{FOLDER}/tool_use.jinja": "T"},
            {"": "B", "tool_use": "T"},
        ),
        (
            {"chat_template": [{"name": "default", "template": "A"}, {"name": "rag", "template": "R"}]},
            {},
            {"": "A", "rag": "R"},
        ),
        ({"chat_template": {"default": "A", "rag": "R"}}, {}, {"": "A", "rag": "R"}),
        ({"chat_template": "A"}, {f"{FOLDER}/tool_use.jinja": "T"}, {"": "A", "tool_use": "T"}),
        ({}, {f"{FOLDER}/tool_use.jinja": "T", f"{FOLDER}/notes.txt": "N"}, {"tool_use": "T"}),
        ({}, {"chat_template.jinja": "A\r\nB\rC"}, {"": "A\nB\nC"}),
        ({}, {"chat_template.jinja": BOM + "A", f"{FOLDER}/x.jinja": BOM + "X\r\n"}, {"": "A", "x": "X\n"}),
        ({}, {"chat_template.jinja": ""}, {"": ""}),
        ({}, {}, {}),
    ],
)
def test_templates(tmp_path, settings, files, expected):
    path = converted(tmp_path, bytes_tokenizer(), settings, files=files)
    assert templates(path) == expected
    with File.open(path) as file:
        names = file.metadata.get("tokenizer.chat_templates")
        assert sorted(names or []) == sorted(set(expected) - {""})


@pytest.mark.parametrize(
    "found",
    [
        *(1, ["A"], [{"name": "default"}], {"default": 1}, [{"template": "A"}], "\ud800"),
        *([{"name": [], "template": "A"}], [{"name": {}, "template": "A"}], {"\ud800": "A"}),
    ],
)
def test_what_is_no_template(tmp_path, found):
    with pytest.raises(FormatError, match=r"tokenizer_config\.json: chat_template is .*, expected a text or"):
        converted(tmp_path, bytes_tokenizer(), {"chat_template": found})


def test_a_template_that_is_not_utf_8(tmp_path):
    with pytest.raises(FormatError, match=r"chat_template\.jinja: offset 1: not UTF-8"):
        converted(tmp_path, bytes_tokenizer(), files={"chat_template.jinja": b"A\xff"})


@pytest.mark.parametrize("name", ["chat_template.jinja", f"{FOLDER}/tool_use.jinja"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (POINTER, "is a Git LFS pointer: run git lfs pull"),
        ("<!DOCTYPE html>\n<html></html>", "is an HTML page"),
    ],
)
def test_templates_that_are_something_else(tmp_path, name, content, message):
    with pytest.raises(FormatError, match=rf"{name} {message}"):
        converted(tmp_path, bytes_tokenizer(), files={name: content})


@pytest.mark.parametrize("text", ["<s>{{ a }}", '{"error": "{{ a }}"}', "A", "{{ a }}", "<!-- {{ a }} -->"])
def test_texts_that_only_look_like_something_else(tmp_path, text):
    path = converted(tmp_path, bytes_tokenizer(), files={"chat_template.jinja": text})
    assert templates(path) == {"": text}


# ---- text files ----------------------------------------------------------------------------------------


def rewrite(folder, change):
    for path in folder.glob("*.json"):
        path.write_bytes(change(json.dumps(json.loads(path.read_text()), indent=1)).encode())


@pytest.mark.parametrize("bom", ["", BOM])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_windows(tmp_path, bom, newline):
    """All files, merges.txt among them; and the shards' index."""
    tokenizer = bytes_tokenizer()
    model = json.loads(tokenizer.to_str())["model"]
    decoder = {
        token: {"content": entry.content, "special": True}
        for token, entry in tokenizer.get_added_tokens_decoder().items()
    }
    files = {
        "merges.txt": bom + newline.join(["#version: 0.2", *map(" ".join, model["merges"]), ""]),
        "vocab.json": json.dumps(model["vocab"]),
        "special_tokens_map.json": '{"bos_token": "<|begin|>"}',
    }
    settings = {"added_tokens_decoder": decoder, "eos_token": "<|end|>"}
    folder = write(tmp_path / "c", tokenizer, settings, {"eos_token_id": [331, 332]}, files)
    tensors = weights(tokenizer.get_vocab_size() + 8)
    (folder / "model.safetensors").unlink()
    write_safetensors(folder / "a.safetensors", tensors)
    index = {"weight_map": dict.fromkeys(tensors, "a.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    rewrite(folder, lambda text: bom + text.replace("\n", newline))
    for name in ("with.gguf", "without.gguf"):
        convert(folder, tmp_path / name, "f32")
        assert differences(tmp_path / name, tokenizer, TEXTS) == []
        (folder / "tokenizer.json").unlink(missing_ok=True)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is an empty file.*, expected JSON"),
        (POINTER.encode(), "is a Git LFS pointer: run git lfs pull"),
        (b"<!DOCTYPE html><html></html>", "is an HTML page"),
        ("{}".encode("utf-16"), "is a text in UTF-16"),
        (b"{", "is not JSON"),
    ],
)
def test_files_that_are_something_else(tmp_path, name, content, message):
    with pytest.raises(FormatError, match=rf"{name}:? {message}"):
        converted(tmp_path, bytes_tokenizer(), files={name: content})


@pytest.mark.parametrize(
    "name",
    [
        *("config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json"),
        *("tokenizer.json", "chat_template.jinja", f"{FOLDER}/tool_use.jinja", "model.safetensors"),
    ],
)
def test_links_to_what_is_not_there(tmp_path, name):
    """They are not taken for files that the checkpoint does not have."""
    folder = write(tmp_path / "c", bytes_tokenizer())
    (folder / name).unlink(missing_ok=True)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileError, match=rf"{name}: (is a link to .*nowhere, which is not there|cannot be)"):
        convert(folder, tmp_path / "m.gguf")


@pytest.mark.parametrize("content", [POINTER.encode(), b"<html><body>404</body></html>" * 2])
def test_weights_that_are_something_else(tmp_path, content):
    folder = write(tmp_path / "c", bytes_tokenizer())
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(FormatError, match=r"model\.safetensors is an? .*, expected a safetensors file"):
        convert(folder, tmp_path / "m.gguf")


# ---- tokenizer.model -----------------------------------------------------------------------------------

NO_SENTENCEPIECE = {
    "tiktoken": (TIKTOKEN.encode(), "is a vocabulary of tiktoken"),
    "pointer": (POINTER.encode(), "is a Git LFS pointer"),
    "empty": (b"", "is an empty file"),
    "html": (b"<!doctype html>", "is an HTML page"),
    "garbage": (b"\xff" * 100, "offset 0"),
    "text": (b"hello\n" * 10, "expected"),
}


@pytest.mark.parametrize("kind", NO_SENTENCEPIECE)
def test_a_tokenizer_model_that_is_none_beside_a_good_tokenizer(tmp_path, kind):
    tokenizer = bytes_tokenizer()
    path = converted(tmp_path, tokenizer, files={"tokenizer.model": NO_SENTENCEPIECE[kind][0]})
    assert differences(path, tokenizer, TEXTS) == []


@pytest.mark.parametrize("kind", NO_SENTENCEPIECE)
def test_a_tokenizer_model_that_is_none_alone(tmp_path, kind):
    content, message = NO_SENTENCEPIECE[kind]
    with pytest.raises(FormatError, match=rf"tokenizer\.model:? .*{message}"):
        converted(tmp_path, bytes_tokenizer(), files={"tokenizer.model": content, "tokenizer.json": None})


def test_a_tokenizer_model_alone(tmp_path):
    tokenizer = text_tokenizer()
    files = {"tokenizer.model": sentencepiece_model(tokenizer), "tokenizer.json": None}
    path = converted(tmp_path, tokenizer, files=files)
    assert differences(path, around(tokenizer, "<s> $A"), ["the king", " a", "<s>b"]) == []


@pytest.mark.parametrize("normalizer", [{2: b"charsmap"}, {4: 1}])
def test_a_tokenizer_model_alone_that_changes_characters(tmp_path, normalizer):
    tokenizer = text_tokenizer()
    files = {"tokenizer.model": sentencepiece_model(tokenizer, normalizer), "tokenizer.json": None}
    with pytest.raises(UnsupportedError, match=r"tokenizer\.model: normalizer_spec .*, supported: identity"):
        converted(tmp_path, tokenizer, files=files)


def test_a_tokenizer_model_that_is_some_text(tmp_path):
    files = {"tokenizer.model": "hello\nworld\n", "tokenizer.json": None}
    with pytest.raises(FormatError, match=r"tokenizer\.model: no sentencepiece model: offset 3: "):
        converted(tmp_path, bytes_tokenizer(), files=files)


@pytest.mark.parametrize(
    ("settings", "scheme"), [({"legacy": False}, "first"), ({"add_prefix_space": False}, "never")]
)
def test_spaces_of_a_tokenizer_model_alone(tmp_path, settings, scheme):
    tokenizer = text_tokenizer(None, metaspace(scheme, False))
    files = {"tokenizer.model": sentencepiece_model(tokenizer), "tokenizer.json": None}
    path = converted(tmp_path, tokenizer, {**settings, "add_bos_token": False}, files=files)
    assert differences(path, tokenizer, ["the king", " a", "<s>b", "a</s> b"]) == []


def test_no_tokenizer(tmp_path):
    with pytest.raises(
        FileError, match=r"no tokenizer, expected tokenizer\.json, tokenizer\.model, or vocab\.json"
    ):
        converted(tmp_path, bytes_tokenizer(), files={"tokenizer.json": None})


# ---- the tokenizers library ----------------------------------------------------------------------------


def test_padding_and_truncation_are_switched_off(tmp_path):
    tokenizer = bytes_tokenizer()
    tokenizer.enable_padding(length=64, pad_id=0, pad_token="!")
    tokenizer.enable_truncation(5)
    path = converted(tmp_path, tokenizer)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    assert differences(path, tokenizer, [*TEXTS, "a long text " * 20]) == []


def panicking(tokenizer):
    """A merge in which the library cuts a prefix off that is not there."""
    values = json.loads(tokenizer.to_str())
    values["model"]["continuing_subword_prefix"] = "##"
    return {"tokenizer.json": json.dumps(values)}


def test_a_panic_of_the_library_is_one_line(tmp_path):
    tokenizer = bytes_tokenizer()
    folder = write(tmp_path / "c", tokenizer, files=panicking(tokenizer))
    environment = {**os.environ, "RUST_BACKTRACE": "full"}
    command = [sys.executable, "-m", "clarion", "convert", folder, tmp_path / "m.gguf"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "tokenizer.json: cannot be used: the tokenizers library panics: " in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


@pytest.mark.parametrize("token", ["a\nb", "\x1b[2J", "x" * 100_000])
def test_a_message_of_the_library_is_one_line(tmp_path, token):
    values = json.loads(bytes_tokenizer().to_str())
    values["model"]["merges"].append([token, "b"])
    with pytest.raises(
        FormatError, match=r"tokenizer\.json: cannot be read: .* out of vocabulary|x{100}"
    ) as error:
        converted(tmp_path, bytes_tokenizer(), files={"tokenizer.json": json.dumps(values)})
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 1000


def test_standard_error_is_as_before(tmp_path, capfd):
    tokenizer = bytes_tokenizer()
    folder = write(tmp_path / "c", tokenizer, files=panicking(tokenizer))
    for _ in range(3):
        with pytest.raises(FormatError, match="panics"):
            convert(folder, tmp_path / "m.gguf")
    os.write(2, b"still here\n")
    assert capfd.readouterr().err == "still here\n"


def test_what_others_print_meanwhile_is_kept(capfd):
    with library.guarded("here"):
        os.write(2, b"from a thread\n")
    assert capfd.readouterr().err == "from a thread\n"
    with pytest.raises(KeyboardInterrupt), library.guarded("here"):
        raise KeyboardInterrupt
    assert not library._redirected.locked()


def test_threads_may_convert_at_once(tmp_path):
    tokenizer = bytes_tokenizer()
    folder, bad = (
        write(tmp_path / "c", tokenizer),
        write(tmp_path / "b", tokenizer, files=panicking(tokenizer)),
    )
    failed = []

    def run(i):
        try:
            convert(bad if i % 2 else folder, tmp_path / f"{i}.gguf", "f32")
        except FormatError:
            failed.append(i)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(failed) == [1, 3, 5]
    assert len({(tmp_path / f"{i}.gguf").read_bytes() for i in (0, 2, 4)}) == 1


# ---- weights and numbers -------------------------------------------------------------------------------


def test_one_file_goes_before_an_index(tmp_path):
    folder = write(tmp_path / "c", bytes_tokenizer())
    convert(folder, tmp_path / "alone.gguf", "f32")
    stale = {"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(stale))
    convert(folder, tmp_path / "beside.gguf", "f32")
    (tmp_path / "alone.gguf").rename(tmp_path / "first")
    (tmp_path / "beside.gguf").rename(tmp_path / "second")
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def shard(folder, tensors, places):
    """The tensors in one shard, and an index that names `places` as well."""
    (folder / "model.safetensors").unlink()
    write_safetensors(folder / "a.safetensors", tensors)
    index = {"weight_map": {**dict.fromkeys(tensors, "a.safetensors"), **places}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize("place", ["a.safetensors", "b.safetensors"])
def test_a_tied_output_that_no_shard_holds(tmp_path, place):
    tokenizer = bytes_tokenizer()
    folder = write(tmp_path / "c", tokenizer, tie_word_embeddings=True)
    shard(folder, weights(tokenizer.get_vocab_size() + 8, tied=True), {"lm_head.weight": place})
    convert(folder, tmp_path / "m.gguf", "f32")
    with File.open(tmp_path / "m.gguf") as file:
        assert "output.weight" not in file.tensors
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, "tie_word_embeddings": False}))
    with pytest.raises((ModelError, FileError), match=place):
        convert(folder, tmp_path / "m.gguf", "f32")


@pytest.mark.parametrize("link", [True, False])
def test_a_shard_that_is_not_there(tmp_path, link):
    tokenizer = bytes_tokenizer()
    folder = write(tmp_path / "c", tokenizer)
    tensors = weights(tokenizer.get_vocab_size() + 8)
    shard(folder, tensors, dict.fromkeys(["model.norm.weight", "lm_head.weight"], "b.safetensors"))
    if link:
        (folder / "b.safetensors").symlink_to("nowhere")
    with pytest.raises(
        FileError, match=r"b\.safetensors: is not there, though model\.safetensors\.index\.json"
    ):
        convert(folder, tmp_path / "m.gguf", "f32")


def test_a_tied_output_that_the_index_does_not_name(tmp_path):
    tokenizer = bytes_tokenizer()
    folder = write(tmp_path / "c", tokenizer, tie_word_embeddings=True)
    n_vocab = tokenizer.get_vocab_size() + 8
    shard(folder, weights(n_vocab, tied=True), {})
    write_safetensors(folder / "a.safetensors", weights(n_vocab))
    convert(folder, tmp_path / "m.gguf", "f32")


def test_whole_numbers_written_with_a_point(tmp_path):
    tokenizer = bytes_tokenizer()
    n_vocab = tokenizer.get_vocab_size() + 8
    whole = {key: value for key, value in config(n_vocab).items() if type(value) is int}
    assert len(whole) > 5
    folder = write(tmp_path / "c", tokenizer)
    convert(folder, tmp_path / "a.gguf", "f32")
    values = config(n_vocab) | {key: float(value) for key, value in whole.items()}
    (folder / "config.json").write_text(json.dumps(values))
    convert(folder, tmp_path / "b.gguf", "f32")
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


@pytest.mark.parametrize("value", [16.5, "16", True, float("nan"), float("inf"), -16.0, 0.0, [16]])
def test_numbers_that_are_not_whole(tmp_path, value):
    with pytest.raises(ModelError, match=r"config\.json: hidden_size is .*, expected a whole number from 1"):
        converted(tmp_path, bytes_tokenizer(), hidden_size=value)


@pytest.mark.parametrize("key", ["rms_norm_eps", "rope_theta"])
@pytest.mark.parametrize("value", [10**400, 1e300, 1e-300, 0, -1, float("nan"), True, "1", [1]])
def test_numbers_that_float32_cannot_hold(tmp_path, key, value):
    with pytest.raises(ModelError, match=rf"config\.json: {key} is .*, expected a number above zero"):
        converted(tmp_path, bytes_tokenizer(), **{key: value})


@pytest.mark.parametrize("value", [["llama"], {}, 5, None, True])
def test_a_family_that_is_no_name(tmp_path, value):
    with pytest.raises(UnsupportedError, match=r"config\.json: model_type is .*, supported: llama"):
        converted(tmp_path, bytes_tokenizer(), model_type=value)


def test_ids_of_vocab_json_written_with_a_point(tmp_path):
    tokenizer = bytes_tokenizer()
    model = json.loads(tokenizer.to_str())["model"]
    files = {
        "vocab.json": json.dumps({text: float(token) for text, token in model["vocab"].items()}),
        "merges.txt": "\n".join(map(" ".join, model["merges"])),
        "tokenizer.json": None,
        "added_tokens.json": json.dumps({"<|eot|>": float(tokenizer.token_to_id("<|eot|>"))}),
    }
    path = converted(tmp_path, tokenizer, files=files)
    assert differences(path, tokenizer, TEXTS) == []


def test_a_merge_that_tokenizer_json_lacks(tmp_path):
    tokenizer = bytes_tokenizer()
    values = json.loads(tokenizer.to_str())
    values["model"]["merges"][3] = ["x"]
    with pytest.raises(FormatError, match=r"tokenizer\.json: "):
        converted(tmp_path, tokenizer, files={"tokenizer.json": json.dumps(values)})


def test_the_unknown_token_of_a_vocabulary_without_all_bytes(tmp_path):
    tokenizer = bytes_tokenizer()
    values = json.loads(tokenizer.to_str())
    model = values["model"]
    model["unk_token"] = "the"
    model["vocab"] = {("\u0100x" if text == "\u0101" else text): i for text, i in model["vocab"].items()}
    with pytest.raises(UnsupportedError, match="unk_token stands for the byte 0x01"):
        converted(tmp_path, tokenizer, files={"tokenizer.json": json.dumps(values)})


def test_texts_like_placeholders(tmp_path):
    """Rows of the embedding without a token have texts, too."""
    n_tokens = bytes_tokenizer().get_vocab_size()
    tokenizer = bytes_tokenizer(added=[f"[PAD{n_tokens + 2}]"])
    path = converted(tmp_path, tokenizer)
    assert clarion.Tokenizer.from_gguf(path).vocab_size == n_tokens + 1 + 8
    assert differences(path, tokenizer, [f"a[PAD{n_tokens + 2}]"]) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"GGUF\x03", "is a GGUF file already: clarion quantize"), (b"{}", "a JSON text, not a checkpoint")],
)
def test_a_file_in_the_place_of_a_folder(tmp_path, monkeypatch, content, message):
    """Two names with a slash could be a repository, too."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "a.gguf").write_bytes(content)
    with pytest.raises(FileError, match=message):
        convert("models/a.gguf", tmp_path / "m.gguf")
