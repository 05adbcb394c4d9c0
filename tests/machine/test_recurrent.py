"""Operations with a recurrent state: their definition, and the same bits however a text is cut, and after
it went back."""

from __future__ import annotations

import numpy as np
import pytest

from clarion._native import files
from tests.machine.recurrences import NAMES, Recurrence

SEEDS = 12
N = 150  # tokens of a text, where it is cut


@pytest.mark.parametrize("name", NAMES)
def test_the_definition(native, name):
    """Several texts side by side, cut where it happens, the second pieces in another batch."""
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        r = Recurrence(name, seed, int(rng.integers(1, 41)))
        program = r.program(native, int(rng.integers(1, 3)))
        slots, texts = r.slots(3), [r.inputs(text) for text in range(3)]
        cuts = [int(rng.integers(0, r.n + 1)) for _ in texts]
        found = [np.empty((0, 0))] * 3
        for spans in ([(0, cut) for cut in cuts], [(cut, r.n) for cut in cuts]):
            pieces = [(i, texts[i], *span) for i, span in enumerate(spans) if span[0] < span[1]]
            if not pieces:
                continue
            rows = np.split(
                r.run(program, slots, pieces),
                np.cumsum([last - first for _, _, first, last in pieces])[:-1],
            )
            for (i, *_), part in zip(pieces, rows, strict=True):
                found[i] = part if not found[i].size else np.concatenate([found[i], part])
        for text, result in zip(texts, found, strict=True):
            wanted = r.expected(text)
            scale = max(1, np.abs(wanted).max(), *(np.abs(rows).max() for rows in text.values()))
            np.testing.assert_allclose(
                result, wanted, rtol=0, atol=r.case.tolerance * scale, err_msg=f"{name}, seed {seed}"
            )


def whole(r, native, text):
    """A text in one piece, on one thread."""
    return r.run(r.program(native, 1), r.slots(), [(0, text, 0, r.n)])


@pytest.mark.parametrize("name", NAMES)
def test_the_same_bits_in_pieces(native, name):
    for seed in range(4):
        r = Recurrence(name, seed, N)
        program = r.program(native, 2)
        text = r.inputs(0)
        wanted = whole(r, native, text)
        for length in (1, 7, 16, 17, 64):
            slots = r.slots()
            pieces = [(first, min(first + length, N)) for first in range(0, N, length)]
            found = [r.run(program, slots, [(0, text, *piece)]) for piece in pieces]
            np.testing.assert_array_equal(
                np.concatenate(found), wanted, err_msg=f"{seed}, pieces of {length}"
            )


@pytest.mark.parametrize("name", NAMES)
def test_the_same_bits_among_other_texts(native, name):
    """Texts that go on at their own pace, in any order, on any slots."""
    for seed in range(4):
        rng = np.random.default_rng(seed)
        r = Recurrence(name, seed, N)
        program, texts = r.program(native, 2), [r.inputs(i) for i in range(4)]
        wanted = [whole(r, native, text) for text in texts]
        slots, at = r.slots(7), [0] * 4
        places = rng.permutation(7)[:4]
        while min(at) < N:
            pieces = [
                (int(places[i]), texts[i], at[i], min(N, at[i] + int(rng.choice([1, 3, 20, 50]))))
                for i in rng.permutation(4)
                if at[i] < N and rng.integers(3)
            ]
            if not pieces:
                continue
            rows = r.run(program, slots, pieces)
            for slot, _, first, last in pieces:
                i = list(places).index(slot)
                np.testing.assert_array_equal(rows[: last - first], wanted[i][first:last])
                rows, at[i] = rows[last - first :], last


