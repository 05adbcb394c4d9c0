"""What `clarion check` finds in good files, and in files with each kind of fault."""

from __future__ import annotations

import json
import os
import shutil
import sys
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import clarion
from clarion.cli.main import execute
from clarion.errors import FileError, ParameterError, UnsupportedError
from clarion.evaluate import check as module
from clarion.evaluate.check import Finding, check
from clarion.evaluate.summary import Summary, parameters_text
from clarion.gguf import File, Writer
from tests.convert.files import unpack
from tests.end_to_end.files import BUILT_IN
from tests.real_models import smollm2

NAMES = ["file", "model", "tokenizer", "template", "logits", "fast", "high", "answer"]
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PLAIN = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"


def changed(
    path: Path,
    metadata: Callable[[dict[str, Any]], None] = lambda pairs: None,
    data: Mapping[str, Callable[[np.ndarray[Any, Any]], None]] | None = None,
) -> Path:
    """The built-in model with other keys, or other bytes in some tensors."""
    with File.open(BUILT_IN) as file:
        pairs = file.metadata.exact()
        metadata(pairs)
        with Writer(path, pairs, file.alignment) as writer:
            for name, tensor in file.tensors.items():
                content = np.array(tensor.data)
                if data is not None and name in data:
                    data[name](content)
                writer.add(name, tensor.shape, tensor.format, content)
    return path


def findings(path: Path | None = None, **options: Any) -> dict[str, Finding]:
    found = list(check(path, tokens=options.pop("tokens", 16), **options))
    names = [finding.name for finding in found]
    assert names[:8] == NAMES
    return {finding.name: finding for finding in found}


def states(found: Mapping[str, Finding]) -> dict[str, str]:
    return {name: finding.state for name, finding in found.items()}


def test_the_built_in_model_is_good() -> None:
    found = findings(tokens=64)
    assert states(found) == {name: "skipped" if name == "template" else "ok" for name in NAMES}
    assert found["file"].detail.startswith("llama 6.6 M Q8_0, 7.1 MB")
    assert found["tokenizer"].figures["changed"] == []
    assert found["high"].figures["mean_divergence"] < 1e-5
    assert 1e-6 < found["fast"].figures["mean_divergence"] < 1e-2
    assert found["fast"].figures["same_choice"] > 0.9
    with clarion.load(context=64) as model:
        expected = model.generate("Once upon a time", max_tokens=32, greedy=True).text
    assert found["answer"].figures["text"] == expected


def test_progress_is_heard_of_and_findings_come_one_by_one() -> None:
    heard: list[tuple[str, int, int]] = []
    for finding in check(tokens=64, progress=lambda *given: heard.append(given)):
        if finding.name == "template":
            assert heard == []
        if finding.name == "logits":
            assert {what for what, _, _ in heard} == {"exact"}
    assert [what for what, done, total in heard if done == total] == ["exact", "fast", "high", "answer"]
    assert ("exact", 32, 64) in heard


# ---- faults -------------------------------------------------------------------------------------------


def test_tensors_that_were_never_written(tmp_path: Path) -> None:
    def zero(data: np.ndarray[Any, Any]) -> None:
        data[:] = 0

    path = changed(tmp_path / "m.gguf", data={"blk.3.attn_q.weight": zero, "blk.4.ffn_up.weight": zero})
    found = findings(path)
    assert found["file"].state == "failed"
    assert "2 of them are nothing but zeros, the first is 'blk.3.attn_q.weight'" in found["file"].detail
    assert "the download is not complete" in found["file"].detail


def test_weights_that_are_no_numbers(tmp_path: Path) -> None:
    def spoil(data: np.ndarray[Any, Any]) -> None:
        data[:2] = (0, 0x7E)  # the first block's scale, NaN in float16

    found = findings(changed(tmp_path / "m.gguf", data={"blk.2.ffn_down.weight": spoil}))
    assert found["logits"].state == "failed"
    assert "logits that are no numbers" in found["logits"].detail
    assert found["fast"].state == found["high"].state == found["answer"].state == "skipped"


def test_an_architecture_that_is_not_implemented(tmp_path: Path) -> None:
    path = changed(tmp_path / "m.gguf", lambda pairs: pairs.update({"general.architecture": "grok"}))
    found = findings(path)
    assert found["model"].state == "failed"
    assert "general.architecture is 'grok'; known: llama" in found["model"].detail
    assert found["tokenizer"].state == "ok"
    assert {found[name].state for name in NAMES[4:]} == {"skipped"}


