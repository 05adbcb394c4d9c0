"""Which tensor gets which format: the recipes that people know by name.

The table gives what llama.cpp's own tool gives (src/llama-quant.cpp, as of llama-cpp-python 0.3.36), without
its exceptions for Falcon, GLM 5 and BailingMoE 3. MXFP4, which it has for experts alone, is also a recipe of
the kind that Q4_0 is.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from clarion.errors import ParameterError
from clarion.gguf import File, Format, Tensor, format_named
from clarion.gguf.file_types import ALIASES, RECIPES, Recipe

# The first line that fits a tensor decides: recipes, kind of tensor, conditions (all must hold), format.
# `low` are the recipes below IQ3, `*` all.
_TABLE = """
MXFP4_MOE                                     output                 -                  Q8_0
*                                             output                 odd                Q8_0
low,IQ3_XXS                                   output                 -                  Q5_K
Q8_0                                          output                 -                  Q8_0
*                                             output                 -                  Q6_K

MXFP4_MOE                                     token_embd             -                  Q8_0
IQ1_S,IQ1_M,IQ2_XXS,IQ2_XS                    token_embd             -                  Q2_K
IQ2_S,IQ2_M,IQ3_XXS                           token_embd             -                  IQ3_S
TQ1_0,TQ2_0,Q2_0                              token_embd             -                  Q4_K
*                                             token_embd             -                  =

MXFP4_MOE                                     *                      stacked            MXFP4
MXFP4_MOE                                     *                      -                  Q8_0

low                                           attn_v                 gqa                Q4_K
low                                           attn_v                 experts            Q4_K
IQ2_S,IQ2_M                                   attn_v                 -                  IQ3_S
low                                           attn_v                 -                  Q2_K
low                                           attn_k                 8-experts          Q4_K
IQ2_S,IQ2_M                                   ffn_down               eighth             IQ3_S
low                                           ffn_down               eighth             Q2_K
low                                           attn_output            8-experts          Q5_K
IQ1_S,IQ1_M                                   attn_output            -                  IQ2_XXS
IQ2_S,IQ2_M                                   attn_output            -                  IQ3_S
low                                           *                      -                  =

*                                             attn_v                 8-experts          Q8_0
Q2_K,Q3_K_S,Q3_K_M,IQ3_M,Q4_K_S               attn_v                 70B                Q5_K
Q2_K_S,IQ3_XXS,IQ3_XS,IQ3_S                   attn_v                 70B,gqa            Q5_K
Q2_K,Q2_K_S,IQ3_XXS,IQ3_XS,IQ3_S              attn_v                 gqa                Q4_K
Q2_K                                          attn_v                 -                  Q3_K
IQ3_XXS                                       attn_v                 no-imatrix         IQ3_S
IQ3_M                                         attn_v                 -                  Q4_K
Q3_K_M                                        attn_v                 first-2            Q5_K
Q3_K_M                                        attn_v                 -                  Q4_K
Q3_K_L                                        attn_v                 -                  Q5_K
IQ4_NL,IQ4_XS                                 attn_v                 gqa                Q5_K
Q4_K_M,Q5_K_M                                 attn_v                 more-bits          Q6_K
Q4_K_M                                        attn_v                 70B                Q5_K
Q4_K_S                                        attn_v                 first-4            Q5_K

*                                             attn_k                 8-experts          Q8_0
IQ3_XS                                        attn_k,attn_q          -                  IQ3_XXS
IQ3_XXS                                       attn_k,attn_q          -                  IQ2_S

Q2_K                                          ffn_down               -                  Q3_K
Q2_K_S                                        ffn_down               eighth             Q4_K
IQ3_XXS                                       ffn_down               no-imatrix,eighth  Q4_K
IQ3_XXS                                       ffn_down               no-imatrix         Q3_K
Q3_K_M                                        ffn_down               sixteenth          Q5_K
Q3_K_M                                        ffn_down               -                  Q4_K
IQ3_M                                         ffn_down               eighth             Q4_K
IQ3_M                                         ffn_down               8-experts,more-bits  Q4_K
Q3_K_L                                        ffn_down               -                  Q5_K
Q4_K_M,Q5_K_M                                 ffn_down               more-bits          Q6_K
IQ4_NL,IQ4_XS                                 ffn_down               no-imatrix,eighth  Q5_K
Q4_K_S                                        ffn_down               eighth             Q5_K
Q4_0                                          ffn_down               imatrix,eighth     Q4_1
Q5_0                                          ffn_down               imatrix,eighth     Q5_1

Q2_K,IQ3_XS,IQ3_XXS,Q3_K_S,Q3_K_M,IQ4_NL      attn_output            8-experts          Q5_K
Q4_K_S,Q4_K_M,IQ3_S,IQ3_M,IQ4_XS              attn_output            8-experts          Q5_K
Q3_K_L                                        attn_output            8-experts          =
Q2_K                                          attn_output            -                  Q3_K
IQ3_XXS                                       attn_output            -                  IQ3_S
Q3_K_M,IQ3_M                                  attn_output            -                  Q4_K
Q3_K_L                                        attn_output            -                  Q5_K

