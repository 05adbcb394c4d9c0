"""What each pass does to real graphs: counts, kinds, fallbacks, memory."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from clarion import models, plan
from clarion.errors import ParameterError, PlanError
from clarion.plan.fuse import fuse
from clarion.plan.ir import Node, Value
from clarion.plan.lower import lower
from clarion.plan.memory import memory
from clarion.plan.narrow import narrow
from clarion.plan.observe import Layers, SquareSums
from clarion.plan.operations import OPERATIONS
from clarion.plan.precision import precision
from clarion.plan.verify import verify, verify_plan
from clarion.plan.weight import FLOAT_FORMATS, Weight, Whole
from tests.models.files import NAMES, Format, Tensor, golden
from tests.plan.reference import TARGET, row_bytes

OPTIONS = {"max_tokens": 16, "max_outputs": 4, "context": 64}


def compiled(name, **options):
    return plan.compile(models.build(*golden(name)).plan(), TARGET, **(OPTIONS | options))


def counts(p):
    return Counter(op.op for op in p.ops)


def test_a_dense_layer_is_ten_operations():
    """norm, qkv, rope and cache, attention, encode, output, norm, gate and up, gate, down."""
    p = compiled("llama-q8_0")
    assert [op.op for op in p.ops[2:12]] == [
        "rms_norm",
        "linear",
        "rope_kv",
        "attention",
        "encode",
        "linear",
        "rms_norm",
        "linear",
        "swiglu",
        "linear",
    ]
    assert {op.op for op in p.ops} & {"rope", "kv_write", "silu", "mul", "add"} == set()


# All layers of these are attention and a feed-forward network.
PLAIN = [
    name
    for name in NAMES
    if golden(name)[0]["general.architecture"] in ("bitnet", "llama", "qwen2", "qwen3", "qwen3moe")
]


@pytest.mark.parametrize("name", sorted(set(PLAIN) - {"llama-split"}))
def test_fusion_removes_at_least_30_percent(name):
    """Of a model with as many layers as the smallest real ones."""
    metadata, tensors = golden(name)
    metadata[f"{metadata['general.architecture']}.block_count"] = 16
    for i in range(16):
        for tensor in list(tensors.values()):
            if tensor.name.startswith("blk.0."):
                copy = replace(tensor, name=tensor.name.replace("blk.0.", f"blk.{i}."))
                tensors[copy.name] = copy
    p = plan.compile(models.build(metadata, tensors).plan(), TARGET, **OPTIONS)
    assert p.n_plan_ops - p.n_ops >= 0.3 * p.n_plan_ops


@pytest.mark.parametrize("name", NAMES)
def test_the_unfused_plan_leaves_everything_apart(name):
    p = compiled(name, fuse=False)
    assert {"swiglu", "rope_kv"}.isdisjoint(counts(p))
    for op in p.ops:
        assert len(op.outputs) == sum(not output.copy_of for output in OPERATIONS[op.op].outputs)
        assert op.op != "linear" or len(op.inputs) == 1
        assert op.op != "rms_norm" or p.buffers[op.outputs[0]].kind == "f32"


def test_float_weights_read_float_and_quantised_weights_encoded_activations():
    for activations in ("fast", "high"):
        p = compiled("llama-split", activations=activations)
        for op in p.ops:
            if op.op == "linear":
                formats = {p.weights[w].format for w in op.weights if w >= 0}
                encoded = "high" if p.buffers[op.outputs[0]].rows == "outputs" else activations
                kinds = {"f32" if fmt in FLOAT_FORMATS else encoded for fmt in formats}
                assert kinds == {p.buffers[op.inputs[0]].kind}


def multiplied(p):
    """The kind of the input that each matrix multiplies, by the matrices' names."""
    return {
        p.weights[w].name: p.buffers[op.inputs[OPERATIONS[op.op].multiplied]].kind
        for op in p.ops
        if OPERATIONS[op.op].multiplied is not None
        for w in op.weights[: len(op.outputs)]
    }


LAST = ("attn_output", "ffn_gate", "ffn_up", "ffn_down")


