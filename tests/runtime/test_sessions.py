"""Sessions: what a model remembers of tokens, written to a file and read again, while others go on."""

from __future__ import annotations

import asyncio
import errno
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import clarion
from clarion.errors import (
    CancelledError,
    ClosedError,
    ContextError,
    FileError,
    FormatError,
    ParameterError,
)
from clarion.runtime.request import Load, Request, Save
from clarion.runtime.states.states import SequenceState
from clarion.runtime.streams import TextStream, wait, wait_all
from tests.end_to_end.files import write_f16
from tests.runtime.fakes import FakeMachine, greedy
from tests.runtime.test_engine import generate, generation
from tests.runtime.test_kinds import CONTEXT, NAMES, OPTIONS, alone, prompt
from tests.runtime.test_kinds import load as load_kind

TOKENS = [1, 2, 3, 4, 5] * 30


def save(machine: FakeMachine, path: Path, tokens: list[int]) -> Any:
    machine.engine.start_disk()
    return wait(machine.engine, Request(tuple(tokens), Save(path)))


def load(machine: FakeMachine, path: Path, tokens: list[int]) -> Any:
    machine.engine.start_disk()
    return wait(machine.engine, Request(tuple(tokens), Load(path)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.session"


class Gate:
    """Lets the writing of a state go on chunk by chunk."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self.chunks = threading.Semaphore(0)
        self.begun = threading.Semaphore(0)
        work = getattr(SequenceState, name)

        def gated(state: SequenceState, file: Any, go_on: Any) -> Any:
            def wait_and_go_on() -> None:
                self.begun.release()
                self.chunks.acquire()
                go_on()

            return work(state, file, wait_and_go_on)

        monkeypatch.setattr(SequenceState, name, gated)


def test_what_was_saved_is_not_computed_again(machine: FakeMachine, path: Path) -> None:
    assert save(machine, path, TOKENS) == path.stat().st_size
    other = FakeMachine()
    assert load(other, path, TOKENS) == len(TOKENS)
    assert other.executor.computed == 0
    completion = generate(other, [*TOKENS, 7, 8], 5)
    assert completion.timings.reused_tokens == len(TOKENS)
    assert list(completion.tokens) == greedy([*TOKENS, 7, 8], 5)
    # If nothing follows, the last token is computed for its logits.
    assert generate(other, TOKENS, 5).timings.reused_tokens == len(TOKENS) - 1
    other.engine.close()
    other.states.forget()
    assert (other.states.used_bytes, other.states.free_slots) == (0, 8)


def test_only_what_is_not_in_the_cache_is_computed(machine: FakeMachine, path: Path) -> None:
    generate(machine, TOKENS, 1)
    before = machine.executor.computed
    save(machine, path, [*TOKENS, 9, 9])
    assert machine.executor.computed == before + 2
    save(machine, path, TOKENS)
    assert machine.executor.computed == before + 2
    assert load(machine, path, TOKENS) == len(TOKENS)  # it is there, and not read
    path.unlink()
    assert load(machine, path, TOKENS) == len(TOKENS)


def test_texts_go_on_while_a_state_is_written(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = FakeMachine(n_pages=8)
    gate = Gate(monkeypatch, "save")
    with ThreadPoolExecutor(1) as threads:
        saving = threads.submit(save, machine, path, TOKENS)
        gate.begun.acquire()
        assert machine.engine.figures(1).texts_running == 1
        # Also one that begins like what is being written: whole pages are shared.
        for tail in ([7], [8, 9], []):
            done = generate(machine, [*TOKENS, *tail], 20)
            assert list(done.tokens) == greedy([*TOKENS, *tail], 20)
            assert done.timings.reused_tokens >= 128
        assert not path.exists()
        gate.chunks.release(100)
        assert saving.result() == path.stat().st_size
    other = FakeMachine()
    load(other, path, TOKENS)
    assert list(generate(other, [*TOKENS, 7], 20).tokens) == greedy([*TOKENS, 7], 20)
    other.engine.close()


def test_a_state_that_is_written_keeps_its_place(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where bytes run out, others give theirs up, also older ones, and wait until it is done."""
    machine = FakeMachine(context=256, n_pages=4)
    gate = Gate(monkeypatch, "save")
    machine.executor.gate = threading.Semaphore(1)
    older = TextStream(machine.engine, generation([9] * 10, 140, streams=True))
    next(older)
    with ThreadPoolExecutor(1) as threads:
        saving = threads.submit(save, machine, path, TOKENS)  # three pages; the other has one, and needs more
        machine.executor.gate.release(1000)
        gate.begun.acquire()
        while machine.engine.figures(1).preemptions == 0:
            pass
        gate.chunks.release(100)
        assert saving.result() == path.stat().st_size
    list(older)
    assert older.completion is not None
    assert list(older.completion.tokens) == greedy([9] * 10, 140)
    machine.engine.close()
    other = FakeMachine()
    load(other, path, TOKENS)
    assert list(generate(other, [*TOKENS, 7], 20).tokens) == greedy([*TOKENS, 7], 20)
    other.engine.close()


def test_a_state_finds_room_when_others_leave(path: Path) -> None:
    machine = FakeMachine(context=256, n_pages=4)
    save(machine, path, TOKENS)
    other = FakeMachine(context=256, n_pages=4)
    other.engine.start_disk()
    texts = [generation([i] * 60, 100) for i in range(3)]
    results = wait_all(other.engine, [*texts, Request(tuple(TOKENS), Load(path)), *texts], 7)
    assert results[3] == len(TOKENS)
    for i, result in enumerate(results[:3]):
        assert list(result.tokens) == greedy([i] * 60, 100)  # type: ignore[union-attr]
    for each in (machine, other):
        each.engine.close()
        each.states.forget()
        assert (each.states.used_bytes, each.states.free_slots) == (0, 8)


@pytest.mark.parametrize("end", ["cancel", "close", "error"])
@pytest.mark.parametrize("what", ["save", "fill"])
def test_what_is_left_early_leaves_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch, what: str, end: str
) -> None:
    machine = FakeMachine()
    save(machine, path, TOKENS)
    before = path.read_bytes()
    machine.engine.close()
    machine = FakeMachine()
    gate = Gate(monkeypatch, what)
    machine.engine.start_disk()
    tokens = [*TOKENS, 7] if what == "save" else TOKENS
    heard: list[Any] = []
    came = threading.Event()

    def put(item: Any) -> None:
        heard.append(item)
        came.set()

    handle = machine.engine.submit(Request(tuple(tokens), Save(path) if what == "save" else Load(path)), put)
    gate.begun.acquire()
    if end == "cancel":
        handle.cancel()
        assert not came.wait(0.02)  # the disk has the state still
        gate.chunks.release(100)
        assert came.wait(10)
        assert isinstance(heard[0], CancelledError)
        assert list(generate(machine, [*TOKENS, 9], 5).tokens) == greedy([*TOKENS, 9], 5)
        machine.engine.close()
        machine.states.forget()
        assert (machine.states.used_bytes, machine.states.free_slots) == (0, 8)
    elif end == "close":
        closing = threading.Thread(target=machine.engine.close)
        closing.start()
        closing.join(0.02)
        assert closing.is_alive()  # it waits for the disk to let go of the state
        gate.chunks.release(100)
        closing.join()
        assert isinstance(heard[0], ClosedError)
    else:
        machine.executor.fail = RuntimeError("the machine failed")
        with ThreadPoolExecutor(1) as threads:
            broken = threads.submit(generate, machine, [3], 5)
            gate.chunks.release(100)
            with pytest.raises(RuntimeError, match="the machine failed"):
                broken.result()
        assert came.wait(10)
        machine.engine.close()
        machine.states.forget()
        assert (machine.states.used_bytes, machine.states.free_slots) == (0, 8)
    assert len(heard) == 1
    if not isinstance(heard[0], int):  # what was done in time is done
        assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_what_waits_in_line_is_cancelled_at_once(machine: FakeMachine, path: Path) -> None:
    machine.executor.gate = threading.Semaphore(0)
    machine.engine.start_disk()
    heard: list[Any] = []
    handle = machine.engine.submit(Request(tuple(TOKENS), Save(path)), heard.append)
    machine.executor.started.acquire()
    handle.cancel()
    machine.executor.gate.release(10)
    generate(machine, [1], 1)
    assert isinstance(heard[0], CancelledError)
    assert not path.exists()


def test_a_full_disk_loses_nothing(machine: FakeMachine, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(machine, path, TOKENS)
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", fail)
        with pytest.raises(FileError, match=r"x\.session: cannot be written: No space left"):
            save(machine, path, [*TOKENS, 1])
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
    assert list(generate(machine, [*TOKENS, 1, 2], 5).tokens) == greedy([*TOKENS, 1, 2], 5)
    assert save(machine, path, [*TOKENS, 1]) > 0


def test_a_damaged_file_retains_nothing(machine: FakeMachine, path: Path) -> None:
    save(machine, path, TOKENS)
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    other = FakeMachine()
    with pytest.raises(FormatError, match="CRC-32"):
        load(other, path, TOKENS)
    assert generate(other, [*TOKENS, 1], 1).timings.reused_tokens == 0
    data[-100] ^= 1
    path.write_bytes(data)
    with pytest.raises(ParameterError, match="has changed"):
        load(other, path, [9] * len(TOKENS))
    with pytest.raises(ParameterError, match="has changed"):
        load(other, path, [*TOKENS, 1])
    assert load(other, path, TOKENS) == len(TOKENS)
    other.engine.close()


def test_a_thread_for_the_disk_is_there_once_it_is_needed(machine: FakeMachine, path: Path) -> None:
    before = threading.active_count()
    save(machine, path, TOKENS)
    save(machine, path, TOKENS)
    assert threading.active_count() == before + 1
    machine.engine.close()
    assert threading.active_count() == before - 2
    with pytest.raises(ClosedError):
        machine.engine.start_disk()


def test_a_forked_process_has_no_disk(machine: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    before = threading.active_count()
    with monkeypatch.context() as patch:
        patch.setattr(machine.engine, "_process", -1)  # of another process
        with pytest.raises(ClosedError, match="loaded by another process"):
            machine.engine.start_disk()
    assert threading.active_count() == before


# ---- of the model ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n", [1, 63, 64, 100, 250, CONTEXT])
def test_every_kind_of_state_goes_on(name: str, n: int, tmp_path: Path) -> None:
    path = tmp_path / "x.session"
    with load_kind(name, tmp_path) as model:
        tokens = prompt(model, n, 1)
        assert model.save_session(path, tokens) == path.stat().st_size
    with load_kind(name, tmp_path) as model:
        assert model.load_session(path) == tokens
        assert model.figures.prompt_tokens == 0
        if n + 10 < CONTEXT:
            more = [*tokens, *prompt(model, 5, 2)]
            done = model.generate(more, max_tokens=5, **OPTIONS)
            assert done.timings.reused_tokens == (n if n >= 16 else 0)
            assert list(done.tokens) == alone(name, tmp_path, more, 5)


def test_a_session_of_the_model(tmp_path: Path) -> None:
    path = tmp_path / "x.session"
    with clarion.load(context=512) as model:
        tokens = model.tokenize("There was once a poor woman who had two children. " * 4)
        first = model.generate(tokens, max_tokens=10, greedy=True)
        text = [*tokens, *first.tokens]
        model.save_session(str(path), iter(text))
        assert model.figures.prompt_tokens == len(tokens) + 1
        expected = model.generate([*text, 5], max_tokens=10, greedy=True).tokens

    async def go_on() -> None:
        # The file knows nothing of the context, the batch or how many texts there are.
        with clarion.load(context=300, batch=64, outputs=2) as model:
            assert await model.aload_session(path) == text
            done = await model.agenerate([*text, 5], max_tokens=10, greedy=True)
            assert done.timings.reused_tokens == len(text)
            assert done.tokens == expected
            assert await model.asave_session(path, text) == path.stat().st_size

    asyncio.run(go_on())


def test_sessions_of_others_are_refused(tmp_path: Path) -> None:
    path, f16 = tmp_path / "x.session", tmp_path / "f16.gguf"
    write_f16(f16)
    with clarion.load(context=128) as model:
        model.save_session(path, [5] * 100)
    copy = tmp_path / "copy.gguf"
    with clarion.load(context=128) as model:
        copy.write_bytes(model.path.read_bytes())
    with clarion.load(copy, context=128) as model:  # neither name nor place matters
        assert model.load_session(path) == [5] * 100
    for how in ({"path": f16}, {"kv": "q8_0"}, {"activations": "fast"}):
        with (
            clarion.load(context=128, **how) as model,  # type: ignore[arg-type]
            pytest.raises(ParameterError, match=r"x\.session: a state of another program: "),
        ):
            model.load_session(path)
    with (
        clarion.load(context=64) as model,
        pytest.raises(ContextError, match="found 100 tokens, the context is 64"),
    ):
        model.load_session(path)


def test_bad_sessions(tmp_path: Path) -> None:
    path = tmp_path / "x.session"
    with clarion.load(context=64) as model:
        with pytest.raises(ParameterError, match="tokens: found none"):
            model.save_session(path, [])
        with pytest.raises(ParameterError, match="token 1: found -1"):
            model.save_session(path, [1, -1])
        with pytest.raises(ContextError, match="65 tokens are more than the context of 64"):
            model.save_session(path, [1] * 65)
        with pytest.raises(FileError, match="there is no folder"):
            model.save_session(tmp_path / "nowhere" / "x", [1])
        with pytest.raises(FileError, match="it is what is read"):
            model.save_session(model.path, [1])
        with pytest.raises(ParameterError, match="expected the name of a file"):
            model.save_session("", [1])
        with pytest.raises(FileError, match=r"x\.session: cannot be read: No such file"):
            model.load_session(path)
        with pytest.raises(FormatError, match="no saved state"):
            model.load_session(model.path)
        assert model.figures.steps == 0  # all of this is known before anything is computed
        assert list(tmp_path.iterdir()) == []
    for use in (lambda: model.save_session(path, [1]), lambda: model.load_session(path)):
        with pytest.raises(ClosedError):
            use()


def test_a_disk_without_room_is_found_before_anything_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clarion.gguf.writable._free_bytes", lambda _: 1000)
    with clarion.load(context=64) as model:
        with pytest.raises(FileError, match=r"x\.session: cannot be written: No space left.* it takes"):
            model.save_session(tmp_path / "x.session", [1] * 20)
        assert model.figures.steps == 0


def test_an_interrupted_save_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.session"
    with clarion.load(context=512) as model:
        model.save_session(path, [5] * 20)
        before = path.read_bytes()
        gate = Gate(monkeypatch, "save")

        async def leave() -> None:
            task = asyncio.create_task(model.asave_session(path, [6] * 400))
            while not gate.begun.acquire(blocking=False):
                await asyncio.sleep(0.001)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            gate.chunks.release(1000)

        asyncio.run(leave())
        assert model.generate([*[6] * 400, 7], max_tokens=1).timings.reused_tokens == 400
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_closing_while_a_session_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.session"
    gate = Gate(monkeypatch, "save")
    model = clarion.load(context=512)
    with ThreadPoolExecutor(1) as threads:
        saving = threads.submit(model.save_session, path, [5] * 400)
        gate.begun.acquire()
        threading.Timer(0.02, gate.chunks.release, [1000]).start()
        model.close()
        with pytest.raises(ClosedError):
            saving.result()
    assert list(tmp_path.iterdir()) == []
