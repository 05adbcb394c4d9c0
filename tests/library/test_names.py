"""Names: what they name by their letters, and what names of files say."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clarion.errors import ParameterError
from clarion.library import hub_name
from clarion.library.quants import (
    PREFERENCE,
    NoChoiceError,
    choose,
    is_model,
    is_quant,
    label,
    models_among,
    quant_of,
    rank,
    stem,
)
from clarion.library.reference import Address, HubName, OllamaName, parse

WORD = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,12}", fullmatch=True).filter(
    lambda w: not w.endswith(".gguf")
)
QUANT = st.sampled_from(PREFERENCE)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("org/repo", HubName("org/repo")),
        ("org/repo:Q4_K_M", HubName("org/repo", None, "Q4_K_M")),
        ("org/repo@v1.0:Q4_K_M", HubName("org/repo", "v1.0", "Q4_K_M")),
        ("org/repo@refs/pr/1", HubName("org/repo", "refs/pr/1")),
        ("org/repo:a/b.gguf", HubName("org/repo", None, None, "a/b.gguf")),
        ("org/repo/a/b.gguf", HubName("org/repo", None, None, "a/b.gguf")),
        ("hf.co/org/repo:Q8_0", HubName("org/repo", None, "Q8_0")),
        ("HF.co/org/repo", HubName("org/repo")),
        ("hf:org/repo", None),
        ("hf://org/repo", HubName("org/repo")),
        ("hf:/org/repo", HubName("org/repo")),
        ("https://huggingface.co/org/repo/", HubName("org/repo")),
        ("https:/huggingface.co/org/repo", HubName("org/repo")),
        ("https://huggingface.co/org/repo/tree/dev", HubName("org/repo", "dev")),
        (
            "https://hf.co/org/repo/resolve/main/a.gguf?download=true",
            HubName("org/repo", "main", None, "a.gguf"),
        ),
        (
            "https://hf.co/org/repo/blob/refs%2Fpr%2F1/a%20b.gguf",
            HubName("org/repo", "refs/pr/1", None, "a b.gguf"),
        ),
        ("llama3.2", OllamaName("llama3.2")),
        ("llama3.2:1b", OllamaName("llama3.2", "1b")),
        ("ollama://llama3.2:1b", OllamaName("llama3.2", "1b")),
        ("ollama.com/library/llama3.2", OllamaName("llama3.2")),
        ("https://ollama.com/me/it:x", OllamaName("it", "x", "me")),
        ("https://example.org/a/b.gguf", Address("https://example.org/a/b.gguf")),
        ("http:/example.org/b.GGUF?x=1", Address("http://example.org/b.GGUF?x=1")),
        ("", None),
        ("two words", None),
        ("org/repo/x", None),
        ("org/repo:", None),
        ("org/repo:a b", None),
        ("org/../repo", None),
        ("org/repo:../x.gguf", None),
        ("org/repo@../x", None),
        ("org/repo@a//b", None),
        ("https://hf.co/org/repo/resolve/..%2F..%2Fx/a.gguf", None),
        ("https://hf.co/org/repo/resolve/main/%2E%2E/a.gguf", None),
        ("https://hf.co/org/repo/resolve/main/a.bin", None),
        ("https://example.org/a", None),
        ("https://example.org/../b.gguf", None),
        ("https://example.org/%2e%2e/b.gguf", None),
        ("https://[::1/b.gguf", None),
        ("https:///b.gguf", None),
        ("ftp://example.org/b.gguf", None),
        ("name:tag:more", None),
        ("-", None),
    ],
)
def test_what_names_name(text: str, meant: object) -> None:
    if meant is None:
        with pytest.raises(ParameterError) as caught:
            parse(text)
        assert "expected" in str(caught.value) or "no address" in str(caught.value)
    else:
        assert parse(text) == meant


@given(WORD, WORD, st.none() | WORD, st.none() | QUANT)
def test_names_of_the_hub_are_read_as_they_are_written(
    owner: str, name: str, revision: str | None, quant: str | None
) -> None:
    meant = HubName(f"{owner}/{name}", revision, quant)
    if revision is not None and revision.strip(".") == "":
        return
    assert parse(str(meant)) == meant
    if owner.lower() not in ("hf.co", "huggingface.co", "ollama.com"):
        assert parse(f"hf.co/{meant}") == parse(f"https://huggingface.co/{meant}") == meant


@given(WORD, st.none() | WORD, st.sampled_from(["library", "me"]))
def test_names_of_ollama_are_read_as_they_are_written(name: str, tag: str | None, namespace: str) -> None:
    meant = OllamaName(name, tag, namespace)
    assert parse(str(meant)) == meant


@given(
    st.text(max_size=60) | st.text("ab/.:@%-?#[]\\ \0\n", max_size=30) | st.from_regex(r"https?:/{0,3}\S*")
)
def test_any_text_is_a_name_or_an_error_and_leads_nowhere_else(text: str) -> None:
    try:
        meant = parse(text)
    except ParameterError:
        return
    parts = re.split(r"/", str(meant).partition("://")[2] or str(meant))
    if isinstance(meant, HubName):
        parts = [
            *meant.repository.split("/"),
            *(meant.revision or "x").split("/"),
            *(meant.file or "x").split("/"),
        ]
    assert not {".", ".."} & set(parts)
    assert "\0" not in str(meant)


def test_names_behind_hf() -> None:
    assert hub_name("org/repo", "a/m.gguf") == "org/repo:a/m.gguf"
    assert hub_name("org/repo@dev:Q8_0") == "org/repo@dev:Q8_0"
    assert hub_name("https://huggingface.co/org/repo", "m.gguf") == "org/repo:m.gguf"
    for repository, file in (("llama3", None), ("org/repo", "m.bin"), ("org/repo", "../m.gguf")):
        with pytest.raises(ParameterError):
            hub_name(repository, file)


# ---- names of files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "quant"),
    [
        ("SmolLM2-135M-Instruct.Q4_1.gguf", "Q4_1"),
        ("model-q4_k_m.gguf", "Q4_K_M"),
        ("Qwen2.5-7B-Instruct-IQ4_XS.gguf", "IQ4_XS"),
        ("Qwen3-8B-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"),
        ("UD-IQ1_S/m-UD-IQ1_S-00001-of-00003.gguf", "UD-IQ1_S"),
        ("Q8_0/model.gguf", "Q8_0"),
        ("gpt-oss-20b-mxfp4.gguf", "MXFP4"),
        ("m.fp16.gguf", "F16"),
        ("m-BF16.gguf", "BF16"),
        ("m-Q4_0_4_4.gguf", "Q4_0_4_4"),
        ("m-TQ1_0.gguf", "TQ1_0"),
        ("m.i1-Q2_K_S.gguf", "Q2_K_S"),
        ("m-F16-to-Q5_1.gguf", "Q5_1"),
        ("Qwen3-4B.gguf", ""),
        ("llama-7b.gguf", ""),
        ("iq-test.gguf", ""),
    ],
)
def test_quantisations_in_names(name: str, quant: str) -> None:
    assert quant_of(name) == quant
    assert not quant or is_quant(quant)


@given(WORD, st.sampled_from(".-_"), QUANT, st.booleans())
def test_a_name_tells_its_quantisation(name: str, dash: str, quant: str, lower: bool) -> None:
    written = quant.lower() if lower else quant
    assert quant_of(f"{name}{dash}{written}.gguf") == quant
    assert quant_of(f"{name}{dash}{written}-00001-of-00002.gguf") == quant
    assert label(written) == quant


def test_what_is_no_model() -> None:
    for name in (
        "mmproj-F16.gguf",
        "m.mmproj-f16.gguf",
        "a/mmproj.gguf",
        "m.imatrix.gguf",
        "imatrix.gguf",
        "m-lora.gguf",
    ):
        assert not is_model(name)
    for name in ("m.gguf", "M.GGUF", "explorations.gguf"):
        assert is_model(name)
    assert not is_model("m.safetensors")
    assert stem("a/m-00001-of-00002.gguf") == "m"


@given(st.permutations([f"m-Q4_0-{i:05d}-of-00005.gguf" for i in range(1, 6)]), st.integers(1, 5))
def test_parts_are_one_model(names: list[str], n: int) -> None:
    (model,) = models_among(names[:n])
    assert list(model.files) == sorted(names[:n])
    assert model.is_whole == (n == 5)


@given(st.lists(QUANT, min_size=1, max_size=8, unique=True))
def test_the_preferred_quantisation_is_chosen(quants: list[str]) -> None:
    models = models_among(f"m-{quant}.gguf" for quant in quants)
    assert choose(models).quant == min(quants, key=PREFERENCE.index)
    for quant in quants:
        assert choose(models, quant.lower()).quant == quant
    if "Q4_K_M" in quants:
        assert choose(models).quant == "Q4_K_M"


def test_prefixes_of_authors() -> None:
    models = models_among(["m-UD-Q4_K_XL.gguf", "m-UD-Q4_K_M.gguf", "m-Q4_K_M.gguf", "m-UD-Q2_K.gguf"])
    assert choose(models, "Q4_K_M").name == "m-Q4_K_M.gguf"
    assert choose(models, "UD-Q4_K_M").name == "m-UD-Q4_K_M.gguf"
    assert choose(models, "q4_k_xl").name == "m-UD-Q4_K_XL.gguf"
    assert choose(models).name == "m-Q4_K_M.gguf"
    assert rank("Q4_0") < rank("UD-Q4_0") < rank("Q8_0") < rank("")


def test_choices_that_are_none() -> None:
    for names, quant, said in (
        (["a.gguf", "b.gguf"], None, "there are several, name one of them: a.gguf, b.gguf"),
        (
            ["a-Q8_0.gguf", "b-Q8_0.gguf"],
            None,
            "several files of Q8_0, name one of them: a-Q8_0.gguf, b-Q8_0.gguf",
        ),
        (["a.gguf"], "Q8_0", "there is no Q8_0, but a.gguf"),
        (["a-Q4_0.gguf"], "Q4_1", "there is no Q4_1, but Q4_0; is it Q4_0?"),
        (
            ["a-Q4_0-00001-of-00003.gguf", "a-Q4_0-00003-of-00003.gguf"],
            None,
            "3 parts were expected, 2 are there",
        ),
    ):
        with pytest.raises(NoChoiceError, match=re.escape(said)):
            choose(models_among(names), quant)