@pytest.mark.parametrize("name", ["llama-q8_0", "mixtral-q8_0"])
def test_a_fast_program_multiplies_wanted_rows_as_a_high_one(name):
    """What follows the last attention, and the output's matrix; not the keys and values before it."""
    fast, high = (multiplied(compiled(name, activations=kind)) for kind in ("fast", "high"))
    last = max(int(weight.split(".")[1]) for weight in fast if weight.startswith("blk."))
    for weight, kind in fast.items():
        layer, part = weight.startswith(f"blk.{last}."), weight.split(".")[-2].removesuffix("_exps")
        wanted = weight in ("token_embd.weight", "output.weight") or (layer and part in LAST)
        assert kind == (high[weight] if wanted or high[weight] == "f32" else "fast"), weight
    assert {*high.values()} - {"f32"} == {"high"}
    p = compiled(name, activations="fast")
    assert "activations fast (high for wanted rows), cache" in str(p)
    assert "fast (high" not in str(compiled(name, activations="high"))


@pytest.mark.parametrize("name", NAMES)
def test_the_same_products_are_high_however_a_fast_program_is_made(name):
    """Not narrowed, because it is not fused or because somebody looks on; and read again from JSON."""
    made = multiplied(compiled(name, activations="fast"))
    assert multiplied(compiled(name, activations="fast", fuse=False)) == made
    for observe in (SquareSums(lambda weight: True), Layers()):
        assert multiplied(compiled(name, activations="fast", observe=observe)) == made


def test_a_row_that_others_read_too_is_not_wanted_alone():
    """The matrix before an output of all tokens stays `fast`, though a selection of its rows is read too."""
    weights = [Weight(f"w{i}", Whole(f"w{i}"), "Q8_0", 8, 32, 32, 1, 34 * 32) for i in range(3)]
    a, b, c = (Value(name, 32) for name in "abc")
    few, logits = Value("few", 32, "outputs"), Value("logits", 32, "outputs")
    nodes = [
        Node("embed", (), (a,)),
        Node("linear", (a,), (b,), (weights[0], None, None)),
        Node("linear", (b,), (c,), (weights[1], None, None)),
        Node("select", (c,), (few,)),
        Node("linear", (few,), (logits,), (weights[2], None, None)),
    ]

    def kinds(kept, *more):
        made = precision([*nodes, *more], "fast", kept)
        return [node.inputs[0].kind for node in made if node.op == "linear"]

    assert kinds([logits]) == ["high", "high", "high"]
    assert kinds([logits, c]) == ["fast", "fast", "high"]
    assert kinds([logits, b]) == ["fast", "high", "high"]
    unread = Node("silu", (c,), (Value("unread", 32),))
    assert kinds([logits], unread) == ["high", "high", "high"]


def test_an_input_of_two_kinds_of_weights_exists_twice_and_is_named():
    p = compiled("llama-split")
    norms = [op for op in p.ops if op.op == "rms_norm"]
    assert [p.buffers[i].kind for i in norms[0].outputs] == ["f32", "high"]
    split = [op for op in p.ops if op.fallback == "split-linear"]
    assert len(split) == 2 * 2 * 2  # layers, inputs, parts
    assert "8 × split-linear" in str(p)


def test_a_router_in_float_beside_quantised_experts_is_no_fallback():
    p = compiled("mixtral-q8_0")
    assert [op.fallback for op in p.ops if op.fallback] == []
    norm = next(op for op in p.ops if op.op == "rms_norm" and "ffn" in p.weights[op.weights[0]].name)
    assert [p.buffers[i].kind for i in norm.outputs] == ["f32", "high"]


def in_bf16(name, only=""):
    """The golden's operations, its matrices or some of them in BF16: passes look at a format's name only."""

    def changed(node):
        if node.op not in ("linear", "expert_linear") or only not in node.weights[0].name:
            return node
        return replace(node, weights=(replace(node.weights[0], format="BF16"), *node.weights[1:]))

    return lower([changed(node) for node in models.build(*golden(name)).nodes])


def test_bf16_weights_read_bf16_in_a_fast_plan_where_the_module_multiplies_it():
    def kinds(activations, bf16):
        nodes = fuse(precision(in_bf16("llama-q8_0"), activations, bf16=bf16))
        return {node.inputs[0].kind for node in nodes if node.op == "linear"}

    assert kinds("fast", True) == {"bf16"}
    assert kinds("fast", False) == kinds("high", True) == kinds("exact", True) == {"f32"}
    nodes = in_bf16("llama-q8_0")
    logits = nodes[-1].outputs[0]
    wanted = [node for node in precision(nodes, "fast", [logits], bf16=True) if node.op == "linear"]
    last = wanted[-5:]  # attention's output, the network, logits
    assert {node.inputs[0].kind for node in last} == {"f32"}
    assert {node.inputs[0].kind for node in wanted[:-5]} == {"bf16"}


