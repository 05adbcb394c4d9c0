"""Whether a model file is what it should be, from its bytes to a short answer.

Every check is a finding: ok, failed or skipped, and why. They come one by one, each as soon as it is known.
One program is loaded at a time, with weights read where the file is mapped: a large model takes little more
than the pages of its file.
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from clarion.errors import ClarionError, ParameterError
from clarion.evaluate.chunks import Chunk, beginning
from clarion.evaluate.figures import LogitRows, score
from clarion.evaluate.scorers import LlamaCppScorer, require_llama_cpp
from clarion.evaluate.summary import Summary
from clarion.gguf import File
from clarion.host.threads import default_threads
from clarion.loading import load
from clarion.model import Model
from clarion.programs import make_plan, open_file, writes
from clarion.tokenizer import Tokenizer

State = Literal["ok", "failed", "skipped"]
Progress = Callable[[str, int, int], None]

TOKENS, QUICK_TOKENS = 128, 32  # of the text that arithmetics are compared on
ANSWER_TOKENS = 32
ENGINES = ("clarion", "llama-cpp")
BATCH = 32  # tokens in a step: progress is heard of after each
# The distance from exact arithmetic that is allowed: mean divergence in nats, and the share of tokens for
# which both find the same one most probable. Real models measure a hundredth to a tenth of the first.
LIMITS: dict[str, tuple[float, float]] = {
    "high": (1e-3, 0.93),
    "fast": (0.05, 0.8),
    "llama-cpp": (0.05, 0.8),
}
# The smallest cosine of a text's vector with the one of exact arithmetic that is allowed. all-MiniLM-L6-v2 in
# Q8_0 has 0.9977 with the first.
LEAST_COSINES: dict[str, float] = {"fast": 0.95, "high": 0.999}
VECTOR_TOKENS = 512  # of a text
QUESTION = "What is the capital of France?"
BEGINNING = "Once upon a time"
TEXT = """The lighthouse stood at the end of a long wall of stones, and the keeper walked along it twice a
day. In the morning he put the lamp out, wiped the glass and wrote down what the night had brought: the wind,
the ships, the height of the water. In the evening he lit the lamp again. Once a week a boat came with bread,
oil and letters. Nobody had asked him for years whether he was lonely, and if somebody had, he would have said
that he had never thought about it. There was always something to repair, and the sea looked different every
hour."""
# Texts in several scripts, with what tokenizers get wrong.
TEXTS: dict[str, str] = {
    "English": "The quick brown fox doesn't jump over 12,345.67 lazy dogs!",
    "spaces": "a  b   c\n\n\td \n  e",
    "code": "def f(x: int) -> str:\n    return f'{x!r}' if x else None  # 0x1F\n",
    "French": "L’été à Nîmes, où l'œuvre naïve coûtait 3 €.",
    "German": "Größere Übungen heißen Straßenmaß.",
    "Polish": "Zażółć gęślą jaźń",
    "Greek": "Καλημέρα κόσμε",
    "Russian": "Съешь же ещё этих мягких булок",
    "Hebrew": "שלום עולם",
    "Arabic": "مرحبا بالعالم",
    "Hindi": "नमस्ते दुनिया",
    "Thai": "สวัสดีชาวโลก",
    "Chinese": "今天天气很好,我们去公园。",
    "Japanese": "吾輩は猫である。名前はまだ無い。",
    "Korean": "안녕하세요 세계",
    "emoji": "\U0001f642 \U0001f468‍\U0001f469‍\U0001f467 \U0001f1eb\U0001f1f7",
}
_MOST_SPECIAL = 1024  # tokens that are looked at
_HOLE = 1 << 16  # bytes of zeros in a row that a tensor has at least where a download left it out
# What templates write as names of tokens: <|im_start|>, <start_of_turn>, <｜User｜>.
_MARKER = re.compile(r"<[|｜][^<>|｜\s]{1,40}[|｜]>|</?(?:start|end)_of_\w+>")
_LOSSY = ("bert", "t5")  # tokenizers that fold cases, accents or spaces by design


@dataclass(frozen=True, slots=True)
class Finding:
    """One check.

    Attributes:
        name: of the check.
        state: "ok", "failed" or "skipped".
        detail: what was found, or why not.
        figures: what was measured, as plain values.
    """

    name: str
    state: State
    detail: str
    figures: dict[str, Any] = field(default_factory=dict)

    def report(self) -> dict[str, Any]:
        """The finding as plain values."""
        return {"check": self.name, "state": self.state, "detail": self.detail, **self.figures}


def check(
    path: str | os.PathLike[str] | None = None,
    *,
    tokens: int = TOKENS,
    engine: str = "clarion",
    threads: int | None = None,
    isa: str | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Iterator[Finding]:
    """Checks a model file and yields what it finds, in this order: "file", "model", "tokenizer", "template",
    "logits" ("vectors" of a model that writes no text), "fast", "high", "answer", and with engine "llama-cpp"
    that.

    Args:
        path: the file, or any part of a split one; None: the model that comes with Clarion.
        tokens: of the text that arithmetics are compared on.
        engine: "llama-cpp": compare llama.cpp's tokens and logits as well, through llama-cpp-python.
        threads, isa: as for `clarion.load`.
        progress: hears of the check, the tokens computed for it, and all that there are.

    Raises:
        FileError: the file cannot be read at all.
        ParameterError: an argument is out of range.
        UnsupportedError: llama-cpp-python is asked for and not installed.
    """
    if engine not in ENGINES:
        raise ParameterError(f"engine is {engine!r}, expected {' or '.join(ENGINES)}")
    if tokens < 2:
        raise ParameterError(f"tokens: found {tokens}, expected at least 2")
    if engine == "llama-cpp":
        require_llama_cpp()
    return _checks(path, tokens, engine, {"threads": threads, "isa": isa}, progress)


def _checks(
    path: str | os.PathLike[str] | None,
    n_tokens: int,
    engine: str,
    options: dict[str, Any],
    progress: Progress,
) -> Iterator[Finding]:
    with open_file(path) as file:
        yield _guarded("file", lambda: _file(file))
        model = _guarded("model", lambda: _model(file, options["isa"]))
        yield model
        tokenizer: list[Tokenizer] = []
        yield _guarded("tokenizer", lambda: _tokenizer(file, tokenizer))
        prompt: list[list[int]] = []
        if tokenizer:
            yield _guarded("template", lambda: _template(tokenizer[0], prompt))
        else:
            yield Finding("template", "skipped", "there is no tokenizer")
        if model.state == "ok" and not writes(make_plan(file)):
            yield from _encoder(file, tokenizer[0] if tokenizer else None, options, progress)
            for name in ("answer", *([engine] if engine != "clarion" else [])):
                yield Finding(name, "skipped", "the model writes no text")
            return
        if model.state != "ok":
            for name in ("logits", "fast", "high", "answer", *([engine] if engine != "clarion" else [])):
                yield Finding(name, "skipped", "the model cannot be computed")
            return
        made = tokenizer[0] if tokenizer else None
        computing = _Computing(file, made, n_tokens, options, progress)
        chat = prompt[0] if prompt else None
        yield _guarded("logits", computing.exact)
        yield _guarded("fast", lambda: computing.compared("fast"))
        yield _guarded("high", lambda: computing.compared("high", chat))
        yield computing.answer or Finding(
            "answer", "skipped", "there are no logits for it" if made else "there is no tokenizer"
        )
        if engine == "llama-cpp":
            yield _guarded("llama-cpp", computing.llama_cpp)


def _guarded(name: str, run: Callable[[], Finding]) -> Finding:
    """The finding of a check; an error on purpose is one as well."""
    try:
        return run()
    except ClarionError as error:
        return Finding(name, "failed", str(error))


# ---- file and model ---------------------------------------------------------------------------------------


def _file(file: File) -> Finding:
    """Reading has checked the layout. Here: whether bytes of tensors were never written."""
    summary = Summary.of(file)
    # Vectors may well be zeros: of a layer without a bias.
    matrices = [tensor for tensor in file.tensors.values() if len(tensor.shape) > 1]
    missing = [tensor.name for tensor in matrices if _is_hole(tensor.data)]
    file.check()
    parts = f" in {len(file.parts)} parts" if len(file.parts) > 1 else ""
    text = f"{summary}{parts}, {len(file.tensors)} tensors"
    if missing:
        return Finding(
            "file",
            "failed",
            f"{text}: {len(missing)} of them are nothing but zeros, the first is {missing[0]!r}: "
            "the download is not complete",
            {**summary.report(), "zeros": missing},
        )
    return Finding("file", "ok", text, {**summary.report(), "tensors": len(file.tensors)})


def _is_hole(data: Any) -> bool:
    """Whether all of a tensor is zeros; of one with a value early on, only that much is read."""
    if len(data) < _HOLE:
        return False
    return not any(data[at : at + _HOLE].any() for at in range(0, len(data), _HOLE))


def _model(file: File, isa: str | None) -> Finding:
    """Hyperparameters and tensors fit each other and a family."""
    hp = make_plan(file).hyperparameters
    text = f"{hp.architecture}: {hp.n_layer} layers, width {hp.n_embd}, made for {hp.context_length} tokens"
    return Finding("model", "ok", text, {"layers": hp.n_layer, "context_length": hp.context_length})


# ---- tokenizer and template -------------------------------------------------------------------------------


def _tokenizer(file: File, made: list[Tokenizer]) -> Finding:
    """Puts the tokenizer into `made` if there is one, whatever its faults."""
    tokenizer = Tokenizer.from_metadata(file.metadata)
    tokenizer.encode("a")
    made.append(tokenizer)
    lossy = file.metadata.get("tokenizer.ggml.model") in _LOSSY
    changed, inexpressible = [], []
    for name, text in TEXTS.items():
        try:
            ids = tokenizer.encode(text, add_special=False)
        except ClarionError:
            inexpressible.append(name)
            continue
        decoded = tokenizer.decode(ids)
        if any(tokenizer.is_special(token) for token in ids):  # unknown ones: nothing else is in the texts
            inexpressible.append(name)
        elif lossy:
            if tokenizer.encode(decoded, add_special=False) != ids:
                changed.append(name)
        elif decoded != text:
            changed.append(name)
    special = [token for token in range(tokenizer.vocab_size) if tokenizer.is_special(token)]
    wrong = [token for token in special[:_MOST_SPECIAL] if not _is_read_back(tokenizer, token)]
    figures = {
        "vocabulary": tokenizer.vocab_size,
        "changed": changed,
        "inexpressible": inexpressible,
        "special_tokens": len(special),
        "special_tokens_not_found": wrong,
    }
    faults = []
    if changed:
        faults.append(f"texts come back changed: {', '.join(changed)}")
    if len(inexpressible) == len(TEXTS):
        faults.append("no text can be expressed")
    if wrong:
        names = ", ".join(repr(tokenizer.piece(token).decode("utf-8", "replace")) for token in wrong[:3])
        faults.append(f"{len(wrong)} special tokens are not found by their own text: {names}")
    if faults:
        return Finding("tokenizer", "failed", "; ".join(faults), figures)
    n_good = len(TEXTS) - len(inexpressible)
    again = "come back, cases and spaces aside" if lossy else "come back as they were"
    text = f"{tokenizer.vocab_size:,} tokens, {n_good} of {len(TEXTS)} texts {again}"
    if inexpressible:
        text += f", the vocabulary does not have {', '.join(inexpressible)}"
    return Finding("tokenizer", "ok", f"{text}; {len(special)} special tokens", figures)


def _is_read_back(tokenizer: Tokenizer, token: int) -> bool:
    """Whether a special token's text stands for it, where that is asked for."""
    text = tokenizer.piece(token).decode("utf-8", "surrogateescape")
    if not text or any("\udc80" <= c <= "\udcff" for c in text):
        return True  # no text can name it
    return tokenizer.encode(text, add_special=False, parse_special=True) == [token]


