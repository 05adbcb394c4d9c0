"""models.toml: every model in every size, and what is refused."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from clarion.errors import ParameterError
from zoo import config

ALL = [(name, size) for name in config.names() for size in config.SIZES]


@pytest.mark.parametrize(("name", "size"), ALL)
def test_every_model_has_every_size(name, size):
    model = config.load(name, size)
    assert (model.name, model.size) == (name, size)
    assert config.from_dict(asdict(model)) == model
    continued = config.load(name, size, continued=True)
    assert continued.shape == model.shape
    assert continued.recipe.matrix_rate <= model.recipe.matrix_rate
    assert model.shape.n_embd % 256 == 0
    assert model.recipe.batch % model.recipe.micro_batch == 0


def test_the_sizes_that_were_asked_for():
    sizes = {(n, s): config.load(n, s).shape for n, s in ALL}
    assert sizes["tale", "cpu"].n_parameters >= 6e6
    assert 25e6 <= sizes["tale", "cuda"].n_parameters <= 35e6
    for size in config.SIZES:
        assert sizes["tale-draft", size].n_parameters <= 1.5e6
        moe = sizes["tale-moe", size]
        assert (moe.n_expert, moe.n_expert_used) == (32, 4)
        assert 3 * sizes["tale", size].n_active <= moe.n_parameters <= 6 * sizes["tale", size].n_active
        ternary, tale = sizes["tale-ternary", size], sizes["tale", size]
        assert (ternary.n_layer, ternary.n_embd, ternary.n_ff) == (tale.n_layer, tale.n_embd, tale.n_ff)
        assert ternary.n_ff % 256 == 0  # rows of whole TQ blocks


def test_what_is_unknown_is_refused():
    with pytest.raises(ParameterError, match="'epic', known: tale, "):
        config.load("epic", "cpu")
    with pytest.raises(ParameterError, match="'tpu', known: cpu, cuda"):
        config.load("tale", "tpu")


@pytest.mark.parametrize(
    ("found", "changed", "message"),
    [
        ("n_layer = 7", "n_layers = 7", "tale: 'n_layers' is unknown, known: family, n_embd"),
        ("n_head = 8", "n_head = 7", "tale: n_embd is 256, expected a multiple of 7"),
        ("context = 512", "context = 500", "tale: micro_batch is 32768, expected a multiple of 500"),
        ('family = "llama"', 'family = "alpaca"', "tale: family is 'alpaca', known: llama"),
    ],
)
def test_what_does_not_fit_is_named(monkeypatch, tmp_path, found, changed, message):
    text = config._FILE.read_text()
    assert found in text
    changed_file = tmp_path / "models.toml"
    head, begin, rest = text.partition("[tale]")
    changed_file.write_text(head + begin + rest.replace(found, changed, 1))
    monkeypatch.setattr(config, "_FILE", changed_file)
    with pytest.raises(ParameterError, match=message):
        [config.load("tale", size) for size in config.SIZES]
