"""Measuring a run and its files, for the card."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import clarion
from zoo import measure
from zoo.card import CONTEXT, Facts, File, card
from zoo.checkpoint import Run
from zoo.corpus import prepare, read_text
from zoo.curve import curve
from zoo.network import Network
from zoo.ternary import TernaryLinear, ternary

PROMPT = "Once upon a time there was a little"


def write(run: Run, folder: Path, paths: Sequence[Path], corpus: Path, cache: Path, machine: str) -> None:
    """Measures a run's model and files, and writes `NAME.md` and `NAME.svg` into the folder.

    Args:
        paths: the first is the model's own file, from which the sample comes.
        corpus, cache: as for `prepare`.
        machine: what the model was trained on, in words.

    Raises:
        FileError: something cannot be read or written.
    """
    state = run.load()
    net = Network(state.model.shape, CONTEXT)
    net.load_state_dict(state.network)
    text = read_text(corpus, "valid")
    figures = measure.files(paths, text)
    facts = Facts(
        state.progress,
        machine,
        measure.network(net, text),
        [File(path, path.stat().st_size, f) for path, f in zip(paths, figures, strict=True)],
        len(prepare(corpus, cache)["train"].ids),
        measure.balance(net, text) if state.model.shape.n_expert else [],
        _zeros(net),
        _sample(paths[0]),
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{state.model.name}.md").write_text(card(state.model, facts))
    (folder / f"{state.model.name}.svg").write_text(curve(run.entries()))


def _zeros(net: Network) -> float | None:
    """The share of zeros among a network's ternary weights, if it has any."""
    trits = [ternary(m.weight.detach())[0] for m in net.modules() if isinstance(m, TernaryLinear)]
    if not trits:
        return None
    return sum(int((t == 0).sum()) for t in trits) / sum(t.numel() for t in trits)


def _sample(path: Path) -> str:
    with clarion.load(path, threads=1) as model:
        return PROMPT + model.generate(PROMPT, max_tokens=160, seed=1).text