IQ3_XS                                        ffn_gate,ffn_up        middle             IQ3_XXS
"""
_LOW = "IQ1_S,IQ1_M,IQ2_XXS,IQ2_XS,IQ2_S,IQ2_M"

# Where a row is no whole number of blocks: the format of shorter blocks that stands in, and F16 where that
# does not fit either.
FALLBACKS = {
    **dict.fromkeys(("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_XS"), "IQ4_NL"),
    **dict.fromkeys(("Q2_0", "Q2_K", "Q3_K", "TQ1_0", "TQ2_0", "Q1_0"), "Q4_0"),
    "Q4_K": "Q5_0",
    "Q5_K": "Q5_1",
    "Q6_K": "Q8_0",
    "Q8_K": "Q8_0",
}

# Parts of names of weights that stay as they are: norms, routers, and what is too small or too sensitive.
_KEPT = re.compile(
    r"_norm\.weight|ffn_gate_inp\.weight|ffn_gate_tid2eid\.weight|altup|laurel|per_layer_model_proj"
    r"|^position_embd\.weight$|^token_types\.weight$|ssm_conv1d|shortconv\.conv\.weight"
    r"|indexer\.[kq]_proj\.weight|time_mix_(first|w[012]|v[012]|a[012]|g[12]|decay_w[12]|lerp_fused)\.weight"
    r"|attn_rel_b\.weight|\.position_embd|sam\.(pos_embd|neck\.|net_)|\.rel_pos|\.patch_(embd|merger)"
    r"|a\.rvq\.codebook|mm\.a\.code_embd"
)
_KINDS = (
    ("output", r"^output\.weight$"),
    ("token_embd", r"^(per_layer_)?token_embd\.weight$"),
    ("attn_v", r"attn_qkv\.weight|attn_kv_b\.weight|attn_v\.weight"),
    ("attn_k", r"attn_k\.weight"),
    ("attn_q", r"attn_q\.weight"),
    ("attn_output", r"attn_output\.weight"),
    ("ffn_up", r"ffn_up"),
    ("ffn_gate", r"ffn_gate"),
    ("ffn_down", r"ffn_down"),
)


@dataclass(frozen=True, slots=True)
class Choice:
    """The format that a tensor is to be written in."""

    tensor: Tensor
    format: Format
    wanted: Format  # differs where the rows are no whole number of blocks

    @property
    def copied(self) -> bool:
        return self.format == self.tensor.format


@dataclass(frozen=True, slots=True)
class _Model:
    n_layer: int
    n_gqa: int
    n_expert: int
    is_70b: bool
    imatrix: bool


@dataclass(frozen=True, slots=True)
class _Place:
    """A tensor, and where it stands among those of its kind."""

    model: _Model
    tensor: Tensor
    recipe: Recipe
    index: int
    count: int


_CONDITIONS: dict[str, Callable[[_Place], bool]] = {
    "-": lambda p: True,
    "gqa": lambda p: p.model.n_gqa >= 4,
    "experts": lambda p: p.model.n_expert >= 4,
    "8-experts": lambda p: p.model.n_expert == 8,
    "70B": lambda p: p.model.is_70b,
    "imatrix": lambda p: p.model.imatrix,
    "no-imatrix": lambda p: not p.model.imatrix,
    "odd": lambda p: p.tensor.shape[-1] % format_named(p.recipe.format).block_size != 0,
    "stacked": lambda p: len(p.tensor.shape) > 2 and p.tensor.shape[0] > 1,
    "first-2": lambda p: p.index < 2,
    "first-4": lambda p: p.index < 4,
    "eighth": lambda p: p.index < p.count // 8,
    "sixteenth": lambda p: p.index < p.count // 16,
    "middle": lambda p: p.count // 8 <= p.index < 7 * p.count // 8,
    "more-bits": lambda p: (
        p.index < p.count // 8 or p.index >= 7 * p.count // 8 or (p.index - p.count // 8) % 3 == 2
    ),
}


def recipe_named(name: str) -> Recipe:
    """The recipe of this name, in capitals or not.

    Raises:
        ParameterError: there is none.
    """
    found = RECIPES.get(ALIASES.get(name.upper(), name.upper()))
    if found is None:
        known = {re.sub("[^A-Z0-9]", "", known): known for known in (*ALIASES, *RECIPES)}
        meant = known.get(re.sub("[^A-Z0-9]", "", name.upper()))
        hint = f"; did you mean {meant}?" if meant else ""
        raise ParameterError(f"type is {name!r}, expected one of {', '.join((*RECIPES, *ALIASES))}{hint}")
    return found


def choose_formats(
    file: File, recipe: Recipe, overrides: Iterable[tuple[str, str]] = (), *, imatrix: bool = False
) -> list[Choice]:
    """The format of every tensor of a model, in the file's order.

    Args:
        overrides: a regular expression that is searched in names, and the format of tensors that it finds;
            the first that fits a tensor decides, before the recipe.
        imatrix: whether there is an importance matrix, on which some recipes depend.

    Raises:
        ParameterError: an override's pattern is no regular expression, or finds no tensor.
        UnsupportedError: an override's format is unknown.
    """
    patterns = _compiled(overrides)
    model = _model(file, imatrix)
    n_values = sum(_kind(name) == "attn_v" for name in file.tensors)
    tied = "output.weight" not in file.tensors
    seen: Counter[str] = Counter()
    found: dict[str, Choice] = {}
    used: set[re.Pattern[str]] = set()
    for tensor in sorted(file.tensors.values(), key=lambda t: (_layer(t.name), t.name)):
        if not is_quantizable(tensor):
            found[tensor.name] = Choice(tensor, tensor.format, tensor.format)
            continue
        override = next(((p, format) for p, format in patterns if p.search(tensor.name)), None)
        if override is not None:
            used.add(override[0])
            wanted = override[1]
        else:
            kind = _kind(tensor.name)
            index, count = seen[kind], n_values if kind == "attn_v" else model.n_layer
            if kind.startswith("ffn") and model.n_expert > 1 and recipe.name not in _LOW.split(","):
                index = _layer(tensor.name)  # experts may be several tensors of a layer
            seen[kind] += 1
            kind = "output" if kind == "token_embd" and tied else kind
            wanted = _wanted(_Place(model, tensor, recipe, index, count), kind)
        found[tensor.name] = Choice(tensor, fitting(wanted, tensor.shape[-1]), wanted)
    unused = [pattern.pattern for pattern, _ in patterns if pattern not in used]
    if unused:
        raise ParameterError(f"no tensor that can be quantized has a name with {unused[0]!r} in it")
    return [found[name] for name in file.tensors]


def is_quantizable(tensor: Tensor) -> bool:
    """Whether a tensor is a matrix of weights, or a stack of such, and none of those that are always kept."""
    matrix = any(size != 1 for size in tensor.shape[:-1])
    return matrix and tensor.name.endswith("weight") and not _KEPT.search(tensor.name)


def fitting(format: Format, cols: int) -> Format:
    """The format itself where rows of `cols` weights are whole blocks, else its fallback, else F16."""
    for name in (format.name, FALLBACKS.get(format.name, "F16"), "F16"):
        format = format_named(name)
        if cols % format.block_size == 0:
            break
    return format


def _wanted(place: _Place, kind: str) -> Format:
    recipe = place.recipe
    if recipe.name in ("F32", "F16", "BF16"):
        return format_named(recipe.format)
    for kinds, conditions, name in _lines(recipe.name):
        if (kind in kinds or kinds == ("*",)) and all(_CONDITIONS[c](place) for c in conditions):
            return format_named(recipe.format if name == "=" else name)
    return format_named(recipe.format)


@cache
def _lines(recipe: str) -> list[tuple[tuple[str, ...], tuple[str, ...], str]]:
    """The table's lines for a recipe: kinds of tensors, conditions, format."""
    lines = []
    for line in _TABLE.replace("low", _LOW).split("\n"):
        if line:
            recipes, kinds, conditions, format = line.split()
            if recipes == "*" or recipe in recipes.split(","):
                lines.append((tuple(kinds.split(",")), tuple(conditions.split(",")), format))
    return lines


