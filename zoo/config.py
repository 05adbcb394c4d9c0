"""What `models.toml` says about a model: its shape, and how it is trained."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from clarion.errors import ParameterError

SIZES = ("cpu", "cuda")
FAMILIES = ("llama", "qwen3moe", "bitnet")

_FILE = Path(__file__).parent / "models.toml"


@dataclass(frozen=True, slots=True)
class Shape:
    """A network.

    Attributes:
        family: architecture of the GGUF file.
        n_ff: width of the feed-forward network, or of one expert.
        n_expert, n_expert_used: 0 without experts.
    """

    family: str
    n_layer: int
    n_embd: int
    n_head: int
    n_head_kv: int
    n_ff: int
    n_expert: int = 0
    n_expert_used: int = 0
    n_vocab: int = 4096
    rope_base: float = 10000.0
    norm_eps: float = 1e-5

    @property
    def head_dim(self) -> int:
        return self.n_embd // self.n_head

    @property
    def n_parameters(self) -> int:
        return self._count(max(self.n_expert, 1))

    @property
    def n_active(self) -> int:
        """The parameters that one token is multiplied with."""
        return self._count(max(self.n_expert_used, 1))

    def _count(self, n_networks: int) -> int:
        d, n_kv = self.n_embd, self.n_head_kv * self.head_dim
        layer = 2 * d + 2 * d * d + 2 * d * n_kv + n_networks * 3 * d * self.n_ff
        if self.family == "qwen3moe":
            layer += d * self.n_expert + 2 * self.head_dim
        if self.family == "bitnet":
            layer += d + self.n_ff
        return self.n_vocab * d + d + self.n_layer * layer


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a model is trained.

    Attributes:
        steps: of the optimizer; the last `cooldown` of them, a share, bring the rates down to zero.
        batch, micro_batch: tokens in a step, and of those in one pass; whole windows of `context` tokens.
        warmup: steps in which the rates rise from zero.
        matrix_rate: of Muon, for matrices in the layers.
        table_rate, vector_rate: of AdamW, for the embedding, and for gains and routers.
        weight_decay: of matrices, relative to their rate.
        balance: weight of the experts' balance in the loss.
    """

    seed: int
    steps: int
    context: int
    batch: int
    micro_batch: int
    warmup: int
    cooldown: float
    matrix_rate: float
    table_rate: float
    vector_rate: float
    weight_decay: float
    balance: float


@dataclass(frozen=True, slots=True)
class Model:
    """One model in one size."""

    name: str
    size: str
    about: str
    shape: Shape
    recipe: Recipe


@cache
def names() -> tuple[str, ...]:
    """The models, in the order of the file."""
    return tuple(name for name in _read() if name != "recipe")


def load(name: str, size: str, *, continued: bool = False) -> Model:
    """A model of `models.toml`.

    Args:
        continued: with the recipe for a run that begins with another file's weights.

    Raises:
        ParameterError: there is none of this name or size, or its figures do not fit together.
    """
    if name not in names():
        raise ParameterError(f"model is {name!r}, known: {', '.join(names())}")
    model = _read()[name]
    if size not in SIZES:
        raise ParameterError(f"size is {size!r}, known: {', '.join(SIZES)}")
    sized = model[size]
    recipe = {**_read()["recipe"], **sized.get("recipe", {})}
    if continued:
        recipe |= sized.get("continued", {})
    made = Model(
        name,
        size,
        model["about"],
        _made(Shape, {"family": model["family"], **sized["shape"]}, name),
        _made(Recipe, recipe, name),
    )
    _check(made)
    return made


def from_dict(values: dict[str, Any]) -> Model:
    """The model of which `dataclasses.asdict` made these values."""
    return Model(**{**values, "shape": Shape(**values["shape"]), "recipe": Recipe(**values["recipe"])})


def _read() -> dict[str, Any]:
    return _parsed(_FILE.read_text())


@cache
def _parsed(text: str) -> dict[str, Any]:
    return tomllib.loads(text)


def _made(kind: type[Any], values: dict[str, Any], name: str) -> Any:
    known = {f.name for f in fields(kind)}
    for key in values:
        if key not in known:
            raise ParameterError(f"{name}: {key!r} is unknown, known: {', '.join(sorted(known))}")
    return kind(**values)


def _check(model: Model) -> None:
    shape, recipe = model.shape, model.recipe
    if shape.family not in FAMILIES:
        raise ParameterError(f"{model.name}: family is {shape.family!r}, known: {', '.join(FAMILIES)}")
    for what, number, of in (
        ("n_embd", shape.n_embd, shape.n_head),
        ("n_head", shape.n_head, shape.n_head_kv),
        ("batch", recipe.batch, recipe.micro_batch),
        ("micro_batch", recipe.micro_batch, recipe.context),
    ):
        if number % of:
            raise ParameterError(f"{model.name}: {what} is {number}, expected a multiple of {of}")
