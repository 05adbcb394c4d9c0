"""Frequencies of rotations, beyond what the goldens' sizes show."""

from __future__ import annotations

import math

import numpy as np
import pytest

from clarion.models.keys import Keys
from clarion.models.rope import rope
from clarion.plan.checkpoint import Checkpoint
from tests.models.files import Format, Tensor


def rotation(n_rot, context=8192, factors=None, **values):
    metadata = {"general.architecture": "llama"}
    metadata |= {f"llama.rope.{key.replace('__', '.')}": value for key, value in values.items()}
    tensors = {}
    if factors is not None:
        data = np.asarray(factors, "<f4").view(np.uint8)
        tensors["rope_freqs.weight"] = Tensor("rope_freqs.weight", (n_rot // 2,), Format("F32", 0), data)
    return rope(Keys(metadata), n_rot, context, Checkpoint(tensors).rope_freqs)


def test_no_scaling():
    found = rotation(128, freq_base=5e5)
    assert found.inv_freq[0] == 1.0
    assert found.inv_freq[63] == pytest.approx(5e5 ** (-126 / 128), rel=1e-15)
    assert found.magnitude == 1.0


def test_linear_under_its_three_names():
    plain = rotation(64).inv_freq
    for values in (
        {"scaling__type": "linear", "scaling__factor": 4.0},
        {"scaling__factor": 4.0},
        {"scale_linear": 4.0},
    ):
        assert rotation(64, **values).inv_freq == tuple(f / 4 for f in plain)
    assert rotation(64, scaling__type="none", scaling__factor=4.0).inv_freq == plain
    assert rotation(64, scaling__factor=0.0).inv_freq == plain


def test_yarn_of_a_128_element_head():
    """Peng et al., 2023: wavelengths below original / beta_fast stay, above original / beta_slow are
    scaled."""
    plain = np.array(rotation(128).inv_freq)
    found = rotation(128, scaling__type="yarn", scaling__factor=16.0, scaling__original_context_length=4096)
    ratio = np.array(found.inv_freq) / plain
    turns = 4096 * plain / (2 * math.pi)
    assert np.allclose(ratio[turns > 32 * 1.2], 1.0, rtol=1e-15)
    assert np.allclose(ratio[turns < 1 / 1.2], 1 / 16, rtol=1e-15)
    assert np.all(np.diff(ratio) <= 1e-15)
    assert found.magnitude == pytest.approx(0.1 * math.log(16) + 1, rel=1e-15)
    halved = rotation(128, scaling__type="yarn", scaling__factor=16.0, scaling__attn_factor=0.5)
    assert halved.magnitude == pytest.approx(found.magnitude / 2, rel=1e-15)


def test_llama3_from_metadata_is_what_the_factors_say():
    """The values of Llama 3.1: 8, 1, 4, 8192, base 500000, heads of 128."""
    plain = np.array(rotation(128, freq_base=5e5).inv_freq)
    wavelength = 2 * math.pi / plain
    smooth = np.clip((8192 / wavelength - 1) / (4 - 1), 0, 1)
    factors = 1 / ((1 - smooth) / 8 + smooth)
    stated = rotation(
        128,
        freq_base=5e5,
        scaling__type="llama3",
        scaling__factor=8.0,
        scaling__low_freq_factor=1.0,
        scaling__high_freq_factor=4.0,
        scaling__original_context_length=8192,
    )
    given = rotation(128, freq_base=5e5, factors=factors)
    assert np.allclose(stated.inv_freq, given.inv_freq, rtol=1e-7)
    assert np.allclose(stated.inv_freq, plain / factors, rtol=1e-12)
    assert stated.inv_freq[-1] == pytest.approx(plain[-1] / 8)
