"""Programs: what they refuse, and how they behave when several threads use them."""

from __future__ import annotations

import copy
import gc
import threading
import time

import numpy as np
import pytest

from clarion._native.files import SlotStates
from clarion.plan.operations.rows import silu
from tests.machine.build import Batch, Builder


def small(native, n=4):
    """x → norm → silu → y, and a row of a table."""
    b = Builder(native, n)
    x, y, t = b.buffer("x", 20), b.buffer("y", 20), b.buffer("t", 20)
    b.op("embed", [], [t], [b.weight(np.ones((11, 20)))], floats={"scale": 1.0})
    b.op("rms_norm", [x], [y], [b.weight(np.ones(20))], floats={"eps": 1e-5})
    b.op("silu", [y], [y])
    b.spec["states"] = [(0, 0)]
    return b


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["arena_bytes"], -1, "arena_bytes|memory"),
        (["arena_bytes"], 2**63 - 1, "memory: the size is negative or too large"),
        (["arena_bytes"], "1", "spec.arena_bytes: found '1'"),
        (["arena_bytes"], 64, "end beyond the arena's 64"),
        (["max_tokens"], 0, "max_tokens: found 0"),
        (["max_tokens"], 2**40, "max_tokens: found"),
        (["max_outputs"], -1, "max_outputs: found -1"),
        (["buffers"], None, "spec: lacks 'buffers'"),
        (["buffers"], [1], r"spec.buffers\[0\]: expected a dict"),
        (["buffers", 0, "width"], 0, "buffer 'x': width: found 0"),
        (["buffers", 0, "width"], 2**60, "buffer 'x': width"),
        (["buffers", 0, "width"], 1.5, r"spec.buffers\[0\].width: found 1.5"),
        (["buffers", 0, "offset"], -64, "buffer 'x': found offset -64"),
        (["buffers", 0, "offset"], 32, "buffer 'x': found offset 32, expected a multiple of 64"),
        (["buffers", 0, "offset"], 2**62, "buffer 'x'.* end beyond"),
        (["buffers", 0, "kind"], "f64", "kind: found 'f64'"),
        (["buffers", 0, "rows"], "columns", "rows: found 'columns'"),
        (["buffers", 0, "slots_per_token"], 0, "slots_per_token: found 0, expected 1"),
        (["buffers", 0, "slots_per_token"], 2**40, "slots_per_token: found"),
        (["buffers", 0, "rows"], "outputs", "operation 'rms_norm'"),
        (["weights", 0, "format"], 999, "weight 'w0': unknown format 999"),
        (["weights", 0, "format"], 8, "multiple of 32, the block of Q8_0"),
        (["weights", 0, "rows"], 12, "weight 'w0': found 880 bytes, expected 960"),
        (["weights", 0, "rows"], 2**31, "weight 'w0': found 880 bytes"),
        (["weights", 0, "experts"], 0, "weight 'w0': experts: found 0"),
        (["weights", 0, "data"], b"1234", "weight 'w0': found 4 bytes"),
        (["weights", 1, "cols"], 19, "operation 'rms_norm'.*19 elements, expected 20"),
        (["ops", 1, "op"], "rms_nrom", "operation 'rms_nrom': unknown; expected one of embed, .*rms_norm"),
        (["ops", 1, "inputs"], [3], "operation 'rms_norm': input 3, of 3"),
        (["ops", 1, "inputs"], [-2], "operation 'rms_norm': input -2"),
        (["ops", 1, "inputs"], [-1], "operation 'rms_norm': found 1 inputs, some perhaps absent"),
        (["ops", 1, "inputs"], [0, 0], "operation 'rms_norm': found 2 inputs"),
        (["ops", 1, "outputs"], [], "operation 'rms_norm': found 0 outputs"),
        (["ops", 1, "weights"], [0, 0], "operation 'rms_norm': found 2 weights"),
        (["ops", 1, "floats"], {}, "operation 'rms_norm': lacks the number 'eps'"),
        (["ops", 1, "floats"], {"eps": 0.1, "bias": 1.0}, "'rms_norm': does not know the parameter 'bias'"),
        (["ops", 1, "ints"], {"axis": 1}, "'rms_norm': does not know the parameter 'axis'"),
        (["ops", 1, "ints"], {"axis": "one"}, r"spec.ops\[1\].ints: found 'one'"),
        (["ops", 2, "outputs"], [2], None),  # harmless: as wide
    ],
    ids=str,
)  # fmt: skip
def test_specifications(native, path, value, message):
    b = small(native)
    b.spec = copy.deepcopy(b.spec)
    place = b.spec
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    if message is None:
        b.program()
    else:
        with pytest.raises(ValueError, match=message):
            b.program()


