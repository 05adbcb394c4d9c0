"""Which model on this machine a name means."""

from __future__ import annotations

import os
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path

from clarion.errors import NameNotFoundError, ParameterError
from clarion.gguf.texts import as_path
from clarion.library import environment
from clarion.library.found import Found
from clarion.library.hub_cache import HubCache
from clarion.library.places import Place, own_addresses, places
from clarion.library.quants import rank, same_quant, stem
from clarion.library.reference import LATEST, LIBRARY, Address, HubName, OllamaName, Reference, parse
from clarion.names import STANDARD_INPUT, missing

_PATHS = ("/", "./", "../", "~")
SHOWN_NAMES = 3


def find(name: str | os.PathLike[str]) -> Found:
    """The model that a path or a name means. A path that exists always wins, and no folder is searched then.

    Raises:
        NameNotFoundError: there is none here, or the name means several. Nothing is ever fetched.
        ParameterError: `name` is no text that could name a file.
    """
    path, text = as_path(name), os.fsdecode(name)
    if os.path.lexists(path):
        size = os.stat(path).st_size if os.path.exists(path) else 0
        return Found(path, text, "file", size, parts=(path,))
    if text == STANDARD_INPUT or text.startswith(_PATHS):
        raise NameNotFoundError(f"{text}: {missing(text)}")
    try:
        reference = parse(text)
    except ParameterError as error:
        if "://" in text:
            raise NameNotFoundError(str(error)) from None
        raise NameNotFoundError(f"{text}: {missing(text)}") from None
    if (found := look_up(reference)) is not None:
        return found
    raise NameNotFoundError(f"{text}: {missing(text)}{_near(text)}")


def located(path: str | os.PathLike[str]) -> Path:
    """The path of a model that is given by its path or by its name. Raises as `find`."""
    given = as_path(path)
    return given if os.path.lexists(given) else find(path).path


def is_here(name: str) -> bool:
    """Whether a word is the name of a model on this machine; also where it could mean several."""
    try:
        return look_up(parse(name)) is not None
    except NameNotFoundError:
        return True
    except ParameterError:
        return False


def every() -> list[Found]:
    """All models on this machine, of all places, in the order in which names are looked up."""
    return [found for _, found in everywhere()]


def everywhere() -> Iterator[tuple[Place, Found]]:
    """The same, with the place of each."""
    for place in places():
        models = place.models()
        while True:
            try:
                found = next(models, None)
            except OSError:
                break  # another user's folder, or one that changes meanwhile: nothing there can be opened
            if found is None:
                break
            yield place, found


def look_up(reference: Reference) -> Found | None:
    """The model on this machine that is meant, None if there is none.

    Raises NameNotFoundError where several are, of which none is the obvious one."""
    if isinstance(reference, Address):
        path = own_addresses().path(reference)
        return next((found for found in own_addresses().models() if path in found.parts), None)
    if isinstance(reference, HubName):
        return _of_repository(reference, every())
    models = [found for found in every() if not found.is_old]
    for fits in (_is_named, _is_file, _is_repository):
        fitting = [found for found in models if fits(found, reference)]
        if fitting:
            return _the_one(str(reference), fitting, any_quant=True)
    return None


def _of_repository(name: HubName, models: list[Found]) -> Found | None:
    wanted = name.repository.lower()
    flat = wanted.replace("/", "_") + "_"  # as llama.cpp calls its files
    fitting = [
        found
        for found in models
        if found.repository.lower() == wanted
        or (not found.repository and found.file.lower().startswith(flat))
    ]
    if name.revision is not None:
        commit = HubCache(environment.hub_cache()).commit(name.repository, name.revision)
        fitting = [found for found in fitting if commit is not None and found.revision == commit]
    else:
        fitting = [found for found in fitting if not found.is_old]
    if name.file is not None:
        fitting = [found for found in fitting if _has_file(found, name.file, flat)]
    elif name.quant is not None:
        exact = [found for found in fitting if found.quant == name.quant.upper()]
        fitting = exact or [found for found in fitting if same_quant(found.quant, name.quant)]
    return _the_one(str(name), fitting, any_quant=name.quant is None) if fitting else None


def _has_file(found: Found, file: str, flat: str) -> bool:
    """Whether a file of a repository is a part of this model, whatever its place calls it."""
    folder = found.file.rpartition("/")[0]
    names = {f"{folder}/{part.name}" if folder else part.name for part in found.parts}
    return bool(found.file) and (file in names or flat + file.lower() in {name.lower() for name in names})


def _is_named(found: Found, name: OllamaName) -> bool:
    full = OllamaName(name.name, name.tag or LATEST, name.namespace)
    return found.name.lower() in (str(name).lower(), str(full).lower())


def _is_file(found: Found, name: OllamaName) -> bool:
    if name.namespace != LIBRARY or not found.file:
        return False
    base, word = found.file.rpartition("/")[2].lower(), name.name.lower()
    return word in (base, stem(base)) and _has_quant(found, name)


def _is_repository(found: Found, name: OllamaName) -> bool:
    """Whether the name is that of a repository, without owner, and without its -GGUF."""
    base = found.repository.rpartition("/")[2].lower()
    named = name.name.lower() in (base, base.removesuffix("-gguf")) and name.namespace == LIBRARY
    return bool(base) and named and _has_quant(found, name)


def _has_quant(found: Found, name: OllamaName) -> bool:
    return name.tag is None or same_quant(found.quant, name.tag)


def _the_one(name: str, fitting: list[Found], *, any_quant: bool) -> Found:
    """Of models that fit, the one that is meant: of the first place, in the preferred quantisation."""
    repositories = {found.repository.lower() for found in fitting if found.repository}
    same_place = [found for found in fitting if found.source == fitting[0].source]
    if len(repositories) > 1:
        raise NameNotFoundError(f"{name}: several models are called so: {_names(fitting)}")
    if any_quant:
        best = min(rank(found.quant) for found in same_place)
        same_place = [found for found in same_place if rank(found.quant) == best]
    if len({found.path for found in same_place}) > 1:
        raise NameNotFoundError(f"{name}: several models are called so: {_names(same_place)}")
    return same_place[0]


def _names(models: list[Found]) -> str:
    return ", ".join(found.name for found in models)


def _near(text: str) -> str:
    """Names of models here that come near, as a question."""
    known: dict[str, str] = {}
    for found in every():
        base = found.repository.rpartition("/")[2].lower()
        for key in (found.name.lower(), stem(found.file).lower(), base, found.name.partition(":")[0].lower()):
            if key:
                known.setdefault(key, found.name)
    near = get_close_matches(text.lower(), known, SHOWN_NAMES, 0.6)
    names = list(dict.fromkeys(known[key] for key in near))
    return f"; is it {' or '.join(names)}?" if names else ""
