"""Pass: neighbours that one kernel can do in one go become one operation.

Each rule is a function over the whole list. None changes a result by a bit: the fused kernel does the same
roundings in the same order, and saves the trip through memory. Where an entry of the table says what a rule
needs, the rule asks it. Two patterns name their operations, as only they know which operation the others make
together: `_gate`, and `_rope_to_cache`; `_residual` names the sum.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from clarion.plan.ir import Node, Value, producers, users
from clarion.plan.operation import Reads
from clarion.plan.operations import OPERATIONS


def fuse(nodes: Sequence[Node], kept: Collection[Value] = ()) -> list[Node]:
    """The same computation in fewer operations; `kept` are the values that are read after it."""
    for rule in (_gate, _residual, _side_by_side, _encode_at_source, _rope_to_cache):
        nodes = rule(nodes, kept)
    return list(nodes)


# The product of an activation and its neighbour, by the activation.
_GATES = {"silu": "swiglu", "gelu": "geglu"}


def _gate(nodes: Sequence[Node], kept: Collection[Value]) -> list[Node]:
    """silu(g) * u → swiglu(g, u), and the same with gelu."""
    made_by, used_by = producers(nodes), users(nodes, kept)
    changed: dict[Node, Node | None] = {}
    for node in nodes:
        if node.op != "mul":
            continue
        for activated, other in (node.inputs, node.inputs[::-1]):
            activation = made_by[activated]
            if activation.op in _GATES and used_by[activated] == [node] and other is not activated:
                changed[activation] = None
                changed[node] = Node(
                    _GATES[activation.op], (activation.inputs[0], other), node.outputs, ints=activation.ints
                )
                break
    return _apply(nodes, changed)


def _residual(nodes: Sequence[Node], kept: Collection[Value]) -> list[Node]:
    """x + linear(a) → linear(a, x), the sum last; the same for a sum of experts."""
    made_by, used_by = producers(nodes), users(nodes, kept)
    position = {node: i for i, node in enumerate(nodes)}
    changed: dict[Node, Node | None] = {}
    for node in nodes:
        if node.op != "add":
            continue
        for x, y in (node.inputs, node.inputs[::-1]):
            product = made_by[y]
            if (
                OPERATIONS[product.op].adds
                and len(product.inputs) == OPERATIONS[product.op].n_inputs
                and product not in changed
                and used_by[y] == [node]
                and x is not y
                and position[made_by[x]] < position[product]
            ):
                changed[product] = replace(product, inputs=(*product.inputs, x), outputs=node.outputs)
                changed[node] = None
                break
    return _apply(nodes, changed)


def _side_by_side(nodes: Sequence[Node], kept: Collection[Value]) -> list[Node]:
    """Products of one input (query, key and value; gate and up) → one product with several results.

    Where their weights need different encodings of the input, one for each encoding: the fallback
    `split-linear`.
    """
    made_by = producers(nodes)
    groups: dict[tuple[str, tuple[Value, ...]], list[Node]] = {}
    encodings: dict[tuple[str, Value], set[Value]] = {}
    for node in nodes:
        entry = OPERATIONS[node.op]
        if entry.has_many and len(node.inputs) == entry.n_inputs:
            x = node.inputs[0]
            source = made_by[x].inputs[0] if OPERATIONS[made_by[x].op].encodes else x
            groups.setdefault((node.op, node.inputs), []).append(node)
            encodings.setdefault((node.op, source), set()).add(x)
    split = {key: len(found) > 1 for key, found in encodings.items()}

    changed: dict[Node, Node | None] = {}
    for (op, inputs), group in groups.items():
        source = made_by[inputs[0]].inputs[0] if OPERATIONS[made_by[inputs[0]].op].encodes else inputs[0]
        fallback = group[0].fallback or ("split-linear" if split[op, source] else "")
        weights = tuple(node.weights[i] for i in range(len(group[0].weights)) for node in group)
        outputs = tuple(value for node in group for value in node.outputs)
        changed |= dict.fromkeys(group)
        changed[group[0]] = replace(group[0], outputs=outputs, weights=weights, fallback=fallback)
    return _apply(nodes, changed)


def _encode_at_source(nodes: Sequence[Node], kept: Collection[Value]) -> list[Node]:
    """encode(rms_norm(x)) → an rms_norm that writes the encoding, beside the f32 where that is needed too;
    encode(swiglu) likewise, instead of the f32."""
    made_by, used_by = producers(nodes), users(nodes, kept)
    changed: dict[Node, Node | None] = {}
    for node in nodes:
        if not OPERATIONS[node.op].encodes:
            continue
        x = node.inputs[0]
        source, alone = made_by[x], used_by[x] == [node]
        if source in changed:  # it writes another encoding already
            continue
        entry = OPERATIONS[source.op]
        if entry.keeps_plain or (entry.writes_encoded and alone):
            changed[source] = replace(source, outputs=node.outputs if alone else (x, *node.outputs))
            changed[node] = None
    return _apply(nodes, changed)


def _rope_to_cache(nodes: Sequence[Node], kept: Collection[Value]) -> list[Node]:
    """rope(q), rope(k), kv_write(k, v) → rope_kv(q, k, v)"""
    made_by, used_by = producers(nodes), users(nodes, kept)
    readers: dict[int, Node] = {}  # the first of each state
    for node in nodes:
        if isinstance(OPERATIONS[node.op].state, Reads):
            readers.setdefault(node.ints["state"], node)
    changed: dict[Node, Node | None] = {}
    for node in nodes:
        if node.op != "kv_write" or node.ints["state"] not in readers:
            continue
        reader = readers[node.ints["state"]]
        q, k = made_by[reader.inputs[0]], made_by[node.inputs[0]]
        if (
            (q.op, k.op) == ("rope", "rope")
            and q.inputs[1] is k.inputs[1]
            and _same_rotation(q, k)
            and used_by[q.outputs[0]] == [reader]
            and used_by[k.outputs[0]] == [node]
        ):
            ints = {
                **q.ints,
                "n_head_kv": k.ints["n_head"],
                "dim_v": node.inputs[1].width // k.ints["n_head"],
                "state": node.ints["state"],
            }
            changed[node] = Node(
                "rope_kv",
                (q.inputs[0], k.inputs[0], node.inputs[1], q.inputs[1]),
                q.outputs,
                (q.weights[0], k.weights[0]),
                ints,
                q.floats,
            )
            changed[q] = changed[k] = None
    return _apply(nodes, changed)


def _same_rotation(q: Node, k: Node) -> bool:
    same = all(q.ints[name] == k.ints[name] for name in ("head_dim", "n_rot", "neox"))
    return same and q.floats == k.floats and (q.weights[0] is None) == (k.weights[0] is None)


def _apply(nodes: Sequence[Node], changed: dict[Node, Node | None]) -> list[Node]:
    kept = (changed.get(node, node) for node in nodes)
    return [node for node in kept if node is not None]