OPS = [
    ("rope", {"n_head": 3, "head_dim": 8, "n_rot": 12, "neox": 0}, "n_rot: found 12"),
    ("rope", {"n_head": 2, "head_dim": 10, "n_rot": 12, "neox": 0}, "n_rot: found 12"),
    ("rope", {"n_head": -2, "head_dim": -10, "n_rot": 12, "neox": 0}, "n_rot|heads"),
    ("attention", {"state": 0, "n_head": 0, "n_head_kv": 1, "head_dim": 20}, "expected 0 heads of 20"),
    ("attention", {"state": 0, "n_head": 2, "n_head_kv": 0, "head_dim": 10}, "n_head_kv: found 0"),
    ("attention", {"state": 0, "n_head": 4, "n_head_kv": 3, "head_dim": 5}, "n_head_kv: found 3"),
    ("attention", {"state": -1, "n_head": 4, "n_head_kv": 4, "head_dim": 5}, "state: found -1"),
    (
        "attention",
        {"state": 0, "n_head": 4, "n_head_kv": 4, "head_dim": 5, "window": -1},
        "window: found -1",
    ),
]


@pytest.mark.parametrize(("op", "ints", "message"), OPS)
def test_operations_that_make_no_sense(native, op, ints, message):
    b = Builder(native, 4)
    x, y, r = b.buffer("x", 20), b.buffer("y", 20), b.buffer("r", 12)
    if op == "rope":
        b.op(op, [x, r], [x], [-1], ints, {"eps": 0.0})
    else:
        ints = {"dim_v": ints["head_dim"], "window": 0, "chunked": 0, "causal": 1} | ints
        b.op(op, [x], [y], [-1], ints, {"scale": 1.0, "cap": 0.0}, {"slopes": []})
    with pytest.raises(ValueError, match=message):
        b.program()


@pytest.mark.parametrize("name", ["n_head", "head_dim", "n_rot", "neox", "eps"])
def test_no_parameter_may_be_absent(native, name):
    b = Builder(native, 4)
    x, r = b.buffer("x", 20), b.buffer("r", 4)
    ints = {"n_head": 2, "head_dim": 10, "n_rot": 4, "neox": 0}
    floats = {"eps": 0.0}
    for parameters in (ints, floats):
        parameters.pop(name, None)
    b.op("rope", [x, r], [x], [-1], ints, floats)
    with pytest.raises(ValueError, match=f"lacks the (integer|number) '{name}'"):
        b.program()


def test_experts_and_routes_that_make_no_sense(native):
    for k, width, message in (
        (0, 3, "k: found 0"),
        (4, 4, "k: found 4, expected 1 to 3"),
        (2, 3, "3 wide, expected 2"),
    ):
        b = Builder(native, 4)
        outputs = [b.buffer("ids", width, "i32"), b.buffer("w", width)]
        ints = {"k": k, "gating": 0, "n_group": 1, "n_group_used": 1, "group_top": 1, "normalize": 0}
        b.op("route", [b.buffer("s", 3)], outputs, [-1], ints, {"scale": 1.0})
        with pytest.raises(ValueError, match=message):
            b.program()


def test_ids_out_of_range_stay_among_the_experts(native):
    b = Builder(native, 3)
    x, ids, y = b.buffer("x", 4), b.buffer("ids", 1, "i32"), b.buffer("y", 2)
    matrices = np.arange(1, 4)[:, None, None] * np.ones((3, 2, 4))
    b.op("expert_linear", [x, ids], [y], [b.weight(matrices), -1])
    program = b.program()
    program.buffer("x")[:] = 1
    program.buffer("ids")[:, 0] = [-1, 2**31 - 1, 0]
    assert Batch(3).run(program)
    np.testing.assert_array_equal(program.buffer("y"), [[12, 12], [12, 12], [4, 4]])


