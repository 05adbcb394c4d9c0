"""An evaluation from files: opens the engines, cuts the text, measures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from clarion.errors import ModelError, ParameterError
from clarion.evaluate.chunks import Chunk, beginning, halves, windows
from clarion.evaluate.collect import collect
from clarion.evaluate.evaluation import Details, Evaluation, Track, evaluate
from clarion.evaluate.layers import MOST_TOKENS, engine_layers, exact_layers, layer_errors
from clarion.evaluate.scorers import ClarionScorer, ExactScorer, LlamaCppScorer, Scorer
from clarion.evaluate.weights import compare
from clarion.gguf import File
from clarion.host.threads import default_threads
from clarion.library import located
from clarion.plan.cache import CacheFormats
from clarion.programs import open_file
from clarion.tokenizer import Tokenizer

EXACT: Literal["exact"] = "exact"
ENGINES = ("clarion", "llama-cpp")


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be measured.

    Attributes:
        models: GGUF files, or names of models; none stands for the built-in model.
        text: to be predicted.
        reference: a GGUF file, computed with exact activations, or "exact": the only model's weights in
            float64; None: only perplexities.
        context: tokens in a chunk or window.
        stride: None: chunks side by side, of which the second half is scored; else how far a window moves.
        n_chunks: the first so many only; None: all.
        engine: "clarion" or "llama-cpp", for the models.
        threads, kv: as for `clarion.load`.
        options: others for `clarion.load`.
        details: also measure errors by layer and by tensor, where there is a reference.
    """

    models: Sequence[Path]
    text: str
    reference: Path | Literal["exact"] | None = None
    context: int = 512
    stride: int | None = None
    n_chunks: int | None = None
    engine: str = "clarion"
    threads: int | None = None
    kv: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    details: bool = False


def run(request: Request, progress: Callable[[int, int], None] = lambda done, total: None) -> Evaluation:
    """Measures; `progress` hears of chunks done and chunks in all.

    Raises:
        ParameterError: the text is too short, or options contradict each other.
        FileError, UnsupportedError, ModelError: as `clarion.load`; also where vocabularies differ.
    """
    if request.engine not in ENGINES:
        raise ParameterError(f"engine is {request.engine!r}, expected {' or '.join(ENGINES)}")
    if request.kv is not None:
        CacheFormats.parse(request.kv)
    if request.n_chunks is not None and request.n_chunks < 1:
        raise ParameterError(f"chunks: found {request.n_chunks}, expected at least 1")
    if request.reference == EXACT and len(request.models) > 1:
        raise ParameterError(f"reference 'exact' is that of one model, found {len(request.models)}")
    paths = [located(path) for path in request.models] or [_built_in()]
    if isinstance(request.reference, Path):
        request = replace(request, reference=located(request.reference))
    compared = [*paths, *([request.reference] if isinstance(request.reference, Path) else [])]
    tokenizer = Tokenizer.from_gguf(paths[0])
    tokens = tokenizer.encode(request.text)
    for path in compared[1:]:
        if Tokenizer.from_gguf(path).encode(request.text) != tokens:
            raise ModelError(f"{path}: gives other tokens for the text than {paths[0]}")
    chunks = _chunks(request, tokens, tokenizer)
    with ExitStack() as stack:
        reference = _reference(request, paths[0])
        if reference is not None:
            stack.enter_context(closing(reference[1]))
        models = []
        for path in paths:
            engine = _engine(request, path)
            stack.enter_context(closing(engine))
            models.append((_track(path, engine), engine))
        evaluation = evaluate(
            tokens, chunks, models, reference, tokenizer, request.threads or default_threads(), progress
        )
    if request.details and request.reference is not None:
        evaluation.details.extend(_details(request, request.reference, paths, chunks[0].tokens))
    return evaluation


def _chunks(request: Request, tokens: list[int], tokenizer: Tokenizer) -> list[Chunk]:
    bos = beginning(tokenizer)
    if request.stride is None:
        chunks = halves(tokens, request.context, bos)
    else:
        chunks = windows(tokens, request.context, request.stride, bos)
    return list(islice(chunks, request.n_chunks))


def _engine(request: Request, path: Path) -> Scorer:
    if request.engine == "llama-cpp":
        return LlamaCppScorer(path, request.context, threads=request.threads, kv=request.kv)
    return ClarionScorer(path, request.context, threads=request.threads, kv=request.kv, **request.options)


def _reference(request: Request, path: Path) -> tuple[Track, Scorer] | None:
    if request.reference is None:
        return None
    engine: Scorer
    if isinstance(request.reference, Path):
        path = request.reference
        options = {**request.options, "activations": "exact"}
        engine = ClarionScorer(path, request.context, threads=request.threads, kv="f32", **options)
    else:
        engine = ExactScorer(path, request.context)
    return _track(path, engine), engine


def _details(
    request: Request, reference: Path | Literal["exact"], paths: Sequence[Path], tokens: list[int]
) -> list[Details]:
    """Of the first chunk; layers only where Clarion computes the model."""
    tokens = tokens[:MOST_TOKENS]
    options = {"threads": request.threads, "isa": None, **request.options}
    exact = {**options, "activations": "exact", "kv": "f32"}
    with ExitStack() as stack:
        files = [stack.enter_context(File.open(path)) for path in paths]
        if isinstance(reference, Path):
            other = stack.enter_context(File.open(reference))
            wanted = engine_layers(other, tokens, **exact)
            imatrix = collect(
                other,
                tokens,
                dataset="",
                chunk=len(tokens),
                output=True,
                activations="exact",
                threads=request.threads,
            )
            tensors = [
                [] if path.resolve() == reference.resolve() else compare(file, other, imatrix)
                for path, file in zip(paths, files, strict=True)
            ]
        else:
            wanted = exact_layers(files[0], tokens)
            tensors = [[] for _ in files]
        layers: list[list[float]] = [[] for _ in files]
        if request.engine == "clarion":
            layers = [
                layer_errors(engine_layers(file, tokens, kv=request.kv, **options), wanted) for file in files
            ]
    return [Details(*both) for both in zip(layers, tensors, strict=True)]


def _track(path: Path, engine: Scorer) -> Track:
    with open_file(path) as file:
        return Track(path, engine.name, sum(tensor.n_bytes for tensor in file.tensors.values()))


def _built_in() -> Path:
    with open_file() as file:
        return file.path
