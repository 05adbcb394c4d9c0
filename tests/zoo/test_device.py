"""Training on a device with memory of its own; and on CUDA where there is one."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402

from clarion.errors import ParameterError  # noqa: E402
from tests.zoo import elsewhere  # noqa: E402
from tests.zoo.files import SHAPES, model, write_corpus  # noqa: E402
from zoo import config, corpus  # noqa: E402
from zoo.checkpoint import Run  # noqa: E402
from zoo.network import Network  # noqa: E402
from zoo.train import Training, optimizers  # noqa: E402

FAMILIES = sorted(SHAPES)
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    folder = write_corpus(tmp_path_factory.mktemp("corpus"), 12)
    return corpus.prepare(folder, folder)


@pytest.fixture(scope="module", params=["cuda", elsewhere.NAME])
def device(request):
    """CUDA itself, or what stands for it."""
    if request.param == "cuda":
        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")
        yield "cuda"
    else:
        elsewhere.register()
        with elsewhere.Creates():
            yield request.param


def trained(folder, family, tokens, device, end=6):
    """A run's training, stopped by a signal in the last of so many steps."""
    training = Training(Run(folder), model(family), tokens, device)
    step = training._step

    def stopping():
        if training.progress.step + 1 == end:
            os.kill(os.getpid(), signal.SIGTERM)
        return step()

    training._step = stopping
    training.train(lambda line: None)
    return training


def weights(training):
    return {name: value.cpu() for name, value in training.network.state_dict().items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_learns_there_what_it_learns_here(family, device, tokens, tmp_path):
    here = trained(tmp_path / "here", family, tokens, "cpu")
    there = trained(tmp_path / "there", family, tokens, device)
    assert {p.device.type for p in there.network.parameters()} == {torch.device(device).type}
    for optimizer in there.optimizers:
        for state in optimizer.state.values():
            moments = [value for value in state.values() if torch.is_tensor(value) and value.ndim > 0]
            assert moments
            assert all(value.device.type == torch.device(device).type for value in moments)
    (entry,) = there.run.entries()
    # Another order of sums in bfloat16, six steps long.
    assert entry["held_out"] == pytest.approx(here.run.entries()[0]["held_out"], abs=0.02)
    exported = there.network.weights()
    assert all(isinstance(value, np.ndarray) and np.isfinite(value).all() for value in exported.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_runs_move_between_devices(family, device, tokens, tmp_path, monkeypatch):
    asked = []
    load = torch.load

    def noting(*arguments, **named):
        asked.append(named.get("map_location"))
        return load(*arguments, **named)

    monkeypatch.setattr(torch, "load", noting)
    trained(tmp_path, family, tokens, "cpu", 2)
    there = trained(tmp_path, family, tokens, device, 4)
    assert there.progress.step == 4
    saved = Run(tmp_path).load()
    assert all(value.device.type == "cpu" for value in saved.network.values())
    here = trained(tmp_path, family, tokens, "cpu")
    assert here.progress.step == 6
    assert asked == ["cpu"] * 3  # else a machine without the device could not read what was saved on it
    Network(saved.model.shape, 32).load_state_dict(saved.network)


def test_a_run_that_was_stopped_there_ends_with_the_same_bits(device, tokens, tmp_path):
    whole = trained(tmp_path / "whole", "llama", tokens, device)
    trained(tmp_path / "parts", "llama", tokens, device, 2)
    parts = trained(tmp_path / "parts", "llama", tokens, device)
    for name, value in weights(whole).items():
        assert torch.equal(weights(parts)[name], value), name


@pytest.mark.parametrize("name", ["tale", "tale-draft", "tale-ternary"])
def test_a_step_of_full_size_there_agrees_in_shapes_and_types(name, device):
    """Size `cuda` with whole batches, of tensors without values, on which experts' shares would depend."""
    made = config.load(name, "cuda")
    recipe = made.recipe
    kind = torch.device(device).type
    with FakeTensorMode(), torch.device(f"{kind}:0"):
        network = Network(made.shape, recipe.context)
        ids = torch.zeros((recipe.micro_batch // recipe.context, recipe.context + 1), dtype=torch.int64)
        with torch.autocast(kind, torch.bfloat16):
            logits = network(ids[:, :-1])
        assert logits.dtype == torch.bfloat16
        torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten()).backward()
        for optimizer in optimizers(network, recipe):
            optimizer.step()
        for parameter in network.parameters():
            assert parameter.grad.shape == parameter.shape
            assert parameter.grad.dtype == torch.float32
            assert parameter.grad.device.type == kind


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_a_missing_device_is_named(tokens, tmp_path):
    with pytest.raises(ParameterError, match="finds no CUDA device here; train with --device cpu"):
        Training(Run(tmp_path), model("llama"), tokens, "cuda")


def test_what_stands_for_a_device_refuses_what_cuda_refuses(device):
    there, here = torch.ones(3, device=device), torch.ones(3)
    for confusion in (lambda: there + here, lambda: there.lerp_(here, 0.5), lambda: here[there.long()]):
        with pytest.raises((RuntimeError, IndexError)):
            confusion()
    with pytest.raises((RuntimeError, TypeError)):
        there.numpy()
    assert (there + torch.tensor(1.0)).cpu().tolist() == [2.0] * 3  # a number may come from anywhere
    with torch.autocast(torch.device(device).type, torch.bfloat16):
        assert torch.nn.functional.linear(there, there[None]).dtype == torch.bfloat16
        assert there.bfloat16().softmax(0).dtype == torch.float32
    assert here.to(device).copy_(here).device.type == torch.device(device).type
