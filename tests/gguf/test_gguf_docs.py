"""The example of docs/gguf.md does what it says."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from clarion.gguf import File, Writer

PAGE = Path(__file__).parents[2] / "docs" / "gguf.md"


def test_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = np.arange(6, dtype=np.float32).reshape(2, 3)
    for number in range(3):
        split = {
            "split.no": np.uint16(number),
            "split.count": np.uint16(3),
            "split.tensors.count": np.int32(1),
        }
        model = {"general.architecture": "llama", "tokenizer.ggml.tokens": list("abcdef")}
        path = tmp_path / f"model-{number + 1:05d}-of-00003.gguf"
        with Writer(path, split | (model if number == 0 else {})) as writer:
            if number == 2:
                writer.add("blk.0.attn_q.weight", weights.shape, "F32", weights)
    example = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert example is not None
    monkeypatch.chdir(tmp_path)
    exec(example[1], {})
    with File.open("copy.gguf") as copy:
        assert list(copy.metadata) == ["general.architecture", "tokenizer.ggml.tokens"]
        assert np.array_equal(copy.tensors["blk.0.attn_q.weight"].data.view("<f4").reshape(2, 3), weights)
