"""`clarion inspect`: what a file holds, and what would be computed."""

from __future__ import annotations

import json
from collections.abc import Mapping

import click

from clarion.cli import options

SHOWN_ITEMS = 6  # of an array
SHOWN_CHARACTERS = 100  # of a string


@click.command()
@click.argument("model", required=False, type=options.file_name)
@options.model
@click.option("--plan", is_flag=True, help="Print the plan instead: what the model computes.")
@click.option(
    "--program", is_flag=True, help="Print the program instead: what one step runs on this machine."
)
@options.program
@options.as_json
@options.debug
def inspect(
    model: str | None,
    model_path: str | None,
    plan: bool,
    program: bool,
    context: int | None,
    batch: int,
    activations: str,
    kv: str | None,
    isa: str | None,
    as_json: bool,
) -> None:
    """Prints a model file's metadata and tensors, or its plan, or the program that is made of that.

    With --json arrays are whole, as the vocabulary; with --plan or --program as well, the object is that.
    """
    if plan and program:
        raise click.UsageError("--plan and --program: choose one")
    from clarion.programs import make_plan, make_program, open_file

    with open_file(model or model_path) as file:
        if plan:
            made = make_plan(file, context)
            print(made.to_json() if as_json else made)
            return
        if program:
            compiled = make_program(
                file, context=context, activations=activations, kv=kv, isa=isa, batch=batch
            )
            print(compiled.to_json() if as_json else compiled)
            return
        if as_json:
            from clarion.evaluate.summary import Summary
            from clarion.gguf.describe import describe

            print(json.dumps({**describe(file), "summary": Summary.of(file).report()}))
            return
        size = sum(tensor.n_bytes for tensor in file.tensors.values())
        for part in file.parts:
            print(part)
        print(
            f"GGUF {file.version}, {len(file.metadata)} keys, {len(file.tensors)} tensors, {size:,} bytes\n"
        )
        _print_metadata(file.metadata)
        print()
        width = max((len(name) for name in file.tensors), default=0)
        for name, tensor in file.tensors.items():
            shape = " × ".join(map(str, tensor.shape))
            print(f"{name:{width}}  {tensor.format.name:5}  {shape:>20}  {tensor.n_bytes:>14,} bytes")


def _print_metadata(metadata: Mapping[str, object]) -> None:
    width = max(map(len, metadata), default=0)
    for key in metadata:
        print(f"{key:{width}}  {_show(metadata[key])}")


def _show(value: object) -> str:
    if isinstance(value, str):
        return repr(value[:SHOWN_CHARACTERS]) + ("…" if len(value) > SHOWN_CHARACTERS else "")
    if not hasattr(value, "__len__") or not hasattr(value, "__getitem__"):
        return str(value)
    shown = [_show(value[i]) for i in range(min(len(value), SHOWN_ITEMS))]
    return f"[{', '.join(shown)}{', …' if len(value) > SHOWN_ITEMS else ''}] ({len(value):,} items)"
