"""The public API on the model that comes with Clarion."""

from __future__ import annotations

import asyncio
import gc
import shutil
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import clarion
from clarion.errors import (
    ClosedError,
    ContextError,
    DeviceError,
    FileError,
    ParameterError,
    TokenizerError,
)
from clarion.host import choices, choose, native
from clarion.runtime import executor

PROMPT = "Once upon a time"


@pytest.fixture(scope="module")
def model() -> Iterator[clarion.Model]:
    with clarion.load(context=512) as model:
        yield model


def test_writes(model: clarion.Model) -> None:
    completion = model.generate(PROMPT, max_tokens=30, greedy=True)
    assert len(completion.tokens) == 30
    assert completion.finish_reason == "length"
    assert completion.text == model.detokenize(completion.tokens)
    assert completion.text.isascii()
    assert " a " in completion.text


def test_logits_are_those_that_generation_follows(model: clarion.Model) -> None:
    prompt = model.tokenize(PROMPT)
    completion = model.generate(prompt, max_tokens=40, greedy=True)
    logits = model.logits([*prompt, *completion.tokens])  # [T, V]
    assert logits.shape == (len(prompt) + 40, model.n_vocab)
    assert logits.dtype == np.float32
    assert np.argmax(logits, axis=1)[len(prompt) - 1 : -1].tolist() == list(completion.tokens)


@pytest.mark.parametrize("outputs", [1, 32, 100])
def test_logits_from_a_later_token_on_are_the_last_of_all(model: clarion.Model, outputs: int) -> None:
    tokens = np.random.default_rng(5).integers(0, model.n_vocab, 300)
    expected = model.logits(tokens)
    with clarion.load(context=512, batch=64, outputs=outputs) as other:
        for first in (0, 1, 63, 64, 250, 299, 300):
            np.testing.assert_array_equal(other.logits(tokens, first=first), expected[first:])
        for first in (-1, 301):
            with pytest.raises(ParameterError, match="first"):
                other.logits(tokens, first=first)
    with pytest.raises(ParameterError, match="outputs"):
        clarion.load(outputs=0)


def test_logits_are_written_where_they_are_wanted(model: clarion.Model) -> None:
    tokens = np.random.default_rng(6).integers(0, model.n_vocab, 20)
    out = np.full((16, model.n_vocab), -1, np.float32)
    found = model.logits(tokens, first=8, out=out)
    assert found.base is out
    np.testing.assert_array_equal(out[:12], model.logits(tokens, first=8))
    assert (out[12:] == -1).all()
    for wrong in (out[:11], out[:, 1:], out.astype(np.float64), out[0]):
        with pytest.raises(ParameterError, match="out is float"):
            model.logits(tokens, first=8, out=wrong)


def test_logits_do_not_depend_on_the_batch(model: clarion.Model) -> None:
    tokens = np.random.default_rng(1).integers(0, model.n_vocab, 100)
    expected = model.logits(tokens)
    for batch in (1, 7):
        with clarion.load(context=128, batch=batch, threads=1) as other:
            np.testing.assert_array_equal(other.logits(tokens), expected)
    np.testing.assert_array_equal(model.logits(tokens[:33]), expected[:33])


def test_ten_threads_get_what_each_gets_alone(model: clarion.Model) -> None:
    prompts = [f"{'The king said. ' * i}And number {i}" for i in range(10)]

    def write(prompt: str) -> tuple[int, ...]:
        return model.generate(prompt, max_tokens=40, seed=7).tokens

    alone = [write(prompt) for prompt in prompts]
    with ThreadPoolExecutor(10) as threads:
        assert list(threads.map(write, prompts)) == alone


def test_a_prefix_that_is_still_in_the_cache_changes_nothing() -> None:
    with clarion.load(context=512) as fresh:
        text = "There was once a poor woman who had two children. " * 4
        first = fresh.generate(text, max_tokens=20, greedy=True)
        longer = [*fresh.tokenize(text), *first.tokens, *fresh.tokenize(" The", add_special=False)]
        reused = fresh.generate(longer, max_tokens=20, greedy=True, logprobs=0)
    with clarion.load(context=512) as fresh:
        computed = fresh.generate(longer, max_tokens=20, greedy=True, logprobs=0)
    assert reused.timings.reused_tokens > 0
    assert computed.timings.reused_tokens == 0
    assert reused.tokens == computed.tokens
    assert reused.logprobs == computed.logprobs


