"""What counts as the name of a model, and what is said where there is no such file."""

from __future__ import annotations

from pathlib import Path

import pytest

import clarion
from clarion.errors import FileError
from clarion.names import looks_like_a_model, missing

MODELS = """
llama3.2 llama3.2:1b llama llama-instruct LLaMA-3 codellama mistral Mistral-Nemo mixtral qwen
Qwen2.5 qwen2.5-coder gemma gemma2:2b gemma-it phi phi3 phi-mini deepseek deepseek-r1
deepseek-coder gpt2 tinyllama smollm2 command-r falcon-instruct granite-code
TheBloke/Llama-2-7B-GGUF bartowski/x:Q4_K_M HuggingFaceTB/SmolLM2-135M ./model hf.co/owner/name https://huggingface.co/owner/name
huggingface.co/owner/name ollama://x models/model ~/model
model.bin a.safetensors Q4_K_M 99 3.14 llama.
"""
WORDS = """
Hello Hello. Hello! Hello? Wait... Title: Q: the The bloom falcon granite command chat hermes
don't rock-and-roll Zürich 你好 ¿Qué? 2+2= 50% C++ f(x) #include well-known x=1 \\n Chapter…
"""
TEXTS = ["Once upon a time", "in 1984", "llama drama", "see https://example.org now", "", " "]


@pytest.mark.parametrize("word", MODELS.split())
def test_what_is_meant_as_a_model(word: str) -> None:
    assert looks_like_a_model(word)


@pytest.mark.parametrize("word", [*WORDS.split(), *TEXTS])
def test_what_is_a_text(word: str) -> None:
    assert not looks_like_a_model(word)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("./x.gguf", ["no such file"]),
        ("models/x.gguf", ["no such file"]),
        ("/nowhere/x", ["no such file"]),
        ("../x", ["no such file"]),
        ("llama3.2", ["no such file", "name of a model", "clarion pull"]),
        ("qwen", ["no such file", "name of a model", "clarion pull"]),
        ("llama3.2:1b", ["no such file", "Ollama", "clarion pull"]),
        ("owner/name", ["no such file", "hub", "clarion pull", "clarion convert owner/name out.gguf"]),
        ("owner/name@main", ["hub", "clarion convert owner/name out.gguf"]),
        ("owner/Name-GGUF:Q4_K_M", ["hub", "to fetch it: clarion pull owner/Name-GGUF:Q4_K_M"]),
        ("hf.co/owner/name", ["an address", "clarion convert owner/name out.gguf"]),
        ("https://huggingface.co/owner/name", ["an address", "clarion convert owner/name out.gguf"]),
        ("hf://owner/name", ["an address", "clarion convert owner/name out.gguf"]),
        ("https://huggingface.co/o/n/resolve/main/x.gguf", ["an address", "clarion pull"]),
        ("https://example.org/x.gguf?download=true", ["an address", "clarion pull"]),
        ("-", ["standard input"]),
    ],
)
def test_what_is_said_of_what_is_missing(name: str, said: list[str]) -> None:
    for words in said:
        assert words in missing(name)
    if said == ["no such file"]:
        assert missing(name) == "no such file"
    with pytest.raises(FileError) as caught:
        clarion.load(name)
    assert str(caught.value) == f"{name}: {missing(name)}"


def test_a_path_whose_folder_is_there_is_no_name_of_a_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "hub" in missing("models/llama")
    (tmp_path / "models").mkdir()
    assert missing("models/llama") == "no such file"