def _template(tokenizer: Tokenizer, made: list[list[int]]) -> Finding:
    """Puts the tokens of a question into `made` if the template writes one."""
    from clarion.tokenizer import chat

    if not tokenizer.chat_templates:
        return Finding("template", "skipped", "the file has no chat template")
    user = {"role": "user", "content": QUESTION}
    text = chat.apply(tokenizer, [user])
    longer = chat.apply(tokenizer, [user, {"role": "assistant", "content": "Paris."}, user])
    lost = [QUESTION] * (QUESTION not in text) + ["Paris."] * ("Paris." not in longer)
    if lost:
        return Finding("template", "failed", f"the text of a message is lost: {lost[0]!r}", {"text": text})
    ids = tokenizer.encode(text, add_special=False, parse_special=True)
    made.append(ids)
    wanted = sorted(set(_MARKER.findall(text + longer)))
    missing = [
        marker
        for marker in wanted
        if len(tokenizer.encode(marker, add_special=False, parse_special=True)) != 1
    ]
    figures = {"tokens": len(ids), "markers": wanted, "markers_not_found": missing}
    if missing:
        detail = f"the vocabulary does not have {', '.join(missing)}, which the template writes"
        return Finding("template", "failed", detail, figures)
    found = ", ".join(wanted) or "no names of tokens"
    return Finding("template", "ok", f"a question is {len(ids)} tokens; {found}", figures)