def test_stream_is_generate_in_pieces(model: clarion.Model) -> None:
    whole = model.generate(PROMPT, max_tokens=30, seed=3)
    stream = model.stream(PROMPT, max_tokens=30, seed=3)
    pieces = list(stream)
    assert "".join(pieces) == whole.text
    assert len(pieces) > 10
    assert stream.completion is not None
    assert stream.completion.tokens == whole.tokens


def test_a_stream_keeps_its_model_alive() -> None:
    stream = clarion.load(context=128).stream(PROMPT, max_tokens=20, seed=3)
    gc.collect()
    assert "".join(stream)


def test_event_loops(model: clarion.Model) -> None:
    expected = model.generate(PROMPT, max_tokens=20, seed=3)

    async def run() -> None:
        many = await asyncio.gather(*(model.agenerate(PROMPT, max_tokens=20, seed=3) for _ in range(5)))
        assert {completion.tokens for completion in many} == {expected.tokens}
        stream = model.astream(PROMPT, max_tokens=20, seed=3)
        assert "".join([piece async for piece in stream]) == expected.text
        with pytest.raises(ParameterError):
            await anext(model.astream(PROMPT, top_p=2.0))

    asyncio.run(run())


def test_leaving_a_stream_ends_its_text(model: clarion.Model) -> None:
    stream = model.stream(PROMPT, ignore_eos=True)
    first = next(stream)
    stream.close()
    assert list(stream) == []
    with model.stream(PROMPT, ignore_eos=True) as stream:
        next(stream)
        completion = stream.cancel()
    assert completion.finish_reason == "cancelled"
    assert 0 < len(completion.tokens) < 400
    assert first
    assert model.generate(PROMPT, max_tokens=5, greedy=True).finish_reason == "length"


def test_cancelled_tasks_end_their_texts(model: clarion.Model) -> None:
    async def run() -> None:
        task = asyncio.create_task(model.agenerate(PROMPT, ignore_eos=True))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        stream = model.astream(PROMPT, ignore_eos=True)
        async for _ in stream:
            break
        await stream.aclose()
        assert (await model.agenerate(PROMPT, max_tokens=5)).finish_reason == "length"

    asyncio.run(run())


def test_stop_strings(model: clarion.Model) -> None:
    whole = model.generate(PROMPT, max_tokens=60, seed=5).text
    stop = whole[20:25]
    cut = model.generate(PROMPT, max_tokens=60, seed=5, stop=stop)
    assert cut.text == whole[: whole.index(stop)]
    assert (cut.finish_reason, cut.stopped_by) == ("stop", stop)
    assert "".join(model.stream(PROMPT, max_tokens=60, seed=5, stop=stop)) == cut.text


def test_the_end_of_the_context_ends_the_text(model: clarion.Model) -> None:
    completion = model.generate([5] * 500, ignore_eos=True)
    assert completion.finish_reason == "length"
    assert len(completion.tokens) == 12


@pytest.mark.parametrize(
    ("error", "said"), [(MemoryError, "no memory left"), (RuntimeError, "refuses threads")]
)
@pytest.mark.parametrize("what", ["shared_machine", "KvCache"])
def test_what_the_system_refuses_is_an_error_of_the_device(
    monkeypatch: pytest.MonkeyPatch, what: str, error: type[Exception], said: str
) -> None:
    before = threading.active_count()

    def refuse(*_: object, **__: object) -> None:
        raise error("cannot")

    if what == "KvCache":
        monkeypatch.setattr(native(choose().name), what, refuse)
    else:
        monkeypatch.setattr(executor, what, refuse)
    with pytest.raises(DeviceError, match=said):
        clarion.load(context=64, weights="moving")
    assert threading.active_count() == before


def test_breakers_of_many_texts_are_forgotten(model: clarion.Model) -> None:
    for i in range(100):
        model.generate([5], max_tokens=1, dry_multiplier=1.0, dry_breakers=[str(i)])
    assert len(model._breakers.known) <= 16


def test_dry_breakers_are_tokens_that_contain_them(model: clarion.Model) -> None:
    tokens = model._breakers.tokens(("\n", "*"), model.tokenizer)
    assert tokens
    for token in tokens:
        assert {"\n", "*"} & set(model.detokenize([token]))
    plain = model.generate(PROMPT, max_tokens=60, greedy=True)
    dry = model.generate(PROMPT, max_tokens=60, greedy=True, dry_multiplier=2.0)
    assert plain.tokens != dry.tokens


