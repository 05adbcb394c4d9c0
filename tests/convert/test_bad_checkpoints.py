"""Checkpoints that are broken, unsupported or malicious: one clear error, and never half a file."""

import collections
import contextlib
import json
import os
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clarion.cli.main import execute
from clarion.convert import convert, pickles, safetensors, sentencepiece
from clarion.errors import ClarionError, FileError, FormatError, ModelError, ParameterError, UnsupportedError
from tests.convert.files import (
    Call,
    pickled,
    read_safetensors,
    safetensors_bytes,
    unpack,
    write_archive,
    write_safetensors,
)


@pytest.fixture
def checkpoint(tmp_path):
    return unpack("qwen2", tmp_path / "checkpoint")


@pytest.fixture
def refused(checkpoint, tmp_path):
    """Checks that the checkpoint is refused and nothing is left, and returns the message."""

    def check(error, folder=checkpoint, **options):
        out = tmp_path / "out"
        out.mkdir(exist_ok=True)
        with pytest.raises(error) as caught:
            convert(folder, out / "model.gguf", **options)
        assert list(out.iterdir()) == []
        return str(caught.value)

    return check


def change(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def change_tensors(folder, edit):
    tensors = read_safetensors(folder / "model.safetensors")
    edit(tensors)
    write_safetensors(folder / "model.safetensors", tensors)


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"model_type": "gpt_neox"}, "gpt_neox"),
        ({"model_type": None}, "model_type"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4}}, "longrope"),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4}}, "llama3"),
        ({"rope_parameters": {"rope_type": False, "rope_theta": 1e4}}, "rope_type is False"),
        ({"rope_parameters": {"rope_type": "", "rope_theta": 1e4}}, "rope_type is ''"),
        ({"quantization_config": {"quant_method": "hqq"}}, "hqq"),
        (
            {"compression_config": {"quant_method": "gptq", "bits": 4}},
            "compression_config: quant_method is 'gptq'",
        ),
        ({"compression_config": {"format": "pack-quantized"}}, "compression_config: quant_method is None"),
        (
            {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1, "layer_types": None},
            "layer_types",
        ),
    ],
)
def test_what_is_not_implemented_is_named(checkpoint, refused, values, word):
    change(checkpoint, **values)
    assert word in refused(UnsupportedError)


@pytest.mark.parametrize(
    "values",
    [
        {"hidden_size": 0},
        {"num_attention_heads": "four"},
        {"num_hidden_layers": True},
        {"rms_norm_eps": float("nan")},
        {"num_key_value_heads": 3},
        {"head_dim": 7},
        {"rope_parameters": []},
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4}},
    ],
)
def test_hyperparameters_out_of_range(checkpoint, refused, values):
    change(checkpoint, **values)
    refused(ModelError)


def test_a_missing_tensor(checkpoint, refused):
    change_tensors(checkpoint, lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))
    assert "'model.layers.1.mlp.up_proj.weight' is missing" in refused(ModelError)


def test_a_missing_query_has_one_name(checkpoint, refused):
    """Files may hold query, key and value in one tensor, of which these checkpoints know nothing."""
    name = "model.layers.0.self_attn.q_proj.weight"
    change_tensors(checkpoint, lambda tensors: tensors.pop(name))
    assert refused(ModelError) == f"{checkpoint}: tensor '{name}' is missing"


def test_a_bias_that_one_layer_lacks(checkpoint, refused):
    change_tensors(checkpoint, lambda tensors: tensors.pop("model.layers.1.self_attn.k_proj.bias"))
    assert "tensor 'blk.1.attn_k.bias' is missing, which layer 0 has" in refused(ModelError)


def test_a_scaling_of_llama_without_its_context(tmp_path, refused):
    """The model's own context is another one, and a default would compute something else."""
    folder = unpack("llama3", tmp_path / "other")
    rope = json.loads((folder / "config.json").read_text())["rope_parameters"]
    original = rope.pop("original_max_position_embeddings")
    change(folder, rope_parameters=rope)
    assert "rope_parameters: original_max_position_embeddings is None, expected" in refused(
        ModelError, folder
    )
    change(folder, original_max_position_embeddings=original)
    convert(folder, tmp_path / "out.gguf")


