"""What was measured and kept: used where it fits, ignored where it does not."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import clarion
from clarion.cli.main import execute
from clarion.host import choose, record
from clarion.host.record import DAMAGED, STALE, Machine, Rates, Record
from clarion.host.threads import default_threads
from clarion.runtime import measure

MODULE = choose().name


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def example() -> Record:
    machine = replace(record.this_machine(MODULE))
    return Record(machine, "2026-11-21", (Rates(1, 1e10, 2e11, 9e9, 1.5e11),))


def test_what_is_stored_is_read_again() -> None:
    assert record.stored(MODULE) == (None, "")
    assert record.best_threads(MODULE) == default_threads()
    path = record.store(example())
    assert record.stored(MODULE) == (example(), "")
    assert record.best_threads(MODULE) == 1
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_the_fewest_threads_that_are_as_fast_as_any() -> None:
    machine = Machine("p", "m", 8, 16)
    rates = [Rates(n, 1.0, 1.0, min(n, 4) * 1e9, min(n, 8) * 1e10) for n in (1, 2, 4, 8, 16)]
    assert Record(machine, "", tuple(rates)).best_threads == 8
    slower = [*rates[:3], replace(rates[3], generation=4.1e9, prompt=4.1e10), rates[4]]
    assert Record(machine, "", tuple(slower[:4])).best_threads == 4


@pytest.mark.parametrize(
    "change",
    [
        {"version": 0},
        {"machine": {"processor": "another"}},
        {"machine": {**asdict(example().machine), "cores": 99}},
    ],
)
def test_of_another_machine(change: dict[str, object]) -> None:
    path = record.store(example())
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert record.stored(MODULE) == (None, STALE)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        "[" * 100_000,
        '{"version": 1, "machine": null}',
        json.dumps({"version": 1, "machine": asdict(example().machine), "date": "x", "rates": []}),
    ],
)
def test_damaged(text: str) -> None:
    path = record.store(example())
    path.write_text(text)
    assert record.stored(MODULE) in ((None, DAMAGED), (None, STALE))
    assert record.best_threads(MODULE) == default_threads()
    path.write_bytes(b"\xff\xfe")
    assert record.stored(MODULE) == (None, DAMAGED)
    path.unlink()
    path.mkdir()
    assert record.stored(MODULE) == (None, DAMAGED)


junk = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=3)
    | st.lists(st.integers(), max_size=2)
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["threads", "bandwidth", "multiply", "generation", "prompt"]), junk)
def test_any_value(name: str, value: object) -> None:
    path = record.store(example())
    content = json.loads(path.read_text())
    content["rates"][0][name] = value
    path.write_text(json.dumps(content))
    found, note = record.stored(MODULE)
    if found is None:
        assert note == DAMAGED
    else:
        assert 1 <= found.best_threads <= found.machine.most_threads
        assert all(rate > 0 for rate in (found.rates[0].bandwidth, found.rates[0].prompt))


def test_doctor_measures_and_later_runs_use_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure.Measurement, "disturbed", "")  # machines that run tests are busy
    assert execute(["doctor"]) == 0
    assert "nothing yet: clarion doctor --measure" in capsys.readouterr().out
    assert execute(["doctor", "--measure"]) == 0
    printed = capsys.readouterr().out
    found, _ = record.stored(MODULE)
    assert found is not None
    assert found.date in printed
    assert found.rates[0].threads == 1
    assert (
        min(min(rates.bandwidth, rates.generation, rates.multiply, rates.prompt) for rates in found.rates)
        > 1e6
    )
    record.store(replace(found, rates=(replace(found.rates[0], bandwidth=123.4e9),)))
    with clarion.load(context=64) as model:
        assert model.threads == 1
    assert execute(["run", "Once", "-n", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bandwidth"] == 123.4e9


def test_a_cache_directory_that_cannot_be_written(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    done = subprocess.run(
        [sys.executable, "-m", "clarion", "doctor"],
        env={"XDG_CACHE_HOME": str(file), "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
