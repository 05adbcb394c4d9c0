"""benchmarks/queue_simulation.py: a simulation of the pool that loses no item and beats no ideal."""

from __future__ import annotations

import json
import math
import re
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import queue_items
import queue_rules
import queue_simulation
from queue_items import SHAPES, WORK, Batch, Item, Tiling, Work, program_of, work_of
from queue_machines import Costs, Machine, alike, hybrid, siblings
from queue_rules import Queue, Rules

ROOT = Path(__file__).parents[2]
ULP = 1e-9  # sums of many times are that far from exact

seconds = st.floats(1e-7, 1e-3)
works = st.lists(st.lists(seconds, min_size=0, max_size=60), min_size=1, max_size=5)
machines = st.sampled_from(
    [
        alike("one", 1, 1e6, 1e6),
        alike("three", 3, 1e6, 1e6),
        alike("two nodes", 8, 1e6, 1e6, 2),
        alike("sixteen", 16, 1e6, 1e6),
        siblings("siblings", 3, 1e6, 1e6),
        hybrid("hybrid", 2, 3, 1e6, 0.5),
        alike("taken", 4, 1e6, 1e6, slice=1e-4),
    ]
)
rules = st.builds(
    Rules,
    tree=st.booleans(),
    near=st.booleans(),
    spread=st.booleans(),
    least=st.sampled_from([0.0, 1e-5]),
)


def computing(of: list[list[float]], costs: Costs) -> list[Work]:
    """Operations whose items take so many seconds on the measured core."""
    return [Work("attention", tuple(Item(fused=s / costs.fused) for s in items)) for items in of]


def reading(of: list[list[float]], machine: Machine) -> list[Work]:
    """Operations whose items read for so many seconds, where a core is alone."""
    n = machine.cores[0].bandwidth
    return [
        Work("linear", tuple(Item(bytes=s * n, at=i / len(items)) for i, s in enumerate(items)))
        for items in of
    ]


@given(works, machines, rules, st.booleans(), st.booleans())
def test_every_item_is_done_once(
    of: list[list[float]], machine: Machine, how: Rules, free: bool, asleep: bool
) -> None:
    costs = Costs().free() if free else Costs()
    for some in (computing(of, costs), reading(of, machine)):
        done: list[tuple[int, int, float]] = []
        total = Queue(machine, costs, how).run(some, lambda *one, to=done: to.append(one), asleep=asleep)
        at = 0
        for work in some:  # one operation after the other
            n = len(work.items)
            assert Counter(item for item, _, _ in done[at : at + n]) == Counter(range(n))
            at += n
        assert at == len(done)
        assert all(0 <= thread < machine.threads for _, thread, _ in done)
        ends = [when for _, _, when in done]
        assert ends == sorted(ends)
        assert total.seconds == pytest.approx(sum(total.of))
        assert not ends or ends[-1] <= total.seconds * (1 + ULP)


@given(works, machines, rules)
def test_free_handing_out_ends_within_the_longest_item(
    of: list[list[float]], machine: Machine, how: Rules
) -> None:
    how = replace(how, least=0.0)  # all threads work
    costs = Costs().free()
    found = Queue(machine, costs, how).run(computing(of, costs)).of
    capacity = replace(machine, slice=0.0)  # a core that comes and goes is whole for a short while
    slowest = min(core.speed / (1 if core.shared_with < 0 else 2) for core in machine.cores)
    for items, taken in zip((items for items in of if items), found, strict=True):
        ideal = capacity.ideal(sum(items), 0)
        assert taken >= ideal * (1 - ULP)
        if machine.slice or len(items) == 1:
            continue
        assert taken <= (ideal + max(items) / slowest) * (1 + ULP)


@given(works, st.integers(1, 9), st.floats(0.5, 9))
def test_cores_share_memory(of: list[list[float]], threads: int, cores: float) -> None:
    """Memory feeds so many cores at most."""
    machine = alike("shared", threads, 10 * cores, 10)
    costs = Costs().free()
    found = Queue(machine, costs).run(reading(of, machine)).of
    for items, taken in zip((items for items in of if items), found, strict=True):
        ideal = machine.ideal(0, sum(items) * machine.cores[0].bandwidth)
        assert taken >= ideal * (1 - ULP)
        alone = max(1, threads / cores)  # times as long as an item takes at most
        assert taken <= (ideal + alone * max(items)) * (1 + ULP)