def test_an_unknown_tensor(checkpoint, refused):
    change_tensors(checkpoint, lambda t: t.update({"model.layers.0.extra": np.ones(3, np.float32)}))
    assert "'model.layers.0.extra'" in refused(UnsupportedError)


def test_a_tensor_of_another_shape(checkpoint, refused):
    name = "model.layers.0.self_attn.q_proj.weight"
    change_tensors(checkpoint, lambda tensors: tensors.update({name: tensors[name][:-1]}))
    assert "has shape [31, 32], expected [32, 32]" in refused(ModelError)


def test_experts_of_several_shapes(tmp_path, refused):
    folder = unpack("qwen3moe", tmp_path / "other")
    name = "model.layers.1.mlp.experts.2.up_proj.weight"
    change_tensors(folder, lambda tensors: tensors.update({name: tensors[name][:-1]}))
    message = refused(ModelError, folder)
    assert f"{folder}: model.safetensors: tensor '{name}' has shape [15, 32]" in message
    assert "expected that of the first expert, [16, 32]" in message


def test_an_expert_that_is_missing(tmp_path, refused):
    folder = unpack("qwen3moe", tmp_path / "other")
    name = "model.layers.0.mlp.experts.3.down_proj.weight"
    change_tensors(folder, lambda tensors: tensors.pop(name))
    assert f"tensor '{name}' is missing" in refused(ModelError, folder)


def test_an_output_that_is_missing(checkpoint, refused):
    change(checkpoint, tie_word_embeddings=False)
    assert f"{checkpoint}: tensor 'lm_head.weight' is missing" in refused(ModelError)


def test_figures_that_no_file_may_have(checkpoint, refused):
    """What loading the file would refuse is refused before it is written."""
    change(checkpoint, num_key_value_heads=3)
    assert "attention.head_count is 4, expected a multiple of" in refused(ModelError)


@pytest.mark.parametrize("bits", [0x7FC0, 0x7F80, 0xFF80])
def test_weights_that_are_no_numbers(checkpoint, refused, bits):
    def edit(tensors):
        tensors["model.layers.1.mlp.down_proj.weight"][5, 7] = bits

    change_tensors(checkpoint, edit)
    assert "'model.layers.1.mlp.down_proj.weight' holds" in (message := refused(ModelError))
    assert "[5, 7]" in message
    refused(ModelError, max_bytes=9_000)


@pytest.mark.parametrize(
    ("suffix", "value"), [("", 0x7F), ("", 0xFF), ("_scale_inv", np.nan), ("_scale_inv", np.inf)]
)
def test_float8_weights_that_are_no_numbers(tmp_path, refused, suffix, value):
    folder = unpack("qwen3-fp8", tmp_path / "other")
    name = "model.layers.1.mlp.down_proj.weight"

    def edit(tensors):
        tensors[name + suffix][1, 1] = value

    change_tensors(folder, edit)
    assert f"'{name}' holds" in refused(ModelError, folder)


def test_truncated_weights(checkpoint, refused):
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    assert "expected" in refused(FormatError)


def test_weights_that_are_truncated_while_they_are_read(checkpoint, refused):
    path = checkpoint / "model.safetensors"

    def cut(done, total):
        os.truncate(path, 10_000)

    assert "before the file's end" in refused(FileError, progress=cut)


@pytest.mark.parametrize("max_bytes", [None, 9_000])
def test_ctrl_c(refused, max_bytes):
    def interrupt(done, total):
        if done > total // 2:
            raise KeyboardInterrupt

    refused(KeyboardInterrupt, progress=interrupt, max_bytes=max_bytes)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
