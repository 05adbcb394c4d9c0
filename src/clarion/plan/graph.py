"""The symbolic graph: model files describe their mathematics with it, one small operation at a time.

Operations are those of the plan's table in their simplest form, and two that the machine only has as part of
others: `bias` and `head_norm`. Shapes are checked as the graph grows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from clarion.errors import ModelError
from clarion.plan.checkpoint import ALL, Checkpoint
from clarion.plan.hyperparameters import Hyperparameters
from clarion.plan.ir import Node, Rows, Value
from clarion.plan.lower import lower
from clarion.plan.output import Logits, Output
from clarion.plan.plan import Plan
from clarion.plan.state import Paged, State
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

    def embed(self, table: Checkpoint, n_vocab: int, n_embd: int, scale: float = 1.0) -> Array:
        """Rows of the table, chosen by token id: [T, n_embd]."""
        out = self._value(table.prefix, n_embd)
        return self._emit("embed", (), out, [table.matrix(n_vocab, n_embd)], floats={"scale": scale})

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

    def rms_norm(self, x: Array, gain: Checkpoint, eps: float) -> Array:
        """x / sqrt(mean(x²) + eps) · gain, over rows."""
        out = self._like(x, gain.prefix)
        return self._emit("rms_norm", (x,), out, [gain.vector("weight", x.value.width)], floats={"eps": eps})

    def linear(self, x: Array, parameters: Checkpoint, n_out: int, *, rows: slice = ALL) -> Array:
        """x · Wᵀ, plus the bias where the file has one: [T, n_out].

        rows: the rows of the tensor, which has n_out, that are used: then the result has as many elements.
        """
        weight = parameters.matrix(n_out, x.value.width, rows=rows)
        out = self._emit("linear", (x,), self._like(x, parameters.prefix, weight.rows), [weight, None])
        if bias := parameters.bias(n_out, rows=rows):
            return self._emit("bias", (out,), self._like(out, f"{parameters.prefix}.bias"), [bias])
        return out

    def head_norm(self, x: Array, gain: Checkpoint, head_dim: int, eps: float) -> Array:
        """RMS norm of each head of x [T, n_head·head_dim] on its own."""
        out = self._like(x, gain.prefix)
        return self._emit("head_norm", (x,), out, [gain.vector("weight", head_dim)], floats={"eps": eps})

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

    def attention(
        self, q: Array, k: Array, v: Array, n_head: int, n_head_kv: int, scale: float, window: int = 0
    ) -> Array:
        """Writes k and v to a state of their own, and attends to it, causally: [T, n_head·head_dim].

        softmax(scale · q kᵀ) v over positions max(0, p - window + 1) .. p of the token's own sequence; each
        group of n_head / n_head_kv query heads shares a head of k and v.
        """
        state, head_dim = len(self.states), q.value.width // n_head
        self.states.append(Paged(n_head_kv, head_dim, head_dim))
        self.nodes.append(Node("kv_write", (k.value, v.value), ints={"state": state}))
        ints = {
            "state": state,
            "n_head": n_head,
            "n_head_kv": n_head_kv,
            "head_dim": head_dim,
            "window": window,
        }
        return self._emit(
            "attention", (q,), self._like(q, f"blk.{state}.attention"), [], ints, {"scale": scale}
        )

    def silu(self, x: Array) -> Array:
        """x · sigmoid(x)."""
        return self._emit("silu", (x,), self._like(x, f"{x.value.name}.silu"))

    def select(self, x: Array) -> Array:
        """The rows of the tokens whose logits are wanted: [O, width]."""
        return self._emit("select", (x,), self._value(f"{x.value.name}.select", x.value.width, "outputs"))

    def route(self, scores: Array, k: int, *, normalize: bool) -> tuple[Array, Array]:
        """The k experts with the highest softmax(scores), and these probabilities, summing to 1 where
        `normalize`.

        Returns expert ids [T, k] and weights [T, k].
        """
        name = scores.value.name
        ids = Value(self._name(f"{name}.ids"), k, kind="i32")
        weights = self._value(f"{name}.weights", k)
        ints = {"k": k, "normalize": int(normalize)}
        self.nodes.append(Node("route", (scores.value,), (ids, weights), ints=ints))
        return Array(self, ids), Array(self, weights)

    def expert_linear(self, x: Array, ids: Array, parameters: Checkpoint, n_expert: int, n_out: int) -> Array:
        """x · Wₑᵀ for each expert e of the token: [S, n_out], from rows of tokens or of slots."""
        weight = parameters.experts(n_expert, n_out, x.value.width)
        out = Value(self._name(parameters.prefix), n_out, slots_per_token=ids.value.width)
        return self._emit("expert_linear", (x, ids), out, [weight])

    def expert_sum(self, y: Array, weights: Array) -> Array:
        """The weighted sum of each token's slots: [T, width]."""
        return self._emit("expert_sum", (y, weights), self._value(f"{y.value.name}.sum", y.value.width))

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
    ) -> Array:
        values = tuple(array.value for array in inputs)
        self.nodes.append(Node(op, values, (output,), tuple(weights), ints or {}, floats or {}))
        return Array(self, output)

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