@pytest.mark.parametrize("activations", ["fast", "high", "exact"])
@pytest.mark.parametrize("isa", [choice.name for choice in choices() if choice.usable])
def test_every_module_and_precision_writes(model: clarion.Model, isa: str, activations: str) -> None:
    expected = model.logits(model.tokenize(PROMPT))
    with clarion.load(context=64, isa=isa, activations=activations) as other:
        assert other.isa == isa
        logits = other.logits(other.tokenize(PROMPT))
    error = np.mean((logits - expected) ** 2) / np.mean(expected**2)
    assert error < (1e-3 if activations == "fast" else 1e-6)


# ---- errors ----------------------------------------------------------------------------------------


def test_a_prompt_longer_than_the_context_names_both_lengths(model: clarion.Model) -> None:
    with pytest.raises(ContextError, match=r"600 tokens .* context of 512"):
        model.generate([5] * 600)
    with pytest.raises(ContextError, match=r"513 tokens .* context of 512"):
        model.logits([5] * 513)


def test_bad_prompts(model: clarion.Model) -> None:
    with pytest.raises(ParameterError, match="no tokens"):
        model.generate([])
    with pytest.raises(ParameterError, match="token 1: found 4096, expected 0 to 4095"):
        model.generate([0, 4096])
    with pytest.raises(ParameterError, match="token 0: found -1"):
        model.logits([-1])
    with pytest.raises(ParameterError, match="token 1: found 'a', expected a token id"):
        model.generate([1, "a"])  # type: ignore[list-item]
    for prompt in (None, 3, b"text", {"role": "user"}):
        with pytest.raises(ParameterError, match=r"prompt: found .*, expected a text, token ids, or a list"):
            model.generate(prompt)  # type: ignore[call-overload]
    with pytest.raises(ParameterError, match="tokens: found 'text'"):
        model.detokenize("text")  # type: ignore[arg-type]
    with pytest.raises(TokenizerError):
        model.generate("\ud800")
    with pytest.raises(ParameterError, match="temperature"):
        model.stream(PROMPT, temperature=-1.0)
    assert model.logits([]).shape == (0, model.n_vocab)


def test_bad_arguments() -> None:
    for name, value in (("threads", 0), ("context", 0), ("batch", 0), ("cache_tokens", 1), ("threads", 1.5)):
        with pytest.raises(ParameterError, match=name):
            clarion.load(**{name: value})  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="activations"):
        clarion.load(activations="rough")
    with pytest.raises(ParameterError, match="kv"):
        clarion.load(kv="f8")
    with pytest.raises(ParameterError, match="kv is 5"):
        clarion.load(kv=5)  # type: ignore[arg-type]
    for path in (5, [], ""):
        with pytest.raises(ParameterError, match=r"path: found .*, expected the name of a file"):
            clarion.load(path)  # type: ignore[arg-type]
    with pytest.raises(FileError, match="nowhere: no such file"):
        clarion.load(b"nowhere")  # type: ignore[arg-type]
    with pytest.raises(DeviceError, match="unknown"):
        clarion.load(isa="z80")
    with pytest.raises(FileError):
        clarion.load("/nowhere/model.gguf")
    with pytest.raises(DeviceError, match=r"KV cache of 2000000000 tokens takes .* GB"):
        clarion.load(cache_tokens=2_000_000_000)


def test_a_closed_model_says_so() -> None:
    model = clarion.load(context=64)
    model.close()
    model.close()
    for use in (lambda: model.generate([1]), lambda: model.stream([1]), lambda: model.logits([1])):
        with pytest.raises(ClosedError):
            use()


def test_closing_ends_what_runs() -> None:
    model = clarion.load(context=2000)
    stream = model.stream(PROMPT, ignore_eos=True)
    next(stream)
    model.close()
    with pytest.raises(ClosedError):
        list(stream)


def test_a_forgotten_model_ends_its_thread() -> None:
    before = threading.active_count()
    model = clarion.load(context=64)
    reference = weakref.ref(model)
    assert threading.active_count() == before + 2  # the engine's and the speaker's
    del model
    gc.collect()
    assert reference() is None
    assert threading.active_count() == before


def test_a_file_truncated_while_in_use_is_an_error(tmp_path: Path, model: clarion.Model) -> None:
    copy = tmp_path / "copy.gguf"
    shutil.copy(model.path, copy)
    with clarion.load(copy, context=64) as victim:
        expected = victim.generate(PROMPT, max_tokens=3, greedy=True)
        assert len(expected.tokens) == 3
        with copy.open("r+b") as file:
            file.truncate(copy.stat().st_size // 2)
        for _ in range(2):
            with pytest.raises(FileError, match=r"copy\.gguf"):
                victim.generate(PROMPT, max_tokens=3)
