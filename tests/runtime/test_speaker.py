"""Texts are spoken on a thread of their own: in order, to the same ends, however far the engine is ahead."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

import pytest

from clarion.errors import ClosedError
from clarion.runtime import speaker
from clarion.runtime.completion import Completion
from clarion.runtime.request import Generate, PromptDone
from clarion.runtime.sampling import Parameters
from clarion.runtime.speaker import Drawn, Ended, Event, Failed, Prompted, Speaker, Speech, Started
from clarion.runtime.streams import TextStream, wait
from clarion.runtime.task import MOST_UNSPOKEN
from tests.runtime.fakes import FakeMachine, greedy
from tests.runtime.test_engine import Alphabet, Letters, generate, generation, text

PROMPT = [1, 2] * 10


class Spoken:
    """A speaker, and what is heard of it: ends as the engine hears them, everything else as the caller
    does."""

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.speaker = Speaker(lambda speech: self.heard.append(("ended", speech.id)), lambda: None)

    def speech(self, id: int = 0, n_prompt: int = 5, detokenizer: Any = None, **wanted: Any) -> Speech:
        parameters = Parameters(stop=wanted.pop("stop", ()), logprobs=wanted.pop("logprobs", None), seed=7)
        generate = Generate(parameters, 100, detokenizer=detokenizer or Alphabet(), **wanted)
        return Speech(id, generate, n_prompt, lambda item: self.heard.append((id, item)), 1.0)

    def hear(self, *events: Event) -> list[Any]:
        """What is heard when all events are spoken."""
        self.speaker.tell(list(events), 100)
        self.speaker.close()
        self.speaker.thread.join()
        return self.heard


def drawn(at: float, *pairs: tuple[Speech, int]) -> Drawn:
    speeches, tokens = zip(*pairs, strict=True)
    return Drawn(at, speeches, tokens, [None] * len(pairs))


def test_everything_is_heard_in_order_and_the_end_last() -> None:
    spoken = Spoken()
    a, b = spoken.speech(0, streams=True, reports=True), spoken.speech(1, n_prompt=1)
    heard = spoken.hear(
        Started(a, 2.0, 1),
        Prompted(a, 3.0, 3),
        Started(b, 3.5, 0),
        Prompted(a, 4.0, 5),
        Prompted(b, 4.0, 1),
        drawn(5.0, (a, 0), (b, 1)),
        drawn(6.5, (a, 2), (b, 3)),
        Ended(a, 7.0, "stop", 9),
        Ended(b, 8.0, "length", None),
    )
    assert [item for item in heard if not isinstance(item[1], Completion)] == [
        (0, PromptDone(3, 5)),
        (0, PromptDone(5, 5)),
        (0, "a"),
        (0, "c"),
        ("ended", 0),
        ("ended", 1),
    ]
    (_, first), (_, second) = (item for item in heard if isinstance(item[1], Completion))
    assert (first.text, first.tokens, first.finish_reason, first.stopped_by) == ("ac", (0, 2), "stop", 9)
    assert (second.text, second.tokens, second.finish_reason, second.stopped_by) == (
        "bd",
        (1, 3),
        "length",
        None,
    )
    assert first.seed == 7
    timings = first.timings
    assert (timings.prompt_tokens, timings.reused_tokens, timings.generated_tokens) == (5, 1, 3)
    # The token that ended the text is the last one drawn.
    assert (timings.waiting, timings.prompt, timings.generation) == (1.0, 3.0, 2.0)
    assert second.timings.generation == 1.5


def test_a_stop_string_is_the_end_whatever_was_drawn_behind_it() -> None:
    spoken = Spoken()
    speech = spoken.speech(stop=("bc",), streams=True)
    heard = spoken.hear(
        Started(speech, 2.0, 0),
        *(drawn(3.0 + token, (speech, token)) for token in range(6)),
        Ended(speech, 9.0, "length", None),
        Failed(speech, ValueError("too late")),
    )
    assert heard[:2] == [(0, "a"), ("ended", 0)]
    ((_, end),) = heard[2:]
    assert (end.text, end.tokens, end.finish_reason, end.stopped_by) == ("a", (0, 1, 2), "stop", "bc")
    assert (end.timings.generated_tokens, end.timings.generation) == (3, 2.0)
    assert speech.stopped_after == 3


class HoldsBack:
    """A decoder that says everything at the end."""

    def __init__(self) -> None:
        self._held = ""

    def stream(self) -> HoldsBack:
        return HoldsBack()

    def feed(self, token: int) -> str:
        self._held += Letters().feed(token)
        return ""

    def finish(self) -> str:
        return self._held


def test_a_stop_string_in_what_is_held_back_takes_nothing_back() -> None:
    spoken = Spoken()
    speech = spoken.speech(stop=("bc",), detokenizer=HoldsBack())
    *_, (_, end) = spoken.hear(
        Started(speech, 2.0, 0),
        *(drawn(3.0, (speech, token)) for token in range(4)),
        Ended(speech, 9.0, "length", None),
    )
    assert (end.text, end.tokens, end.stopped_by) == ("a", (0, 1, 2, 3), "bc")
    assert speech.stopped_after is None


def test_an_error_of_one_text_leaves_the_others_alone() -> None:
    class Broken(Letters):
        def stream(self) -> Broken:
            return self

        def feed(self, token: int) -> str:
            raise LookupError(token)

    spoken = Spoken()
    good, bad, failed = spoken.speech(0), spoken.speech(1, detokenizer=Broken()), spoken.speech(2)
    error = ValueError("no")
    heard = spoken.hear(
        drawn(3.0, (bad, 4), (good, 5), (failed, 6)),
        drawn(4.0, (bad, 4), (good, 6)),
        Failed(failed, error),
        Ended(good, 5.0, "length", None),
    )
    assert [item for item in heard if item[0] == "ended"] == [("ended", 1), ("ended", 2), ("ended", 0)]
    ends = dict(item for item in heard if item[0] != "ended")
    assert isinstance(ends[1], LookupError)
    assert ends[2] is error
    assert ends[0].text == "fg"


def test_what_was_cancelled_in_line_has_no_times() -> None:
    spoken = Spoken()
    speech = spoken.speech()
    ((_, _), (_, end)) = spoken.hear(Ended(speech, 4.0, "cancelled", None))
    assert (end.timings.waiting, end.timings.prompt, end.timings.generation) == (3.0, 0.0, 0.0)


# ---- behind the engine -------------------------------------------------------------------------------------


class Gated:
    """A decoder that reads a letter for each release."""

    def __init__(self) -> None:
        self.gate = threading.Semaphore(0)

    def stream(self) -> Gated:
        return self

    def feed(self, token: int) -> str:
        self.gate.acquire()
        return Letters().feed(token)

    def finish(self) -> str:
        return ""


@pytest.fixture
def behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """The speaker's thread speaks everything."""
    monkeypatch.setattr(speaker, "FEW", -1)