@pytest.mark.parametrize("max_bytes", [None, 9_000])
def test_disk_full(checkpoint, refused, monkeypatch, max_bytes):
    """The file is real; what is written after the first 20 kB goes to a device without space."""
    import builtins

    real = builtins.open
    opened = []

    def full_open(path, mode="r", *args, **kwargs):
        file = real(path, mode, *args, **kwargs)
        if mode == "xb":
            opened.append(path)
            if max_bytes is None or len(opened) == 2:
                os.dup2(os.open("/dev/full", os.O_WRONLY), file.fileno())
        return file

    monkeypatch.setattr("builtins.open", full_open)
    assert "No space left" in refused(FileError, max_bytes=max_bytes)
    assert opened


def test_an_existing_file_survives_an_error(checkpoint, tmp_path):
    out = tmp_path / "model.gguf"
    out.write_bytes(b"precious")
    change(checkpoint, hidden_act="gelu")
    with pytest.raises(UnsupportedError):
        convert(checkpoint, out)
    assert out.read_bytes() == b"precious"


# ---- shards --------------------------------------------------------------------------------------------


@pytest.fixture
def sharded(tmp_path):
    return unpack("llama3", tmp_path / "sharded")


def change_index(folder, edit):
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    edit(index["weight_map"])
    path.write_text(json.dumps(index))


def test_a_tensor_missing_from_the_index(sharded, refused):
    change_index(sharded, lambda places: places.pop("model.norm.weight"))
    assert "'model.norm.weight' is missing from model.safetensors.index.json" in refused(ModelError, sharded)


def test_a_tensor_missing_from_its_shard(sharded, refused):
    change_index(sharded, lambda places: places.update({"lm_head.bias": places["lm_head.weight"]}))
    assert "'lm_head.bias' is missing" in refused(ModelError, sharded)


def test_a_missing_shard(sharded, refused):
    shard = max(sharded.glob("*.safetensors"))
    shard.unlink()
    assert shard.name in refused(FileError, sharded)


@pytest.mark.parametrize("file", ["../checkpoint/model.safetensors", "/etc/passwd", "", ".."])
def test_an_index_that_leaves_the_folder(sharded, refused, file):
    change_index(sharded, lambda places: places.update({"model.norm.weight": file}))
    assert "expected a file beside it" in refused(FormatError, sharded)


@pytest.mark.parametrize("n_bytes", [0, 7, 100, -1])
def test_a_truncated_shard(sharded, refused, n_bytes):
    shard = max(sharded.glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:n_bytes])
    assert shard.name in refused(FormatError, sharded)


# ---- safetensors ---------------------------------------------------------------------------------------

ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff" * 8,
        struct.pack("<Q", 2**63) + b"{}",
        safetensors_bytes(b"{"),
        safetensors_bytes(b"[" * 100_000),
        safetensors_bytes(b"\xff\xfe"),
        safetensors_bytes([]),
        safetensors_bytes({"a": 1}),
        safetensors_bytes(b'{"a": %b, "a": %b}' % ((json.dumps(ENTRY).encode(),) * 2), bytes(8)),
        safetensors_bytes({"a": ENTRY}, bytes(7)),
        safetensors_bytes({"a": ENTRY}, bytes(9)),
        safetensors_bytes({"a": ENTRY, "b": ENTRY}, bytes(8)),
        safetensors_bytes({"a": {**ENTRY, "shape": [3]}}, bytes(8)),
        safetensors_bytes({"a": {**ENTRY, "shape": [-2]}}, bytes(8)),
        safetensors_bytes({"a": {**ENTRY, "shape": [2**62, 2**62]}}, bytes(8)),
        safetensors_bytes({"a": {**ENTRY, "shape": [2**64, 0]}}, bytes(8)),
        safetensors_bytes({"a": {**ENTRY, "shape": [True]}}, bytes(8)),
        safetensors_bytes({"a": {**ENTRY, "data_offsets": [8, 0]}}, bytes(8)),
        safetensors_bytes({"a": {**ENTRY, "data_offsets": [8, 16]}}, bytes(16)),
        safetensors_bytes({"a": {**ENTRY, "data_offsets": "08"}}, bytes(8)),
    ],
)
def test_headers_that_break_the_rules(tmp_path, raw):
    path = tmp_path / "model.safetensors"
    path.write_bytes(raw)
    with pytest.raises(FormatError, match=r"model\.safetensors"):
        safetensors.read(path)


