"""What an entry of the operation table states, and how an operation of a plan is held against it.

An entry is a definition, a function of arrays, under a declaration: what kind, how many rows and how wide its
operands are, what it does with weights and states. Everything else that needs to know an operation asks its
entry: the verifier, the passes, the cost of a plan, the page in the documents, the interpreter, and the
structs of parameters that the native machine is compiled with.

Rows are one of these letters:

    R      any rows, the same for every operand that says R
    T, O   one for each token, one for each wanted output
    B      either of these, the same for every operand that says B or S
    S      k for each of B: slots, one for each expert that is used
    B|S    B or S
    1      one for the whole batch

Where all operands have rows R, B or S, each row of a result depends on these rows alone.

A width is a product, as `n_head·head_dim`, of numbers, parameters (an array counts as its length) and sizes.
A size, as `n`, is whatever the first operand has that names it. One that ends in `_i` is counted anew for
each of several outputs.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal, NoReturn

from clarion.errors import PlanError
from clarion.plan.ir import Kind, Rows, Value
from clarion.plan.state import State
from clarion.plan.weight import Weight

F32: Final[tuple[Kind, ...]] = ("f32",)
I32: Final[tuple[Kind, ...]] = ("i32",)
ENCODED: Final[tuple[Kind, ...]] = ("fast", "high", "bf16")
ANY_FLOAT: Final[tuple[Kind, ...]] = (*F32, *ENCODED)

_ROWS: Final[Mapping[str, Rows]] = {"T": "tokens", "O": "outputs", "1": "batch"}


@dataclass(frozen=True, slots=True)
class Input:
    """A buffer that is read."""

    name: str
    width: str
    rows: str = "R"
    kinds: tuple[Kind, ...] = F32
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Output:
    """A buffer that is written, or several of one sort.

    Attributes:
        many: there are one or more, each with widths of its own.
        in_place: the input whose buffer it must be.
        may_alias: the input whose buffer it may take.
        copy_of: the output whose values it holds in another kind; it may be left out, and where it is there
            the other is f32.
    """

    name: str
    width: str
    rows: str = "R"
    kinds: tuple[Kind, ...] = F32
    many: bool = False
    in_place: str = ""
    may_alias: str = ""
    copy_of: str = ""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A weight, or as many as there are outputs.

    Attributes:
        shape: [n], a vector in float32; [rows, cols], a matrix; [experts, rows, cols].
        read: of one token alone: all of it, the token's own row, or the experts that it chose.
    """

    name: str
    shape: tuple[str, ...]
    read: Literal["all", "row", "chosen"] = "all"
    many: bool = False
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Uses:
    """What an operation asks of the state that its parameter `state` numbers.

    Attributes:
        kind: of state.
        sizes: pairs of products that are equal: one of the state's fields, as `n_head·dim_k`, and a width of
            the operation.
    """

    kind: type[State]
    sizes: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Writes(Uses):
    """The operation puts something of every token into the state."""


@dataclass(frozen=True, slots=True)
class Reads(Uses):
    """The operation reads what was written to the state, by this run and those before it."""


