"""Networks, optimizers and runs; they need PyTorch, which the zoo alone uses (`zoo/requirements.txt`)."""

from __future__ import annotations

import itertools
import os
import signal
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import clarion  # noqa: E402
from clarion.errors import FileError, ParameterError  # noqa: E402
from clarion.gguf import File  # noqa: E402
from tests.zoo.files import SHAPES, model, write_corpus  # noqa: E402
from zoo import corpus, measure  # noqa: E402
from zoo.checkpoint import Run  # noqa: E402
from zoo.export import export  # noqa: E402
from zoo.muon import orthogonal  # noqa: E402
from zoo.network import Network  # noqa: E402
from zoo.start import copy_weights  # noqa: E402
from zoo.ternary import TernaryLinear, ternary  # noqa: E402
from zoo.train import Training  # noqa: E402

FAMILIES = sorted(SHAPES)
torch.set_num_threads(1)  # small products: threads would only wait for each other


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    folder = write_corpus(tmp_path_factory.mktemp("corpus"), 12)
    return corpus.prepare(folder, folder)


def random_network(family: str, seed: int = 0) -> Network:
    """Every parameter random: zeros and ones would hide much."""
    torch.manual_seed(seed)
    network = Network(SHAPES[family], 32)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:
                parameter.normal_(1.0, 0.2)
            else:
                parameter.normal_(0.0, 1.2 / parameter.shape[-1] ** 0.5)
        network.token_embd.weight.normal_(0.0, 1.0)
    return network


@pytest.mark.parametrize("family", FAMILIES)
def test_shapes_count_their_parameters(family):
    counted = sum(parameter.numel() for parameter in random_network(family).parameters())
    assert counted == SHAPES[family].n_parameters
    assert (SHAPES[family].n_active < counted) == (family == "qwen3moe")


@pytest.mark.parametrize(("family", "format"), [("llama", "F16"), ("qwen3moe", "F16"), ("llama", "Q8_0")])
def test_clarion_computes_what_was_trained(family, format, tmp_path):
    network = random_network(family)
    export(model(family), network.weights(), tmp_path / "model.gguf", format)
    copy_weights(network, tmp_path / "model.gguf")  # as rounded in the file
    ids = torch.arange(7, 4007, 125)[None]
    with torch.no_grad():
        wanted = network(ids)[0].numpy()
    with clarion.load(tmp_path / "model.gguf", activations="exact", kv="f32", threads=1) as loaded:
        found = loaded.logits(ids[0].tolist())
    assert ((found - wanted) ** 2).mean() <= 1e-9 * wanted.var()


@pytest.mark.parametrize("format", ["TQ1_0", "TQ2_0"])
def test_ternary_files_hold_the_weights_of_the_training_bit_for_bit(format, tmp_path):
    network = random_network("bitnet")
    path = tmp_path / "model.gguf"
    export(model("bitnet"), network.weights(), path, format)
    copied = Network(SHAPES["bitnet"], 32)
    copy_weights(copied, path)
    with File.open(path) as file:
        for name, weight in network.weights().items():
            stored = file.tensors[name.replace("attention.", "").replace("feed_forward.", "")]
            if stored.format.name == format:
                np.testing.assert_array_equal(copied.get_parameter(name).detach().numpy(), weight)
    # Activations of 8 bits for a whole token are all that Clarion does not repeat.
    ids = torch.arange(7, 4007, 125)[None]
    with torch.no_grad():
        wanted = network(ids)[0].numpy()
    with clarion.load(path, threads=1) as loaded:
        found = loaded.logits(ids[0].tolist())
    assert ((found - wanted) ** 2).mean() <= 3e-3 * wanted.var()


def test_what_is_not_ternary_is_not_written_as_such(tmp_path):
    weights = {name: p.detach().numpy() for name, p in random_network("bitnet").named_parameters()}
    with pytest.raises(ParameterError, match="holds other values than -s, 0 and s"):
        export(model("bitnet"), weights, tmp_path / "model.gguf")
    assert not list(tmp_path.iterdir())
    with pytest.raises(ParameterError, match="format is 'Q4_K', expected TQ2_0 or TQ1_0"):
        export(model("bitnet"), weights, tmp_path / "model.gguf", "q4_k")


def test_ternary_scales_are_those_of_float16():
    for size in (1.0, 1e-3, 0.0):
        weight = torch.randn(64, 256, generator=torch.Generator().manual_seed(2)) * size
        trits, scale = ternary(weight)
        assert scale == scale.half().float() > 0
        assert set(trits.unique().tolist()) <= {-1.0, 0.0, 1.0}
        assert size == 0 or abs(scale / weight.abs().mean() - 1) < 2**-10


def test_gradients_pass_through_the_rounding():
    torch.manual_seed(0)
    layer = TernaryLinear(256, 16)
    x = torch.randn(4, 256, requires_grad=True)
    layer(x).square().sum().backward()
    numbers = (x * 127 / x.abs().amax(-1, keepdim=True)).round() * x.abs().amax(-1, keepdim=True) / 127
    trits, scale = ternary(layer.weight.detach())
    rounded = numbers.detach().requires_grad_()
    weight = (trits * scale).requires_grad_()
    torch.nn.functional.linear(rounded, weight).square().sum().backward()
    torch.testing.assert_close(x.grad, rounded.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(layer.weight.grad, weight.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(64, 64), (96, 32), (5, 32, 48)])
def test_orthogonal_makes_all_singular_values_alike(shape):
    g = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    values = torch.linalg.svdvals(orthogonal(g))
    assert values.min() > 0.3
    assert values.max() < 1.3
    u, _, v = torch.linalg.svd(g, full_matrices=False)
    cosine = (orthogonal(g) * (u @ v)).sum() / (orthogonal(g).norm() * (u @ v).norm())
    assert cosine > 0.95


