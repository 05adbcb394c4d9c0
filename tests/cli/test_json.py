"""What commands print for programs."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from clarion.cli.main import execute
from clarion.gguf import File, Writer
from clarion.host import choices, choose
from clarion.plan import Plan, Program
from tests.end_to_end.files import BUILT_IN


def test_inspect(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["inspect", str(BUILT_IN), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    with File.open(BUILT_IN) as file:
        assert list(report["metadata"]) == list(file.metadata)
        assert report["metadata"]["tokenizer.ggml.tokens"] == list(
            file.metadata.strs("tokenizer.ggml.tokens")
        )
        assert report["types"]["llama.block_count"] == "uint32"
        assert [
            (t["name"], t["format"], tuple(t["shape"]), t["bytes"], t["offset"]) for t in report["tensors"]
        ] == [(t.name, t.format.name, t.shape, t.n_bytes, t.offset) for t in file.tensors.values()]
    assert report["parts"] == [str(BUILT_IN)]
    assert report["summary"]["architecture"] == "llama"
    assert report["summary"]["type"] == "Q8_0"


def test_inspect_says_everything_in_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.gguf"
    pairs = {
        "general.architecture": "llama",
        "inf": float("inf"),
        "nans": np.array([1.0, math.nan], "<f4"),
        "flag": True,
        "flags": np.array([True, False]),
        "names": ["a", "\u738b"],
        "none": np.array([], "<i4"),
    }
    with Writer(path, pairs):
        pass
    assert execute(["inspect", str(path), "--json"]) == 0
    report = json.loads(
        capsys.readouterr().out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON")
    )
    assert report["metadata"] == {
        "general.architecture": "llama",
        "inf": "inf",
        "nans": [1.0, "nan"],
        "flag": True,
        "flags": [True, False],
        "names": ["a", "\u738b"],
        "none": [],
    }
    assert report["tensors"] == []


def test_inspect_plan(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["inspect", "--plan", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report) == set(Plan.__slots__)
    assert execute(["inspect", "--program", "--json", "-c", "100"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report) == set(Program.__slots__)
    assert report["context"] == 100
    assert report["hyperparameters"]["architecture"] == "llama"


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    used = choose()
    assert report["module"] == used.name
    assert {module["name"] for module in report["modules"]} <= {choice.name for choice in choices()}
    sizes = next(module["bytes"] for module in report["modules"] if module["name"] == used.name)
    for further in ("formats", "operations"):
        assert sizes[used.name] > sizes[f"{used.name}_{further}"] > 10_000
    assert report["memory"]["total"] > 1e8
    assert report["threads"] >= 1
    assert report["cores"] <= len(report["processors"])
    assert report["caches"][0]["level"] == 1
    assert "measurement" not in report
    assert execute(["doctor", "--json", "--isa", "generic"]) == 0
    assert json.loads(capsys.readouterr().out)["module"] == "generic"


def test_bench_names_the_model(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["bench", str(BUILT_IN), "-p", "8", "-n", "2", "-t", "1", "-r", "1"]
    assert execute(arguments) == 0
    head = capsys.readouterr().out.splitlines()[0]
    assert head.startswith(
        f"{BUILT_IN}: llama 6.6 M Q8_0, 7.1 MB; {choose().name}, high activations, 8 prompt"
    )
    assert execute([*arguments, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["architecture"], report["type"]) == ("llama", "Q8_0")
    assert report["bytes"] == BUILT_IN.stat().st_size
    assert 6_500_000 < report["parameters"] < 6_700_000