@dataclass(frozen=True)
class Operation:
    """An entry of the table.

    Attributes:
        definition: the meaning, `definition(xp, **operands, **parameters)` for an array module `xp`, such as
            numpy. Operands are passed by name: an array; None where an optional one is absent; a list where
            there are many. Weights may be decoded only when they are indexed or made arrays. A definition
            that reads the batch, or a state, takes it as `batch`.
        ints, flags, floats, arrays: the names of its parameters, by type; a flag is stored as the integer 0
            or 1.
        takes_batch: whether the definition reads the batch.
        multiplies: the input that every matrix multiplies, and that may therefore be encoded; "" where there
            is none.
        adds: the optional input that is added to the only output last.
        state: what it does with a state.
        selects: it only chooses the rows of the wanted outputs.
        check: what the declaration cannot say; it calls `Call.fail`.
        module: the native module that holds its kernel; "" is the main one, which ordinary plans need.
    """

    name: str
    definition: Callable[..., Any]
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    weights: tuple[Tensor, ...]
    ints: frozenset[str]
    flags: frozenset[str]
    floats: frozenset[str]
    arrays: frozenset[str]
    takes_batch: bool
    multiplies: str
    adds: str
    state: Reads | Writes | None
    selects: bool
    check: Callable[[Call], None] | None
    module: str

    @cached_property
    def has_many(self) -> bool:
        """Whether it can have several outputs of one sort: products of one input, side by side."""
        return any(output.many for output in self.outputs)

    @cached_property
    def writes_encoded(self) -> bool:
        """Whether it can write its result encoded: a product that follows needs no `encode` then."""
        return any(set(ENCODED) & set(output.kinds) for output in self.outputs)

    @cached_property
    def keeps_plain(self) -> bool:
        """Whether it can write its result plain and encoded at once."""
        return any(output.copy_of for output in self.outputs)

    @cached_property
    def encodes(self) -> bool:
        """Whether it only encodes its input."""
        return [output.kinds for output in self.outputs] == [ENCODED] and not self.weights

    @cached_property
    def in_order(self) -> tuple[int, ...]:
        """The inputs in an order in which what each names is known: S is k rows for each of B, and the inputs
        that name B and k come first."""
        return tuple(sorted(range(len(self.inputs)), key=lambda i: "S" in self.inputs[i].rows))

    @cached_property
    def row_wise(self) -> bool:
        """Whether it treats each row alone, whatever rows these are."""
        operands: list[Input | Output] = [*self.inputs, *self.outputs]
        return all(operand.rows in ("R", "B", "S", "B|S") for operand in operands)

    @cached_property
    def multiplied(self) -> int | None:
        """The index of the input that its matrices multiply."""
        return self._input(self.multiplies) if self.multiplies else None

    def alias(self, output: int) -> tuple[int, bool] | None:
        """The input whose buffer an output takes, and whether it must; None: a buffer of its own."""
        declared = self.outputs[min(output, len(self.outputs) - 1)]
        wanted = declared.in_place or declared.may_alias
        if not wanted or (declared.many and output > 0):
            return None
        return self._input(wanted), bool(declared.in_place)

    @cached_property
    def n_inputs(self) -> int:
        """How many inputs it has at least: those that are not optional."""
        return sum(1 for operand in self.inputs if not operand.optional)

    def n_weights(self, n_outputs: int) -> int:
        """How many weights stand in an operation with so many outputs, absent ones counted."""
        return sum(n_outputs if tensor.many else 1 for tensor in self.weights)

    def each_weight(self, n_outputs: int) -> Iterator[tuple[Tensor, int]]:
        """For each weight its declaration, and which of many it is."""
        for tensor in self.weights:
            for i in range(n_outputs if tensor.many else 1):
                yield tensor, i

    def compute(
        self,
        xp: Any,
        inputs: Sequence[Any],
        weights: Sequence[Callable[[int], Any] | None],
        parameters: Mapping[str, Any],
        batch: Any,
        n_outputs: int,
    ) -> list[Any]:
        """The outputs' values, by the definition.

        Args:
            xp: the array module.
            inputs: arrays [rows, width].
            weights: in the order of the plan, for each a function that gives its array with so many axes;
                None where one is absent.
            parameters: integers, numbers and arrays by name.
            batch: tokens, positions and states; see `clarion.plan.operations.Batch`.
            n_outputs: how many outputs the operation has.
        """
        padded = [*inputs, *[None] * (len(self.inputs) - len(inputs))]
        operands = {operand.name: value for operand, value in zip(self.inputs, padded, strict=True)}
        for (tensor, _), weight in zip(self.each_weight(n_outputs), weights, strict=True):
            array = None if weight is None else weight(len(tensor.shape))
            if tensor.many:
                operands.setdefault(tensor.name, []).append(array)
            else:
                operands[tensor.name] = array
        if self.takes_batch:
            operands["batch"] = batch
        found = self.definition(xp, **operands, **parameters)
        results = list(found) if isinstance(found, list | tuple) else [] if found is None else [found]
        copies = n_outputs - len(results)  # of the first output, in another kind
        return results + results[:1] * copies

    def _input(self, name: str) -> int:
        return next(i for i, operand in enumerate(self.inputs) if operand.name == name)


