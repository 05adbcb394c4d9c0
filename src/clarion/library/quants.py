"""Names of GGUF files: which of them are models, which are parts of one, and how their weights are quantised.

A repository holds one model in many quantisations; people name one by its recipe, as `Q4_K_M`. The file's
name is all that says which file that is, without fetching it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

# The one that is taken where nobody says: first those of four bits, the best compromise of size and error
# first, then larger ones, since they lose less, then smaller ones, then those that are not quantised.
PREFERENCE = (
    *("Q4_K_M", "Q4_0", "Q4_K_S", "Q4_K_L", "Q4_K_XL", "Q4_1", "MXFP4", "MXFP4_MOE", "IQ4_NL", "IQ4_XS"),
    *("Q5_K_M", "Q5_K_S", "Q5_0", "Q5_1", "Q6_K", "Q8_0"),
    *("Q3_K_L", "Q3_K_M", "Q3_K_S", "IQ3_M", "IQ3_S", "IQ3_XS", "IQ3_XXS"),
    *("Q2_K_L", "Q2_K", "Q2_K_S", "IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S", "TQ2_0", "TQ1_0"),
    *("BF16", "F16", "F32"),
)
_QUANT = re.compile(
    r"(?<![A-Z0-9])((?:UD-)?(?:I?Q[1-9](?:_K(?:_(?:XS|S|M|L|XL))?|_[01](?:_\d_\d)?|_NL|_XXS|_XS|_S|_M|_L|_XL)?"
    r"|TQ[12]_0|MXFP4(?:_MOE)?|NVFP4|BF16|FP?16|FP?32))(?![A-Z0-9])",
    re.I,
)
_PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.I | re.S)
# What lies beside models and is none: projectors of images, importance matrices, adapters.
_BESIDE = re.compile(r"(^|[._-])(mmproj|imatrix|lora)([._-]|$)", re.I)


@dataclass(frozen=True, slots=True)
class Model:
    """A model among the files of a folder or a repository.

    Attributes:
        files: their names, in the order of parts.
        count: of parts, of which some may be missing.
        quant: as "Q4_K_M"; empty where the name does not say.
    """

    files: tuple[str, ...]
    count: int
    quant: str

    @property
    def name(self) -> str:
        """That of the first part."""
        return self.files[0]

    @property
    def is_whole(self) -> bool:
        return len(self.files) == self.count


class NoChoiceError(LookupError):
    """No model is meant, or several are. The message says which there are."""


def is_model(name: str) -> bool:
    """Whether a file of this name is a model, or a part of one."""
    base = name.rpartition("/")[2]
    return base.lower().endswith(".gguf") and not _BESIDE.search(base[: -len(".gguf")])


def stem(name: str) -> str:
    """A file's name without folder, ending and number of the part."""
    base = name.rpartition("/")[2]
    part = _PART.fullmatch(base)
    return part["stem"] if part else base.removesuffix(".gguf")


def quant_of(name: str) -> str:
    """The quantisation that a file's name, or else that of its folder, tells; else nothing."""
    folder, _, _ = name.rpartition("/")
    for text in (stem(name), folder.rpartition("/")[2]):
        if found := _QUANT.findall(text):
            return label(found[-1])
    return ""


def label(quant: str) -> str:
    """One spelling of a quantisation's name."""
    return re.sub(r"FP(?=(16|32)$)", "F", quant.upper())


def is_quant(text: str) -> bool:
    """Whether a word is a quantisation's name."""
    return _QUANT.fullmatch(text) is not None


def same_quant(quant: str, wanted: str) -> bool:
    """Whether a quantisation is the one that somebody names, with or without its author's prefix."""
    wanted = label(wanted)
    return wanted in (quant, quant.removeprefix("UD-"))


def rank(quant: str) -> tuple[int, bool]:
    """The less, the rather it is taken where nobody says which."""
    base = quant.removeprefix("UD-")
    place = PREFERENCE.index(base) if base in PREFERENCE else len(PREFERENCE)
    return place, base != quant


def models_among(names: Iterable[str]) -> list[Model]:
    """The models that files make, in the order of their names."""
    parts: dict[tuple[str, int], dict[int, str]] = {}
    found = []
    for name in sorted(names):
        if not is_model(name):
            continue
        folder, slash, base = name.rpartition("/")
        part = _PART.fullmatch(base)
        if part is None:
            found.append(Model((name,), 1, quant_of(name)))
            continue
        number, count = int(part["number"]), int(part["count"])
        if 1 <= number <= count:
            parts.setdefault((folder + slash + part["stem"], count), {})[number] = name
    for (_, count), named in parts.items():
        files = tuple(named[number] for number in sorted(named))
        found.append(Model(files, count, quant_of(files[0])))
    return sorted(found, key=lambda model: model.name)


def choose(models: Sequence[Model], quant: str | None = None) -> Model:
    """The one model that is meant.

    Args:
        models: of one repository, at least one.
        quant: the quantisation; None: the first by `PREFERENCE`, or the only one.

    Raises:
        NoChoiceError: there is none, or more than one.
    """
    if quant is not None:
        fitting = [model for model in models if model.quant == label(quant)]
        fitting = fitting or [model for model in models if same_quant(model.quant, quant)]
        if not fitting:
            raise NoChoiceError(f"there is no {label(quant)}{_those(models, quant)}")
    else:
        first = min(rank(model.quant) for model in models)
        fitting = [model for model in models if rank(model.quant) == first]
    if len(fitting) > 1:
        names = ", ".join(model.name for model in fitting)
        which = f"there are several files of {fitting[0].quant}" if fitting[0].quant else "there are several"
        raise NoChoiceError(f"{which}, name one of them: {names}")
    model = fitting[0]
    if not model.is_whole:
        raise NoChoiceError(f"{model.name}: {model.count} parts were expected, {len(model.files)} are there")
    return model


def name_within(model: Model, models: Sequence[Model]) -> str:
    """What names a model within its repository: its quantisation if no other one has it, else its file."""
    alone = sum(other.quant == model.quant for other in models) == 1
    return model.quant if model.quant and alone else model.name


def _those(models: Sequence[Model], wanted: str) -> str:
    quants = {model.quant: None for model in models if model.quant}
    if not quants:
        return f", but {', '.join(model.name for model in models)}"
    near = get_close_matches(label(wanted), quants, 1, 0.5)
    meant = f"; is it {near[0]}?" if near else ""
    return f", but {', '.join(quants)}{meant}"
