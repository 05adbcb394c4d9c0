"""Embedders: turns of callers, pieces of long texts, and their ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import clarion
from clarion.errors import ClosedError, DeviceError, ParameterError
from clarion.plan.output import Pooled
from clarion.programs import in_pieces
from tests.models.files import NAMES, unpack
from tests.models.test_ranks import changed

TALE = "Once upon a time there was a king who had three daughters. "
LAST = Pooled("last")
# One of each kind of layer that reads forwards: caches, windows, recurrent states, latents, sinks.
KINDS = ["llama-mha", "mistral-window", "gemma3", "mamba2", "qwen35", "deepseek2", "gpt-oss"]


@pytest.mark.parametrize("name", KINDS)
def test_a_vector_does_not_depend_on_the_pieces_it_was_computed_in(name: str, tmp_path: Path) -> None:
    assert name in NAMES
    path = unpack(name, tmp_path)
    rng = np.random.default_rng(0)
    found = []
    for batch in (300, 64, 7):
        with clarion.load(path, context=300, batch=batch, threads=1) as model:
            embedder = model._vectors._embedder(LAST)
            if not found:
                texts = [rng.integers(0, model.n_vocab, n).tolist() for n in (3, 300, 1, 150, 65, 300, 20)]
            assert in_pieces(embedder._executor.program)
            assert embedder._executor.program.max_tokens == batch
            found.append(embedder.rows(texts))
            np.testing.assert_array_equal(found[0], found[-1])
            alone = np.concatenate([embedder.rows([text]) for text in texts])
            np.testing.assert_array_equal(found[0], alone)


def test_what_sees_all_of_a_text_at_once_is_one_piece(tmp_path: Path) -> None:
    with clarion.load(context=300, batch=32, threads=1) as model:
        for output in (Pooled("mean"), Pooled("cls")):
            assert model._vectors._embedder(output)._executor.program.max_tokens == 300
    with clarion.load(unpack("encoders/modern-bert", tmp_path), threads=1) as model:
        program = model._vectors._embedder(LAST)._executor.program
        assert not in_pieces(program)
        assert program.max_tokens == program.context


def test_others_have_their_turns_beside_a_long_text() -> None:
    with clarion.load(context=8192, batch=64, threads=1) as model:
        embedder = model._vectors._embedder(None)
        short = embedder.rows([[5, 6, 7]])
        events: list[str] = []

        def long() -> None:
            embedder.rows([[5] * 8000] * 2)
            events.append("long")

        thread = threading.Thread(target=long)
        thread.start()
        while not any(job.state for job in list(embedder._jobs)):
            time.sleep(0.001)
        for _ in range(3):
            np.testing.assert_array_equal(embedder.rows([[5, 6, 7]]), short)
            events.append("short")
        thread.join()
        assert events == ["short"] * 3 + ["long"]


def test_long_texts_of_several_callers() -> None:
    with clarion.load(context=600, batch=64, threads=1) as model:
        embedder = model._vectors._embedder(None)
        texts = [[n] * 600 for n in range(5, 9)]
        alone = [embedder.rows([text]) for text in texts]
        found: list[object] = [None] * len(texts)

        def work(i: int) -> None:
            found[i] = embedder.rows([[3], texts[i], [4]])[1:2]

        threads = [threading.Thread(target=work, args=(i,)) for i in range(len(texts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for one, other in zip(found, alone, strict=True):
            np.testing.assert_array_equal(one, other)  # type: ignore[arg-type]


def test_an_error_is_its_callers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with clarion.load(context=64, threads=1) as model:
        embedder = model._vectors._embedder(None)
        wanted = embedder.rows([[5]])

        def refuse() -> None:
            raise clarion.errors.FileError("it changed")

        monkeypatch.setattr(embedder, "_check_file", refuse)
        with pytest.raises(clarion.errors.FileError, match="it changed"):
            embedder.rows([[5]])
        monkeypatch.undo()
        np.testing.assert_array_equal(embedder.rows([[5]]), wanted)


# ---- ends -------------------------------------------------------------------------------------------------


def test_nothing_is_made_after_close() -> None:
    """Also not by a thread that was about to make its embedder."""
    model = clarion.load(context=64, threads=1)
    vectors = model._vectors
    make, entered, go = vectors._make, threading.Event(), threading.Event()

    def slow(output: object) -> object:
        entered.set()
        go.wait()
        return make(output)  # type: ignore[arg-type]

    vectors._make = slow  # type: ignore[assignment]
    errors: list[BaseException] = []

    def work() -> None:
        try:
            model.embed("a cat")
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    entered.wait()
    closing = threading.Thread(target=model.close)
    closing.start()
    while not vectors._is_closed:
        time.sleep(0.001)
    go.set()
    for thread in (*threads, closing):
        thread.join(20)
        assert not thread.is_alive()
    assert [type(error) for error in errors] == [ClosedError] * 3
    assert not vectors._made
    for texts in ("a cat", ["a cat"], []):
        with pytest.raises(ClosedError):
            model.embed(texts)
        with pytest.raises(ClosedError):
            model.rerank("a", texts)


def test_close_ends_a_running_text() -> None:
    model = clarion.load(context=8192, threads=1)
    errors: list[BaseException] = []

    def work() -> None:
        try:
            model.embed([TALE * 500] * 20, truncate=True, pooling="mean")
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    while not any(embedder._running for embedder in list(model._vectors._made.values())):
        time.sleep(0.001)
    begun = time.perf_counter()
    model.close()
    thread.join(20)
    assert [type(error) for error in errors] == [ClosedError]
    assert time.perf_counter() - begun < 5


def test_a_model_that_is_forgotten_ends_its_threads() -> None:
    model = clarion.load(context=64, threads=1)
    model.embed("a cat")
    (embedder,) = model._vectors._made.values()
    thread = embedder._thread
    assert thread is not None
    assert thread.is_alive()
    del model
    thread.join(20)
    assert not thread.is_alive()


SCRIPT = """
import time, clarion
model = clarion.load(context=8192, threads=1)
model.embed("a", pooling={pooling!r})
print("ready", flush=True)
begun = time.perf_counter()
try:
    model.embed([{text!r} * 1000] * 50, truncate=True, pooling={pooling!r})
