"""The policy without a machine: requests that only count tokens, and pages that only count."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clarion.runtime.scheduler import Preempt, Scheduler, Step, Work

PAGE = 4  # tokens in a page; a page is a byte


def pages(n: int) -> int:
    return -(-n // PAGE)


@dataclass
class Counted:
    """A request that has `held` of its tokens in pages. A text draws `draws` more, one after the other."""

    prompt: int
    draws: int  # of a text; those of one that scores are 0
    wanted: int  # last tokens of the prompt that need rows of outputs
    drawn: int = 0
    held: int = 0
    reserved: int = 0  # pages
    waits_for: int = 0  # steps that it cannot compute in
    admitted: bool = False

    @property
    def left(self) -> int:
        return self.prompt + self.drawn - self.held

    @property
    def is_done(self) -> bool:
        return self.left == 0

    def missing(self, n: int) -> int:
        return max(pages(self.held + n) - self.reserved, 0)

    def work(self) -> Work:
        left = 0 if self.waits_for else self.left
        unwanted = left - 1 if self.draws else max(self.left - self.wanted, 0)
        return Work(left, unwanted, self.missing)


@dataclass
class World:
    """Does what the policy says, and checks it."""

    n_pages: int
    max_tokens: int
    max_outputs: int
    max_running: int
    requests: list[Counted] = field(default_factory=list)
    searches: int = 0

    def __post_init__(self) -> None:
        self.scheduler = Scheduler(
            max_tokens=self.max_tokens, max_outputs=self.max_outputs, max_running=self.max_running
        )

    @property
    def used(self) -> int:
        return sum(request.reserved for request in self.requests)

    def fits(self, n: int) -> bool:
        return self.used + n <= self.n_pages

    def work(self, id: int) -> Work:
        return self.requests[id].work()

    def arrive(self, request: Counted) -> int:
        self.requests.append(request)
        self.scheduler.arrive(len(self.requests) - 1)
        return len(self.requests) - 1

    def give_back(self, id: int) -> None:
        self.requests[id].held = self.requests[id].reserved = 0

    def leave(self, id: int) -> None:
        self.give_back(id)
        self.scheduler.leave(id)

    def admit(self) -> None:
        while (id := self.scheduler.first()) is not None:
            self.searches += 1
            assert id == self.scheduler.waiting[0]
            if not self.scheduler.admit(
                self.requests[id].missing(self.requests[id].left), self.work, self.fits
            ):
                return
            self.requests[id].admitted = True

    def step(self) -> list[int]:
        """One round. Returns who ended in it."""
        self.admit()
        while isinstance(step := self.scheduler.next(self.work, self.fits), Preempt):
            assert step.id == self.scheduler.running[-1]
            assert len(self.scheduler.running) > 1, "the oldest gives back"
            self.give_back(step.id)
            self.scheduler.preempt(step.id)
        self.check(step)
        for id, tokens, _ in step.shares:
            request = self.requests[id]
            request.reserved += request.missing(tokens)
            request.held += tokens
            if request.is_done and request.drawn < request.draws:
                request.drawn += 1
        assert self.used <= self.n_pages
        ended = [id for id, *_ in step.shares if self.requests[id].is_done]
        for id in ended:
            self.leave(id)
        for id in self.scheduler.running:
            self.requests[id].waits_for = max(self.requests[id].waits_for - 1, 0)
        return ended

    def check(self, step: Step) -> None:
        running = self.scheduler.running
        assert len(running) <= self.max_running
        assert sorted(running) == list(running)
        assert sorted(self.scheduler.waiting) == list(self.scheduler.waiting)
        ready = [id for id in running if self.work(id).left]
        assert bool(step.shares) == bool(ready), "somebody could compute"
        if ready:
            assert ready[0] in [share.id for share in step.shares], "the oldest waits for nobody"
        ids = [share.id for share in step.shares]
        assert len(set(ids)) == len(ids)
        assert sum(share.tokens for share in step.shares) <= self.max_tokens
        assert sum(share.outputs for share in step.shares) <= self.max_outputs
        assert step.missing == sum(self.requests[id].missing(n) for id, n, _ in step.shares)
        for id, tokens, outputs in step.shares:
            work = self.work(id)
            assert 0 < tokens <= work.left
            assert outputs == max(tokens - work.unwanted, 0)
        for id in ready:
            if self.work(id).left == 1:
                assert id in ids, "a text waits for a prompt"


@st.composite
def worlds(draw: st.DrawFn) -> World:
    max_running = draw(st.integers(1, 6))
    max_outputs = max_running + draw(st.integers(0, 4))
    return World(draw(st.integers(6, 24)), max_outputs + draw(st.integers(0, 20)), max_outputs, max_running)


@st.composite
def requests(draw: st.DrawFn, n_pages: int) -> Counted:
    most = n_pages * PAGE  # the context
    prompt = draw(st.integers(1, most))
    draws = draw(st.integers(0, most - prompt))
    waits = draw(st.sampled_from((0, 0, 0, 3)))
    return Counted(prompt, draws, draw(st.integers(1, prompt)), waits_for=waits)


@settings(deadline=None)
@given(st.data())
def test_everybody_ends_in_time_and_nothing_is_left(data: st.DataObject) -> None:
    """Arrivals and cancellations at any time. Nobody starves: while the oldest runs, it computes in every
    step."""
    world = data.draw(worlds())
    to_come = data.draw(st.lists(requests(world.n_pages), max_size=8))
    actions = data.draw(st.lists(st.sampled_from(["arrive", "cancel", "step", "step"]), max_size=60))
    alive: set[int] = set()
    for action in actions:
        if action == "arrive" and to_come:
            alive.add(world.arrive(to_come.pop()))
        elif action == "cancel" and alive:
            id = data.draw(st.sampled_from(sorted(alive)))
            alive.remove(id)
            world.leave(id)
        else:
            alive -= set(world.step())
    for request in to_come:
        alive.add(world.arrive(request))
    # The oldest is never preempted, so everybody ends within the steps that each would take alone, one by
    # one.
    most = sum(2 * request.prompt + request.draws + request.waits_for + 1 for request in world.requests)
    for _ in range(most):
        alive -= set(world.step())
    assert not alive
    assert world.used == 0
    assert world.scheduler.running == world.scheduler.waiting == ()


@settings(deadline=None)
@given(st.data())
def test_they_are_admitted_in_the_order_in_which_they_came(data: st.DataObject) -> None:
    world = data.draw(worlds())
    coming = data.draw(st.lists(requests(world.n_pages), min_size=1, max_size=8))
    for request in coming:
        world.arrive(request)
    while world.scheduler.running or world.scheduler.waiting:
        world.step()
        admitted = [request.admitted for request in coming]
        assert admitted == sorted(admitted, reverse=True)


def test_texts_come_before_prompts_and_prompts_share_the_rest() -> None:
    world = World(100, max_tokens=16, max_outputs=4, max_running=4)
    for prompt in (20, 1, 20, 1):
        world.arrive(Counted(prompt, 5, 1))
    world.admit()
    step = world.scheduler.next(world.work, world.fits)
    assert isinstance(step, Step)
    assert step.shares == ((1, 1, 1), (3, 1, 1), (0, 14, 0))
    world.requests[0].prompt = 10
    step = world.scheduler.next(world.work, world.fits)
    assert isinstance(step, Step)
    assert step.shares == ((1, 1, 1), (3, 1, 1), (0, 10, 1), (2, 4, 0))


def test_rows_of_outputs_are_shared_too() -> None:
    world = World(100, max_tokens=16, max_outputs=4, max_running=4)
    world.arrive(Counted(12, 0, 10))
    world.arrive(Counted(1, 5, 1))
    world.arrive(Counted(8, 5, 1))
    world.admit()
    step = world.scheduler.next(world.work, world.fits)
    assert isinstance(step, Step)
    # Two tokens without a row and three with one; and no row for the end of the last prompt.
    assert step.shares == ((1, 1, 1), (0, 5, 3), (2, 7, 0))


def test_who_waits_is_not_looked_at_until_something_is_given_back() -> None:
    world = World(10, max_tokens=8, max_outputs=4, max_running=4)
    world.arrive(Counted(8, 20, 1))
    world.step()
    world.arrive(Counted(36, 1, 1))
    world.arrive(Counted(1, 1, 1))  # it would fit, but is not the first
    before = world.searches
    while 0 in world.scheduler.running:
        assert not world.requests[2].admitted
        world.step()
    assert world.searches == before + 1
    world.step()
    assert world.searches > before + 1
    assert world.requests[1].admitted


def test_what_was_promised_is_not_promised_again() -> None:
    world = World(10, max_tokens=4, max_outputs=4, max_running=4)
    for _ in range(3):
        world.arrive(Counted(16, 1, 1))
    world.step()
    assert world.scheduler.running == (0, 1)
    assert world.scheduler.waiting == (2,)


def test_the_last_one_gives_back_and_is_the_next() -> None:
    world = World(6, max_tokens=8, max_outputs=4, max_running=4)
    for _ in range(2):
        world.arrive(Counted(8, 12, 1))
    world.arrive(Counted(4, 1, 1))
    while len(world.scheduler.running) != 1:
        world.step()
    assert world.scheduler.running == (0,)
    assert world.scheduler.waiting == (1, 2)
    assert world.requests[1].reserved == 0


@pytest.mark.parametrize("limits", [(4, 2, 3), (2, 3, 1), (4, 4, 0)])
def test_limits_that_would_starve_texts_are_our_mistake(limits: tuple[int, int, int]) -> None:
    max_tokens, max_outputs, max_running = limits
    with pytest.raises(AssertionError):
        Scheduler(max_tokens=max_tokens, max_outputs=max_outputs, max_running=max_running)


def test_what_somebody_else_works_on_is_passed_over() -> None:
    """Where bytes run out, the last of the others gives its own up, also if it is the one that needs them."""
    scheduler = Scheduler(max_tokens=16, max_outputs=4, max_running=4)
    held: set[int] = set()

    def describe(id: int) -> Work:
        return Work(0, 0, lambda n: 0, held=True) if id in held else Work(1, 0, lambda n: n)

    for id in range(3):
        scheduler.arrive(id)
        assert scheduler.admit(0, describe, lambda n: True)
    held |= {2}
    assert scheduler.next(describe, lambda n: n <= 1) == Preempt(1)
    scheduler.preempt(1)
    held |= {0}
    scheduler.arrive(3)
    assert scheduler.first() == 1
    assert scheduler.admit(0, describe, lambda n: True)
    assert scheduler.next(describe, lambda n: False) == Preempt(1)
    scheduler.preempt(1)
    # Nobody is left that computes: what is held ends by itself.
    step = scheduler.next(describe, lambda n: False)
    assert isinstance(step, Step)
    assert step.shares == ()
    scheduler.leave(2)
    assert scheduler.first() == 1