BATCHES = [
    (Batch(0), "tokens in the batch: found 0, expected 1 to 4"),
    (Batch(5), "tokens in the batch: found 5, expected 1 to 4"),
    (Batch(2, positions=[0]), "found 2 tokens, 1 positions and 2 sequences"),
    (Batch(2, sequences=[0]), "found 2 tokens, 2 positions and 1 sequences"),
    (Batch(2, tokens=[0, 11]), r"tokens\[1\]: found 11, expected 0 to 10"),
    (Batch(2, tokens=[0, -1]), r"tokens\[1\]: found -1"),
    (Batch(2, positions=[0, -1]), r"positions\[1\]: found -1"),
    (Batch(2, sequences=[0, -1]), r"sequences\[1\]: found -1"),
    (Batch(2, outputs=[2]), r"outputs\[0\]: found 2, expected 0 to 1"),
    (Batch(2, outputs=[-1]), r"outputs\[0\]: found -1"),
    (Batch(2, outputs=[0] * 5), "outputs in the batch: found 5, expected 0 to 4"),
]
CACHE_BATCHES = [
    (Batch(2, sequences=[0, 1], pages=[[0]]), r"sequences\[1\]: found 1"),
    (Batch(2, positions=[0, 128], pages=[[0, 1]]), r"positions\[1\]: found 128, beyond 2 pages of 64"),
    (Batch(2, positions=[63, 64], pages=[[0, 3]]), r"pages\[0, 1\]: found 3, expected 0 to 2"),
    (Batch(1, positions=[64], pages=[[-1, 1]]), r"pages\[0, 0\]: found -1"),
    (Batch(2, positions=[7, 7], pages=[[2]]), "two tokens of the batch write slot 7 of page 2"),
    (Batch(2, positions=[7, 7], sequences=[0, 1], pages=[[2], [2]]), "two tokens of the batch write slot 7"),
]


@pytest.mark.parametrize(
    ("batch", "message"), BATCHES + CACHE_BATCHES, ids=lambda x: x if isinstance(x, str) else ""
)
def test_batches(native, batch, message):
    program, cache = small(native).program(), native.KvCache([(1, 8, 8)], 3) if batch.pages.size else None
    program.buffer("y")[:] = 7
    with pytest.raises(ValueError, match=message):
        batch.run(program, cache)
    assert (program.buffer("y") == 7).all()  # nothing was touched
    assert Batch(2).run(program)


def test_batches_of_other_types(native):
    program, cache = small(native).program(), native.KvCache([(1, 8, 8)], 1)
    for name, array, error in (
        ("tokens", np.zeros(2, np.int64), TypeError),
        ("positions", np.zeros((2, 1), np.int32), TypeError),
        ("pages", [0], ValueError),
        ("pages", np.zeros((1, 1), np.int64), ValueError),
        ("pages", np.zeros(1, np.int32), ValueError),
    ):
        batch = Batch(2, pages=[[0]])
        setattr(batch, name, array)
        with pytest.raises(error, match=r"tables\[0\]|incompatible function arguments"):
            batch.run(program, cache)
    with pytest.raises(ValueError, match=r"states\[0\]: found 7"):
        Batch(2, pages=[[0]]).run(program, 7)


def test_groups_of_states(native):
    program, cache = small(native).program(), native.KvCache([(1, 8, 8)], 1)
    table, zeros = np.zeros((1, 1), np.int32), np.zeros(2, np.int32)
    arguments = (zeros, np.arange(2, dtype=np.int32), zeros)
    with pytest.raises(ValueError, match="found 1 groups of states and 2 tables"):
        program.run([cache], *arguments, [table, table], zeros[:0])
    for states in ([(1, 0)], [(-1, 0)], [(0, -1)]):
        b = small(native)
        b.spec["states"] = states
        with pytest.raises(ValueError, match=r"states\[0\]: (group|layer): found -?1, expected 0 to"):
            b.program()


