"""A short run of the fuzzer (fuzz/gguf_reader.py says how to make a long one)."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

TARGET = Path(__file__).parents[2] / "fuzz" / "gguf_reader.py"


@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris is not installed (pip install atheris)"
)
def test_fuzz_the_reader(tmp_path: Path) -> None:
    command = [sys.executable, TARGET, "-runs=50000", "-seed=1", "corpus"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 0, result.stderr[-4000:]
    assert "Done 50000 runs" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]