def test_a_file_without_a_tokenizer(tmp_path: Path) -> None:
    def strip(pairs: dict[str, Any]) -> None:
        for key in [key for key in pairs if key.startswith("tokenizer.")]:
            del pairs[key]

    found = findings(changed(tmp_path / "m.gguf", strip))
    assert found["tokenizer"].state == "failed"
    assert "tokenizer.ggml.model is missing" in found["tokenizer"].detail
    assert found["template"].state == found["answer"].state == "skipped"
    assert found["logits"].state == found["fast"].state == found["high"].state == "ok"


def test_an_unknown_way_of_splitting_texts(tmp_path: Path) -> None:
    found = findings(changed(tmp_path / "m.gguf", lambda p: p.update({"tokenizer.ggml.pre": "no-such"})))
    assert found["tokenizer"].state == "failed"
    assert "no-such" in found["tokenizer"].detail


def test_letters_that_are_marked_as_control(tmp_path: Path) -> None:
    """Texts then need tokens that no text may give."""

    def mark(pairs: dict[str, Any]) -> None:
        types = np.array(pairs["tokenizer.ggml.token_type"])
        types[1:2000] = 3
        pairs["tokenizer.ggml.token_type"] = types

    found = findings(changed(tmp_path / "m.gguf", mark))
    assert found["tokenizer"].state == "failed"
    assert "no text can be expressed" in found["tokenizer"].detail


TEMPLATES: dict[str, tuple[str, str, str]] = {
    "good": (PLAIN, "ok", "a question is"),
    "tokens that are missing": (
        CHATML,
        "failed",
        "does not have <|im_end|>, <|im_start|>, which the template",
    ),
    "no Jinja": ("{% for m in messages %}", "failed", "chat template"),
    "refused": ("{{ messages.__class__.__mro__ }}", "failed", "chat template"),
    "forgets the message": ("{{ bos_token }}Hello", "failed", "is lost: 'What is the capital of France?'"),
    "forgets answers": (
        "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}",
        "failed",
        "the text of a message is lost: 'Paris.'",
    ),
    "raises": ("{{ raise_exception('never') }}", "failed", "never"),
}


@pytest.mark.parametrize("kind", TEMPLATES)
def test_templates(kind: str, tmp_path: Path) -> None:
    template, state, message = TEMPLATES[kind]
    path = changed(tmp_path / "m.gguf", lambda p: p.update({"tokenizer.chat_template": template}))
    found = findings(path)
    assert found["template"].state == state
    assert message in found["template"].detail
    # A template that does not render leaves the beginning of a tale.
    question = "What is the capital of France?"
    asked = kind in ("good", "tokens that are missing")
    assert (found["answer"].figures["prompt"] == question) == asked


def test_limits_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module.LIMITS, "fast", (1e-9, 0.0))
    monkeypatch.setitem(module.LIMITS, "high", (1.0, 1.01))
    found = findings()
    assert (found["fast"].state, found["high"].state) == ("failed", "failed")
    assert "at most 1e-09" in found["fast"].detail
    assert "at least 101%" in found["high"].detail


