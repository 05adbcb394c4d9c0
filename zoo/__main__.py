"""Command line: `python -m zoo`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from clarion.errors import ClarionError
from zoo import config

_name = click.argument("name", type=click.Choice(config.names()))
_corpus = click.option(
    "--corpus",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    required=True,
    help="Folder with train.txt.xz and valid.txt.xz.",
)
_runs = click.option(
    "--runs",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("zoo/runs"),
    show_default=True,
    help="Where runs are kept.",
)
_size = click.option("--size", type=click.Choice(config.SIZES), default="cpu", show_default=True)
_existing = click.Path(path_type=Path, exists=True, dir_okay=False)
_threads = click.option("-t", "--threads", type=click.IntRange(1), help="Of the processor. [default: all]")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Trains the models of the zoo, and makes GGUF files of them."""


@main.command()
@_name
@_corpus
@_runs
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--size", type=click.Choice(config.SIZES), help="[default: that of the device]")
@_threads
@click.option("--start", type=_existing, help="A GGUF file to begin with.")
@click.option("--end", type=click.IntRange(1), metavar="STEP", help="End there; rates fall from here on.")
def train(
    name: str,
    corpus: Path,
    runs: Path,
    device: str,
    size: str | None,
    threads: int | None,
    start: Path | None,
    end: int | None,
) -> None:
    """Trains a model, or goes on with it. Ctrl-C saves and stops."""
    import torch

    from zoo.checkpoint import Run
    from zoo.corpus import prepare
    from zoo.train import Training

    if threads:
        torch.set_num_threads(threads)
    model = config.load(name, size or device, continued=start is not None)
    tokens = prepare(corpus, runs / "tokens")
    training = Training(Run.of(model, runs), model, tokens, device, start)
    if end is not None:
        training.progress.end_at(end, training.model.recipe.warmup)
    if not training.train(click.echo):
        click.echo("stopped; the same command goes on")


@main.command()
@_name
@click.argument("out", type=click.Path(path_type=Path, dir_okay=False))
@_runs
@_size
@click.option("--type", "format", help="Of the matrices: q8_0 or f16; of ternary ones: tq2_0 or tq1_0.")
def export(name: str, out: Path, runs: Path, size: str, format: str | None) -> None:
    """Writes a run's model as a GGUF file."""
    from zoo.checkpoint import Run
    from zoo.export import export as write
    from zoo.network import Network

    state = Run.of(config.load(name, size), runs).load()
    network = Network(state.model.shape, state.model.recipe.context)
    network.load_state_dict(state.network)
    write(state.model, network.weights(), out, format)


@main.command()
@_name
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.argument("files", type=_existing, nargs=-1, required=True)
@_corpus
@_runs
@_size
@_threads
@click.option("--machine", default="CPU", show_default=True, help="What it was trained on, in words.")
def card(
    name: str,
    folder: Path,
    files: tuple[Path, ...],
    corpus: Path,
    runs: Path,
    size: str,
    threads: int | None,
    machine: str,
) -> None:
    """Measures a model and its FILES on the held-out text, and writes NAME.md and NAME.svg."""
    import torch

    from zoo.checkpoint import Run
    from zoo.report import write

    if threads:
        torch.set_num_threads(threads)
    write(Run.of(config.load(name, size), runs), folder, files, corpus, runs / "tokens", machine)


@main.command()
@click.argument("split", type=click.Choice(["train", "valid"]))
@_corpus
def text(split: str, corpus: Path) -> None:
    """Prints a split as plain text: what the cards' perplexities are measured on."""
    from zoo.corpus import read_text

    sys.stdout.write(read_text(corpus, split))


if __name__ == "__main__":
    try:
        main()
    except ClarionError as error:
        sys.exit(f"error: {error}")