def test_an_input_of_bf16_and_quantised_weights_has_two_encodings():
    nodes = fuse(precision(in_bf16("llama-q8_0", "attn_q"), "fast", bf16=True))
    assert {node.inputs[0].kind for node in nodes if node.op == "linear"} == {"bf16", "fast"}
    made = [value.name for node in nodes for value in node.outputs]
    assert all(value.name in made for node in nodes for value in node.inputs)
    assert any(node.op == "rms_norm" and len(node.outputs) == 2 for node in nodes)


def test_exact_is_float_everywhere_and_says_what_it_costs():
    p = compiled("llama-q8_0", activations="exact")
    assert {buffer.kind for buffer in p.buffers} == {"f32"}
    assert str(p.kv) == "f32"
    assert {op.fallback for op in p.ops if op.op == "linear"} == {"float-product"}


def test_a_cache_longer_than_the_window_is_named():
    graph = models.build(*golden("mistral-window"))
    assert "full-cache" not in str(compiled("mistral-window"))
    graph.states[:] = [replace(state, window=0) for state in graph.states]
    assert "full-cache" in str(plan.compile(graph.plan(), TARGET, **OPTIONS))
    assert "full-cache" not in str(plan.compile(graph.plan(), TARGET, **OPTIONS | {"context": 8}))


@pytest.mark.parametrize("name", ["llama-q8_0", "mixtral", "mixtral-q8_0", "qwen3moe"])
def test_only_wanted_rows_pass_the_last_layer(name):
    p = compiled(name)
    attention = max(i for i, op in enumerate(p.ops) if op.op == "attention")
    after = [op for op in p.ops[attention + 1 :] if op.op != "select"]
    assert {p.buffers[i].rows for op in after for i in op.outputs} == {"outputs"}
    assert counts(p)["select"] == 2  # the attention's result and the residual


def test_wider_batches_and_lifetimes_decide_the_arena():
    small, large = compiled("llama-q8_0"), compiled("llama-q8_0", max_tokens=160)
    assert small.arena_bytes < large.arena_bytes < 11 * small.arena_bytes
    apart = sum(buffer.n_bytes for buffer in large.buffers)
    assert large.arena_bytes < apart / 2


def test_more_layers_need_no_more_memory():
    from clarion.plan.graph import Graph

    def arena(n_layer):
        g = Graph(models.build(*golden("llama-mha")).hyperparameters)
        x = g.embed(_Checkpoint("table"), 80, 48)
        for i in range(n_layer):
            h = g.rms_norm(x, _Checkpoint(f"norm{i}"), 1e-5)
            x = x + g.linear(g.silu(g.linear(h, _Checkpoint(f"up{i}"), 96)), _Checkpoint(f"down{i}"), 48)
        nodes = fuse(precision(lower(g.nodes), "high"))
        return memory(nodes, [x.value], lambda value: 10, row_bytes)[2]

    assert arena(3) == arena(40)


def test_overwriting_what_is_still_read_is_refused():
    q, r, y = Value("q", 8), Value("r", 4), Value("y", 8)
    rotated = Value("rotated", 8)
    nodes = [
        Node("embed", (), (q,)),
        Node("rope_table", (), (r,)),
        Node("rope", (q, r), (rotated,)),
        Node("add", (rotated, q), (y,)),
    ]
    with pytest.raises(PlanError, match="rope overwrites q"):
        memory(nodes, [y], lambda value: 1, row_bytes)


def test_a_residual_that_is_read_later_keeps_its_memory():
    a, x, y, z = (Value(name, 8) for name in "axyz")
    nodes = [
        Node("embed", (), (a,)),
        Node("embed", (), (x,)),
        Node("linear", (a, x), (y,)),
        Node("add", (x, y), (z,)),
    ]
    _, index, _ = memory(nodes, [z], lambda value: 1, row_bytes)
    assert index[x] != index[y]
    assert index[z] == index[x]