def test_an_unknown_element_type(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors_bytes({"a": {**ENTRY, "dtype": "F4"}}, bytes(8)))
    with pytest.raises(UnsupportedError, match="'F4'"):
        safetensors.read(path)


@given(st.data())
def test_no_header_makes_another_error(tmp_path_factory, data):
    """Bytes of a good file are changed: it is read, or refused."""
    good = safetensors_bytes({"a": ENTRY, "b": {**ENTRY, "data_offsets": [8, 16]}}, bytes(16))
    raw = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "fuzzed.safetensors"
    path.write_bytes(raw)
    try:
        for tensor in safetensors.read(path).values():
            assert tensor.offset + tensor.n_bytes <= len(raw)
    except (FormatError, UnsupportedError):
        pass


# ---- pickles -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [os.system, eval, exec, getattr, __import__])
def test_a_pickle_that_wants_code_is_refused(tmp_path, function):
    path, trace = tmp_path / "pytorch_model.bin", tmp_path / "trace"
    write_archive(path, pickled({"a": Call(function, f"touch {trace}")}))
    with pytest.raises(UnsupportedError, match="which is refused"):
        pickles.read(path)
    assert not trace.exists()


@pytest.mark.parametrize(
    "pickle",
    [
        b"(S'touch TRACE'\nios\nsystem\n.",
        b"(cos\nsystem\nS'touch TRACE'\no.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0btouch TRACE\x85R.",
        b"\x80\x04\x8c\x0bcollections\x8c\x1dOrderedDict.fromkeys.__self__\x93.",
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2.__globals__\n.",
        b"\x80\x02ctorch\nload\n(S'TRACE'\ntR.",
    ],
)
def test_no_opcode_reaches_code(tmp_path, monkeypatch, pickle):
    monkeypatch.chdir(tmp_path)
    write_archive(tmp_path / "pytorch_model.bin", pickle)
    with pytest.raises(UnsupportedError, match="which is refused"):
        pickles.read(tmp_path / "pytorch_model.bin")
    assert not (tmp_path / "TRACE").exists()


def test_what_a_pickle_sets_is_forgotten(tmp_path):
    """It may set attributes of the functions it is given, those with meaning among them."""
    path = tmp_path / "pytorch_model.bin"
    archive = unpack("llama-pickled", tmp_path / "good") / "pytorch_model.bin"
    wanted = pickles.read(archive)
    for name in (b"_rebuild_tensor_v2", b"_rebuild_parameter"):
        write_archive(path, b"\x80\x02ctorch._utils\n" + name + b"\n(N}S'__defaults__'\n(I1\ntstb.")
        with pytest.raises(FormatError, match="expected names and tensors"):
            pickles.read(path)
        assert pickles.read(archive) == wanted


@pytest.mark.parametrize(
    "value",
    [b"", b"\x80\x02", pickled([1]), pickled({"a": 1}), pickled({1: 2}), b"\x80\x02cnot a module\n."],
)
def test_pickles_that_hold_no_tensors(tmp_path, value):
    path = tmp_path / "pytorch_model.bin"
    write_archive(path, value)
    with pytest.raises((FormatError, UnsupportedError), match=r"pytorch_model\.bin"):
        pickles.read(path)


@pytest.mark.parametrize("n_bytes", [0, 1000, -1])
def test_a_truncated_archive(tmp_path, refused, n_bytes):
    folder = unpack("llama-pickled", tmp_path / "other")
    path = folder / "pytorch_model.bin"
    path.write_bytes(path.read_bytes()[:n_bytes])
    assert "pytorch_model.bin: not a zip archive" in refused(FormatError, folder)


def test_files_that_are_no_archives(tmp_path):
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(pickled({"a": 1}))
    with pytest.raises(FormatError, match="not a zip archive"):
        pickles.read(path)