except KeyboardInterrupt:
    print("interrupted", flush=True)
    print(model.embed("a", pooling={pooling!r}).shape, flush=True)
"""


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_an_interrupt_ends_a_long_text(pooling: str) -> None:
    code = SCRIPT.format(pooling=pooling, text=TALE)
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.5)
        begun = time.perf_counter()
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "interrupted\n"
        assert time.perf_counter() - begun < 2
        rest = process.stdout.read()
        assert (process.wait(20), rest, process.stderr.read()) == (0, "(256,)\n", "")


def test_the_interpreter_exits_beside_a_running_text() -> None:
    code = f"""
        import threading, time, clarion
        model = clarion.load(context=8192, threads=1)
        def work():
            model.embed([{TALE!r} * 1000] * 50, truncate=True, pooling="mean")
        threading.Thread(target=work, daemon=True).start()
        time.sleep(1)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# ---- forks ------------------------------------------------------------------------------------------------


def in_child(model: clarion.Model) -> int:
    """0 where a forked process gets a ClosedError, of a text and of none."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    signal.alarm(20)
    code = 1
    try:
        for texts in ("a cat", [], ["a cat"] * 3):
            try:
                model.embed(texts)
            except ClosedError:
                continue
            break
        else:
            model.close()
            code = 0
    finally:
        os._exit(code)


@pytest.mark.parametrize("begun", [False, True])
def test_a_forked_process_has_no_vectors(begun: bool) -> None:
    with clarion.load(context=64, threads=1) as model:
        if begun:
            model.embed("a cat")
        assert in_child(model) == 0
        assert model.embed("a cat").shape == (256,)


def test_a_lock_that_was_held_at_the_fork() -> None:
    with clarion.load(context=64, threads=1) as model:
        held, go = threading.Event(), threading.Event()

        def hold() -> None:
            with model._vectors._lock:
                held.set()
                go.wait()

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait()
        assert in_child(model) == 0
        go.set()
        thread.join()


# ---- limits -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bert", "xlm-roberta", "roberta"])
def test_a_context_beyond_the_positions_is_refused(name: str, tmp_path: Path) -> None:
    path = unpack(f"encoders/{name}", tmp_path)
    with clarion.load(path, threads=1) as model:
        most = model.context
    with pytest.raises(
        ParameterError, match=rf"found {most + 1}, .*at most {most}: .*'position_embd.weight'"
    ):
        clarion.load(path, context=most + 1, threads=1)
    with clarion.load(path, context=most, threads=1) as model:
        assert np.isfinite(model._vectors._embedder(None).rows([[7] * most])).all()
        with pytest.raises(clarion.errors.ContextError) as error:
            model.embed("the cat " * most)
        assert "longer context" not in str(error.value)
        with pytest.raises(clarion.errors.UnsupportedError):
            model.logits([7] * (most + 1))


def test_contexts_that_are_no_batch(tmp_path: Path) -> None:
    path = unpack("encoders/modern-bert", tmp_path)
    with pytest.raises(ParameterError, match=r"context: found 2000000, expected at most 1048576"):
        clarion.load(path, context=2_000_000, threads=1)
    with clarion.load(context=2_000_000, threads=1) as model:
        with pytest.raises(ParameterError, match=r"context: found 2000000, expected at most 1048576"):
            model.embed("a", pooling="mean")
        assert model.embed("a").shape == (256,)


def test_memory_that_there_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of embedders as of models."""
    import clarion.loading as loading

    with clarion.load(context=64, threads=1) as model:

        def refuse(*_: object, **__: object) -> object:
            raise MemoryError

        monkeypatch.setattr(loading, "Executor", refuse)
        with pytest.raises(DeviceError, match="no memory left"):
            model.embed("a")
        monkeypatch.undo()
        monkeypatch.setattr(loading, "slot_bytes", lambda _: 1 << 60)
        with pytest.raises(DeviceError, match="shorter context"):
            model.embed("a")


def test_weights_that_are_no_numbers_name_the_file(tmp_path: Path) -> None:
    with clarion.load(context=64, threads=1) as model:
        path, width = model.path, model.program.hyperparameters.n_embd
        damaged = {"output_norm.weight": np.full(width, np.nan, np.float32)}
        changed(path, tmp_path / "damaged.gguf", tensors=damaged)
    with clarion.load(tmp_path / "damaged.gguf", context=64, threads=1) as model:
        with pytest.raises(clarion.errors.ModelError, match=r"damaged\.gguf: .* is the model's file sound"):
            model.embed("a cat")
        with pytest.raises(clarion.errors.ModelError, match=r"is the model's file damaged\.gguf sound"):
            model.generate("a cat", max_tokens=1)