def _compiled(overrides: Iterable[tuple[str, str]]) -> Sequence[tuple[re.Pattern[str], Format]]:
    patterns = []
    for pattern, name in overrides:
        try:
            patterns.append((re.compile(pattern), format_named(name.upper())))
        except re.error as error:
            raise ParameterError(f"pattern {pattern!r} is no regular expression: {error}") from None
    return patterns


def _kind(name: str) -> str:
    return next((kind for kind, pattern in _KINDS if re.search(pattern, name)), "other")


def _layer(name: str) -> int:
    match = re.match(r"blk\.(\d+)\.", name)
    return int(match[1]) if match else -1


def _model(file: File, imatrix: bool) -> _Model:
    metadata = file.metadata
    arch = metadata.get("general.architecture", "")

    def number(key: str, default: int) -> int:
        value = metadata.get(f"{arch}.{key}", default)
        if isinstance(value, np.ndarray):  # one for each layer: the first counts
            value = value[0] if value.size else default
        return int(value) if isinstance(value, int | np.integer) else default

    n_layer = number("block_count", 1 + max((_layer(name) for name in file.tensors), default=0))
    n_head = number("attention.head_count", 0)
    n_head_kv = number("attention.head_count_kv", n_head)
    grouped = n_head != n_head_kv
    is_70b = n_layer == 80 and (arch == "qwen2" or (arch == "llama" and grouped))
    n_gqa = n_head // n_head_kv if n_head_kv else 0
    return _Model(n_layer, n_gqa, number("expert_count", 0), is_70b, imatrix)


def describe(choices: Iterable[Choice]) -> Mapping[str, int]:
    """How many tensors are written in each format, most first."""
    return dict(Counter(choice.format.name for choice in choices).most_common())