# ---- vectors ----------------------------------------------------------------------------------------------


def _encoder(
    file: File, tokenizer: Tokenizer | None, options: dict[str, Any], progress: Progress
) -> Iterator[Finding]:
    """Of a model that writes no text: its vectors, and how far other activations are from exact ones."""
    texts = [] if tokenizer is None else _expressible(tokenizer)
    exact: list[LogitRows] = []

    def load_with(activations: str, threads: int | None) -> Model:
        context = min(make_plan(file).hyperparameters.context_length, VECTOR_TOKENS)
        return load(
            file.path,
            context=context,
            activations=activations,
            kv="f32" if activations == "exact" else None,
            weights="mapped",
            isa=options["isa"],
            threads=threads,
        )

    def vectors() -> Finding:
        n = options["threads"] or default_threads()
        other = 1 if n > 1 else 2
        progress("vectors", 0, len(texts))
        with load_with("exact", options["threads"]) as model:  # refuses those that are no numbers
            found = model.embed(texts, truncate=True)
            alone = np.stack([model.embed(text, truncate=True) for text in texts])
        with load_with("exact", other) as model:
            again = model.embed(texts, truncate=True)
        progress("vectors", len(texts), len(texts))
        figures = {"texts": len(texts), "dimensions": found.shape[1]}
        for rows, how in ((alone, "alone"), (again, f"with {other} threads")):
            if not np.array_equal(rows, found):
                return Finding("vectors", "failed", f"texts have other vectors {how}", figures)
        exact.append(found)
        text = f"all are numbers, of {len(texts)} texts, exact activations; the same alone and with {other} "
        return Finding("vectors", "ok", f"{text}thread{'s' if other > 1 else ''}", figures)

    def compared(activations: str) -> Finding:
        progress(activations, 0, len(texts))
        with load_with(activations, options["threads"]) as model:
            cosines = (model.embed(texts, truncate=True) * exact[0]).sum(axis=1)
        progress(activations, len(texts), len(texts))
        least, found = LEAST_COSINES[activations], float(cosines.min())
        return Finding(
            activations,
            "ok" if found >= least else "failed",
            f"smallest cosine with exact vectors {found:.6f} (at least {least:g})",
            {"least_cosine": found, "limit": least},
        )

    if texts:
        yield _guarded("vectors", vectors)
    else:
        reason = "there is no tokenizer" if tokenizer is None else "no text can be expressed"
        yield Finding("vectors", "skipped", reason)
    for activations in LEAST_COSINES:
        if exact:
            yield _guarded(activations, partial(compared, activations))
        else:
            yield Finding(activations, "skipped", "there are no exact vectors to compare with")


