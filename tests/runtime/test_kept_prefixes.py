"""Prefixes that are kept in a folder: found after a restart, under a budget, whatever happens to them."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import clarion
from clarion.errors import FileError, ParameterError
from clarion.runtime.scoring import Scores
from clarion.runtime.states.folder import LEAST_SHARE, PrefixFolder
from clarion.runtime.states.prefixes import LEAST_KEPT
from clarion.runtime.states.states import SequenceState
from clarion.runtime.streams import TextStream, wait
from tests.runtime.fakes import FakeMachine, greedy
from tests.runtime.states.toys import Toy
from tests.runtime.test_engine import generate, generation
from tests.runtime.test_kinds import NAMES, OPTIONS, alone, prompt
from tests.runtime.test_kinds import load as load_kind

TOKENS = [1, 2, 3, 4, 5] * 30


@pytest.fixture(autouse=True)
def _nothing_is_warned_of() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def when_kept(folder: Path, n: int) -> None:
    """Waits until so many files are there as wholes."""
    for _ in range(2000):
        if len([path for path in files(folder) if path.suffix == ".prefix"]) >= n:
            return
        time.sleep(0.005)
    raise AssertionError(files(folder))


def test_a_text_is_found_after_a_restart(tmp_path: Path) -> None:
    machine = FakeMachine(folder=tmp_path)
    first = generate(machine, TOKENS, 10)
    when_kept(tmp_path, 1)  # nobody wants anything: there is time
    machine.engine.close()
    text = [*TOKENS, *first.tokens]
    machine = FakeMachine(folder=tmp_path)
    done = generate(machine, [*text, 7], 5)
    assert done.timings.reused_tokens == len(text) - 1  # the last token drawn was never computed
    assert done.timings.prompt_tokens == len(text) + 1
    assert list(done.tokens) == greedy([*text, 7], 5)
    assert machine.executor.computed == 2 + 4
    assert machine.engine.figures(1).reused_tokens == len(text) - 1
    # Now it is in memory.
    assert generate(machine, [*text, 7, 8], 1).timings.reused_tokens == len(text) + 1
    machine.engine.close()
    machine.states.forget()
    assert (machine.states.used_bytes, machine.states.free_slots) == (0, 8)


def test_the_beginning_of_a_kept_text_is_found(tmp_path: Path) -> None:
    with_folder = FakeMachine(folder=tmp_path)
    generate(with_folder, TOKENS, 10)
    with_folder.engine.close()
    machine = FakeMachine(folder=tmp_path)
    branch = [*TOKENS[:140], 9, 9]
    done = generate(machine, branch, 5)
    assert done.timings.reused_tokens == 140
    assert list(done.tokens) == greedy(branch, 5)
    # What has less in common than pays is computed.
    machine.engine.close()
    machine = FakeMachine(folder=tmp_path)
    short = [*TOKENS[: LEAST_KEPT - 1], 30]
    assert generate(machine, short, 1).timings.reused_tokens == 0
    machine.engine.close()


def test_scores_begin_with_what_is_kept(tmp_path: Path) -> None:
    machine = FakeMachine(folder=tmp_path)
    generate(machine, TOKENS, 1)
    machine.engine.close()
    machine = FakeMachine(folder=tmp_path)
    scores = Scores([*TOKENS, 7, 8], 150, 0)
    assert scores.request is not None
    wait(machine.engine, scores.request)
    assert machine.executor.computed == 2
    assert len(scores.found) == 2
    machine.engine.close()


def test_a_longer_text_takes_the_place_of_its_beginning(tmp_path: Path) -> None:
    machine = FakeMachine(folder=tmp_path)
    generate(machine, TOKENS, 10)
    when_kept(tmp_path, 1)
    (first,) = files(tmp_path)
    generate(machine, [*TOKENS, *greedy(TOKENS, 10)], 20)
    machine.engine.close()
    (second,) = files(tmp_path)
    assert second != first
    machine = FakeMachine(folder=tmp_path)
    generate(machine, TOKENS, 3)  # which is there already
    machine.engine.close()
    assert files(tmp_path) == [second]


def test_what_others_wait_for_comes_first(tmp_path: Path) -> None:
    """While texts run, nothing is written; at the end, all of it that is retained."""
    machine = FakeMachine(folder=tmp_path, n_pages=16)
    machine.executor.gate = threading.Semaphore(0)
    running = TextStream(machine.engine, generation([9] * 10, 200, streams=True))
    others = [TextStream(machine.engine, generation([i] * 130, 2, streams=True)) for i in range(3)]
    # 390 tokens of prompts, 16 a step, and a few more: far fewer steps than the running text has tokens.
    machine.executor.gate.release(100)
    for other in others:
        list(other)
    assert files(tmp_path) == []
    closing = threading.Thread(target=machine.engine.close)
    closing.start()
    machine.executor.gate.release(1000)
    closing.join()
    assert len(files(tmp_path)) == 3
    del running


def test_the_budget_holds_and_what_was_used_least_recently_goes(tmp_path: Path) -> None:
    probe = FakeMachine(folder=tmp_path)
    generate(probe, [0] * 130, 1)
    probe.engine.close()
    size = files(tmp_path)[0].stat().st_size + 20  # a few tokens more or less
    machine = FakeMachine(folder=tmp_path, folder_bytes=3 * size, n_pages=4)
    for i in (1, 2):
        generate(machine, [i] * 130, 1)
        when_kept(tmp_path, i + 1)
    machine.engine.close()
    machine = FakeMachine(folder=tmp_path, folder_bytes=3 * size, n_pages=4)
    assert generate(machine, [0] * 131, 1).timings.reused_tokens == 130  # used now
    generate(machine, [3] * 130, 1)
    machine.engine.close()
    assert len(files(tmp_path)) == 3
    assert sum(path.stat().st_size for path in files(tmp_path)) <= 3 * size
    machine = FakeMachine(folder=tmp_path, folder_bytes=3 * size, n_pages=4)
    found = [generate(machine, [i] * 131, 1).timings.reused_tokens for i in (3, 0, 1)]
    assert found == [130, 131 - 1, 0]
    machine.engine.close()


@pytest.mark.parametrize("how", ["bit", "cut", "empty", "foreign"])
@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_damaged_file_is_dropped_and_nobody_else_hears_of_it(tmp_path: Path, how: str, when: str) -> None:
    machine = FakeMachine(folder=tmp_path)
    generate(machine, TOKENS, 10)
    machine.engine.close()
    (path,) = files(tmp_path)

    def damage() -> None:
        data = bytearray(path.read_bytes())
        match how:
            case "bit":
                data[-200] ^= 1
            case "cut":
                del data[-10:]
            case "empty":
                data.clear()
            case "foreign":
                data[:8] = b"GGUFGGUF"
        path.write_bytes(data)

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        if when == "before":
            damage()
            machine = FakeMachine(folder=tmp_path)
        else:
            machine = FakeMachine(folder=tmp_path)
            damage()
        done = generate(machine, [*TOKENS, 7], 5)
        assert done.timings.reused_tokens == 0
        assert list(done.tokens) == greedy([*TOKENS, 7], 5)
        assert path not in files(tmp_path)
        machine.engine.close()
    assert [str(w.message) for w in warned if "a kept prefix is removed" in str(w.message)]
    assert str(path) in str(warned[0].message)


def test_a_file_that_another_process_removed_is_computed(tmp_path: Path) -> None:
    machine = FakeMachine(folder=tmp_path)
    generate(machine, TOKENS, 10)
    machine.engine.close()
    machine = FakeMachine(folder=tmp_path)
    for path in files(tmp_path):
        path.unlink()
    done = generate(machine, [*TOKENS, 7], 5)
    assert (done.timings.reused_tokens, list(done.tokens)) == (0, greedy([*TOKENS, 7], 5))
    machine.engine.close()


def test_two_at_once_share_a_folder(tmp_path: Path) -> None:
    one, two = FakeMachine(folder=tmp_path, n_pages=16), FakeMachine(folder=tmp_path, n_pages=16)
    for i in range(4):
        generate(one, [i] * 140, 5)
        generate(two, [*[i] * 140, *greedy([i] * 140, 5)], 5)
        when_kept(tmp_path, i + 1)
    one.engine.close()
    two.engine.close()
    three = FakeMachine(folder=tmp_path, n_pages=16)
    for i in range(4):
        text = [*[i] * 140, *greedy([i] * 140, 5), 6]
        done = generate(three, text, 5)
        assert done.timings.reused_tokens >= 144
        assert list(done.tokens) == greedy(text, 5)
    three.engine.close()


@pytest.mark.parametrize("late", [False, True])
def test_a_cancelled_text_stops_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: bool) -> None:
    """Also one that is cancelled when all is read."""
    machine = FakeMachine(folder=tmp_path)
    generate(machine, TOKENS, 10)
    machine.engine.close()
    gate, begun = threading.Semaphore(0), threading.Semaphore(0)
    fill = SequenceState.fill

    def gated(state: SequenceState, saved: Any, go_on: Any) -> None:
        def wait_and_go_on() -> None:
            begun.release()
            gate.acquire()
            if not late:
                go_on()

        fill(state, saved, wait_and_go_on)

    monkeypatch.setattr(SequenceState, "fill", gated)
    machine = FakeMachine(folder=tmp_path)
    stream = TextStream(machine.engine, generation([*TOKENS, 7], 5, streams=True))
    begun.acquire()
    # Others go on meanwhile.
    assert list(generate(machine, [9], 5).tokens) == greedy([9], 5)
    stream.close()
    gate.release(100)
    completion = stream.completion
    assert completion is not None
    assert completion.finish_reason == "cancelled"
    assert list(generate(machine, [*TOKENS, 7], 5).tokens) == greedy([*TOKENS, 7], 5)
    machine.engine.close()
    machine.states.forget()
    assert (machine.states.used_bytes, machine.states.free_slots) == (0, 8)


def test_a_full_disk_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    machine = FakeMachine(folder=tmp_path)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        assert list(generate(machine, TOKENS, 5).tokens) == greedy(TOKENS, 5)
        machine.engine.close()
    assert files(tmp_path) == []
    assert any("a prefix is not kept: " in str(w.message) for w in warned)


# ---- the folder --------------------------------------------------------------------------------------------

TEXTS = st.lists(st.integers(0, 1), min_size=100, max_size=250)


@settings(max_examples=40, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=5), st.booleans(), st.randoms(use_true_random=False))
def test_what_should_be_found_is_found(
    tmp_path_factory: pytest.TempPathFactory, texts: list[list[int]], anywhere: bool, draw: random.Random
) -> None:
    """Beside a list of all texts that were kept, also by a folder that is opened anew."""
    path = tmp_path_factory.mktemp("folder")
    # Texts that begin like others.
    texts = [*texts, *([*texts[0][: draw.randrange(1, len(texts[0]))], 2] * 60 for _ in range(2))]
    texts = [text[:250] for text in texts]
    toy = Toy(n_pages=64, recurrent=not anywhere)

    def opened() -> PrefixFolder:
        return PrefixFolder(path, 1 << 30, toy.states.layout, context=256, anywhere=anywhere)

    folder = opened()
    kept: list[list[int]] = []
    for text in texts:
        if folder.covers(text):
            continue
        state = toy.states.open([], reuse=False)
        assert state is not None
        assert all(toy.compute(state, text[i : i + 40]) for i in range(0, len(text), 40))
        folder.keep(state, lambda: None)
        state.release()
        kept.append(text)

    def agreeing(a: list[int], b: list[int]) -> int:
        return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))

    for each_folder in (folder, opened()):
        for text in [*texts, *(text[: draw.randrange(len(text))] for text in texts), [3] * 200]:
            least = draw.choice([0, 16, 100])
            usable = [
                n
                for each in kept
                if (n := agreeing(text, each)) == len(each) or (anywhere and n >= LEAST_SHARE * len(each))
            ]
            expected = max(usable, default=0)
            n, found = each_folder.longest(text, least)
            assert n == (expected if expected >= least + LEAST_KEPT else 0)
            assert (found is None) == (n == 0)
            if found is not None:
                state = toy.states.open([], reuse=False)
                assert state is not None
                assert state.make_room(len(found.tokens))
                assert each_folder.fill(state, found, lambda: None) is True
                toy.check(state, list(found.tokens))
                assert state.tokens[:n] == text[:n]
                state.release()


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / f"{'0' * 16}-{'1' * 32}.prefix").write_bytes(b"another model's")
    fresh, stale = tmp_path / ".0123456789abcdef.partial", tmp_path / ".fedcba9876543210.partial"
    for path in (fresh, stale):
        path.write_bytes(b"half")
    os.utime(stale, (0, 0))
    machine = FakeMachine(folder=tmp_path, folder_bytes=0)
    generate(machine, TOKENS, 5)  # which is larger than the budget
    machine.engine.close()
    assert [path.name for path in files(tmp_path)] == [
        fresh.name,
        f"{'0' * 16}-{'1' * 32}.prefix",
        "notes.txt",
    ]


def test_bad_folders(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(FileError, match="file: cannot be used"):
        clarion.load(context=64, prefix_dir=file)
    with pytest.raises(ParameterError, match="expected the name of a file"):
        clarion.load(context=64, prefix_dir="")
    with pytest.raises(ParameterError, match="prefix_bytes: found -1"):
        clarion.load(context=64, prefix_dir=tmp_path / "x", prefix_bytes=-1)


# ---- models ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_kind_of_state_is_found_after_a_restart(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "prefixes"
    with load_kind(name, tmp_path, prefix_dir=folder) as model:
        tokens = prompt(model, 200, 1)
        done = model.generate(tokens, max_tokens=20, **OPTIONS)
    text = [*tokens, *done.tokens, 5]
    with load_kind(name, tmp_path, prefix_dir=folder) as model:
        again = model.generate(text, max_tokens=20, **OPTIONS)
        assert again.timings.reused_tokens == len(text) - 2
        assert list(again.tokens) == alone(name, tmp_path, text, 20)
    assert folder.stat().st_mode & 0o077 == 0
    with load_kind(name, tmp_path, prefix_dir=folder, activations="fast") as model:
        assert model.generate(text, max_tokens=1, **OPTIONS).timings.reused_tokens == 0


WRITER = """
    import sys, clarion
    with clarion.load(context=512, prefix_dir=sys.argv[1]) as model:
        for i in range(1000):
            model.generate([i] * 300, max_tokens=1, ignore_eos=True, detokenize=False)
            print(i, flush=True)
"""


def test_what_a_killed_process_has_kept_is_found(tmp_path: Path) -> None:
    """Wherever it is killed: files are there as wholes, or not at all."""
    folder = tmp_path / "prefixes"
    for n in (3, 5):
        with subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(WRITER), str(folder)], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            for _ in range(n):
                process.stdout.readline()
            process.send_signal(signal.SIGKILL)
    kept = [path for path in files(folder) if path.suffix == ".prefix"]
    assert kept
    with clarion.load(context=512, prefix_dir=folder) as model:
        reused = [
            model.generate([*[i] * 300, 5], max_tokens=1).timings.reused_tokens for i in range(len(kept) + 4)
        ]
    assert sum(n >= 300 for n in reused) >= len(kept) - 1  # one may have been in the place of another
