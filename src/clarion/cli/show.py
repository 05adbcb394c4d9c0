"""`clarion show`: what a model is, in a few lines."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from clarion.cli import options

if TYPE_CHECKING:
    from clarion.gguf import File
    from clarion.library import Found

_SAMPLING = "general.sampling."


@click.command()
@click.argument("model", required=False, type=options.file_name)
@options.model
@options.as_json
@options.debug
def show(model: str | None, model_path: str | None, as_json: bool) -> None:
    """Prints what a model is: architecture, size, context, template, licence, and where it lies.

    MODEL is a file or a name; without it, it is the model that comes with Clarion. clarion inspect prints all
    of the file's metadata and tensors.
    """
    from clarion.library import find
    from clarion.programs import open_file

    given = model or model_path
    found = find(given) if given is not None else None
    with open_file(None if found is None else found.path) as file:
        report = _report(file, found)
    if as_json:
        print(json.dumps(report))
        return
    rows = _rows(report)
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:{width}}  {value}")


def _report(file: File, found: Found | None) -> dict[str, Any]:
    from clarion.evaluate.summary import Summary

    summary = Summary.of(file)
    metadata = file.metadata

    def value(key: str) -> Any:
        held = metadata.plain(key) if key in metadata else None
        return held if isinstance(held, str | int | float) else None

    tensors = sum(tensor.n_bytes for tensor in file.tensors.values())
    return {
        "name": None if found is None else found.name,
        "title": value("general.name"),
        "architecture": summary.architecture,
        "parameters": summary.parameters,
        "quant": summary.type,
        "bits_per_weight": tensors * 8 / summary.parameters if summary.parameters else None,
        "bytes": summary.bytes,
        "context": value(f"{summary.architecture}.context_length"),
        "chat_template": "tokenizer.chat_template" in metadata,
        "license": value("general.license"),
        "sampling": {
            key.removeprefix(_SAMPLING): value(key) for key in metadata if key.startswith(_SAMPLING)
        },
        "source": "clarion" if found is None else found.source,
        "parts": [str(part) for part in file.parts],
    }


def _rows(report: dict[str, Any]) -> list[tuple[str, str]]:
    from clarion.evaluate.summary import parameters_text
    from clarion.gguf.texts import size_text

    bits = report["bits_per_weight"]
    context, sampling = report["context"], report["sampling"]
    rows = [
        ("name", report["name"]),
        ("title", report["title"]),
        ("architecture", report["architecture"]),
        ("parameters", parameters_text(report["parameters"])),
        ("quantisation", report["quant"] + (f", {bits:.2f} bits per weight" if bits is not None else "")),
        ("size", size_text(report["bytes"])),
        ("context", f"{context:,} tokens" if isinstance(context, int) else None),
        ("chat template", "yes" if report["chat_template"] else "none"),
        ("licence", report["license"] or "the file names none"),
        (
            "sampling",
            ", ".join(f"{key} {value}" for key, value in sampling.items()) or "the file advises nothing",
        ),
        ("place", report["source"]),
        *(("file", part) for part in report["parts"]),
    ]
    return [(name, options.printable(value)) for name, value in rows if value is not None]