@given(works, machines, rules)
def test_handing_out_only_costs(of: list[list[float]], machine: Machine, how: Rules) -> None:
    """What is handed out for nothing is done as soon, but for an item that another thread takes."""
    real, free = (Queue(machine, c, how).run(computing(of, c)).seconds for c in (Costs(), Costs().free()))
    assert real >= free - sum(2 * max(items, default=0.0) for items in of) - machine.slice


@given(works, machines)
def test_what_is_known_of_an_operation_is_what_it_would_be(of: list[list[float]], machine: Machine) -> None:
    """An operation that comes again, published by the same thread, is not simulated again."""
    costs = Costs()
    some = computing(of, costs) * 3
    known = Queue(machine, costs).run(some).seconds
    assert known == pytest.approx(Queue(machine, costs).run(some, lambda *_: None).seconds)


def test_lanes_of_a_group_wait_for_its_count_and_groups_do_not() -> None:
    """Items are as long as a line takes from one core to another: of a group one thread counts at a time."""
    costs = replace(Costs().free(), transfer=Costs().transfer)
    found = {}
    for n in (1, 2, 8, 16, 64):
        work = computing([[costs.transfer] * (1000 * n)], costs)
        taken = Queue(alike("", n, 1e6, 1e6), costs).run(work, asleep=False).seconds
        found[n] = taken / (1000 * costs.transfer)  # beside what the items take
    assert found[1] == pytest.approx(1, rel=0.02)
    assert found[2] == pytest.approx(2, rel=0.02)
    assert found[8] == pytest.approx(8, rel=0.02)
    assert found[64] == pytest.approx(found[16], rel=0.02) == pytest.approx(found[8], rel=0.02)


def test_who_loses_the_core_is_moved_to_one_that_sleeps() -> None:
    """An item that its thread holds when the core is taken ends soon after the others, not a slice later."""
    costs = Costs().free()
    machine = alike("", 2, 1e6, 1e6, slice=1e-2)
    work = computing([[5e-3, 8e-3]] * 4, costs)
    for taken in Queue(machine, costs).run(work).of[:2]:
        assert taken < 1.5e-2


# ---- the items


def number_in(path: str, name: str) -> int:
    """A constant of the native sources."""
    text = (ROOT / "native" / path).read_text()
    found = re.search(rf"\b{name} = ([^;,]+)[;,]", text)
    assert found, f"{path} has no {name}"
    value = re.sub(r"int64_t\{(\d+)\}", r"\1", found[1])
    assert re.fullmatch(r"[\d\s<]+", value), value
    return int(eval(value))


@pytest.mark.parametrize(
    ("path", "name", "here"),
    [
        ("kernels/rows.h", "item_elements", queue_items.ITEM_ELEMENTS),
        ("kernels/rows.h", "least_item_elements", queue_items.LEAST_ITEM_ELEMENTS),
        ("machine/pool.h", "group_lanes", queue_rules.GROUP_LANES),
        ("kernels/attention.cpp", "tile_queries", queue_items.TILE_QUERIES),
        ("kernels/attention.cpp", "item_products", queue_items.ITEM_PRODUCTS),
        ("kernels/attention.cpp", "span_positions", queue_items.SPAN_POSITIONS),
        ("kernels/attention.cpp", "items_per_thread", queue_items.ITEMS_PER_THREAD),
        ("kernels/attention.cpp", "most_spans", queue_items.MOST_SPANS),
        ("kernels/product.h", "most_tokens", queue_items.MOST_TOKENS),
        ("kernels/linear.cpp", "whole", queue_items.WHOLE_TILES),
        ("machine/tiling.cpp", "least_tokens", Tiling().least_tokens),
        ("machine/tiling.cpp", "few_tokens", Tiling().few_tokens),
        ("machine/tiling.cpp", "item_bytes", Tiling().item_bytes),
    ],
)
def test_numbers_are_those_of_the_native_sources(path: str, name: str, here: int) -> None:
    assert number_in(path, name) == here


def test_waiting_threads_spin_as_long() -> None:
    text = (ROOT / "native/machine/pool.cpp").read_text()
    found = re.search(r"microseconds spin_time\((\d+)\)", text)
    assert found
    assert int(found[1]) * 1e-6 == pytest.approx(Costs().spin)


batches = st.builds(
    Batch,
    st.lists(st.tuples(st.integers(0, 3000), st.integers(1, 40)), min_size=1, max_size=6).map(tuple),
    st.just(1),
)
SMALL = program_of(replace(SHAPES["1B"], width=512, layers=1, heads=8, kv_heads=2, ffn=1536, vocabulary=1000))