class Call:
    """One operation of a plan, its buffers and weights looked up. Every check that fails is a PlanError.

    Attributes:
        sizes: the value of each size and parameter, by name.
    """

    def __init__(
        self,
        where: str,
        entry: Operation,
        inputs: Sequence[Value],
        outputs: Sequence[Value],
        weights: Sequence[Weight | None],
        parameters: Mapping[str, Any],
    ) -> None:
        self.where = where
        self.entry = entry
        self.inputs = inputs
        self.outputs = outputs
        self.weights = weights
        self.parameters = parameters
        self.sizes: dict[str, int] = {
            name: len(value) if isinstance(value, Sequence) else value
            for name, value in parameters.items()
            if not isinstance(value, float)
        }
        self._like: Value | None = None  # what R stands for
        self._base: Rows | None = None  # what B stands for

    def fail(self, what: str) -> NoReturn:
        raise PlanError(f"{self.where}: {what}")

    def verify(self) -> None:
        """Raises PlanError for the first part of the declaration that does not hold."""
        self._counts()
        for name in sorted(self.entry.flags):
            if self.parameters[name] not in (0, 1):
                self.fail(f"{name} is {self.parameters[name]}, expected 0 or 1")
        for i in self.entry.in_order:
            if i < len(self.inputs):
                self._buffer(self.entry.inputs[i], self.inputs[i], 0)
        last = len(self.entry.outputs) - 1
        for i, shape in enumerate(self.outputs):
            self._buffer(self.entry.outputs[min(i, last)], shape, i)
        if len(self.outputs) > 1 and self.entry.keeps_plain and self.outputs[0].kind != "f32":
            self.fail("two outputs must be f32 and an encoding, in this order")
        if self.entry.adds and len(self.inputs) == len(self.entry.inputs) and len(self.outputs) > 1:
            self.fail(f"{self.entry.adds} stands beside {len(self.outputs)} outputs, expected 1")
        for (tensor, i), weight in zip(self.entry.each_weight(len(self.outputs)), self.weights, strict=True):
            self._weight(tensor, weight, i)
        if self.entry.check is not None:
            self.entry.check(self)

    def size(self, expression: str, i: int = 0) -> int | None:
        """The value of a width; None while it names a size that is not known yet."""
        value = 1
        for term in _terms(expression):
            factor = term if isinstance(term, int) else self.sizes.get(_indexed(term, i))
            if factor is None:
                return None
            value *= factor
        return value

    def _counts(self) -> None:
        entry = self.entry
        copies = sum(1 for output in entry.outputs if output.copy_of)
        n_out = len(entry.outputs)
        self._count("inputs", self.inputs, range(entry.n_inputs, len(entry.inputs) + 1))
        many = entry.has_many and len(self.outputs) >= n_out
        self._count(
            "outputs", self.outputs, [len(self.outputs)] if many else range(n_out - copies, n_out + 1)
        )
        self._count("weights", self.weights, [entry.n_weights(len(self.outputs))])

    def _count(self, kind: str, found: Sequence[object], allowed: Sequence[int]) -> None:
        if len(found) not in allowed:
            self.fail(f"{len(found)} {kind}, expected {' or '.join(map(str, allowed))}")

    def _buffer(self, operand: Input | Output, shape: Value, i: int) -> None:
        if operand.rows == "R":
            self._like = like = self._like or shape
            rows = (like.rows, like.slots_per_token)
        elif operand.rows in _ROWS:
            rows = (_ROWS[operand.rows], 1)
        else:
            if self._base is None:
                self._base = "outputs" if shape.rows == "outputs" else "tokens"
            alone = operand.rows == "B" or (operand.rows == "B|S" and shape.slots_per_token == 1)
            rows = (self._base, 1 if alone else self.sizes["k"])
        width = self._resolve(operand.width, shape.width, i)
        found = (shape.rows, shape.slots_per_token, shape.width)
        if shape.kind not in operand.kinds or found != (*rows, width):
            self.fail(
                f"{shape.name} is {shape.kind} {_text(*found)}, "
                f"expected {' or '.join(operand.kinds)} {_text(*rows, width)}"
            )

    def _resolve(self, expression: str, found: int, i: int) -> int:
        """The value of a width; a size that is named for the first time is what was found."""
        known = self.size(expression, i)
        if known is None:
            assert "·" not in expression, f"{self.entry.name}: {expression} names a size that nothing has"
            known = self.sizes[_indexed(expression, i)] = found
        return known

    def _weight(self, tensor: Tensor, weight: Weight | None, i: int) -> None:
        position = f"weight {tensor.name}" + (f" {i}" if tensor.many else "")
        if weight is None:
            if not tensor.optional:
                self.fail(f"{position} is absent")
            return
        found = (weight.experts, weight.rows, weight.cols)
        sizes = [
            self._resolve(size, n, i)
            for size, n in zip(tensor.shape, found[-len(tensor.shape) :], strict=True)
        ]
        if found != (1,) * (3 - len(sizes)) + tuple(sizes):
            self.fail(f"{weight.name} is {list(weight.shape)}, expected {sizes}")
        if len(sizes) == 1 and weight.format != "F32":
            self.fail(f"{weight.name} is {weight.format} {list(weight.shape)}, expected F32 {sizes}")
        at = self.entry.multiplied
        if at is not None and tensor.shape[-1] == self.entry.inputs[at].width:  # a bias multiplies nothing
            self._multiplied(weight)

    def _multiplied(self, weight: Weight) -> None:
        """Weights in BF16 read f32 or bf16, other floats f32; quantised ones f32 or integers."""
        x = self.inputs[self.entry.multiplied or 0]
        floats = ("f32", "bf16") if weight.format == "BF16" else ("f32",)
        if x.kind not in (floats if weight.is_float else ("f32", "fast", "high")):
            self.fail(f"{weight.name} in {weight.format} cannot multiply {x.name}, which is {x.kind}")