@given(st.binary(max_size=60))
def test_no_pickle_makes_another_error(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "fuzzed.bin"
    write_archive(path, b"\x80\x02" + data)
    with contextlib.suppress(FormatError, UnsupportedError):
        assert pickles.read(path) == {}


def test_an_ordered_dictionary_without_tensors(tmp_path):
    path = tmp_path / "pytorch_model.bin"
    write_archive(path, pickled(collections.OrderedDict()))
    assert pickles.read(path) == {}


# ---- tokenizers ----------------------------------------------------------------------------------------


@given(st.binary(max_size=200))
def test_no_sentencepiece_model_makes_another_error(raw):
    with contextlib.suppress(FormatError, UnsupportedError):
        sentencepiece.parse(raw, "tokenizer.model")


def test_no_tokenizer(checkpoint, refused):
    (checkpoint / "vocab.json").unlink()
    assert "no tokenizer" in refused(FileError)


def test_more_tokens_than_rows(checkpoint, refused):
    path = checkpoint / "vocab.json"
    vocabulary = json.loads(path.read_text())
    path.write_text(json.dumps({**vocabulary, "one too many": 304}))
    assert "305 tokens, the embedding 304 rows" in refused(ModelError)


@pytest.mark.parametrize(
    "edit",
    [
        lambda t: t["model"].update(type="Unigram"),
        lambda t: t.update(normalizer={"type": "Lowercase"}),
        lambda t: t.update(pre_tokenizer={"type": "Whitespace"}),
        lambda t: t["pre_tokenizer"]["pretokenizers"][0]["pattern"].update(Regex="[a-m]+"),
        lambda t: t["model"].update(vocab={}),
        lambda t: t["model"].update(merges=[["a"]]),
        lambda t: t.update(added_tokens=[{"id": "x"}]),
    ],
)
def test_tokenizers_that_files_cannot_express(tmp_path, refused, edit):
    folder = unpack("qwen2-yarn", tmp_path / "other")
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    edit(tokenizer)
    path.write_text(json.dumps(tokenizer))
    assert "tokenizer.json" in refused((UnsupportedError, FormatError), folder) or "added token" in refused(
        FormatError, folder
    )


# ---- sources and options -------------------------------------------------------------------------------


def test_sources_that_are_not_there(tmp_path):
    with pytest.raises(FileError, match="no such folder"):
        convert(tmp_path / "nothing", tmp_path / "out.gguf")
    with pytest.raises(FileError, match=r"config\.json is missing"):
        convert(tmp_path, tmp_path / "out.gguf")


def test_an_unknown_type(checkpoint, refused):
    assert "'q4_0'" in refused(ParameterError, type="q4_0")
    assert "clarion quantize makes other formats" in refused(ParameterError, type="q4_k_m")


def test_an_unknown_type_is_found_before_anything_is_downloaded(tmp_path):
    with pytest.raises(ParameterError, match="type is 'q4_k_m'"):
        convert("no/such", tmp_path / "out.gguf", "q4_k_m")  # type: ignore[arg-type]


@pytest.mark.parametrize("size", ["0", "2", "-1G", "1,5G", "2T", "G"])
def test_sizes(checkpoint, tmp_path, size, capsys):
    out = tmp_path / "o.gguf"
    assert execute(["convert", str(checkpoint), str(out), "--split-max-size", size]) == 2
    assert not out.exists()
    assert "size is" in capsys.readouterr().err


def test_the_command_line(checkpoint, tmp_path, capsys):
    out = tmp_path / "o.gguf"
    assert execute(["convert", str(checkpoint), str(out), "--type", "q8_0"]) == 0
    assert execute(["split", str(out), str(tmp_path / "p.gguf"), "--max-size", "20K"]) == 0
    paths = capsys.readouterr().out.split()
    assert paths[0] == str(out)
    assert execute(["merge", paths[1], str(tmp_path / "m.gguf")]) == 0
    assert (tmp_path / "m.gguf").read_bytes() == out.read_bytes()
    assert execute(["merge", str(out), str(out)]) == 2


def test_errors_are_one_line(checkpoint, tmp_path, capsys):
    change(checkpoint, model_type="a\nb")
    assert execute(["convert", str(checkpoint), str(tmp_path / "o.gguf")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert issubclass(UnsupportedError, ClarionError)
