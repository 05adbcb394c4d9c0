"""Converted checkpoints give the logits of transformers and the texts of llama.cpp."""

import json

import gguf
import numpy as np
import pytest

import clarion
from clarion.convert import convert, merge, split
from clarion.gguf import File
from tests.convert.files import (
    GOLDENS,
    NAMES,
    WRITTEN,
    expected,
    nmse,
    unpack,
    without_window,
    write_as,
)

GREEDY = json.loads((GOLDENS / "greedy.json").read_text())
# How far a token leads where two engines have to agree on it. llama.cpp rounds activations like the weights,
# which moves logits of these models by as much as a tenth.
LEAST_MARGIN = 0.005
LEAST_ROUNDED_MARGIN = 0.15


@pytest.fixture(scope="module", params=NAMES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def checkpoint(name, tmp_path_factory):
    return unpack(name, tmp_path_factory.mktemp(name))


@pytest.mark.parametrize(("type", "bound"), [("f32", 1e-11), (None, 1e-11), ("q8_0", 2e-3)])
def test_logits_are_those_of_transformers(name, checkpoint, tmp_path, type, bound):
    ids, wanted = expected(name)
    if (name, type) == ("bitnet", None):
        bound = 1e-6  # its matrices' one scale is rounded to float16
    (path,) = convert(checkpoint, tmp_path / "model.gguf", type)
    with clarion.load(path, activations="exact", threads=1) as model:
        assert nmse(model.logits(ids), wanted) < bound


def test_every_option_of_the_checkpoint_changes_the_logits(name, checkpoint, tmp_path):
    """The goldens would not notice a scaling that does nothing."""
    ids, wanted = expected(name)
    path = checkpoint / "config.json"
    before = path.read_text()
    config = json.loads(before)
    rope = config["rope_parameters"]
    changed = [{**config, "rope_parameters": {**rope, "rope_theta": rope["rope_theta"] * 2}}]
    if rope["rope_type"] != "default":
        changed.append({**config, "rope_parameters": {**rope, "rope_type": "default"}})
    if config.get("sliding_window"):
        changed.append({**config, "sliding_window": None})
    try:
        for values in changed:
            path.write_text(json.dumps(values))
            (out,) = convert(checkpoint, tmp_path / "model.gguf", "f32")
            with clarion.load(out, activations="exact", threads=1) as model:
                assert nmse(model.logits(ids), wanted) > 1e-6
    finally:
        path.write_text(before)


@pytest.mark.parametrize("kind", WRITTEN)
def test_text_is_that_of_llama_cpp(name, kind, tmp_path):
    golden = GREEDY[name]
    wanted = golden["texts"][kind]
    path = write_as(kind, without_window(unpack(name, tmp_path / "checkpoint")), tmp_path / "model.gguf")
    with clarion.load(path, threads=1, activations="exact" if kind == "f32" else "high") as model:
        assert model.tokenize("The cat's hat") == golden["prompt"]
        special = model.tokenize("<|end|><tool> x", add_special=False, parse_special=True)
        assert special == golden["special"]
        found = model.generate(
            golden["prompt"], max_tokens=len(wanted["tokens"]), greedy=True, ignore_eos=True
        )
    least = LEAST_MARGIN if kind in ("f32", "f16") else LEAST_ROUNDED_MARGIN
    clear = next((i for i, margin in enumerate(wanted["margins"]) if margin < least), None)
    assert list(found.tokens[:clear]) == wanted["tokens"][:clear]
    assert kind not in ("f32", "f16") or clear is None


def test_enough_of_the_texts_is_clear():
    clear = 0
    for golden in GREEDY.values():
        for text in golden["texts"].values():
            margins = [margin < LEAST_ROUNDED_MARGIN for margin in text["margins"]]
            clear += margins.index(True) if True in margins else len(margins)
    assert clear > 250


def test_parts_hold_the_same_as_the_whole(checkpoint, tmp_path):
    (whole,) = convert(checkpoint, tmp_path / "whole.gguf")
    direct = convert(checkpoint, tmp_path / "direct.gguf", max_bytes=20_000)
    later = split(whole, tmp_path / "later", 20_000)
    assert len(direct) == len(later) > 1
    assert [path.read_bytes() for path in direct] == [path.read_bytes() for path in later]
    assert later[0].name == f"later-00001-of-{len(later):05d}.gguf"
    (merged,) = merge(later[-1], tmp_path / "merged.gguf")
    assert merged.read_bytes() == whole.read_bytes()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_metadata_and_tokenizer(checkpoint, tmp_path):
    (path,) = convert(checkpoint, tmp_path / "model.gguf", "q8_0")
    with File.open(path) as file:
        assert file.metadata.int("general.file_type") == gguf.LlamaFileType.MOSTLY_Q8_0
        assert file.tensors["token_embd.weight"].format.name == "Q8_0"
        assert file.tensors["output_norm.weight"].format.name == "F32"
        n_vocab = file.tensors["token_embd.weight"].shape[0]
        assert len(file.metadata.strs("tokenizer.ggml.tokens")) == n_vocab


def test_chat_template_is_kept(tmp_path):
    checkpoint = unpack("qwen2", tmp_path / "checkpoint")
    (path,) = convert(checkpoint, tmp_path / "model.gguf")
    with clarion.load(path) as model:
        assert model.apply_chat_template([{"role": "user", "content": "Hi"}]) == "Hi"


def test_rows_that_are_no_blocks_are_f16(tmp_path):
    """The projection down has rows of 48."""
    checkpoint = unpack("qwen2", tmp_path / "checkpoint")
    (path,) = convert(checkpoint, tmp_path / "model.gguf", "q8_0")
    with File.open(path) as file:
        assert file.tensors["blk.0.ffn_down.weight"].format.name == "F16"
        assert file.tensors["blk.0.ffn_up.weight"].format.name == "Q8_0"
        values = file.tensors["blk.0.ffn_down.weight"].data.view(np.float16)
        assert np.isfinite(values).all()