def test_experts_compute_what_a_loop_over_tokens_does():
    layer = random_network("qwen3moe").blk[0].feed_forward
    x = torch.randn(2, 5, 256)
    with torch.no_grad():
        found = layer(x)
        for row, wanted_row in zip(x.flatten(0, 1), found.flatten(0, 1), strict=True):
            p = (layer.ffn_gate_inp @ row).softmax(0)
            best = p.topk(2).indices
            wanted = sum(
                p[e]
                / p[best].sum()
                * (
                    layer.ffn_down_exps[e]
                    @ (torch.nn.functional.silu(layer.ffn_gate_exps[e] @ row) * (layer.ffn_up_exps[e] @ row))
                )
                for e in best
            )
            torch.testing.assert_close(wanted_row, wanted, rtol=1e-4, atol=1e-5)
    assert layer.counts.sum() == 2 * 5 * 2


def test_balance_is_least_where_experts_are_used_alike():
    layer = random_network("qwen3moe").blk[0].feed_forward
    x = torch.randn(64, 256)
    layer(x)
    usual = layer.balance.item()
    with torch.no_grad():
        layer.ffn_gate_inp.zero_()
        layer.ffn_gate_inp[0].add_(x.mean(0) * 100)
    layer(x.mean(0).expand(64, -1))
    assert 1.0 <= usual < 2.0 < layer.balance.item()


@pytest.mark.parametrize("family", FAMILIES)
def test_training_learns(family, tokens, tmp_path):
    training = Training(Run(tmp_path), model(family, steps=12, warmup=1, table_rate=0.01), tokens, "cpu")
    before = training.loss_on(training.held_out)
    assert training.train(lambda line: None)
    assert training.loss_on(training.held_out) < before - 0.2
    entries = training.run.entries()
    assert [entry["step"] for entry in entries] == [10, 12]
    assert entries[-1]["tokens"] == 12 * 128
    assert entries[-1]["held_out"] == pytest.approx(training.loss_on(training.held_out), abs=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_that_was_stopped_ends_with_the_same_bits(family, tokens, tmp_path):
    whole = Training(Run(tmp_path / "whole"), model(family), tokens, "cpu")
    whole.train(lambda line: None)
    for steps in (2, 3, 1):
        part = Training(Run(tmp_path / "parts"), model(family), tokens, "cpu")
        stopped = itertools.count(1)
        step = part._step

        def stopping(step=step, stopped=stopped, steps=steps):
            if next(stopped) == steps:
                os.kill(os.getpid(), signal.SIGTERM)
            return step()

        part._step = stopping
        part.train(lambda line: None)
    assert part.progress.step == 6
    for name, value in whole.network.state_dict().items():
        assert torch.equal(part.network.state_dict()[name], value), name


def test_a_log_forgets_steps_that_are_done_again(tmp_path):
    run = Run(tmp_path)
    for step in (10, 20, 30):
        run.log({"step": step, "loss": 1.0})
    run.forget_after(20)
    assert [entry["step"] for entry in run.entries()] == [10, 20]


def test_a_state_that_cannot_be_read(tmp_path):
    with pytest.raises(FileError, match=r"state\.pt"):
        Run(tmp_path).load()
    (tmp_path / "state.pt").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(FileError, match=r"state\.pt"):
        Run(tmp_path).load()


def test_started_networks_begin_as_the_file_they_came_from(tmp_path):
    source = random_network("llama")
    export(model("llama"), source.weights(), tmp_path / "model.gguf", "F16")
    ids = torch.arange(7, 4007, 125)[None]
    copy_weights(source, tmp_path / "model.gguf")  # as rounded in the file
    with torch.no_grad():
        wanted = source(ids)
        deeper = Network(SHAPES["llama"].__class__("llama", 3, 256, 4, 2, 256), 32)
        copy_weights(deeper, tmp_path / "model.gguf")
        torch.testing.assert_close(deeper(ids), wanted)
        # Another order of the rotated rows: the same scores.
        moe = Network(SHAPES["qwen3moe"], 32)
        copy_weights(moe, tmp_path / "model.gguf")
    q = source.blk[0].attention.attn_q.weight
    rows = moe.blk[0].attention.attn_q.weight
    torch.testing.assert_close(rows[[0, 32, 1, 33]], q[:4], rtol=0, atol=1e-3)
    dense = source.blk[1].feed_forward.ffn_down.weight
    down = moe.blk[1].feed_forward.ffn_down_exps  # 8 slices of 32
    torch.testing.assert_close(
        down.mean(0),
        torch.stack(dense.split(32, 1)).sum(0),
        rtol=0,
        atol=5e-3,
    )


def test_a_file_that_fits_nothing_is_refused(tmp_path):
    export(model("llama"), random_network("llama").weights(), tmp_path / "model.gguf")
    shape = SHAPES["llama"].__class__("llama", 1, 128, 4, 2, 128, n_vocab=64)
    with pytest.raises(ParameterError, match="no tensor has a name and a shape"):
        copy_weights(Network(shape, 32), tmp_path / "model.gguf")


def test_network_and_file_measure_alike(tmp_path, tokens):
    network = random_network("llama")
    path, of = tmp_path / "model.gguf", model("llama")
    export(replace(of, recipe=replace(of.recipe, context=256)), network.weights(), path, "F16")
    text = "Once there was a king. The wolf ran home. " * 60
    wide = Network(SHAPES["llama"], 256)
    wide.load_state_dict(network.state_dict())
    trained, stored = measure.network(wide, text), measure.files([path], text)[0]
    assert stored.perplexity == pytest.approx(trained.perplexity, rel=0.02)
