"""Fetching models by name, each into the place that its kind of name has."""

from __future__ import annotations

from typing import assert_never

from clarion.errors import FileError, NameNotFoundError, ParameterError
from clarion.library import environment, hub
from clarion.library.found import Found
from clarion.library.http import Report
from clarion.library.places import own_addresses, own_ollama
from clarion.library.reference import Address, HubName, OllamaName, Reference, parse
from clarion.library.search import look_up


def pull(name: str, report: Report | None = None) -> Found:
    """Fetches the newest version of a model, as far as it is not here.

    A single word without a tag is first looked up on this machine: only what is not here is asked of Ollama's
    registry. Where HF_HUB_OFFLINE is set, nothing is asked of anybody.

    Args:
        name: as `owner/name:QUANT`, `name:tag` or an address.
        report: who hears how far it is.

    Raises:
        NameNotFoundError: there is no such model, or none here while offline.
        FileError: no access, no network, no room on the disk, or a file that is not what its hub says.
        ParameterError: it is no name of a model.
    """
    reference = parse(name)
    if environment.is_offline():
        return _offline(name, reference)
    report = report or Report()
    here = look_up(reference) if isinstance(reference, OllamaName) else None
    # A model of another place or of another kind of name: there is nothing to update it from.
    if here is not None and (here.source != own_ollama().source or here.repository or here.file):
        return here
    return _pull(reference, report)


def fetched(name: str, report: Report | None = None) -> Found:
    """A model that is here, else fetched. Raises as `pull`."""
    reference = parse(name)
    found = look_up(reference)
    if found is not None:
        return found
    return _offline(name, reference) if environment.is_offline() else _pull(reference, report or Report())


def hub_name(repository: str, file: str | None = None) -> str:
    """The name of a model of the hub, of what stands behind -hf and -hff.

    Raises ParameterError: it is none."""
    reference = parse(repository)
    if not isinstance(reference, HubName):
        raise ParameterError(f"{repository}: expected a repository of the hub as owner/name:QUANT")
    if file is None:
        return str(reference)
    if not file.lower().endswith(".gguf"):
        raise ParameterError(f"{file}: expected the name of a .gguf file of {reference.repository}")
    return str(parse(f"{HubName(reference.repository, reference.revision)}:{file}"))


def _pull(reference: Reference, report: Report) -> Found:
    try:
        match reference:
            case HubName():
                return hub.pull(reference, report)
            case OllamaName():
                return own_ollama().pull(reference, report)
            case Address():
                return own_addresses().pull(reference, report)
            case _:
                assert_never(reference)
    except OSError as error:
        raise FileError(f"{error.filename}: {error.strerror or error}") from error


def _offline(name: str, reference: Reference) -> Found:
    found = look_up(reference)
    if found is None:
        raise NameNotFoundError(f"{name}: it is not on this machine, and HF_HUB_OFFLINE forbids to fetch it")
    return found
