"""Whole files: what is kept, what is refused, and that nothing half-written is left."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import clarion
from clarion.cli.main import execute
from clarion.convert import split
from clarion.errors import FileError, ModelError, ParameterError
from clarion.evaluate.imatrix import Imatrix, Statistics
from clarion.gguf import File, Writer
from clarion.quantize import RECIPES, dequantize_tensor, quantize, quantize_tensor
from clarion.quantize.budget import quantize_to_budget
from tests.quantize.files import GOLDENS, MODELS, write_model

BUILT_IN = Path(clarion.__file__).parent / "data" / "tale-q8_0.gguf"


@pytest.fixture
def source(tmp_path):
    return write_model("mixtral", tmp_path / "source.gguf")


def tensors(path):
    with File.open(path) as file:
        return {name: (t.format.name, t.shape, bytes(t.data)) for name, t in file.tensors.items()}


def statistics(file, seed=0):
    rng = np.random.default_rng(seed)
    found = {}
    for name, tensor in file.tensors.items():
        if name.startswith("blk.") and len(tensor.shape) > 1 and "gate_inp" not in name:
            experts = tensor.shape[0] if len(tensor.shape) == 3 else 1
            sums = rng.lognormal(0, 1, (experts, tensor.shape[-1])) * 8
            found[name] = Statistics(sums, np.full(experts, 8.0))
    return found


def test_metadata_and_what_is_not_quantized_are_kept(source, tmp_path):
    done = quantize(source, tmp_path / "out.gguf", "q4_k_m")
    assert done.paths == [tmp_path / "out.gguf"]
    before, after = tensors(source), tensors(tmp_path / "out.gguf")
    assert list(before) == list(after)
    for name, (format, shape, data) in before.items():
        assert after[name][1] == shape
        if format == "F32" or "gate_inp" in name:
            assert after[name] == (format, shape, data)
        else:
            assert after[name][0] in ("Q4_K", "Q5_K", "Q6_K", "Q8_0")
    with File.open(source) as old, File.open(tmp_path / "out.gguf") as new:
        kept = new.metadata.exact()
        assert kept.pop("general.file_type") == RECIPES["Q4_K_M"].file_type
        assert kept.pop("general.quantization_version") == 2
        assert kept == old.metadata.exact()


def test_each_expert_has_its_own_importance(source, tmp_path):
    with File.open(source) as file:
        found = Imatrix(statistics(file), ("a text",), 3, 512)
    found.write(tmp_path / "imatrix.gguf")
    done = quantize(source, tmp_path / "out.gguf", "Q2_K_S", imatrix=tmp_path / "imatrix.gguf")
    assert done.notes == []
    name = "blk.3.ffn_up_exps.weight"
    with File.open(source) as old, File.open(tmp_path / "out.gguf") as new:
        assert new.metadata["evaluate.imatrix.entries_count"] == len(found.statistics)
        assert new.metadata["evaluate.imatrix.dataset"] == "a text"
        rows = np.asarray(old.tensors[name].data).view(np.float16).reshape(8, 2, 256)
        data = np.asarray(new.tensors[name].data).reshape(8, 2, -1)
        means = Imatrix.read(tmp_path / "imatrix.gguf").importance(name, 8, 256)
        for expert in range(8):
            assert (quantize_tensor(rows[expert], "Q2_K", means[expert]) == data[expert]).all()


def test_importance_of_another_model_is_refused(source, tmp_path):
    with File.open(source) as file:
        found = statistics(file)
    found["blk.0.attn_q.weight"] = Statistics(np.ones((1, 128)), np.ones(1))
    Imatrix(found, ("a text",), 1, 1).write(tmp_path / "imatrix.gguf")
    with pytest.raises(ModelError, match=r"blk\.0\.attn_q\.weight.*another model"):
        quantize(source, tmp_path / "out.gguf", "Q4_0", imatrix=tmp_path / "imatrix.gguf")
    assert not (tmp_path / "out.gguf").exists()


def test_notes_name_fallbacks_and_what_lacks_importance(tmp_path):
    odd = write_model("odd", tmp_path / "odd.gguf")
    notes = quantize(odd, tmp_path / "out.gguf", "Q4_K_S").notes
    assert "fallback: blk.0.attn_q.weight: 288 columns are no whole blocks of 256: Q4_K → Q5_0" in notes
    llama = write_model("llama-one-kv-head-each", tmp_path / "llama.gguf")
    (note,) = quantize(llama, tmp_path / "out.gguf", "IQ3_XXS").notes
    assert "IQ3_XXS without an importance matrix" in note
    Imatrix({"blk.0.attn_q.weight": Statistics(np.ones((1, 256)), np.ones(1))}, ("a text",), 1, 1).write(
        tmp_path / "i.gguf"
    )
    (note,) = quantize(llama, tmp_path / "out.gguf", "IQ3_XXS", imatrix=tmp_path / "i.gguf").notes
    assert "no importance for 111 of 112 matrices, first blk.0.attn_k.weight" in note


def test_fallbacks_of_a_kind_are_one_line(tmp_path, capsys):
    odd = write_model("odd", tmp_path / "odd.gguf")
    Imatrix({"blk.0.attn_q.weight": Statistics(np.ones((1, 288)), np.ones(1))}, ("a text",), 1, 1).write(
        tmp_path / "i.gguf"
    )
    done = quantize(odd, tmp_path / "out.gguf", "IQ3_XXS", imatrix=tmp_path / "i.gguf")
    fallbacks = [note for note in done.notes if note.startswith("fallback: ")]
    lines = [line for line in done.summary if line.startswith("fallback: ")]
    assert len(fallbacks) > 2 * len(lines) > 0
    counted = [
        int(found[1]) if (found := re.search(r": (\d+) tensors, first ", line)) else 1 for line in lines
    ]
    assert sum(counted) == len(fallbacks)
    assert done.summary[len(lines) :] == done.notes[len(fallbacks) :] != []
    words = [
        "quantize",
        str(odd),
        str(tmp_path / "out.gguf"),
        "IQ3_XXS",
        "--imatrix",
        str(tmp_path / "i.gguf"),
    ]
    assert execute(words) == 0
    assert capsys.readouterr().err == "".join(f"clarion: {line}\n" for line in done.summary)
    assert execute([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["notes"] == done.notes


def test_a_recipe_for_experts_says_what_it_wrote_where_there_are_none(tmp_path, source, capsys):
    dense = write_model("llama-one-kv-head-each", tmp_path / "dense.gguf")
    (note,) = quantize(dense, tmp_path / "out.gguf", "MXFP4_MOE").notes
    assert note == (
        "MXFP4_MOE writes no matrix of this model as MXFP4, but Q8_0, for it is a recipe for experts and "
        "there are none; MXFP4 is for all matrices"
    )
    assert execute(["quantize", str(dense), str(tmp_path / "out.gguf"), "mxfp4_moe"]) == 0
    assert note in capsys.readouterr().err
    assert quantize(source, tmp_path / "out.gguf", "MXFP4_MOE").notes == []
    done = quantize(dense, tmp_path / "out.gguf", "MXFP4")
    assert done.notes == []
    assert done.formats["MXFP4"] == 16 * 7 + 1
    assert tensors(tmp_path / "out.gguf")["blk.3.ffn_up.weight"][0] == "MXFP4"


def test_quantizing_again_needs_to_be_asked_for(tmp_path):
    with pytest.raises(ModelError, match="is Q8_0 already, expected F64, F32, F16, BF16; --allow-requantize"):
        quantize(BUILT_IN, tmp_path / "out.gguf", "Q4_K_M")
    assert os.listdir(tmp_path) == []
    quantize(BUILT_IN, tmp_path / "out.gguf", "Q4_K_M", allow_requantize=True)
    # What is in the format already is copied, and that is not to quantize again.
    quantize(BUILT_IN, tmp_path / "same.gguf", "Q8_0")
    assert tensors(tmp_path / "same.gguf") == tensors(BUILT_IN)


@pytest.mark.parametrize("kind", ["F64", "F32", "F16", "BF16"])
def test_every_kind_of_float_is_read(tmp_path, kind):
    values = np.random.default_rng(0).standard_normal((300, 256)).astype(np.float16).astype(np.float32)
    values = (values.view(np.uint32) & 0xFFFF0000).view(np.float32)  # exact in all four
    stored = {
        "F64": values.astype("<f8"),
        "F32": values,
        "F16": values.astype(np.float16),
        "BF16": (values.view(np.uint32) >> 16).astype(np.uint16),
    }[kind]
    with Writer(tmp_path / "in.gguf", {"general.architecture": "llama", "llama.block_count": 1}) as writer:
        writer.add("blk.0.ffn_up.weight", values.shape, kind, stored)
    quantize(tmp_path / "in.gguf", tmp_path / "out.gguf", "Q5_K_S")
    format, _, data = tensors(tmp_path / "out.gguf")["blk.0.ffn_up.weight"]
    assert format == "Q5_K"
    assert data == quantize_tensor(values, "Q5_K").tobytes()
    for name in ("F32", "F16", "BF16"):
        quantize(tmp_path / "in.gguf", tmp_path / "float.gguf", name)
        format, _, data = tensors(tmp_path / "float.gguf")["blk.0.ffn_up.weight"]
        assert format == name
        assert (dequantize_tensor(np.frombuffer(data, np.uint8), name, 256) == values).all()


def test_parts_are_kept_or_merged(source, tmp_path):
    parts = split(source, tmp_path / "parts.gguf", 40_000)
    assert len(parts) > 2
    (whole,) = quantize(parts[0], tmp_path / "whole.gguf", "Q6_K").paths
    again = quantize(parts[1], tmp_path / "again.gguf", "Q6_K", keep_split=True).paths
    assert [path.name for path in again] == [path.name.replace("parts", "again") for path in parts]
    assert tensors(again[0]) == tensors(whole)
    for old, new in zip(parts, again, strict=True):
        with File.open(old) as a, File.open(new) as b:
            assert {n for n, t in a.tensors.items() if a.parts[t.part] == old} == {
                n for n, t in b.tensors.items() if b.parts[t.part] == new
            }


def spoil(path, name, place, value):
    """Writes a float16 into a tensor of a file."""
    with File.open(path) as file:
        tensor = file.tensors[name]
        at = tensor.offset + 2 * int(np.ravel_multi_index(place, tensor.shape))
    with open(path, "r+b") as raw:
        raw.seek(at)
        raw.write(np.float16(value).tobytes())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_weight_that_is_not_finite_is_named(source, tmp_path, value):
    spoil(source, "blk.2.ffn_down_exps.weight", (5, 1, 9), value)
    (tmp_path / "out").mkdir()
    with pytest.raises(ModelError, match=rf"'blk.2.ffn_down_exps.weight': found {value} at \[5, 1, 9\]"):
        quantize(source, tmp_path / "out" / "model.gguf", "Q4_K_S")
    assert os.listdir(tmp_path / "out") == []


def test_the_source_is_not_written_over(source):
    before = source.read_bytes()
    with pytest.raises(ParameterError, match="is what is read"):
        quantize(source, source, "Q4_0")
    assert source.read_bytes() == before


@pytest.mark.parametrize("keep", [False, True])
def test_disk_full(source, tmp_path, monkeypatch, keep):
    parts = split(source, tmp_path / "parts.gguf", 40_000)
    out = tmp_path / "out"
    out.mkdir()
    (out / "model.gguf").write_bytes(b"as it was")
    monkeypatch.setattr(os, "fsync", _no_space)
    with pytest.raises(FileError, match="No space left"):
        quantize(parts[0], out / "model.gguf", "Q4_0", keep_split=keep)
    assert os.listdir(out) == ["model.gguf"]
    assert (out / "model.gguf").read_bytes() == b"as it was"


def _no_space(descriptor):
    raise OSError(28, "No space left on device")


def test_control_c_leaves_nothing(tmp_path):
    rng = np.random.default_rng(0)
    with Writer(tmp_path / "in.gguf", {"general.architecture": "llama", "llama.block_count": 1}) as writer:
        rows = rng.standard_normal((8192, 2048), np.float32).astype(np.float16)  # many seconds of IQ1_M
        writer.add("blk.0.ffn_up.weight", rows.shape, "F16", rows)
    out = tmp_path / "out"
    out.mkdir()
    command = [sys.executable, "-m", "clarion", "quantize", tmp_path / "in.gguf", out / "o.gguf", "IQ1_M"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    until = time.monotonic() + 60
    while not os.listdir(out) and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=20)[1] == b""
    assert process.returncode == 130
    assert os.listdir(out) == []


def test_memory_is_bounded_by_the_chunk(tmp_path, monkeypatch):
    monkeypatch.setattr("clarion.quantize.model.CHUNK_BYTES", 1 << 20)
    with Writer(tmp_path / "in.gguf", {"general.architecture": "llama", "llama.block_count": 1}) as writer:
        rows = np.zeros((16384, 1024), np.float16)
        writer.add("blk.0.ffn_up.weight", rows.shape, "F16", rows)
    del rows
    tracemalloc.start()
    try:
        quantize(tmp_path / "in.gguf", tmp_path / "out.gguf", "Q4_0")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 6 << 20


def test_the_command(source, tmp_path, capsys):
    out = str(tmp_path / "out.gguf")
    assert execute(["quantize", str(source), out, "q4_0", "--tensor", "ffn_down=q6_k", "-t", "2"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(out)
    assert "bits per weight, before: 16." in printed
    assert tensors(out)["blk.0.ffn_down_exps.weight"][0] == "Q6_K"
    assert execute(["quantize", str(source), out, "Q9_K"]) == 2
    assert "'Q9_K', expected one of" in capsys.readouterr().err
    assert execute(["quantize", str(source), out, "Q4_0", "--tensor", "ffn_down"]) == 2
    assert "PATTERN=TYPE" in capsys.readouterr().err
    assert execute(["quantize", str(tmp_path / "none.gguf"), out, "Q4_0"]) == 2


def test_the_command_s_figures_as_json(source, tmp_path, capsys):
    out = tmp_path / "out.gguf"
    assert execute(["quantize", str(source), str(out), "IQ2_S", "--json"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    found = json.loads(printed.out)
    done = quantize(source, out, "IQ2_S")
    assert found == done.report()
    assert found["files"] == [{"path": str(out), "bytes": out.stat().st_size}]
    assert found["bytes"] == out.stat().st_size
    assert sum(found["formats"].values()) == len(tensors(out))
    assert found["bits_per_weight"] < found["bits_per_weight_before"]
    assert any("without an importance matrix" in note for note in found["notes"])
    parts = split(source, tmp_path / "parts.gguf", 40_000)
    assert execute(["quantize", str(parts[0]), str(tmp_path / "o"), "Q8_0", "--keep-split", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [file["path"] for file in found["files"]] == sorted(map(str, tmp_path.glob("o-0*.gguf")))
    assert sum(file["bytes"] for file in found["files"]) == found["bytes"]


def write_some(budget, source, path):
    if budget:
        quantize_to_budget(BUILT_IN, path, 10**8, allow_requantize=True)
    else:
        quantize(source, path, "Q8_0")


@pytest.mark.parametrize("place", ["no/such/out.gguf", "folder", "source.gguf/out.gguf"])
@pytest.mark.parametrize("budget", [False, True])
def test_what_cannot_be_written_is_found_before_the_work(source, tmp_path, monkeypatch, place, budget):
    def work(*_, **__):
        raise AssertionError("the work began")

    monkeypatch.setattr("clarion.quantize.model.encode_rows", work)
    monkeypatch.setattr("clarion.quantize.budget.own_text", work)
    monkeypatch.setattr("clarion.quantize.budget.collect", work)
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileError, match="cannot be written: "):
        write_some(budget, source, tmp_path / place)
    with pytest.raises(FileError, match="the output's name is empty"):
        write_some(budget, source, "")


@pytest.mark.parametrize("budget", [False, True])
def test_a_disk_without_room_is_found_before_the_work(source, tmp_path, monkeypatch, budget):
    monkeypatch.setattr("clarion.gguf.writable._free_bytes", lambda folder: 50_000)
    with pytest.raises(FileError, match=r"No space left on device: it takes .*, the disk has 50\.0 kB"):
        write_some(budget, source, tmp_path / "out.gguf")
    assert not list(tmp_path.glob("*out*"))


def test_parts_do_not_need_the_name_that_their_numbers_are_put_into(source, tmp_path):
    parts = split(source, tmp_path / "parts.gguf", 40_000)
    (tmp_path / "again").mkdir()
    assert len(quantize(parts[0], tmp_path / "again", "Q8_0", keep_split=True).paths) == len(parts)


LOGITS = json.loads((GOLDENS / "logits.json").read_text())
# Each format in one of them.
MIXED = [
    "Q4_0",
    "Q4_1",
    "Q5_0",
    "Q5_1",
    "Q8_0",
    "Q2_K",
    "Q3_K_M",
    "Q4_K_M",
    "Q5_K_S",
    "IQ1_S",
    "IQ1_M",
    "IQ2_XXS",
    "IQ2_XS",
    "IQ2_M",
    "IQ3_XXS",
    "IQ3_M",
    "IQ4_NL",
    "IQ4_XS",
    "TQ1_0",
    "TQ2_0",
    "NVFP4",
    "Q1_0",
    "Q2_0",
    "F16",
    "BF16",
]


@pytest.mark.sample(5)
@pytest.mark.parametrize("recipe", MIXED)
def test_llama_cpp_computes_the_same_with_our_files(recipe, tmp_path):
    """The token that it finds most likely, after each of a text, wherever it is clearly the first: it rounds
    activations to eight bits, which moves logits by some hundredths."""
    golden = LOGITS["recipes"][recipe]
    quantize(BUILT_IN, tmp_path / "model.gguf", recipe, allow_requantize=True)
    with clarion.load(tmp_path / "model.gguf", context=64) as model:
        found = [
            model.generate(LOGITS["tokens"][: n + 1], max_tokens=1, greedy=True).tokens[0]
            for n in range(len(LOGITS["tokens"]))
        ]
    clear = [margin > 0.3 for margin in golden["margin"]]
    assert sum(clear) > 10
    pairs = zip(clear, found, golden["best"], strict=True)
    assert all(mine == theirs for is_clear, mine, theirs in pairs if is_clear)


def test_every_model_can_be_quantized(tmp_path):
    for name in MODELS:
        if MODELS[name][0][f"{MODELS[name][0]['general.architecture']}.block_count"] < 20:
            source = write_model(name, tmp_path / "in.gguf")
            assert quantize(source, tmp_path / "out.gguf", "Q3_K_M").bits_per_weight[1] < 10