@pytest.mark.parametrize(("token", "message"), [(None, "the model answers nothing"), (11, "one token again")])
def test_answers_of_broken_models(token: int | None, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = clarion.Model.generate

    def generate(self: clarion.Model, prompt: Any, **options: Any) -> Any:
        real(self, prompt, **{**options, "max_tokens": 1})
        tokens = [] if token is None else [token] * 32
        return types.SimpleNamespace(tokens=tokens, text=self.detokenize(tokens))

    monkeypatch.setattr(clarion.Model, "generate", generate)
    found = findings()
    assert found["answer"].state == "failed"
    assert message in found["answer"].detail


@pytest.mark.parametrize("name", ["mistral", "qwen2", "bitnet", "mixtral", "qwen3moe"])
def test_small_models_of_every_kind(name: str, tmp_path: Path) -> None:
    """Random weights: their arithmetic has to hold, whatever they say."""
    (path,) = clarion.convert.convert(unpack(name, tmp_path / "checkpoint"), tmp_path / "m.gguf")
    found = findings(path, tokens=32)
    assert {state for check, state in states(found).items() if check not in ("template", "answer")} == {"ok"}


# ---- arguments and other engines ----------------------------------------------------------------------


def test_arguments() -> None:
    with pytest.raises(ParameterError, match="tokens: found 1"):
        check(tokens=1)
    with pytest.raises(ParameterError, match="engine is 'ollama', expected clarion or llama-cpp"):
        check(engine="ollama")
    with pytest.raises(FileError, match="no such file"):
        list(check("/nowhere/model.gguf"))


def test_llama_cpp_that_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    with pytest.raises(UnsupportedError, match="pip install llama-cpp-python"):
        check(engine="llama-cpp")
    assert execute(["check", "--engine", "llama-cpp"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "clarion: llama-cpp-python is not installed; pip install llama-cpp-python\n"


class FakeEngine:
    """Clarion's own logits, with an error, in the place of llama.cpp's."""

    name = "fake"
    error = 0.0
    shift = 0

    def __init__(self, path: Path, context: int, *, threads: int | None = None) -> None:
        self._model = clarion.load(path, context=context, activations="exact", kv="f32")

    def logits(self, chunks: Any, take: Any) -> None:
        for i, chunk in enumerate(chunks):
            rows = self._model.logits(chunk.tokens, first=chunk.first)
            take(i, 0, rows * (1 + self.error))

    def tokenize(self, text: str) -> list[int]:
        return [token + self.shift for token in self._model.tokenize(text, add_special=False)]

    def close(self) -> None:
        self._model.close()


@pytest.mark.parametrize(
    ("error", "shift", "state", "message"),
    [
        (0.0, 0, "ok", "; the same tokens"),
        (2.0, 0, "failed", "mean divergence from exact"),
        (0.0, 1, "failed", "it gives other tokens for: English, spaces"),
        (float("nan"), 0, "failed", "no numbers"),
    ],
)
def test_another_engine(
    error: float, shift: int, state: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "require_llama_cpp", lambda: None)
    monkeypatch.setattr(module, "LlamaCppScorer", FakeEngine)
    monkeypatch.setattr(FakeEngine, "error", error)
    monkeypatch.setattr(FakeEngine, "shift", shift)
    found = findings(engine="llama-cpp")
    assert found["llama-cpp"].state == state
    assert message in found["llama-cpp"].detail


# ---- the command --------------------------------------------------------------------------------------


def test_the_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert execute(["check", "--quick"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == NAMES
    assert [line.split()[1] for line in lines] == ["ok"] * 3 + ["skipped"] + ["ok"] * 4
    path = changed(tmp_path / "m.gguf", lambda p: p.update({"tokenizer.chat_template": CHATML}))
    assert execute(["check", str(path), "--quick", "-t", "1"]) == 1
    assert "template  failed   the vocabulary does not have" in capsys.readouterr().out


def test_the_command_in_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert execute(["check", "-m", str(BUILT_IN), "--quick", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is True
    assert [entry["check"] for entry in report["checks"]] == NAMES
    assert report["checks"][5]["most_divergence"] == module.LIMITS["fast"][0]
    path = changed(tmp_path / "m.gguf", lambda p: p.update({"tokenizer.chat_template": CHATML}))
    assert execute(["check", str(path), "--quick", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is False
    assert report["checks"][3]["state"] == "failed"


@pytest.mark.parametrize("as_json", [False, True])
def test_a_file_that_cannot_be_read(
    as_json: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "m.gguf"
    shutil.copy(BUILT_IN, path)
    os.truncate(path, 1_000_000)
    assert execute(["check", str(path), *(["--json"] if as_json else [])]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "incomplete: 1.0 of 7.1 MB" in captured.err


# ---- a line about a model -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "text"),
    [
        (0, "0"),
        (999, "999"),
        (5_000, "5.0 K"),
        (6_600_000, "6.6 M"),
        (134_500_000, "134 M"),
        (7_241_700_000, "7.2 B"),
    ],
)
def test_numbers_of_parameters(n: int, text: str) -> None:
    assert parameters_text(n) == text


def test_types(tmp_path: Path) -> None:
    def type_of(pairs: dict[str, Any]) -> str:
        path = tmp_path / "m.gguf"
        with Writer(path, pairs) as writer:
            writer.add("a", (2, 256), "Q4_K", bytes(2 * 144))
            writer.add("b", (256,), "F32", bytes(1024))
        with File.open(path) as file:
            return Summary.of(file).type

    assert type_of({"general.file_type": 15}) == "Q4_K_M"
    assert type_of({"general.file_type": 14}) == "Q4_K_S"
    assert type_of({"general.file_type": 7}) == "Q4_K"  # the tensors are others
    assert type_of({}) == "Q4_K"
    assert type_of({"general.file_type": "x"}) == "Q4_K"


# ---- really trained -----------------------------------------------------------------------------------


def test_a_trained_model() -> None:
    found = findings(smollm2(), tokens=64)
    assert "failed" not in states(found).values()


def test_a_trained_model_in_llama_cpp() -> None:
    pytest.importorskip("llama_cpp")
    found = findings(smollm2(), tokens=64, engine="llama-cpp")
    assert found["llama-cpp"].state == "ok"
    assert found["llama-cpp"].figures["mean_divergence"] > 1e-7  # it rounds where exact arithmetic does not