def test_rules_leave_alone_what_has_other_readers():
    """silu(g) is read twice: a gate would compute it twice or lose it."""
    a, g, u = Value("a", 8), Value("g", 8), Value("u", 8)
    s, p, y = Value("s", 8), Value("p", 8), Value("y", 8)
    nodes = [
        Node("embed", (), (g,)),
        Node("embed", (), (u,)),
        Node("silu", (g,), (s,)),
        Node("mul", (s, u), (p,)),
        Node("add", (p, s), (y,)),
    ]
    assert [node.op for node in fuse(nodes)] == [node.op for node in nodes]
    square = [*nodes[:1], Node("silu", (g,), (s,)), Node("mul", (s, s), (a,))]
    assert [node.op for node in fuse(square)] == [node.op for node in square]


def test_a_bias_needs_its_linear():
    a, b = Value("a", 8), Value("b", 8)
    with pytest.raises(PlanError, match="bias of a"):
        lower([Node("embed", (), (a,)), Node("bias", (a,), (b,))])


@pytest.mark.parametrize(
    ("n_gain", "scale", "next_op", "joined"),
    [
        (4, 1.0, "rope", True),
        (8, 1.0, "rope", False),  # a gain for each head
        (None, 1.0, "rope", False),
        (4, 0.5, "rope", False),
        (4, 1.0, "kv_write", False),
    ],
)
def test_the_norm_of_heads_joins_a_rotation_that_can_do_it(n_gain, scale, next_op, joined):
    a, r, b, c = Value("a", 8), Value("r", 4), Value("b", 8), Value("c", 8)
    gain = n_gain and Weight("gain", Whole("gain"), "F32", 0, 1, n_gain, 1, 4 * n_gain)
    follows = (
        Node("rope", (b, r), (c,), (None,), {"n_head": 2, "head_dim": 4, "n_rot": 4, "neox": 1}, {"eps": 0.0})
        if next_op == "rope"
        else Node("kv_write", (b, b), (), (), {"state": 0})
    )
    norm = Node("head_norm", (a,), (b,), (gain,), {"n_head": 2, "head_dim": 4}, {"eps": 0.5, "scale": scale})
    nodes = [Node("embed", (), (a,)), Node("rope_table", (), (r,)), norm, follows]
    lowered = lower(nodes)
    if not joined:
        assert lowered == nodes
        return
    last = lowered[-1]
    assert [node.op for node in lowered] == ["embed", "rope_table", "rope"]
    assert (last.inputs, last.weights, last.floats) == ((a, r), (gain,), {"eps": 0.5})


def test_a_token_reads_of_matrices_and_biases_what_its_experts_have():
    p = compiled("gpt-oss")
    op = next(op for op in p.ops if op.op == "expert_linear")
    matrix, biases = (p.weights[op.weights[i]] for i in (0, len(op.outputs)))
    k, n = p.buffers[op.outputs[0]].slots_per_token, matrix.experts
    assert 1 < k < n == biases.rows
    assert p.weight_bytes(op) == len(op.outputs) * (matrix.n_bytes + biases.n_bytes) * k // n


def test_narrowing_without_a_selection_changes_nothing():
    a, b = Value("a", 8), Value("b", 8)
    nodes = [Node("embed", (), (a,)), Node("silu", (a,), (b,))]
    assert [node.op for node in narrow(nodes)] == ["embed", "silu"]


@pytest.mark.parametrize(
    "options",
    [
        {"activations": "best"},
        {"activations": "exact", "kv": "f16"},
        {"kv": "f8"},
        {"kv": "q8_0:"},
        {"kv": "f16:f16:f16"},
        {"kv": ("f16", "f8")},
        {"kv": ()},
        {"max_tokens": 0},
        {"max_outputs": -1},
        {"context": 0},
    ],
)
def test_arguments_out_of_range(options):
    with pytest.raises(ParameterError, match=next(reversed(options))):
        compiled("llama-mha", **options)


def test_a_graph_without_output():
    graph = models.build(*golden("llama-mha"))
    graph.outputs.clear()
    with pytest.raises(PlanError, match="no output"):
        graph.plan()


@pytest.mark.parametrize("name", NAMES)
def test_a_plan_is_printed_and_written_without_the_weights(name):
    p = compiled(name)
    lines = str(p).splitlines()
    rows = [
        line for line in lines if line.split()[:1] and line.split()[0].isdigit() and "operations" not in line
    ]
    assert len(rows) == p.n_ops
    assert f"fusion removed {p.n_plan_ops - p.n_ops} of {p.n_plan_ops} operations" in str(p)
    written = json.loads(p.to_json())
    assert len(written["ops"]) == p.n_ops
    assert written["hyperparameters"]["n_vocab"] == p.n_vocab
    assert p.n_vocab == golden(name)[1]["token_embd.weight"].shape[0]
    assert written["weights"][0].keys() >= {"name", "format", "rows", "cols", "experts"}
    assert len(p.to_json()) < 200_000