def when_computed(machine: FakeMachine, n: int) -> None:
    """Waits until so many tokens are computed."""
    while machine.executor.computed < n:
        time.sleep(0.001)


@pytest.mark.usefixtures("behind")
def test_steps_do_not_wait_for_the_speaker(machine: FakeMachine) -> None:
    gated = Gated()
    with ThreadPoolExecutor(1) as threads:
        result = threads.submit(wait, machine.engine, generation(PROMPT, 40, alphabet=gated))
        when_computed(machine, len(PROMPT) + 39)
        gated.gate.release(40)
        assert result.result().text == text(greedy(PROMPT, 40))


@pytest.mark.usefixtures("behind")
@pytest.mark.parametrize("n", [1, 5, 15, 30])
@pytest.mark.parametrize("early", [0, 4])
def test_a_stop_that_is_found_late_leaves_what_an_early_one_does(n: int, early: int) -> None:
    """The engine is ahead as far as it may be; tokens behind the stop are taken back, also from the
    prefix."""
    machine = FakeMachine()
    gated = Gated()
    expected = greedy(PROMPT, 60)
    stop = text(expected[max(n - 3, 0) : n])
    end = text(expected).index(stop) + len(stop)
    with ThreadPoolExecutor(1) as threads:
        result = threads.submit(wait, machine.engine, generation(PROMPT, 60, alphabet=gated, stop=[stop]))
        ahead = len(PROMPT) + MOST_UNSPOKEN - 1
        for spoken in range(end - early):
            when_computed(machine, ahead + spoken)
            gated.gate.release()
        gated.gate.release(100)
        completion = result.result()
    assert isinstance(completion, Completion)
    assert completion.text == text(expected[:end]).removesuffix(stop)
    assert list(completion.tokens) == expected[:end]
    assert (completion.finish_reason, completion.stopped_by) == ("stop", stop)
    assert completion.timings.generated_tokens == end
    again = generate(machine, [*PROMPT, *expected[: end + 20]], 1)
    assert again.timings.reused_tokens == len(PROMPT) + end - 1
    assert list(again.tokens) == greedy([*PROMPT, *expected[: end + 20]], 1)
    machine.engine.close()
    machine.states.forget()
    assert machine.states.used_bytes == 0
    assert machine.states.free_slots == 8


