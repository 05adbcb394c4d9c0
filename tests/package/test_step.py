"""benchmarks/step.py says where the time of a step goes, and its parts are the whole."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from clarion.gguf import File
from clarion.programs import make_program
from tests.end_to_end.files import BUILT_IN

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import step
from random_family import write
from shapes import SHAPES

from tests.package.test_random_family import small

FOLDER = Path(__file__).parents[2] / "benchmarks"


def test_every_operation_is_of_one_kind() -> None:
    with File.open(BUILT_IN) as file:
        program = make_program(file, context=64)
    kinds = {op.op: step.kind(program, op) for op in program.ops[:-1]}
    assert kinds["linear"] == step.PRODUCTS
    assert kinds["attention"] == step.ATTENTION
    assert kinds["rms_norm"] == kinds["rope_kv"] == step.OTHER
    assert step.kind(program, program.ops[-1]) == step.VOCABULARY


def test_experts_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write(path, "deepseek2", small(SHAPES["deepseek2-lite-4-layers"]))
    with File.open(path) as file:
        program = make_program(file, context=64)
    with pytest.raises(SystemExit, match="dense models"):
        [step.kind(program, op) for op in program.ops]


def test_the_parts_of_a_step(tmp_path: Path) -> None:
    isa = "generic"  # not the one that is chosen for this processor
    result = tmp_path / "step.json"
    command = [sys.executable, str(FOLDER / "step.py"), str(BUILT_IN), "--isa", isa, "-t", "1"]
    command += ["--texts", "2", "--depth", "64", "--steps", "8", "-r", "1", "--json", str(result)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    report = json.loads(result.read_text())
    cases = [(entry["case"]["texts"], entry["case"]["depth"]) for entry in report["cases"]]
    assert cases == [(1, 0), (1, 64), (2, 0), (2, 64)]
    for entry in report["cases"]:
        (measured,) = entry["rounds"]
        assert set(measured["parts"]) == set(step.KINDS)
        assert all(seconds >= 0 for seconds in measured["parts"].values())
        assert measured["parts"][step.PRODUCTS] > 0
        assert 0 < measured["python"] < measured["step"]
        assert set(measured["operations"]) == set(entry["operations"])
    shallow, deep = report["cases"][:2]
    assert deep["bytes"] > shallow["bytes"]  # the past is read
    table = done.stdout.split("\n\n")[1]
    assert len(table.strip().splitlines()) == 2 + len(cases)
