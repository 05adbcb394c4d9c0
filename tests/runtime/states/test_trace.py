"""How many tokens of a recorded trace are reused, against a simple policy: a list of finished sequences.

The simple policy keeps the latest finished sequences, one for each slot; searches all of them for the longest
common prefix; drops those that another one begins with; and forgets the oldest where pages are needed. Both
policies serve the same requests, which come at recorded steps, with the same scheduling: first come, first
served; texts before prompts; the last to come gives its pages back.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Protocol

import pytest

from clarion.runtime.states.pages import PAGE_SIZE
from clarion.runtime.states.states import SHORTEST_REUSE, SequenceState
from tests.runtime.states.toys import Toy

N_SLOTS = 8
MAX_TOKENS = 128
CONTEXT = 2048


@dataclass
class Request:
    step: int  # when it comes
    prompt: list[int]
    answer: list[int]


@dataclass
class Held:
    """What a policy holds of a running request."""

    tokens: list[int] = field(default_factory=list)
    pages: list[int] = field(default_factory=list)


class Policy(Protocol):
    def open(self, prompt: list[int], n: int, alone: bool) -> tuple[object, int] | None:
        """Something that holds part of a prompt of n tokens, and how many; None if it has to wait."""

    def reserve(self, held: object, n: int) -> bool: ...
    def append(self, held: object, tokens: list[int], prompt_ends: bool) -> None: ...
    def retain(self, held: object) -> None: ...
    def release(self, held: object) -> None: ...


class Simple:
    """The simple policy, over pages that are counted."""

    def __init__(self, n_pages: int) -> None:
        self.n_pages = n_pages
        self.holders: Counter[int] = Counter()
        self.retained: list[Held] = []

    @property
    def free(self) -> list[int]:
        return [page for page in range(self.n_pages) if self.holders[page] == 0]

    def missing(self, held: Held, n: int) -> int:
        new = max(0, -(-(len(held.tokens) + n) // PAGE_SIZE) - len(held.pages))
        return new + (n > 0 and self.shared(held))

    def shared(self, held: Held) -> bool:
        return len(held.tokens) % PAGE_SIZE != 0 and self.holders[held.pages[-1]] > 1

    def open(self, prompt: list[int], n: int, alone: bool) -> tuple[object, int] | None:
        lengths = [common(old.tokens, prompt[:-1]) for old in self.retained]
        held = Held()
        if lengths and max(lengths) >= SHORTEST_REUSE:
            reused = max(lengths)
            old = self.retained[lengths.index(reused)]
            held = Held(old.tokens[:reused], old.pages[: -(-reused // PAGE_SIZE)])
            self.holders.update(held.pages)
        needed = self.missing(held, n - len(held.tokens))
        retained = Counter(page for old in self.retained for page in old.pages)
        room = len(self.free) + sum(self.holders[page] == n for page, n in retained.items())
        if needed > room and not alone:
            self.release(held)
            return None
        self.forget(needed)
        return held, len(held.tokens)

    def forget(self, n_pages: int) -> None:
        while self.retained and len(self.free) < n_pages:
            self.release(self.retained.pop(0))

    def reserve(self, held: object, n: int) -> bool:
        assert isinstance(held, Held)
        while self.missing(held, n) > len(self.free):
            if not self.retained:
                return False
            self.forget(self.missing(held, n))
        if n > 0 and self.shared(held):
            self.holders[held.pages[-1]] -= 1
            held.pages[-1] = self.free[0]
            self.holders[held.pages[-1]] += 1
        while len(held.pages) * PAGE_SIZE < len(held.tokens) + n:
            held.pages.append(self.free[0])
            self.holders[held.pages[-1]] += 1
        return True

    def append(self, held: object, tokens: list[int], prompt_ends: bool) -> None:
        assert isinstance(held, Held)
        held.tokens += tokens

    def retain(self, held: object) -> None:
        assert isinstance(held, Held)
        for old in [old for old in self.retained if common(old.tokens, held.tokens) == len(old.tokens)]:
            self.retained.remove(old)
            self.release(old)
        self.retained.append(held)
        if len(self.retained) > N_SLOTS:
            self.release(self.retained.pop(0))

    def release(self, held: object) -> None:
        assert isinstance(held, Held)
        self.holders.subtract(held.pages)


class Tree:
    """The policy of `States`."""

    def __init__(self, n_pages: int) -> None:
        self.toy = Toy(n_pages=n_pages, n_slots=N_SLOTS, context=CONTEXT)

    def open(self, prompt: list[int], n: int, alone: bool) -> tuple[object, int] | None:
        state = self.toy.states.open(prompt, reuse=True)
        assert state is not None
        if not state.fits(n - state.length) and not alone:
            state.release()
            return None
        return state, state.length

    def reserve(self, held: object, n: int) -> bool:
        assert isinstance(held, SequenceState)
        return held.reserve(n)

    def append(self, held: object, tokens: list[int], prompt_ends: bool) -> None:
        assert isinstance(held, SequenceState)
        self.toy.run(held, tokens)
        held.append(tokens)
        if prompt_ends:
            held.mark()

    def retain(self, held: object) -> None:
        assert isinstance(held, SequenceState)
        self.toy.check(held, held.tokens)
        self.toy.states.retain(held)

    def release(self, held: object) -> None:
        assert isinstance(held, SequenceState)
        held.release()


def common(a: list[int], b: list[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def serve(policy: Policy, trace: list[Request]) -> list[int]:
    """Runs the requests; how many tokens each of them reused when it first started."""
    coming = deque(sorted(range(len(trace)), key=lambda i: trace[i].step))
    waiting: deque[int] = deque()
    running: list[int] = []
    held: dict[int, object] = {}
    done: dict[int, int] = {}  # tokens in the state
    answered = [0] * len(trace)
    reused: dict[int, int] = {}
    refused = None
    step = 0
    while coming or waiting or running:
        if not (waiting or running):
            step = max(step, trace[coming[0]].step)
        while coming and trace[coming[0]].step <= step:
            waiting.append(coming.popleft())
        while waiting and len(running) < N_SLOTS and waiting[0] != refused:
            i = waiting[0]
            text = trace[i].prompt + trace[i].answer[: answered[i]]
            opened = policy.open(text, len(text), not running)
            if opened is None:
                refused = i
                break
            held[i], done[i] = opened
            reused.setdefault(i, done[i])
            running.append(waiting.popleft())
        chosen: dict[int, list[int]] = {}
        room = MAX_TOKENS
        for i in sorted(running, key=lambda i: len(trace[i].prompt) + answered[i] - done[i] > 1):
            text = trace[i].prompt + trace[i].answer[: answered[i]]
            todo = text[done[i] : done[i] + room]
            while todo and i in running and not policy.reserve(held[i], len(todo)):
                victim = running.pop()
                refused = None
                room += len(chosen.pop(victim, []))
                policy.release(held.pop(victim))
                waiting.appendleft(victim)
            if todo and i in running:
                chosen[i] = todo
                room -= len(todo)
        for i, todo in chosen.items():
            before, done[i] = done[i], done[i] + len(todo)
            n_prompt = len(trace[i].prompt)
            policy.append(held[i], todo, before < n_prompt == done[i])
            if done[i] == n_prompt + answered[i]:
                if answered[i] == len(trace[i].answer):
                    running.remove(i)
                    refused = None
                    policy.retain(held.pop(i))
                else:
                    answered[i] += 1
        step += 1
    return [reused[i] for i in range(len(trace))]


def record(seed: int, pause: int, n_chats: int = 12) -> list[Request]:
    """Chats of several turns under a few system prompts, some of which fork; `pause`: steps between turns."""
    rng = random.Random(seed)

    def text(n: int) -> list[int]:
        return [rng.randrange(1000) for _ in range(n)]

    systems = [[1, *text(rng.choice([20, 90, 300]))] for _ in range(3)]
    trace = []
    for _ in range(n_chats):
        past = list(rng.choice(systems))
        step = rng.randrange(1, 4 * pause + 2)
        for _ in range(rng.randrange(1, 6)):
            prompt = past + text(rng.randrange(5, 120))
            answer = text(rng.randrange(5, 60))
            if len(prompt) + len(answer) > CONTEXT - 200:
                break
            trace.append(Request(step, prompt, answer))
            if rng.random() < 0.2:  # asked once more
                trace.append(Request(step + rng.randrange(pause + 1), prompt, text(20)))
            past = prompt + answer
            step += rng.randrange(1, 2 * pause + 2)
    return trace


SEEDS = range(12)


def test_on_an_idle_engine_with_pages_for_all_each_request_reuses_at_least_as_much() -> None:
    for seed in SEEDS:
        trace = record(seed, pause=400)
        simple, tree = serve(Simple(500), trace), serve(Tree(500), trace)
        assert all(t >= s for t, s in zip(tree, simple, strict=True)), f"seed {seed}: {tree} {simple}"


@pytest.mark.parametrize("pages", [32, 48, 96, 500])
@pytest.mark.parametrize("pause", [5, 60, 400])
def test_traces_reuse_at_least_as_much(pause: int, pages: int) -> None:
    """With few pages a single trace may lose a little: no order of eviction is the best one for all."""
    sums = [
        (sum(serve(Simple(pages), record(seed, pause))), sum(serve(Tree(pages), record(seed, pause))))
        for seed in SEEDS
    ]
    print(f"seeds {SEEDS}, (simple, tree): {sums}")
    assert sum(tree for _, tree in sums) >= sum(simple for simple, _ in sums)
    assert all(tree >= 0.97 * simple for simple, tree in sums)
