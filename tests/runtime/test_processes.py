"""A model and other processes: pickling, copying, forking, and the interpreter's exit."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import clarion
from clarion import exiting
from clarion.errors import ClosedError, PicklingError
from clarion.exiting import Loading

PROMPT = "Once upon a time"


@pytest.fixture(scope="module")
def model() -> Iterator[clarion.Model]:
    with clarion.load(context=256, threads=1) as model:
        yield model


def ways() -> list[Callable[[object], object]]:
    protocols = range(pickle.HIGHEST_PROTOCOL + 1)
    return [*(lambda x, p=p: pickle.dumps(x, p) for p in protocols), copy.copy, copy.deepcopy]  # type: ignore[misc]


@pytest.mark.parametrize("way", ways())
def test_a_model_says_what_to_do_instead_of_being_pickled(
    model: clarion.Model, way: Callable[[object], object]
) -> None:
    with pytest.raises(
        PicklingError, match=r"tale-q8_0\.gguf: .* call `clarion.load` in each process"
    ) as error:
        way(model)
    assert isinstance(error.value, TypeError)
    for stream in (model.stream(PROMPT, max_tokens=2), model.astream(PROMPT, max_tokens=2)):
        with pytest.raises(PicklingError, match="a stream stays in its process"):
            way(stream)


def test_a_tokenizer_is_shared_or_made_again(model: clarion.Model) -> None:
    tokenizer = model.tokenizer
    assert copy.copy(tokenizer) is copy.deepcopy(tokenizer) is tokenizer
    with pytest.raises(PicklingError, match=r"Tokenizer\.from_gguf"):
        pickle.dumps(tokenizer)
    assert repr(tokenizer) == "<Tokenizer: 4096 tokens>"


def test_a_model_cannot_be_sent_to_another_process(model: clarion.Model) -> None:
    process = multiprocessing.get_context("spawn").Process(target=print, args=(model,))
    with pytest.raises(PicklingError, match=r"clarion\.load"):
        process.start()


def test_results_and_errors_can_be_pickled(model: clarion.Model) -> None:
    completion = model.generate(PROMPT, max_tokens=3, logprobs=2)
    assert pickle.loads(pickle.dumps(completion)) == completion
    assert copy.deepcopy(completion) == completion
    for error in vars(clarion.errors).values():
        if isinstance(error, type) and issubclass(error, clarion.errors.ClarionError):
            found = pickle.loads(pickle.dumps(error("what")))
            assert (type(found), str(found)) == (error, "what")


def in_fork(work: Callable[[], None]) -> int:
    """The exit status of a forked process that does `work`."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(30)
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_forked_process_hears_that_nothing_runs_there(model: clarion.Model) -> None:
    stream = model.stream(PROMPT, ignore_eos=True)
    next(stream)

    def use() -> None:
        for call in (
            lambda: model.generate(PROMPT),
            lambda: model.generate([PROMPT, PROMPT]),
            lambda: model.stream(PROMPT),
            lambda: model.logits([1]),
            lambda: next(stream),
            lambda: stream.cancel(),
            lambda: stream.completion,
        ):
            with pytest.raises(ClosedError, match="load it again after a fork"):
                call()
        assert model.detokenize(model.tokenize(PROMPT), skip_special=True) == PROMPT
        stream.close()
        with clarion.load(context=64, threads=1) as other:
            assert len(other.generate(PROMPT, max_tokens=3, ignore_eos=True).tokens) == 3
        model.close()

    assert in_fork(use) == 0
    assert next(stream)
    stream.close()
    assert len(model.generate(PROMPT, max_tokens=3, ignore_eos=True).tokens) == 3


def test_a_forked_process_waits_for_no_thread_that_stayed_behind() -> None:
    """Neither where it closes a model nor where its interpreter exits, whatever others did meanwhile."""
    program = f"""
        import os, signal, sys, threading, time, clarion
        from clarion import model as module
        from clarion.residency import moving
        moving._yield_to_others = lambda: time.sleep(1)  # weights that move for long
        model = clarion.load(context=64, threads=1, weights="moving")
        model._resources._lock.acquire()  # as a thread that closes the model holds it
        module._building.acquire()  # as one that builds a tokenizer does
        child = os.fork()
        if child == 0:
            signal.alarm(30)
            assert model.tokenize({PROMPT!r})
            model.settle()
            model.close()
            sys.exit()
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        module._building.release()
        model._resources._lock.release()
    """
    assert run(program) == (0, "0\n", "")


def test_a_template_is_rendered_in_a_forked_process_too() -> None:
    from clarion.tokenizer import template

    assert template.render("a", []) == "a"

    def use() -> None:
        assert template.render("b", []) == "b"
        template._worker.stop()

    template._worker._lock.acquire()  # as another thread may hold it
    try:
        assert in_fork(use) == 0
    finally:
        template._worker._lock.release()
    assert template.render("c", []) == "c"


