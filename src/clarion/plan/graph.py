"""The symbolic graph: model files describe their mathematics with it, one small operation at a time.

Operations are those of the plan's table in their simplest form, and `bias`, which the machine only has as
part of a product. Shapes are checked as the graph grows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from clarion.errors import ModelError, UnsupportedError
from clarion.plan.checkpoint import ALL, Checkpoint
from clarion.plan.hyperparameters import Hyperparameters
from clarion.plan.ir import Node, Rows, Value
from clarion.plan.lower import lower
from clarion.plan.operations.products import SOFTMAX
from clarion.plan.output import Logits, Output
from clarion.plan.plan import Plan
from clarion.plan.state import Latent, Paged, Recurrent, State
from clarion.plan.verify import verify_plan
from clarion.plan.weight import Weight

_LOGITS = Logits()


@dataclass(frozen=True, slots=True, eq=False)
class Array:
    """A value of the graph while it is described: `x + y` and `x * y` are operations."""

    graph: Graph
    value: Value

    def __add__(self, other: Array) -> Array:
        return self.graph._binary("add", self, other)

    def __mul__(self, other: Array) -> Array:
        return self.graph._binary("mul", self, other)


class Graph:
    """Nodes in the order of computation, from token ids to the model's outputs."""

    def __init__(self, hyperparameters: Hyperparameters) -> None:
        self.hyperparameters = hyperparameters
        self.nodes: list[Node] = []
        self.states: list[State] = []
        self.outputs: list[Output] = []
        self._names: set[str] = set()

    # ---- rows of tokens, norms, products -----------------------------------------------------------------

    def embed(self, table: Checkpoint, n_vocab: int, n_embd: int, scale: float = 1.0) -> Array:
        """Rows of the table, chosen by token id: [T, n_embd]."""
        out = self._value(table.prefix, n_embd)
        return self._emit("embed", (), out, [table.matrix(n_vocab, n_embd)], floats={"scale": scale})

    def embed_positions(self, table: Checkpoint, n_positions: int, n_embd: int) -> Array:
        """Rows of the table, chosen by the token's position: [T, n_embd]."""
        weight = table.matrix(n_positions, n_embd)
        return self._emit("embed_positions", (), self._value(table.prefix, n_embd), [weight])

    def rope_table(self, inv_freq: Sequence[float], magnitude: float) -> Array:
        """Cosines and sines of position × inv_freq, times magnitude: [T, 2·len(inv_freq)]."""
        node = Node(
            "rope_table",
            outputs=(self._value("rope", 2 * len(inv_freq)),),
            floats={"magnitude": magnitude},
            arrays={"inv_freq": tuple(inv_freq)},
        )
        self.nodes.append(node)
        return Array(self, node.outputs[0])

    def temperature(self, slope: float, length: int) -> Array:
        """What queries are times at their positions p, 1 + slope · ln(1 + p // length): [T, 1]."""
        node = Node(
            "temperature",
            outputs=(self._value("temperature", 1),),
            ints={"length": length},
            floats={"slope": slope},
        )
        self.nodes.append(node)
        return Array(self, node.outputs[0])

    def rms_norm(self, x: Array, gain: Checkpoint | None, eps: float) -> Array:
        """x / sqrt(mean(x²) + eps), over rows, times the gain where there is one."""
        weight = gain.vector("weight", x.value.width) if gain else None
        out = self._like(x, gain.prefix if gain else f"{x.value.name}.norm")
        return self._emit("rms_norm", (x,), out, [weight], floats={"eps": eps})

    def layer_norm(self, x: Array, parameters: Checkpoint, eps: float) -> Array:
        """(x - mean) / sqrt(variance + eps) · gain, over rows, plus a bias where the file has one."""
        n = x.value.width
        weights = [parameters.vector("weight", n), parameters.bias(n)]
        return self._emit("layer_norm", (x,), self._like(x, parameters.prefix), weights, floats={"eps": eps})

    def head_norm(
        self, x: Array, gain: Weight | None, head_dim: int, eps: float, scale: float = 1.0
    ) -> Array:
        """RMS norm of each head of x [T, n_head·head_dim] on its own, times `scale` and the gain, which has
        head_dim elements or those of all heads."""
        ints = {"n_head": x.value.width // head_dim, "head_dim": head_dim}
        out = self._like(x, gain.name if gain else f"{x.value.name}.norm")
        return self._emit("head_norm", (x,), out, [gain], ints, {"eps": eps, "scale": scale})

    def l2_norm(self, x: Array, head_dim: int, eps: float) -> Array:
        """x / sqrt(Σx² + eps) of each head on its own."""
        return self.head_norm(x, None, head_dim, eps / head_dim, head_dim**-0.5)

    def linear(self, x: Array, parameters: Checkpoint, n_out: int, *, rows: slice = ALL) -> Array:
        """x · Wᵀ, times the tensor's scale and plus the bias where the file has them: [T, n_out].

        rows: the rows of the tensor, which has n_out, that are used: then the result has as many elements.
        """
        weight = parameters.matrix(n_out, x.value.width, rows=rows)
        out = self._emit("linear", (x,), self._like(x, parameters.prefix, weight.rows), [weight, None])
        bias, scale = parameters.bias(n_out, rows=rows), parameters.scale()
        if scale:
            out = self.mul_vector(out, scale)
            return self.add_vector(out, bias) if bias else out
        return self.bias(out, bias) if bias else out

    def linear_of(self, x: Array, weight: Weight) -> Array:
        """x · Wᵀ for a weight [n_out, n] or [n]: [T, n_out]."""
        return self._emit("linear", (x,), self._like(x, weight.name, weight.rows), [weight, None])

    def bias(self, x: Array, bias: Weight) -> Array:
        """The product x plus a vector [n_out]."""
        return self._emit("bias", (x,), self._like(x, bias.name), [bias])

    def rope(self, x: Array, table: Array, head_dim: int, *, neox: bool) -> Array:
        """Rotates the first elements of each head, as many as the table is wide: pairs (i, i + n/2) where
        `neox`, else (2i, 2i + 1). [Su et al., 2021, RoFormer]"""
        ints = {
            "n_head": x.value.width // head_dim,
            "head_dim": head_dim,
            "n_rot": table.value.width,
            "neox": int(neox),
        }
        out = self._like(x, f"{x.value.name}.rope")
        return self._emit("rope", (x, table), out, [None], ints, {"eps": 0.0})

    # ---- states ------------------------------------------------------------------------------------------

    def keep(self, k: Array, v: Array, n_head: int, window: int = 0) -> int:
        """Writes keys and values of n_head heads to a state of their own; its number.

        window: only so many of the last positions will be read; 0: all.
        """
        state = self._state(Paged(n_head, k.value.width // n_head, v.value.width // n_head, window))
        self.nodes.append(Node("kv_write", (k.value, v.value), ints={"state": state}))
        return state

    def attend(
        self,
        q: Array,
        state: int,
        n_head: int,
        scale: float,
        *,
        window: int = 0,
        chunked: bool = False,
        causal: bool = True,
        cap: float = 0.0,
        slopes: Sequence[float] = (),
        sinks: Weight | None = None,
    ) -> Array:
        """Attention to what `keep` wrote, by this layer or an earlier one: [T, n_head·dim_v]. What the
        arguments mean stands in the table of operations."""
        kept = self.states[state]
        assert isinstance(kept, Paged)
        ints = {
            "state": state,
            "n_head": n_head,
            "n_head_kv": kept.n_head,
            "head_dim": kept.dim_k,
            "dim_v": kept.dim_v,
            "window": window,
            "chunked": int(chunked),
            "causal": int(causal),
        }
        out = self._like(q, f"blk.{state}.attention", n_head * kept.dim_v)
        floats, arrays = {"scale": scale, "cap": cap}, {"slopes": tuple(slopes)}
        return self._emit("attention", (q,), out, [sinks], ints, floats, arrays)

    def keep_latent(self, rows: Array, dim_v: int) -> int:
        """Writes rows to a state of their own, whose first dim_v elements are values; its number."""
        state = self._state(Latent(rows.value.width, dim_v))
        self.nodes.append(Node("latent_write", (rows.value,), ints={"state": state}))
        return state

    def attend_latent(self, q: Array, state: int, n_head: int, scale: float) -> Array:
        """Causal attention of n_head heads to what `keep_latent` wrote: [T, n_head·dim_v]."""
        kept = self.states[state]
        assert isinstance(kept, Latent)
        ints = {"state": state, "n_head": n_head, "dim": kept.dim, "dim_v": kept.dim_v}
        out = self._like(q, f"blk.{state}.attention", n_head * kept.dim_v)
        return self._emit("latent_attention", (q,), out, [], ints, {"scale": scale})

    def causal_conv(self, x: Array, weight: Weight, bias: Weight | None, *, silu: bool = False) -> Array:
        """Each column's sum over the last tokens, weighted by a row of `weight` [n, taps]: [T, n]."""
        n, taps = x.value.width, weight.cols
        ints = {"state": self._state(Recurrent((taps - 1) * n, n)), "taps": taps, "silu": int(silu)}
        return self._emit("causal_conv", (x,), self._like(x, weight.name), [weight, bias], ints)

    def delta_rule(
        self,
        q: Array,
        k: Array,
        v: Array,
        decay: Array,
        beta: Array,
        *,
        n_head: int,
        n_head_k: int,
        tiled: bool = False,
        scale: float = 1.0,
    ) -> Array:
        """The gated delta rule over a state of its own: [T, n_head·dim_v]."""
        dim_k, dim_v = k.value.width // n_head_k, v.value.width // n_head
        log = sum(array.value.width for array in (k, v, decay, beta))
        ints = {
            "state": self._state(Recurrent(n_head * dim_k * dim_v, log)),
            "n_head": n_head,
            "n_head_k": n_head_k,
            "dim_k": dim_k,
            "dim_v": dim_v,
            "tiled": int(tiled),
        }
        out = self._like(v, f"{v.value.name}.delta")
        return self._emit("delta_rule", (q, k, v, decay, beta), out, [], ints, {"scale": scale})

    def selective_scan(self, x: Array, dt: Array, b: Array, c: Array, a: Weight, d: Weight) -> Array:
        """Mamba's scan over a state of its own: [T, n]. `a` is [n, d_state], `d` [n]."""
        log = x.value.width + dt.value.width + b.value.width
        ints = {"state": self._state(Recurrent(a.rows * a.cols, log))}
        return self._emit(
            "selective_scan", (x, dt, b, c), self._like(x, f"{x.value.name}.scan"), [a, d], ints
        )

    def state_space_scan(
        self, x: Array, dt: Array, b: Array, c: Array, a: Weight, d: Weight, *, n_group: int
    ) -> Array:
        """Mamba-2's scan over a state of its own: [T, n_head·head_dim]. `a` and `d` are [n_head]."""
        n_head = dt.value.width
        ints = {
            "n_head": n_head,
            "head_dim": x.value.width // n_head,
            "n_group": n_group,
            "d_state": b.value.width // n_group,
        }
        log = x.value.width + n_head + b.value.width
        ints["state"] = self._state(Recurrent(x.value.width * ints["d_state"], log))
        out = self._like(x, f"{x.value.name}.scan")
        return self._emit("state_space_scan", (x, dt, b, c), out, [a, d], ints)

    # ---- element by element ------------------------------------------------------------------------------

    def silu(self, x: Array) -> Array:
        """x · sigmoid(x)."""
        return self._unary("silu", x)

    def gelu(self, x: Array, *, tanh: bool) -> Array:
        """x times the normal distribution below x; by tanh where so."""
        return self._unary("gelu", x, {"tanh": int(tanh)})

    def relu_squared(self, x: Array) -> Array:
        """max(x, 0)²."""
        return self._unary("relu_squared", x)

    def sigmoid(self, x: Array) -> Array:
        """1 / (1 + exp(-x))."""
        return self._unary("logistic", x)

    def softplus(self, x: Array) -> Array:
        """ln(1 + exp(x))."""
        return self._unary("softplus", x)

    def tanh(self, x: Array, cap: float = 1.0) -> Array:
        """cap · tanh(x / cap)."""
        return self._unary("tanh", x, floats={"cap": cap})

    def scale(self, x: Array, factor: float) -> Array:
        """x · factor; x itself where that is 1."""
        return x if factor == 1.0 else self._unary("scale", x, floats={"factor": factor})

    def swiglu_clamped(self, g: Array, u: Array, *, alpha: float, limit: float, shift: float) -> Array:
        """g' · sigmoid(alpha · g') · (u' + shift) of clamped g and u."""
        floats = {"alpha": alpha, "limit": limit, "shift": shift}
        return self._emit("swiglu_clamped", (g, u), self._like(g, f"{g.value.name}.glu"), floats=floats)

    def mul_rows(self, x: Array, s: Array) -> Array:
        """Each row of x times the number that its row of s [T, 1] holds."""
        return self._emit("mul_rows", (x, s), self._like(x, f"{x.value.name}.scaled"))

    def mul_vector(self, x: Array, v: Weight) -> Array:
        """Each row of x times a vector, or times one number."""
        return self._emit("mul_vector", (x,), self._like(x, v.name), [v])

    def add_vector(self, x: Array, v: Weight) -> Array:
        """Each row of x plus a vector."""
        return self._emit("add_vector", (x,), self._like(x, v.name), [v])

    # ---- which rows, which columns -----------------------------------------------------------------------

    def select(self, x: Array) -> Array:
        """The rows of the tokens whose logits are wanted: [O, width]."""
        return self._emit("select", (x,), self._value(f"{x.value.name}.select", x.value.width, "outputs"))

    def mean_rows(self, x: Array) -> Array:
        """For each wanted output the mean of its sequence's rows: [O, width]."""
        return self._emit("mean_rows", (x,), self._value(f"{x.value.name}.mean", x.value.width, "outputs"))

    def columns(self, x: Array, first: int, size: int, *, n_head: int = 1) -> Array:
        """Of each of n_head equal pieces of x's rows the elements from `first` on: [T, n_head·size]."""
        ints = {"n_head": n_head, "head_dim": x.value.width // n_head, "first": first, "size": size}
        out = self._like(x, f"{x.value.name}.{first}:{first + size}", n_head * size)
        return self._emit("columns", (x,), out, ints=ints)

    def join(self, x: Array, y: Array, *, n_head: int = 1) -> Array:
        """Of each of n_head heads the elements of x, then those of y."""
        ints = {"n_head": n_head, "dim_x": x.value.width // n_head, "dim_y": y.value.width // n_head}
        out = self._like(x, f"{x.value.name}.joined", x.value.width + y.value.width)
        return self._emit("join", (x, y), out, ints=ints)

    def repeat_heads(self, x: Array, times: int, *, n_head: int) -> Array:
        """Each of n_head heads `times` times, one behind the other."""
        ints = {"n_head": n_head, "head_dim": x.value.width // n_head, "times": times}
        out = self._like(x, f"{x.value.name}.repeated", x.value.width * times)
        return self._emit("repeat_heads", (x,), out, ints=ints)

    # ---- experts and heads with matrices of their own ----------------------------------------------------

    def route(
        self,
        scores: Array,
        k: int,
        *,
        gating: int = SOFTMAX,
        bias: Weight | None = None,
        n_group: int = 1,
        n_group_used: int = 1,
        group_top: int = 1,
        normalize: bool,
        scale: float = 1.0,
    ) -> tuple[Array, Array]:
        """The k experts of each token and their weights: ids [T, k] and weights [T, k]. What the arguments
        mean stands in the table of operations."""
        name = scores.value.name
        ids = Value(self._name(f"{name}.ids"), k, kind="i32")
        weights = self._value(f"{name}.weights", k)
        ints = {
            "k": k,
            "gating": gating,
            "n_group": n_group,
            "n_group_used": n_group_used,
            "group_top": group_top,
            "normalize": int(normalize),
        }
        node = Node("route", (scores.value,), (ids, weights), (bias,), ints=ints, floats={"scale": scale})
        self.nodes.append(node)
        return Array(self, ids), Array(self, weights)

    def chosen(self, ids: Array, v: Weight) -> Array:
        """The numbers, of a vector, of the experts that each token uses: [T, k]."""
        return self._emit("chosen", (ids,), self._value(v.name, ids.value.width), [v])

    def expert_linear(self, x: Array, ids: Array, parameters: Checkpoint, n_expert: int, n_out: int) -> Array:
        """x · Wₑᵀ for each expert e of the token, times the expert's scale and plus its bias where the file
        has them: [S, n_out], from rows of tokens or of slots."""
        weight = parameters.experts(n_expert, n_out, x.value.width)
        bias = parameters.matrix(n_expert, n_out, leaf="bias") if "bias" in parameters else None
        scale = parameters.scale(n_expert)
        if scale and bias:
            raise UnsupportedError(f"'{parameters.prefix}' has scales and biases of experts")
        out = self._emit(
            "expert_linear", (x, ids), self._slots(parameters.prefix, n_out, ids), [weight, bias]
        )
        return self.mul_slots(out, self.chosen(ids, scale)) if scale else out

    def mul_slots(self, x: Array, weights: Array) -> Array:
        """A row for each slot, its own of x or the token's, times the slot's weight [T, k]: [S, width]."""
        out = self._slots(f"{x.value.name}.slots", x.value.width, weights)
        return self._emit("mul_slots", (x, weights), out)

    def expert_sum(self, y: Array, weights: Array) -> Array:
        """The weighted sum of each token's slots: [T, width]."""
        return self._emit("expert_sum", (y, weights), self._value(f"{y.value.name}.sum", y.value.width))

    def head_linear(self, x: Array, parameters: Checkpoint, n_head: int, n_out: int) -> Array:
        """Each head of x [T, n_head·n] times a matrix of its own, of `parameters` [n_head, n_out, n]:
        [T, n_head·n_out]."""
        n = x.value.width // n_head
        ids = Value(self._name(f"{x.value.name}.heads"), n_head, kind="i32")
        slots = self._slots(f"{x.value.name}.slots", n, Array(self, ids))
        self.nodes.append(Node("heads_to_slots", (x.value,), (slots, ids), ints={"k": n_head, "n": n}))
        y = self.expert_linear(Array(self, slots), Array(self, ids), parameters, n_head, n_out)
        out = self._like(x, f"{parameters.prefix}.heads", n_head * n_out)
        return self._emit("slots_to_heads", (Array(self, ids), y), out, ints={"k": n_head})

    def output(self, x: Array, kind: Output = _LOGITS) -> Array:
        """Makes x an output of the model, by default its logits [O, n_vocab]; returns x under the output's
        name.

        kind: what x is; see `clarion.plan.output`.
        """
        value = replace(x.value, name=self._name(kind.value))
        self.outputs.append(replace(kind, value=value.name))
        self.nodes = [
            replace(
                node,
                inputs=tuple(value if v == x.value else v for v in node.inputs),
                outputs=tuple(value if v == x.value else v for v in node.outputs),
            )
            if x.value in (*node.inputs, *node.outputs)
            else node
            for node in self.nodes
        ]
        return Array(self, value)

    def plan(self) -> Plan:
        """What the graph computes, as a verified plan.

        Raises:
            PlanError: the graph has no output, or breaks a rule.
        """
        outputs = {output.value for output in self.outputs}
        kept = [value for node in self.nodes for value in node.outputs if value.name in outputs]
        plan = Plan.of(self.hyperparameters, lower(self.nodes, kept), self.states, self.outputs)
        verify_plan(plan)
        return plan

    def _binary(self, op: str, x: Array, y: Array) -> Array:
        a, b = x.value, y.value
        if (a.width, a.rows) != (b.width, b.rows):
            raise ModelError(f"{op} of {a.name} [{a.rows}, {a.width}] and {b.name} [{b.rows}, {b.width}]")
        return self._emit(op, (x, y), self._like(x, f"{b.name}.{op}"))

    def _emit(
        self,
        op: str,
        inputs: tuple[Array, ...],
        output: Value,
        weights: Sequence[Weight | None] = (),
        ints: Mapping[str, int] | None = None,
        floats: Mapping[str, float] | None = None,
        arrays: Mapping[str, tuple[float, ...]] | None = None,
    ) -> Array:
        values = tuple(array.value for array in inputs)
        self.nodes.append(Node(op, values, (output,), tuple(weights), ints or {}, floats or {}, arrays or {}))
        return Array(self, output)

    def _unary(
        self,
        op: str,
        x: Array,
        ints: Mapping[str, int] | None = None,
        floats: Mapping[str, float] | None = None,
    ) -> Array:
        return self._emit(op, (x,), self._like(x, f"{x.value.name}.{op}"), ints=ints, floats=floats)

    def _state(self, state: State) -> int:
        self.states.append(state)
        return len(self.states) - 1

    def _slots(self, name: str, width: int, ids: Array) -> Value:
        """A row for each slot of the tokens whose slots are `ids` [T, k]."""
        return Value(self._name(name), width, slots_per_token=ids.value.width)

    def _value(self, name: str, width: int, rows: Rows = "tokens") -> Value:
        return Value(self._name(name), width, rows)

    def _like(self, x: Array, name: str, width: int | None = None) -> Value:
        value = x.value
        return Value(
            self._name(name),
            value.width if width is None else width,
            value.rows,
            slots_per_token=value.slots_per_token,
        )

    def _name(self, wanted: str) -> str:
        name, n = wanted, 1
        while name in self._names:
            n += 1
            name = f"{wanted}.{n}"
        self._names.add(name)
        return name
