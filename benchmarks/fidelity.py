"""How far engines are from exact arithmetic on the same weights: docs/fidelity.md.

    python benchmarks/fidelity.py --json docs/fidelity.json --plot docs/fidelity.svg

quantizes a model (the built-in one) to each format, and computes a held-out text (the one beside this file)
with every engine and in float64. llama.cpp is one of the engines where llama-cpp-python is installed. Prints
the table of the page. On a machine that does other work OPENBLAS_NUM_THREADS=1 saves most of the time.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from contextlib import ExitStack, closing
from datetime import date
from pathlib import Path
from typing import Any

from clarion.cli.main import execute
from clarion.errors import UnsupportedError
from clarion.evaluate.chunks import beginning, halves
from clarion.evaluate.evaluation import Track, evaluate
from clarion.evaluate.plots import Series, standalone
from clarion.evaluate.scorers import ClarionScorer, ExactScorer, LlamaCppScorer, Scorer
from clarion.gguf import File
from clarion.programs import BUILT_IN
from clarion.tokenizer import Tokenizer

ROOT = Path(__file__).parents[1]
FORMATS = ["F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "IQ4_XS", "Q3_K_M", "Q2_K"]


def engines(path: Path, context: int, threads: int) -> list[Scorer]:
    """Every way of computing a file, as it is set by default, and `high` with a better cache."""
    ways: tuple[dict[str, str], ...] = (
        {"activations": "fast"},
        {"activations": "high"},
        {"activations": "high", "kv": "f32"},
        {"activations": "exact"},
    )
    found: list[Scorer] = [ClarionScorer(path, context, threads=threads, **way) for way in ways]
    try:
        found.append(LlamaCppScorer(path, context, threads=threads))
    except UnsupportedError as error:
        print(f"without llama.cpp: {error}")
    return found


def measure(path: Path, name: str, tokens: list[int], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """One row for each engine, and one of the float64 arithmetic itself."""
    tokenizer = Tokenizer.from_gguf(path)
    chunks = list(halves(tokens, arguments.context, beginning(tokenizer)))[: arguments.chunks]
    with File.open(path) as file:
        n_bytes = sum(tensor.n_bytes for tensor in file.tensors.values())
        bits = 8 * n_bytes / sum(tensor.n_elements for tensor in file.tensors.values())
    with ExitStack() as stack:

        def track(engine: Scorer) -> tuple[Track, Scorer]:
            stack.enter_context(closing(engine))
            return Track(path, engine.name, n_bytes), engine

        models = [track(engine) for engine in engines(path, arguments.context, arguments.threads)]
        reference = track(ExactScorer(path, arguments.context))
        report = evaluate(tokens, chunks, models, reference, tokenizer, arguments.threads).report()
    rows = []
    for figures in [*report["models"], report["reference"]]:
        divergence = figures.get("divergence", {})
        rows.append(
            {
                "format": name,
                "bits_per_weight": bits,
                "engine": figures["engine"],
                "perplexity": figures["perplexity"],
                "same_choice": figures.get("same_choice", 1.0),
                "scored_tokens": report["scored_tokens"],
                **{key: divergence.get(key, 0.0) for key in ("mean", "median", "p99", "p999", "greatest")},
            }
        )
    return rows


def quantized(source: Path, name: str, folder: Path) -> Path:
    path = folder / f"{name}.gguf"
    if not path.exists() and execute(["quantize", str(source), str(path), name, "--allow-requantize"]) != 0:
        raise SystemExit(f"no {name}")
    return path


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| format | engine | mean KLD | 99.9% | greatest | same choice | perplexity |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        if row["engine"] == ExactScorer.name:
            lines.append(f"| {row['format']} | {row['engine']} | | | | | {row['perplexity']:.4f} |")
            continue
        lines.append(
            f"| {row['format']} | {row['engine']} | {row['mean']:.1e} | {row['p999']:.1e} | "
            f"{row['greatest']:.1e} | {row['same_choice']:.2%} | {row['perplexity']:.4f} |"
        )
    return "\n".join(lines)


def plot(rows: list[dict[str, Any]]) -> str:
    names = list(dict.fromkeys(row["format"] for row in rows))
    series = [
        Series(
            engine,
            [(names.index(row["format"]), row["mean"]) for row in rows if row["engine"] == engine],
            "dots",
        )
        for engine in dict.fromkeys(row["engine"] for row in rows)
        if engine != ExactScorer.name
    ]
    return standalone(series, "weights", "mean KLD to float64, nats", log_y=True, x_names=names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path, default=ROOT / "src" / "clarion" / "data" / BUILT_IN)
    parser.add_argument("--text", type=Path, default=Path(__file__).with_name("held_out.txt"))
    parser.add_argument("--formats", nargs="+", default=FORMATS)
    parser.add_argument("--files", type=Path, help="where FORMAT.gguf lie, or are to be kept")
    parser.add_argument("-c", "--context", type=int, default=256)
    parser.add_argument("--chunks", type=int)
    parser.add_argument("-t", "--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    tokens = Tokenizer.from_gguf(arguments.model).encode(arguments.text.read_text(encoding="utf-8"))
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.files or Path(temporary)
        folder.mkdir(exist_ok=True)
        for name in arguments.formats:
            rows += measure(quantized(arguments.model, name, folder), name, tokens, arguments)
            print(table(rows).splitlines()[-1], flush=True)
    print(table(rows))
    if arguments.json:
        about = {
            "date": date.today().isoformat(),
            "machine": platform.machine(),
            "model": arguments.model.name,
            "context": arguments.context,
        }
        arguments.json.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")
    if arguments.plot:
        arguments.plot.write_text(plot(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
