"""Measurements beside other work are not taken for this machine's speeds."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from clarion.cli.main import execute
from clarion.host import choose, record
from clarion.host.load import Snapshot, others
from clarion.host.record import Rates, Record
from clarion.runtime import measure
from clarion.runtime.measure import Measurement

MODULE = choose().name
TICKS = os.sysconf("SC_CLK_TCK")


def stat(path: Path, *processors: tuple[int, ...]) -> Path:
    """A /proc/stat whose processors had so many seconds of each kind."""
    lines = ["cpu  1 2 3 4 5 6 7 8 0 0"]
    for number, seconds in enumerate(processors):
        lines.append(f"cpu{number} " + " ".join(str(int(s * TICKS)) for s in (*seconds, 0, 0)))
    path.write_text("\n".join([*lines, "intr 1 2 3", "ctxt 5"]))
    return path


# user, nice, system, idle, iowait, irq, softirq, steal
IDLE = (10, 0, 1, 500, 3, 0, 0, 0)


def test_what_others_had(tmp_path: Path) -> None:
    before = Snapshot.now({0, 1}, stat(tmp_path / "stat", IDLE, IDLE))
    assert before.busy == 22
    path = stat(tmp_path / "stat", (14, 1, 2, 510, 9, 1, 1, 2), IDLE)
    after = Snapshot.now({0, 1}, path)
    assert after.busy == 32
    after = replace(after, wall=before.wall + 10, own=before.own + 4)
    assert others(before, after) == pytest.approx(0.6)  # ten seconds, of which four are ours
    assert others(before, replace(after, own=before.own + 30)) == 0.0  # counted in other steps
    assert others(before, replace(after, wall=before.wall)) is None


def test_only_processors_that_this_process_may_use_count(tmp_path: Path) -> None:
    path = stat(tmp_path / "stat", IDLE, (1000, 0, 0, 0, 0, 0, 0, 0))
    assert Snapshot.now({0}, path).busy == 11
    assert Snapshot.now({1}, path).busy == 1000


@pytest.mark.parametrize(
    "text",
    [
        "",
        "cpu 1 2 3",
        "cpu0 1 2 3",
        "cpu0 a b c d e f g h",
        "cpu0 0 0 0 0 0 0 0 0 0 0",
        "\0\xff",
        "cpu1 1 1 1 1 1 1 1 1",
    ],
)
def test_a_system_that_does_not_say(text: str, tmp_path: Path) -> None:
    path = tmp_path / "stat"
    path.write_text(text)
    assert Snapshot.now({0}, path).busy is None
    assert Snapshot.now({0}, tmp_path / "missing").busy is None
    assert others(Snapshot(0, 0, None), Snapshot(1, 1, 1.0)) is None


def measurement(busy: float | None, spread: float = 0.05, processors: int = 4) -> Measurement:
    rates = (Rates(1, 1e10, 2e11, 9e9, 1.5e11),)
    return Measurement(Record(record.this_machine(MODULE), "2026-11-30", rates), busy, processors, spread)


@pytest.mark.parametrize(
    ("busy", "spread", "processors", "words"),
    [
        (0.0, 0.05, 4, ""),
        (0.3, 0.1, 4, ""),
        (0.5, 0.05, 4, "other programs took 0.5 of 4 processors meanwhile"),
        (1.0, 0.05, 64, ""),
        (0.3, 0.05, 2, "other programs took 0.3 of 2 processors meanwhile"),
        (None, 0.1, 4, ""),
        (None, 0.5, 4, "the rounds are 50% apart"),
        (0.0, 0.5, 4, "the rounds are 50% apart"),
    ],
)
def test_what_counts_as_disturbed(busy: float | None, spread: float, processors: int, words: str) -> None:
    found = measurement(busy, spread, processors).disturbed
    assert found.startswith(words)
    assert bool(found) == bool(words)


def test_measuring_notices_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the kernel's counters faked: while it measures, somebody has one and a half processors."""
    snapshots: Iterator[Snapshot] = iter([Snapshot(0, 0, 100), Snapshot(10, 15, 130)])

    class Faked:
        now = staticmethod(lambda processors: next(snapshots))

    monkeypatch.setattr(measure, "Snapshot", Faked)
    monkeypatch.setattr(measure, "_SECONDS", 0.01)
    monkeypatch.setattr(measure, "_counts", lambda: [1])
    found = measure.measure(MODULE)
    assert found.others == 1.5
    assert 0 <= found.spread < 1
    assert [rates.threads for rates in found.record.rates] == [1]


# ---- the command --------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def busy(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "measure", lambda module, progress: measurement(1.2))


@pytest.fixture
def resting(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "measure", lambda module, progress: measurement(0.1))


@pytest.mark.usefixtures("busy")
def test_a_busy_machine_is_not_recorded(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["doctor", "--measure"]) == 0
    captured = capsys.readouterr()
    assert captured.err == (
        "clarion: this machine is busy, other programs took 1.2 of 4 processors meanwhile: "
        "not recorded; try again when it rests\n"
    )
    assert "measured   nothing yet" in captured.out
    assert "just now   2026-11-30, not recorded: other programs took 1.2 of 4" in captured.out
    assert "10.0" in captured.out
    assert record.stored(MODULE) == (None, "")


@pytest.mark.usefixtures("busy")
def test_an_earlier_record_stays(capsys: pytest.CaptureFixture[str]) -> None:
    earlier = replace(measurement(0.0).record, date="2026-01-01")
    record.store(earlier)
    assert execute(["doctor", "--measure"]) == 0
    assert record.stored(MODULE) == (earlier, "")
    out = capsys.readouterr().out
    assert "measured   2026-01-01\n" in out
    assert "just now   2026-11-30, not recorded" in out


@pytest.mark.usefixtures("busy")
def test_a_busy_machine_is_recorded_where_somebody_insists(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["doctor", "--measure", "--even-if-busy"]) == 0
    captured = capsys.readouterr()
    assert "recorded all the same" in captured.err
    assert "just now" not in captured.out
    assert record.stored(MODULE)[0] == measurement(1.2).record


@pytest.mark.usefixtures("resting")
def test_a_machine_that_rests_is_recorded_quietly(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["doctor", "--measure"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "measured   2026-11-30\n" in captured.out
    assert record.stored(MODULE)[0] == measurement(0.1).record


@pytest.mark.usefixtures("busy")
def test_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["doctor", "--measure", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["record"] is None
    assert report["measurement"]["recorded"] is False
    assert report["measurement"]["others"] == 1.2
    assert report["measurement"]["record"]["rates"][0]["threads"] == 1


def test_the_option_alone_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["doctor", "--even-if-busy"]) == 2
    assert "--even-if-busy goes with --measure" in capsys.readouterr().err


def test_a_cache_that_cannot_be_written_is_found_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> Measurement:
        raise AssertionError("the work began")

    monkeypatch.setattr(measure, "measure", refuse)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert execute(["doctor", "--measure"]) == 2
    assert "internal error" not in capsys.readouterr().err
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    record.path(record.this_machine(MODULE)).mkdir(parents=True)
    assert execute(["doctor", "--measure"]) == 2
    assert "it is a folder" in capsys.readouterr().err