@given(
    batches,
    st.integers(1, 200),
    st.sampled_from(
        [
            Tiling(),
            Tiling(l2=1 << 18),
            Tiling(in_pieces=True, items_each=8, item_tokens=4, few_heads=1 << 16, each=4),
            Tiling(tapered=True),
        ]
    ),
)
def test_items_are_all_of_the_work(batch: Batch, threads: int, tiling: Tiling) -> None:
    """However a product is cut, each token meets each weight; and each query what it sees."""
    rows = {"tokens": batch.n_tokens, "outputs": 1}
    for op, work in zip(SMALL.ops, work_of(SMALL, batch, threads, tiling), strict=True):
        if op.op == "linear":
            source = SMALL.buffers[op.inputs[0]]
            weights = [SMALL.weights[i] for i in op.weights[: len(op.outputs)]]
            n = sum(-(-w.rows // 16) * 16 * w.cols for w in weights)
            if not tiling.tapered:  # halves of panels are rounded there
                assert work.total.products == 2 * n * rows[source.rows]
            if rows[source.rows] <= tiling.few_tokens and not tiling.tapered:
                assert work.total.bytes == sum(-(-w.rows // 16) * 16 * w.n_bytes // w.rows for w in weights)
            assert all(item.bytes >= 0 and 0 <= item.at < 1 for item in work.items)
        elif op.op == "attention":
            ints = op.ints
            seen = sum(p + 1 for begin, n in batch.sequences for p in range(begin, begin + n))
            assert work.total.fused == seen * ints["n_head"] * (ints["head_dim"] + ints["dim_v"])
        elif op.op == "rms_norm":
            x = SMALL.buffers[op.inputs[0]]
            assert work.total.elements == rows[x.rows] * x.width


def test_a_product_of_few_tokens_gives_all_threads_as_many_items() -> None:
    for threads in (1, 2, 7, 24):
        for work in work_of(SMALL, WORK["one text"], threads):
            panels = work.op == "linear" and work.total.weights / SMALL.hyperparameters.n_embd / 16
            if panels and len(work.items) < panels:
                assert len(work.items) % threads == 0


def test_operations_that_are_not_described_are_refused() -> None:
    strange = replace(SMALL, ops=(replace(SMALL.ops[0], op="delta_rule"),))
    with pytest.raises(queue_items.UnknownOperationError, match="delta_rule"):
        work_of(strange, WORK["one text"], 2)


# ---- the command


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    before = sys.argv
    sys.argv = ["queue_simulation.py", *arguments]
    try:
        queue_simulation.main()
    finally:
        sys.argv = before
    return capsys.readouterr().out


def test_the_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    costs, path = tmp_path / "costs.json", tmp_path / "found.json"
    costs.write_text(json.dumps({"take": 1e-6, "generation": 1.0}))
    two = ["--machines", "2 cores", "--shapes", "1B", "--json", str(path)]
    assert run(capsys, *two).splitlines()[2].startswith("| 2 cores | 1B | 9")
    quick = json.loads(path.read_text())
    assert [result["work"] for result in quick] == list(WORK)
    for result in quick:
        lost = sum(result[name] for name in ("alone", "division", "handing_out"))
        assert math.isclose(result["efficiency"] + lost, 1)
    run(capsys, *two, "--costs", str(costs))
    slow = json.loads(path.read_text())
    assert all(b["milliseconds"] > a["milliseconds"] for a, b in zip(quick, slow, strict=True))
    lines = run(capsys, *two, "--rules").splitlines()
    assert len(lines) == 2 + len(queue_simulation.VARIANTS)
    assert len(run(capsys, *two, "--rules", "woken wake").splitlines()) == 2 + 2


ONE_B = ("--shapes", "1B")
CHOSEN = ("--rules", "chosen", "chosen, faster rows")
LOSING = ("8 fast, 16 slow", "8 cores, one taken", "32 cores", "128 cores", "2 nodes of 32", "4 nodes of 32")


@pytest.mark.parametrize(
    "arguments",
    [
        ONE_B,
        pytest.param(("--shapes", "7B"), marks=pytest.mark.full),
        pytest.param((*ONE_B, "--machines", "64 cores", "--rules"), marks=pytest.mark.full),
        pytest.param((*ONE_B, *CHOSEN, "--machines", *LOSING), marks=pytest.mark.full),
    ],
    ids=["1B", "7B", "rules", "chosen"],
)
def test_the_page_has_what_the_command_prints(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    page = (ROOT / "docs/threads.md").read_text().splitlines()
    rows = run(capsys, *arguments).splitlines()
    assert len(rows) > 10
    assert [row for row in rows if row not in page] == []