@pytest.mark.usefixtures("behind")
def test_a_text_is_not_computed_further_ahead_than_it_can_be_taken_back(machine: FakeMachine) -> None:
    gated = Gated()
    stream = TextStream(machine.engine, generation(PROMPT, 200, alphabet=gated, stop=["?"], streams=True))
    ahead = len(PROMPT) + MOST_UNSPOKEN - 1
    when_computed(machine, ahead)
    others = TextStream(machine.engine, generation([3], 50))  # they go on
    when_computed(machine, ahead + 50)
    time.sleep(0.02)
    assert machine.executor.computed == ahead + 50
    gated.gate.release()
    next(stream)
    when_computed(machine, ahead + 51)
    stream.close()
    gated.gate.release(200)
    completion = stream.completion
    assert completion is not None
    assert completion.finish_reason == "cancelled"
    assert completion.timings.generated_tokens == len(completion.tokens)
    assert text(list(completion.tokens)) == completion.text
    assert list(others) == []
    assert others.completion is not None
    assert list(others.completion.tokens) == greedy([3], 50)


@pytest.mark.usefixtures("behind")
@pytest.mark.parametrize("how", ["length", "end token", "cancel"])
def test_a_stop_string_before_another_end_wins(machine: FakeMachine, how: str) -> None:
    gated = Gated()
    expected = greedy(PROMPT, 20)
    stop = text(expected[2:5])
    end = text(expected).index(stop) + 3
    n = expected.index(expected[10])
    ends = (expected[n],) if how == "end token" and n > end else ()
    request = generation(PROMPT, 10, alphabet=gated, stop=[stop], end_tokens=ends, streams=True)
    stream = TextStream(machine.engine, request)
    when_computed(machine, len(PROMPT) + 9)
    if how == "cancel":
        stream.close()
    gated.gate.release(50)
    completion = stream.cancel()
    assert (completion.finish_reason, completion.stopped_by) == ("stop", stop)
    assert list(completion.tokens) == expected[:end]
    again = generate(machine, [*PROMPT, *expected], 1)
    assert again.timings.reused_tokens == len(PROMPT) + end - 1


@pytest.mark.usefixtures("behind")
def test_close_waits_for_what_was_drawn_to_be_spoken(machine: FakeMachine) -> None:
    heard: SimpleQueue[Any] = SimpleQueue()
    machine.engine.submit(generation([1], 30, streams=True), heard.put)
    when_computed(machine, 30)
    machine.engine.close()
    items = [heard.get() for _ in range(heard.qsize())]
    assert "".join(items[:-1]) == text(greedy([1], len(items) - 1))
    assert len(items) >= 30


@pytest.mark.usefixtures("behind")
def test_an_end_is_known_to_the_engine_before_it_is_to_the_caller(machine: FakeMachine) -> None:
    """Whoever continues a text that has ended finds what was computed."""
    stop = text(greedy(PROMPT, 8)[5:])
    for _ in range(20):
        prompt = [*PROMPT, *greedy(PROMPT, 8)]
        assert generate(machine, PROMPT, 20, stop=[stop]).stopped_by == stop
        assert generate(machine, prompt, 1).timings.reused_tokens == len(prompt) - 1


@pytest.mark.usefixtures("behind")
def test_the_speaker_may_close_the_engine(machine: FakeMachine) -> None:
    """Wherever a thread is, it may collect a forgotten model. Then it waits for nobody."""
    heard: SimpleQueue[Any] = SimpleQueue()

    def put(item: Any) -> None:
        assert machine.engine.is_here()
        with machine.engine._lock:
            machine.engine.close()
        heard.put(item)

    machine.executor.gate = threading.Semaphore(2)  # two steps, and then until it is cancelled
    machine.engine.submit(generation([1], machine.states.context - 1, streams=True), put)
    assert heard.get(timeout=10) == text(greedy([1], 1))
    machine.engine.close()
    items = [heard.get() for _ in range(heard.qsize())]
    assert isinstance(items[-1], ClosedError)


def test_a_few_tokens_are_spoken_at_once_but_never_before_others() -> None:
    """The threads take turns, and the text stays in order."""
    heard: list[tuple[str, bool]] = []
    gated = Gated()
    here = threading.current_thread()
    speaking = Speaker(lambda speech: None, lambda: None)
    wanted = Generate(Parameters(seed=7), 100, detokenizer=gated, streams=True)
    speech = Speech(0, wanted, 1, lambda item: heard.append((item, threading.current_thread() is here)), 1.0)
    gated.gate.release()
    speaking.tell([drawn(1.0, (speech, 0))], 1)
    assert heard == [("a", True)]
    speaking.tell([drawn(2.0, (speech, 1))], speaker.FEW + 1)
    speaking.tell([drawn(3.0, (speech, 2))], 1)  # the one before is not spoken yet
    gated.gate.release(2)
    while speaking._n_heard < 2:
        time.sleep(0.001)
    gated.gate.release()
    speaking.tell([drawn(4.0, (speech, 3))], 1)
    assert heard == [("a", True), ("b", False), ("c", False), ("d", True)]
    speaking.close()
    speaking.thread.join()