def _expressible(tokenizer: Tokenizer) -> list[str]:
    """Sentences, and texts in several scripts, as far as the vocabulary has them."""
    found = []
    for text in (*" ".join(TEXT.split()).split(". "), BEGINNING, *TEXTS.values()):
        try:
            ids = tokenizer.encode(text, add_special=False)
        except ClarionError:
            continue
        if ids and not all(tokenizer.is_special(token) for token in ids):
            found.append(text)
    return found


# ---- arithmetic -------------------------------------------------------------------------------------------


class _Computing:
    """The model on one text, with one kind of activations after the other."""

    def __init__(
        self,
        file: File,
        tokenizer: Tokenizer | None,
        n_tokens: int,
        options: dict[str, Any],
        progress: Progress,
    ) -> None:
        self._path: Path = file.path
        self._first_part = file.parts[0]  # which llama.cpp asks for
        self._tokenizer = tokenizer
        self._options = options
        self._progress = progress
        self._reference: LogitRows | None = None  # [T, V]
        plan = make_plan(file)
        self._made_for = plan.hyperparameters.context_length
        n = max(min(n_tokens + 1, self._made_for), 2)
        ids = _any_ids(n, plan.n_vocab) if tokenizer is None else _text_ids(n, tokenizer)
        self._ids, self._targets = ids[:-1], np.array(ids[1:], np.int64)
        self.answer: Finding | None = None

    def exact(self) -> Finding:
        """Logits with exact activations, which the others are compared with."""
        with self._load("exact", "f32") as model:
            logits = self._logits(model, "exact")
        wrong = int((~np.isfinite(logits)).any(axis=1).sum())
        n = len(self._ids)
        if wrong:
            return Finding(
                "logits",
                "failed",
                f"after {wrong} of {n} tokens there are logits that are no numbers",
                {"tokens": n, "not_finite": wrong},
            )
        self._reference = logits
        surprise = score(logits, self._targets, None, self._threads).surprise
        perplexity = float(np.exp(min(surprise.mean(), 700)))
        text = f"all are numbers after {n} tokens, exact activations; perplexity {perplexity:.4g}"
        if self._tokenizer is not None and perplexity > logits.shape[1]:
            text += ", worse than guessing"
        return Finding("logits", "ok", text, {"tokens": n, "perplexity": perplexity})

    def compared(self, activations: str, chat: Sequence[int] | None = None) -> Finding:
        """`activations` against exact ones; with "high" also the answer."""
        if self._reference is None:
            return Finding(activations, "skipped", "there are no exact logits to compare with")
        answers = activations == "high" and self._tokenizer is not None
        with self._load(activations, None, (chat or [0] * 16) if answers else ()) as model:
            finding = self._distance(activations, self._logits(model, activations))
            if answers:
                self.answer = _guarded("answer", lambda: self._answer(model, chat))
        return finding

    def llama_cpp(self) -> Finding:
        """llama.cpp's logits and tokens."""
        if self._reference is None:
            return Finding("llama-cpp", "skipped", "there are no exact logits to compare with")
        n = len(self._ids)
        self._progress("llama-cpp", 0, n)
        engine = LlamaCppScorer(self._first_part, max(n, 16), threads=self._threads)
        try:
            rows: list[LogitRows] = []
            chunk = Chunk(self._ids, 0, self._targets.tolist(), 1)
            engine.logits([chunk], lambda i, row, logits: rows.append(np.array(logits)))
            others = [
                name
                for name, text in TEXTS.items()
                if self._tokenizer is not None
                and not _same_tokens(self._tokenizer, engine.tokenize(text), text)
            ]
        finally:
            engine.close()
        self._progress("llama-cpp", n, n)
        finding = self._distance("llama-cpp", np.concatenate(rows))
        figures = {**finding.figures, "engine": engine.name, "other_tokens": others}
        if others:
            detail = f"{finding.detail}; it gives other tokens for: {', '.join(others)}"
            return Finding("llama-cpp", "failed", detail, figures)
        return Finding("llama-cpp", finding.state, f"{finding.detail}; the same tokens", figures)

    @property
    def _threads(self) -> int:
        threads: int | None = self._options["threads"]
        return threads or default_threads()

    def _load(self, activations: str, kv: str | None, prompt: Sequence[int] = ()) -> Model:
        room = min(len(prompt) + ANSWER_TOKENS, self._made_for) if prompt else 0
        return load(
            self._path,
            context=max(len(self._ids), len(prompt) + 1, room),
            activations=activations,
            kv=kv,
            batch=BATCH,
            weights="mapped",
            **self._options,
        )

    def _logits(self, model: Model, what: str) -> LogitRows:
        n = len(self._ids)
        logits = np.empty((n, model.n_vocab), np.float32)

        def take(i: int, row: int, found: LogitRows) -> None:
            logits[row : row + len(found)] = found
            self._progress(what, row + len(found), n)

        self._progress(what, 0, n)
        model.each_logits([(self._ids, 0)], take)
        return logits

    def _distance(self, name: str, logits: LogitRows) -> Finding:
        assert self._reference is not None
        if logits.shape != self._reference.shape:
            found, wanted = logits.shape[1], self._reference.shape[1]
            return Finding(name, "failed", f"logits of {found} tokens, expected {wanted}")
        if not np.isfinite(logits).all():
            return Finding(name, "failed", "there are logits that are no numbers")
        scores = score(logits, self._targets, self._reference, self._threads)
        mean = float(scores.divergence.mean())
        same = float((scores.choice == self._reference.argmax(axis=1)).mean())
        most, least = LIMITS[name]
        state: State = "ok" if mean <= most and same >= least else "failed"
        text = (
            f"mean divergence from exact {mean:.1e} (at most {most:g}), "
            f"the same choice for {same:.1%} (at least {least:.0%})"
        )
        figures = {
            "mean_divergence": mean,
            "most_divergence": most,
            "same_choice": same,
            "least_same_choice": least,
        }
        return Finding(name, state, text, figures)

    def _answer(self, model: Model, chat: Sequence[int] | None) -> Finding:
        """What the model says, always by the most probable token."""
        assert self._tokenizer is not None
        asked = QUESTION if chat is not None else BEGINNING
        self._progress("answer", 0, ANSWER_TOKENS)
        prompt: Sequence[int] = chat if chat is not None else self._tokenizer.encode(BEGINNING)
        if len(prompt) >= model.context:
            return Finding("answer", "skipped", f"the prompt of {len(prompt)} tokens fills the context")
        done = model.generate(prompt, max_tokens=ANSWER_TOKENS, greedy=True)
        self._progress("answer", ANSWER_TOKENS, ANSWER_TOKENS)
        figures = {"prompt": asked, "text": done.text, "tokens": list(done.tokens)}
        shown = f"{asked!r} → {done.text.strip()!r}"
        if not done.text.strip():
            return Finding("answer", "failed", f"{asked!r}: the model answers nothing", figures)
        counts = Counter(done.tokens)
        if len(done.tokens) >= ANSWER_TOKENS // 2 and len(counts) == 1:
            return Finding("answer", "failed", f"{shown}: one token again and again", figures)
        return Finding("answer", "ok", shown, figures)


def _text_ids(n: int, tokenizer: Tokenizer) -> list[int]:
    """The text's tokens, again and again until there are enough."""
    ids: list[int] = []
    for text in (TEXT, "Once upon a time", "a"):  # a small vocabulary may not have all letters
        try:
            ids = tokenizer.encode(text, add_special=False)
        except ClarionError:
            continue
        if ids:
            break
    else:
        return _any_ids(n, tokenizer.vocab_size)
    bos = beginning(tokenizer)
    first = [] if bos is None else [bos]
    return (first + ids * math.ceil(n / len(ids)))[:n]


def _any_ids(n: int, n_vocab: int) -> list[int]:
    """Where no text gives any."""
    found: list[int] = np.random.default_rng(0).integers(0, n_vocab, n).tolist()
    return found


def _same_tokens(tokenizer: Tokenizer, theirs: Sequence[int], text: str) -> bool:
    try:
        return tokenizer.encode(text, add_special=False) == list(theirs)
    except ClarionError:
        return True  # what ours refuses was said already
