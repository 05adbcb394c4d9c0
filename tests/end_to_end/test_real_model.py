"""A really trained instruct model: what a person gets who downloads one."""

from __future__ import annotations

import subprocess
import sys

import pytest

import clarion
from tests.real_models import smollm2

QUESTION = "What is the capital of France?"
MESSAGES = [{"role": "user", "content": QUESTION}]


@pytest.fixture(scope="module")
def model():
    with clarion.load(smollm2(), threads=2, context=512) as loaded:
        yield loaded


def command(*arguments, text=None):
    done = subprocess.run(
        [sys.executable, "-m", "clarion", *map(str, arguments)],
        input=text,
        stdin=subprocess.DEVNULL if text is None else None,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize("activations", ["high", "exact"])
def test_the_capital_of_france(activations):
    """With 8-bit activations another first word is as likely: exact probabilities are 15% and 14%."""
    with clarion.load(smollm2(), threads=2, context=512, activations=activations) as loaded:
        answer = loaded.chat(MESSAGES, greedy=True, max_tokens=40)
    assert "Paris" in answer.text
    assert answer.finish_reason == "stop"
    assert "<|im_end|>" not in answer.text


def test_a_text_is_continued(model):
    assert " Paris" in model.generate("The capital of France is", greedy=True, max_tokens=4).text


def test_the_template_writes_the_bos_once(model):
    ids = model.tokenize_chat(MESSAGES)
    assert ids == model.tokenize(model.apply_chat_template(MESSAGES), parse_special=True)
    assert model.detokenize(ids).count("<|im_start|>user") == 1


def test_streams_and_conversations_say_the_same(model):
    options = {"greedy": True, "max_tokens": 60}
    whole = model.chat(MESSAGES, **options)
    assert "".join(model.chat_stream(MESSAGES, **options)) == whole.text
    more = [
        *MESSAGES,
        {"role": "assistant", "content": whole.text},
        {"role": "user", "content": "And of Spain?"},
    ]
    answer = model.chat(more, **options)
    assert "Madrid" in answer.text
    assert answer.timings.reused_tokens > 0


def test_the_command_answers_and_says_so_once():
    done = command("run", smollm2(), QUESTION, "--greedy", "-n", "40")
    assert "Paris" in done.stdout
    assert done.stderr.count("one turn of chat") == 1
    piped = command("run", smollm2(), "--greedy", "-n", "40", text=QUESTION + "\n")
    assert piped.stdout == done.stdout


def test_raw_continues():
    done = command("run", smollm2(), "--raw", "-p", "The capital of France is", "--greedy", "-n", "4")
    assert done.stdout.startswith(" Paris")
    assert "chat" not in done.stderr
