"""How much memory states take, and that whatever happens to them, the machine computes the same bits."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clarion import models
from clarion.host import native
from clarion.plan import compile
from clarion.plan.cache import CacheFormats
from clarion.plan.program import Program
from clarion.plan.sources import Sources
from clarion.plan.state import Latent, Paged, Recurrent, State
from clarion.programs import host_target
from clarion.residency import Mapped, Store
from clarion.runtime.executor import Executor
from clarion.runtime.states import memory, paged, recurrent, windowed
from clarion.runtime.states.states import SequenceState
from tests.models.files import golden

PAGE = 64
F16_HEAD = 2 * 2 * 256  # bytes of one position of a head with keys and values of 256 elements


def program_of(states: Sequence[State], context: int, batch: int) -> Program:
    """A program that declares these states, and does not use them."""
    plan = models.build(*golden("llama-f16")).plan()
    made = compile(plan, host_target(), max_tokens=batch, max_outputs=1, context=64)
    return replace(made, states=tuple(states), context=context, kv=CacheFormats("f16", "f16"))


def gemma_like(context: int = 32768, batch: int = 256, n_windows: int = 5) -> Program:
    """Of six layers, five see 1024 positions."""
    return program_of(
        [*(Paged(1, 256, 256, window=1024) for _ in range(n_windows)), Paged(1, 256, 256)], context, batch
    )


def test_a_window_needs_the_memory_of_the_window() -> None:
    """Its pages while a batch is computed, 16 positions more, and its pages for each restore point."""
    program = gemma_like()
    whole = 32768 * F16_HEAD
    pages = -(-(1023 + 16 + 256 + PAGE - 1) // PAGE)
    assert pages == 22
    assert memory.budget(program, None) == whole + 5 * pages * PAGE * F16_HEAD
    points = memory.POINTS * 5 * 17 * PAGE * F16_HEAD
    assert memory.budget(program, 32768) == memory.budget(program, None) + points
    assert memory.budget(program, 3 * 32768) == 3 * memory.budget(program, 32768)
    assert memory.budget(program, None) < 0.21 * 6 * whole
    assert memory.budget(program, 32768) < 0.35 * 6 * whole
    assert program.kv_bytes_per_token == F16_HEAD
    assert program.state_bytes(32768) == whole + 5 * 1024 * F16_HEAD
    assert program.state_bytes(10) == 6 * 10 * F16_HEAD
    text = "cache 1024 bytes a token + 5120 bytes for each of the last 1024 tokens"
    assert text in str(program)


def test_a_long_text_keeps_to_it() -> None:
    program = gemma_like(context=8192)
    held = memory.StateMemory(native(), program, n_slots=2, cache_tokens=8192)
    states = held.states()
    assert [type(kind) for kind in held.kinds] == [paged.Paged, windowed.Windowed]
    assert states.budget_bytes == memory.budget(program, 8192)
    state = states.open([], reuse=False)
    assert state is not None
    window = held.kinds[1]
    for n in range(256, 8193, 256):
        assert state.reserve(256)
        live = window.used_bytes - window.idle_bytes  # restore points hold the rest
        assert live <= window.sequence_bytes(8192) == 22 * PAGE * 5 * F16_HEAD
        state.append(range(n - 256, n))
    state.release()
    states.forget()
    assert states.used_bytes == 0


def test_a_window_as_wide_as_the_context_is_none() -> None:
    held = memory.StateMemory(native(), gemma_like(context=1024), n_slots=1)
    assert [type(kind) for kind in held.kinds] == [paged.Paged, paged.Paged]
    assert not held.states().points.needed


def test_latent_rows_are_pages_without_values() -> None:
    program = program_of([Latent(576, 512)] * 3, 1024, 64)
    held = memory.StateMemory(native(), program, n_slots=1)
    assert held.budget_bytes == 1024 * 3 * 576 * 2
    assert [type(kind) for kind in held.kinds] == [paged.Paged]


def test_recurrent_states_need_slots_and_snapshots() -> None:
    program = program_of([Recurrent(1000, 24), Recurrent(64, 16)], 4096, 64)
    assert memory.budget(program, None) == 0
    assert memory.budget(program, 4096) == memory.POINTS * 4 * (1008 + 64)
    held = memory.StateMemory(native(), program, n_slots=3, cache_tokens=4096)
    (kind,) = held.kinds
    assert isinstance(kind, recurrent.Recurrent)
    assert kind.device.snapshots == memory.POINTS
    assert memory.slot_bytes(program) == 4 * (3 * (1008 + 64) + 64 * (32 + 16))
    assert memory.slot_bytes(program) == kind.device.slot_bytes  # type: ignore[attr-defined]
    many = replace(program, max_outputs=32)
    each = memory.slot_bytes(program)
    assert [memory.most_slots(many, n) for n in (0, 5 * each + 1, 99 * each)] == [1, 5, 32]
    assert program.kv_bytes_per_token == 0
    assert program.state_bytes(7) == 4 * 1064
    assert held.states().points.are_made
    assert "cache 4256 bytes a text" in str(program)


def test_no_states_need_no_memory() -> None:
    program = program_of([], 64, 64)
    held = memory.StateMemory(native(), program, n_slots=3, cache_tokens=64)
    assert (held.budget_bytes, held.native, held.states().tables) == (0, [], [])


WINDOWS = st.sampled_from([1, 63, 64, 65, 500, 4096])
STATES = st.one_of(
    st.builds(Paged, st.integers(1, 4), st.just(64), st.just(64)),
    st.builds(
        Paged, st.integers(1, 4), st.just(64), st.just(64), st.sampled_from([1, 63, 64, 65, 500, 4096])
    ),
    st.builds(Latent, st.just(96), st.just(64)),
    st.builds(Recurrent, st.integers(1, 5000), st.integers(1, 50)),
)


@given(
    st.lists(STATES, min_size=1, max_size=4),
    st.integers(1, 20_000),
    st.sampled_from([1, 16, 256]),
    st.floats(0, 1.2),
)
def test_the_longest_context_is_the_last_that_fits(
    states: list[State], trained: int, batch: int, share: float
) -> None:
    program = program_of(states, trained, batch)

    def needed(context: int) -> int:
        return memory.budget(replace(program, context=context), context)

    n_bytes = int(share * needed(trained))
    longest = memory.longest_context(program, n_bytes)
    if longest:
        assert needed(longest) <= n_bytes
    if longest < trained:
        assert n_bytes < needed(longest + 1)
    paged = [s for s in states if not isinstance(s, Recurrent) and not getattr(s, "window", 0)]
    if paged and longest + PAGE <= trained:
        # Whole pages: a text of the longest context leaves none of them partly used.
        assert longest % PAGE == 0 or any(getattr(s, "window", 0) == longest for s in states)
        assert n_bytes < needed(longest + PAGE)


def test_the_cache_may_have_any_bytes() -> None:
    program = gemma_like(context=1024)
    least = memory.budget(program, None)
    held = memory.StateMemory(native(), program, n_slots=2, cache_bytes=least + 12345)
    assert held.states().budget_bytes == least + 12345
    assert all(kind.capacity_bytes >= least + 12345 for kind in held.kinds)


# ---- the machine ------------------------------------------------------------------------------------------

CONTEXT, BATCH, N_SLOTS = 256, 24, 3
ACTIONS = ("open", "extend", "extend", "rewind", "truncate", "fork", "cancel", "end", "end", "save")


class Runner:
    """A model on its states."""

    def __init__(self, name: str, *, keeps_all: bool) -> None:
        """`keeps_all`: no state keeps only a window."""
        plan = models.build(*golden(name)).plan()
        if keeps_all:
            states = [replace(s, window=0) if isinstance(s, Paged) else s for s in plan.states]
            plan = replace(plan, states=tuple(states))
        program = compile(
            plan, host_target(), max_tokens=BATCH, max_outputs=BATCH, context=CONTEXT, activations="exact"
        )
        store = Store(program.weights, Mapped(Sources(program.weights, golden(name)[1])))
        self.executor = Executor(program, store, n_slots=N_SLOTS, cache_tokens=N_SLOTS * CONTEXT, threads=1)
        self.states = self.executor.memory.states()

    def run(self, state: SequenceState, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        """Computes tokens behind the state's end, and does not append them."""
        assert state.reserve(len(tokens))
        n = len(tokens)
        here = np.arange(n, dtype=np.int32)
        drawn = self.executor.run(
            np.asarray(tokens, np.int32),
            here + np.int32(state.length),
            np.full(n, state.slot, np.int32),
            self.states.tables,
            here,
        )
        assert drawn is not None
        return self.executor.array()[:n].copy()

    def compute(self, state: SequenceState, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        rows = []
        for i in range(0, len(tokens), BATCH):
            rows.append(self.run(state, tokens[i : i + BATCH]))
            state.append(tokens[i : i + BATCH])
        return np.concatenate(rows)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("llama-f16", [paged.Paged]),
        ("mistral-window", [windowed.Windowed]),
        ("gemma3", [paged.Paged, windowed.Windowed]),
        ("qwen3next", [paged.Paged, recurrent.Recurrent]),
        ("mamba", [recurrent.Recurrent]),
        ("deepseek2", [paged.Paged]),
    ],
)
def test_the_same_bits_whatever_happens_to_the_states(
    tmp_path: Path, name: str, kinds: list[type], seed: int
) -> None:
    """Texts are begun, reused, forked, taken back, cancelled, saved and loaded; each row of logits is that of
    a text alone, of which every position is kept."""
    runner, alone = Runner(name, keeps_all=False), Runner(name, keeps_all=True)
    assert [type(kind) for kind in runner.states.kinds] == kinds
    draw = random.Random(seed)
    vocabulary = alone.executor.program.n_vocab
    expected: dict[tuple[int, ...], npt.NDArray[np.float32]] = {}

    def check(tokens: Sequence[int], rows: npt.NDArray[np.float32]) -> None:
        """The last rows of a text."""
        key = tuple(tokens)
        if key not in expected:
            state = alone.states.open(tokens, reuse=False)
            assert state is not None
            expected[key] = alone.compute(state, tokens)
            state.release()
        np.testing.assert_array_equal(rows, expected[key][len(tokens) - len(rows) :])

    def more(n: int) -> list[int]:
        return [draw.randrange(vocabulary) for _ in range(n)]

    texts = [more(150)]
    live: list[SequenceState] = []
    reused = 0
    for _ in range(120):
        state = draw.choice(live) if live else None
        action = draw.choice(ACTIONS)
        if action == "open" or state is None:
            text = draw.choice(texts)
            cut = draw.choice([len(text), draw.randrange(len(text) + 1)])
            tokens = [*text[:cut], *more(draw.randrange(1, 40))][: CONTEXT - 60]
            state = runner.states.open(tokens, reuse=True)
            if state is not None:
                reused += state.length
                check(tokens, runner.compute(state, tokens[state.length :]))
                state.mark()
                live.append(state)
        elif action == "extend" and state.length < CONTEXT - 40:
            rows = runner.compute(state, more(draw.randrange(1, 40)))
            check(state.tokens, rows)
        elif action == "rewind":
            state.rewind(draw.randrange(state.rewindable + 1))
        elif action == "truncate":
            state.truncate(draw.randrange(state.length + 1))
        elif action == "fork":
            twin = state.fork(draw.randrange(state.length + 1))
            if twin is not None:
                live.append(twin)
        elif action == "cancel" and state.length < CONTEXT - 40:
            runner.run(state, more(draw.randrange(1, BATCH)))
        elif action == "save" and len(live) < N_SLOTS:
            state.save(tmp_path / "x.state")
            loaded = runner.states.load(tmp_path / "x.state")
            assert loaded is not None
            live.append(loaded)
        elif action == "end":
            texts.append(list(state.tokens))
            live.remove(state)
            runner.states.retain(state)
        assert runner.states.used_bytes <= runner.states.budget_bytes
    assert reused > 0