def operation(
    *,
    inputs: Sequence[Input] = (),
    outputs: Sequence[Output] = (),
    weights: Sequence[Tensor] = (),
    multiplies: str = "",
    adds: str = "",
    state: Reads | Writes | None = None,
    selects: bool = False,
    check: Callable[[Call], None] | None = None,
    module: str = "",
) -> Callable[[Callable[..., Any]], Operation]:
    """Makes a definition an entry, under its name. The parameters after the star are the operation's, with
    their types: int, bool, float or Floats."""

    def make(definition: Callable[..., Any]) -> Operation:
        types: dict[str, set[str]] = {"int": set(), "bool": set(), "float": set(), "Floats": set()}
        parameters = inspect.signature(definition).parameters
        for parameter in parameters.values():
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY and parameter.name != "batch":
                types[parameter.annotation].add(parameter.name)
        return Operation(
            name=definition.__name__,
            definition=definition,
            inputs=tuple(inputs),
            outputs=tuple(outputs),
            weights=tuple(weights),
            ints=frozenset(types["int"] | types["bool"]),
            flags=frozenset(types["bool"]),
            floats=frozenset(types["float"]),
            arrays=frozenset(types["Floats"]),
            takes_batch="batch" in parameters,
            multiplies=multiplies,
            module=module,
            adds=adds,
            state=state,
            selects=selects,
            check=check,
        )

    return make


@functools.cache
def _terms(expression: str) -> tuple[str | int, ...]:
    """The factors of a product: numbers, and names of sizes."""
    return tuple(int(term) if term.isdecimal() else term for term in expression.split("·"))


def size_of_state(expression: str, state: State) -> int:
    """The value of a product of numbers and fields of a state."""
    return math.prod(term if isinstance(term, int) else getattr(state, term) for term in _terms(expression))


def _indexed(size: str, i: int) -> str:
    return f"{size}{i}" if size.endswith("_i") else size


def _text(rows: Rows, slots: int, width: int) -> str:
    return f"[{rows}{f' × {slots}' if slots > 1 else ''}, {width}]"
