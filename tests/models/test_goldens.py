"""Every golden through the whole engine: file, graph, plan, native machine.

The limits are those of the design: `exact` is float32 throughout, `high` rounds activations to 16 bits.
"""

from __future__ import annotations

import pytest

import clarion
from tests.models.files import NAMES, context, expected, nmse, unpack

LIMITS = {"exact": 1e-9, "high": 1e-6}


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("goldens")
    return {name: unpack(name, folder) for name in NAMES}


@pytest.mark.parametrize("batch", [256, 7, 1], ids=["whole", "by-7", "step-by-step"])
@pytest.mark.parametrize("activations", LIMITS)
@pytest.mark.parametrize("name", NAMES)
def test_logits(files, name, activations, batch):
    ids, logits = expected(name)
    options = {"activations": activations, "batch": batch, "threads": 2, "context": context(name)}
    with clarion.load(files[name], **options) as model:
        found = model.logits(ids.tolist())
    assert len(found) == len(logits)
    assert nmse(found[:, : logits.shape[1]], logits) <= LIMITS[activations]