WORKS = {
    "load": "clarion.load(context=64, threads=1, weights='moving')",
    "copy": "clarion.load(context=64, threads=1, weights='copied')",
    "generate": "model.generate(prompt, max_tokens=n, ignore_eos=True)",
    "several": "model.generate([prompt] * 3, max_tokens=n, ignore_eos=True)",
    "stream": "list(model.stream(prompt, max_tokens=n, ignore_eos=True))",
    "logits": "model.logits(range(20 * n))",
    "tokenize": "model.tokenize(prompt * 99)",
    "render": "model.apply_chat_template([{'role': 'user', 'content': 'x'}], template='{{ messages }}')",
    "event loop": "asyncio.run(model.agenerate(prompt, max_tokens=n, ignore_eos=True))",
}


@pytest.mark.parametrize("work", WORKS.values(), ids=WORKS)
def test_daemon_threads_print_nothing_at_exit(work: str) -> None:
    program = f"""
        import asyncio, threading, time, clarion
        model, prompt, n = clarion.load(context=1024, threads=1), {PROMPT!r}, 20
        ready = threading.Semaphore(0)
        def work():
            while True:
                {work}
                ready.release()
        for _ in range(2):
            threading.Thread(target=work, daemon=True).start()
        ready.acquire()
    """
    assert run(program) == (0, "", "")


def test_what_exits_with_a_model_open_or_a_stream_unread_prints_nothing() -> None:
    program = f"""
        import clarion
        model = clarion.load(context=1024, threads=1)
        stream = model.stream({PROMPT!r}, ignore_eos=True)
        next(stream)
    """
    assert run(program) == (0, "", "")


def test_after_the_exit_has_begun_a_model_is_closed() -> None:
    program = """
        import atexit
        def late():
            try:
                model.generate("x")
            except clarion.errors.ClosedError as error:
                print(error)
        atexit.register(late)
        import clarion
        model = clarion.load(context=64, threads=1)
    """
    assert run(program) == (0, "the model is closed\n", "")


def test_the_exit_ends_the_threads_of_a_model_that_is_open() -> None:
    program = """
        import atexit
        def late():
            print(model._store.native.gate())
            print(model._store._policy._thread.is_alive(), model._engine._thread.is_alive())
        atexit.register(late)
        import clarion
        model = clarion.load(context=64, threads=1, weights="moving")
    """
    assert run(program) == (0, "False\nFalse False\n", "")


def test_who_loads_is_waited_for_and_after_the_exit_nobody_does() -> None:
    inside, leave, left = threading.Event(), threading.Event(), list[str]()
    loading = Loading()

    def load() -> None:
        with loading:
            inside.set()
            leave.wait()
            left.append("load")

    thread = threading.Thread(target=load)
    thread.start()
    inside.wait()
    threading.Timer(0.05, leave.set).start()
    with loading:  # the one that ends does not wait for itself
        loading.end()
    assert left == ["load"]
    thread.join()
    with pytest.raises(ClosedError, match="exits"), loading:
        left.append("late")
    assert left == ["load"]


def test_who_finds_no_threads_at_exit_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    loading, inside = Loading(), threading.Event()

    def load() -> None:
        with loading:
            inside.set()
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    printed: list[object] = []
    monkeypatch.setattr(threading, "excepthook", printed.append)
    monkeypatch.setattr(exiting, "main_thread_has_ended", lambda: True)
    daemon = threading.Thread(target=load, daemon=True)
    daemon.start()
    inside.wait()
    loading.end()
    daemon.join(0.1)
    assert daemon.is_alive()
    assert not printed
    inside.clear()
    other = threading.Thread(target=load)
    with pytest.raises(ClosedError), loading:
        pass
    loading = Loading()
    other.start()
    other.join()
    assert len(printed) == 1


@pytest.mark.parametrize("seed", range(3))
def test_an_impatient_user_ends_the_process_without_aborting_it(seed: int) -> None:
    program = f"""
        import threading, clarion
        models = [clarion.load(context=1024, threads=1) for _ in range(3)]
        def work(model):
            while True:
                model.generate({PROMPT!r}, ignore_eos=True)
        for model in models * 2:
            threading.Thread(target=work, args=(model,), daemon=True).start()
        models[0].generate({PROMPT!r}, max_tokens=1)
        print("ready", flush=True)
        models[0].generate({PROMPT!r}, ignore_eos=True)
    """
    process = start(program)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    pauses = random.Random(seed)
    for _ in range(8):
        process.send_signal(signal.SIGINT)
        time.sleep(pauses.random() * 0.003)
    process.communicate(timeout=60)
    assert process.returncode in (1, -signal.SIGINT)


def run(program: str) -> tuple[int, str, str]:
    """Status, output and errors of a Python program."""
    process = start(program)
    output, errors = process.communicate(timeout=60)
    return process.returncode, output, errors


def start(program: str) -> subprocess.Popen[str]:
    """A Python program that runs."""
    paths = os.pathsep.join([str(Path(clarion.__file__).parents[1]), *filter(None, sys.path)])
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        env=os.environ | {"PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