@pytest.mark.parametrize("name", NAMES)
def test_the_same_bits_after_going_back(native, name):
    """Runs of other tokens are taken back: short ones and long ones to where they began, as if they had been
    cancelled; and up to 16 tokens at any time."""
    for seed in range(4):
        rng = np.random.default_rng(seed)
        r = Recurrence(name, seed, N)
        program, slots = r.program(native, 2), r.slots()
        text, other = r.inputs(0), r.inputs(1)
        wanted, at = whole(r, native, text), 0
        while at < N:
            last = min(N, at + int(rng.choice([1, 1, 2, 5, 16, 17, 40])))
            match int(rng.integers(4)):
                case 0:
                    r.run(program, slots, [(0, other, at, last)])
                case 1 if at:
                    least = slots.first(0, at)
                    at = int(rng.integers(least, at + 1))
                    continue
            found = r.run(program, slots, [(0, text, at, last)])
            np.testing.assert_array_equal(found, wanted[at:last], err_msg=f"seed {seed}, {at} to {last}")
            at = last


@pytest.mark.parametrize("name", NAMES)
def test_the_same_bits_from_a_snapshot_and_in_a_fork(native, name):
    r = Recurrence(name, 0, N)
    program, slots, text = r.program(native, 2), r.slots(3, snapshots=1), r.inputs(0)
    wanted = whole(r, native, text)
    r.run(program, slots, [(0, text, 0, 70)])
    slots.save(0, 70, 0)
    slots.copy(0, 1)
    r.run(program, slots, [(0, r.inputs(1), 70, 100)])
    slots.restore(0, 2, 70)
    for slot in (1, 2):
        found = r.run(program, slots, [(slot, text, 70, N)])
        np.testing.assert_array_equal(found, wanted[70:])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 1e38, -1e38, 1e-40, -0.0])
def test_hostile_values_stay_in_their_text(native, name, value):
    """What a number beyond the range reaches is none; another text beside it does not change."""
    r = Recurrence(name, 1, 20)
    program = r.program(native, 2)
    good, bad = r.inputs(0), r.inputs(1)
    wanted = whole(r, native, good)
    rng = np.random.default_rng(3)
    for rows in bad.values():
        rows[rng.random(rows.shape) < 0.01] = value
    for rows in bad.values():
        rows[12:, rng.integers(rows.shape[1])] = value
    found = r.run(program, r.slots(2), [(1, bad, 0, r.n), (0, good, 0, r.n)])
    np.testing.assert_array_equal(found[r.n :], wanted)
    alone = r.run(r.program(native, 1), r.slots(), [(0, bad, 0, r.n)])
    np.testing.assert_array_equal(found[: r.n], alone)
    with np.errstate(all="ignore"):
        exact = r.expected(bad)
    if np.abs(value) < 1:
        scale = max(1, np.abs(exact).max())
        np.testing.assert_allclose(alone, exact, rtol=0, atol=r.case.tolerance * scale)
    else:
        assert not np.any(np.isfinite(alone) & np.isnan(exact))  # what is lost stays lost
    if np.isnan(value):
        np.testing.assert_array_equal(np.isnan(alone), np.isnan(exact))


@pytest.mark.parametrize("name", NAMES)
def test_refusals(native, name):
    """States that are absent or of another size, and positions that cannot be reached."""
    r = Recurrence(name, 2, 40)
    program, text = r.program(native, 1), r.inputs(0)
    zeros, nothing, table = np.zeros(1, np.int32), np.zeros(0, np.int32), np.zeros((1, 0), np.int32)
    with pytest.raises(ValueError, match=f"operation '{name}' needs slots with state 0"):
        program.run([], zeros, zeros, zeros, [], nothing)
    for shape in ((r.shape[0] + 1, r.shape[1]), (r.shape[0], r.shape[1] + 1)):
        slots = files.SlotStates([shape], 1, 0)
        with pytest.raises(
            ValueError, match=f"the slots have {shape[0]} numbers and {shape[1]} of each token"
        ):
            program.run([slots.native], zeros, zeros, zeros, [table], nothing)
    slots = r.slots()
    r.run(program, slots, [(0, text, 0, 40)])
    with pytest.raises(ValueError, match="to which slot 0 cannot be taken"):
        r.run(program, slots, [(0, text, 3, 4)])
    r.run(program, slots, [(0, text, 24, 25)])