def test_recurrent_states_are_checked(native):
    """Before anything is touched: slots, positions that they can be taken to, and tokens in order."""
    slots = SlotStates([(4, 2)], 2)
    program = small(native).program()

    def run(positions, sequences, n_slots=2):
        positions, sequences = (np.array(values, np.int32) for values in (positions, sequences))
        table, zeros = np.zeros((n_slots, 1), np.int32), np.zeros(len(positions), np.int32)
        return program.run([slots.native], zeros, positions, sequences, [table], zeros[:0])

    assert run([0, 1, 0], [0, 0, 1])
    for positions, sequences, message in (
        ([3], [0], r"positions\[0\]: found 3, to which slot 0 cannot be taken"),
        ([0, 2], [0, 0], r"positions\[1\]: found 2, expected 1, behind the token before"),
        ([0, 0, 1], [0, 1, 0], "slot 0 cannot be taken|the tokens of sequence 0 are not neighbours"),
    ):
        with pytest.raises(ValueError, match=message):
            run(positions, sequences)
    with pytest.raises(ValueError, match=r"sequences\[0\]: found 2, expected 0 to 1"):
        run([0], [2], 3)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([], "state 0: layer 0 of a group that has 0"),
        ([(2, 10, 10)], None),
        ([(1, 10, 10)], "1 heads of 10 and 10"),
        (None, "the batch has no cache with it"),
    ],
)
def test_caches_of_another_shape(native, shapes, message):
    b = Builder(native, 4)
    k, v = b.buffer("k", 20), b.buffer("v", 20)
    b.op("kv_write", [k, v], [], ints={"state": 0})
    program = b.program()
    cache = None if shapes is None else native.KvCache(shapes, 1)
    if message is None:
        assert Batch(4, pages=[[0]]).run(program, cache)
    else:
        with pytest.raises(ValueError, match=message):
            Batch(4, pages=[[0]]).run(program, cache)


def slow(native, threads, n_ops):
    """y = silu(x), again and again: 20 µs each or more."""
    b = Builder(native, 64)
    x, y = b.buffer("x", 1024), b.buffer("y", 1024)
    for _ in range(n_ops):
        b.op("silu", [x], [y])
    return b.program(threads)


@pytest.mark.parametrize("threads", [1, 3])
def test_cancel_from_another_thread(native, threads):
    program = slow(native, threads, 50_000)
    results = []
    runner = threading.Thread(target=lambda: results.append(Batch(64).run(program)))
    runner.start()
    while runner.is_alive():  # before the run begins, a cancel does nothing
        program.cancel()
        time.sleep(0.001)
    assert results == [False]


def test_a_cancelled_program_runs_again(native):
    program = small(native).program(2)
    program.cancel()
    assert Batch(4).run(program)


def test_other_threads_go_on_during_a_run(native):
    """The interpreter's lock is released."""
    program, count, stop = slow(native, 1, 10_000), [0], threading.Event()

    def counting():
        while not stop.is_set():
            count[0] += 1

    counter = threading.Thread(target=counting)
    counter.start()
    try:
        before = count[0]
        assert Batch(64).run(program)
        during = count[0] - before
    finally:
        stop.set()
        counter.join()
    assert during > 1000


def test_many_callers(native):
    """Several threads run several programs on one machine; each finds its own result."""
    machine = native.Machine(3)
    failures = []

    def work(seed):
        x = np.random.default_rng(seed).standard_normal((8, 300)).astype(np.float32)
        b = Builder(native, 8)
        b.op("silu", [b.buffer("x", 300)], [b.buffer("y", 300)])
        b.op("add", [0, 1], [1])
        program = native.Program(machine, b.spec)
        program.buffer("x")[:] = x
        for _ in range(200):
            program.buffer("y")[:] = 0
            done = Batch(8).run(program)
            wanted = x + silu.definition(np, x.astype(np.float64))
            if not done or np.abs(program.buffer("y") - wanted).max() > 1e-5:
                failures.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_buffers_outlive_their_program(native):
    program = small(native).program()
    program.buffer("x")[:] = 3
    assert Batch(4).run(program)
    view = program.buffer("x")
    assert view.shape == (4, 20)
    with pytest.raises(ValueError, match="buffer 'z': the program has none of this name"):
        program.buffer("z")
    del program
    gc.collect()
    assert (view == 3).all()


def test_machines(native):
    assert native.Machine(3).threads == 3
    for threads in (0, -1, 1025):
        with pytest.raises(ValueError, match="threads: found"):
            native.Machine(threads)
    for caches in ({"l1": 0}, {"l2": 1 << 31}):
        with pytest.raises(ValueError, match=r"l[12]: found"):
            native.Machine(1, **caches)
