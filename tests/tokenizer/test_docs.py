"""The example in the document runs."""

from __future__ import annotations

import re
from pathlib import Path

import clarion.gguf
from tests.tokenizer.files import golden

DOCUMENT = Path(__file__).parents[2] / "docs/tokenizer.md"


def test_example(tmp_path, monkeypatch):
    with clarion.gguf.Writer(tmp_path / "model.gguf", golden("llama")["metadata"]):
        pass
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    variables: dict[str, object] = {}
    exec(example, variables)
    assert variables["text"] == " Hello <b>world</b>"