@pytest.mark.parametrize("name", NAMES)
def test_a_plan_survives_json_and_pickling_and_verifies(name):
    for options in ({}, {"fuse": False}, {"activations": "exact"}):
        p = compiled(name, **options)
        for copy in (plan.Program.from_json(p.to_json()), pickle.loads(pickle.dumps(p))):
            verify(copy)
            assert copy == p
            assert str(copy) == str(p)
    p = models.build(*golden(name)).plan()
    for copy in (plan.Plan.from_json(p.to_json()), pickle.loads(pickle.dumps(p))):
        verify_plan(copy)
        assert copy == p
        assert str(copy) == str(p)


def test_a_plan_of_8b_parameters_pickles_small():
    width, n_ff, n_vocab, n_layer = 4096, 14336, 128256, 32
    metadata = {key: value for key, value in golden("llama-mha")[0].items() if "tokenizer" not in key}
    metadata |= {
        "llama.vocab_size": n_vocab,
        "llama.block_count": n_layer,
        "llama.embedding_length": width,
        "llama.feed_forward_length": n_ff,
        "llama.attention.head_count": 32,
        "llama.attention.head_count_kv": 8,
        "llama.rope.dimension_count": 128,
    }
    matrices = {
        "attn_q": (width, width),
        "attn_k": (1024, width),
        "attn_v": (1024, width),
        "attn_output": (width, width),
        "ffn_gate": (n_ff, width),
        "ffn_up": (n_ff, width),
        "ffn_down": (width, n_ff),
    }
    shapes = {"token_embd": (n_vocab, width), "output": (n_vocab, width), "output_norm": (width,)}
    for i in range(n_layer):
        shapes |= {f"blk.{i}.{name}": shape for name, shape in matrices.items()}
        shapes |= {f"blk.{i}.attn_norm": (width,), f"blk.{i}.ffn_norm": (width,)}
    tensors = {}
    for name, shape in shapes.items():
        format = Format("Q8_0", 8) if len(shape) > 1 else Format("F32", 0)
        n_bytes = int(np.prod(shape)) * 34 // 32 if len(shape) > 1 else 4 * shape[0]
        data = np.broadcast_to(np.uint8(0), n_bytes)  # takes no memory
        tensors[f"{name}.weight"] = Tensor(f"{name}.weight", shape, format, data)
    p = models.build(metadata, tensors).plan()
    assert p.hyperparameters.n_parameters > 8e9
    assert len(pickle.dumps(p)) < 200_000
    assert len(pickle.dumps(plan.compile(p, TARGET, **OPTIONS))) < 200_000


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"ops": 1}', "null", '"x"'])
def test_what_is_no_plan_is_an_error(text):
    with pytest.raises(PlanError, match="no plan"):
        plan.Plan.from_json(text)
    with pytest.raises(PlanError, match="no program"):
        plan.Program.from_json(text)


def test_weights_moved_per_token():
    p = compiled("mixtral")
    by_op = {op.op: p.weight_bytes(op) for op in p.ops}
    assert by_op["embed"] == 48 * 4
    expert = next(op for op in p.ops if op.op == "expert_linear")
    assert p.weight_bytes(expert) == 2 * 2 * 48 * 32 * 4  # two of five experts, gate and up
    assert p.kv_bytes_per_token == 2 * 2 * (12 + 16) * 2  # values are padded to vectors of 16


def test_a_tied_output_is_one_weight():
    p = compiled("llama-gqa-tied")
    assert [weight.name for weight in p.weights].count("token_embd.weight") == 1
    assert p.weights[p.ops[-1].weights[0]].name == "token_embd.weight"


class _Checkpoint:
    """Any weight that is asked for."""

    def __init__(self, prefix):
        self.prefix = prefix

    def matrix(self, n_rows, n_cols, rows=None):
        return Weight(self.prefix, Whole(self.prefix), "Q8_0", 8, n_rows, n_cols, 1, n_rows * n_cols)

    def vector(self, leaf, n):
        return Weight(f"{self.prefix}.{leaf}", Whole(f"{self.prefix}.{leaf}"), "F32", 0, 1, n, 1, 4 * n)

    def bias(self, n, rows):
        return None

    def scale(self):
        return None
