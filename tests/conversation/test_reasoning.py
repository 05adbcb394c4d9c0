"""Reasoning and answer are told apart, however the text is cut."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clarion.conversation.reasoning import Markers, Part, Splitter, begins_inside, markers
from clarion.tokenizer.template import render
from tests.conversation import templates

PAIR = Markers("<think>", "</think>")
HARMONY = markers(templates.HARMONY)
MARKS = ("<|channel|>", "<|message|>", "<|start|>", "<|end|>", "<|return|>", "<|call|>", "<|constrain|>")


def split(pieces: list[str], of: Markers | None, inside: bool = False) -> list[Part]:
    """The parts, neighbours of one kind joined."""
    splitter = Splitter(of, begins_inside=inside)
    parts = [part for piece in pieces for part in splitter.feed(piece)] + splitter.finish()
    joined: list[Part] = []
    for part in parts:
        assert part.text
        if joined and (joined[-1].kind, joined[-1].to) == (part.kind, part.to):
            part = Part(part.kind, joined.pop().text + part.text, part.to)
        joined.append(part)
    return joined


def shown(text: str, of: Markers | None, inside: bool = False) -> list[tuple[str, str]]:
    return [(part.kind, part.text) for part in split([text], of, inside)]


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (None, None),
        (templates.PLAIN, None),
        (templates.THINK, ("<think>", "</think>")),
        (templates.STRIPS, ("<think>", "</think>")),
        (templates.BRACKETS, ("[THINK]", "[/THINK]")),
        (templates.CHANNELS, ("<|channel>thought", "<channel|>")),
        ("{{ '<reasoning>' }}", ("<reasoning>", "</reasoning>")),
        (templates.HARMONY, ("<|channel|>analysis<|message|>", "<|end|>")),
    ],
)
def test_marks_are_those_of_the_template(template: str | None, expected: tuple[str, str] | None) -> None:
    found = markers(template)
    assert (found and (found.open, found.close)) == expected


def test_whether_the_prompt_opens_the_reasoning() -> None:
    messages = [{"role": "user", "content": "What is <think>"}]
    assert not begins_inside(render(templates.THINK, messages))
    assert begins_inside(render(templates.THINK, messages, open=True))
    assert not begins_inside(render(templates.THINK, messages, enable_thinking=False))
    assert not begins_inside(render(templates.HARMONY, messages))
    assert begins_inside("<|turn>model\n<|channel>thought\n")
    assert not begins_inside("")


@pytest.mark.parametrize(
    ("text", "inside", "expected"),
    [
        ("Yes.", False, [("answer", "Yes.")]),
        ("\n Yes.\n", False, [("answer", "\n Yes.\n")]),
        (
            "<think>\nHm.\n\nSo.\n</think>\n\nYes.\n",
            False,
            [("reasoning", "Hm.\n\nSo."), ("answer", "Yes.\n")],
        ),
        ("\n<think>\n\n</think>\n\nYes.", False, [("answer", "Yes.")]),
        ("\nHm.</think>Yes.", True, [("reasoning", "Hm."), ("answer", "Yes.")]),
        ("Hm.\n", True, [("reasoning", "Hm.\n")]),
        ("Hm.</thi", True, [("reasoning", "Hm.</thi")]),
        ("<", False, [("answer", "<")]),
        ("a </think> b", False, [("answer", "a  b")]),
        (
            "One.\n<think>Hm.</think>Two.",
            False,
            [("answer", "One."), ("reasoning", "Hm."), ("answer", "Two.")],
        ),
        ("<<think>a", False, [("answer", "<"), ("reasoning", "a")]),
        ("", True, []),
    ],
)
def test_pairs(text: str, inside: bool, expected: list[tuple[str, str]]) -> None:
    assert shown(text, PAIR, inside) == expected
    assert shown(text, None, inside) == ([("answer", text)] if text else [])


def test_channels_of_gemma() -> None:
    of = markers(templates.CHANNELS)
    text = "<|channel>thought\nHm.\n<channel|>Yes."
    assert shown(text, of) == [("reasoning", "Hm."), ("answer", "Yes.")]
    assert shown("<|channel>thought\n<channel|>Yes.", of) == [("answer", "Yes.")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Yes.<|return|>",
            [("reasoning", "Hm.", None), ("answer", "Yes.", None)],
        ),
        (
            "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary "
            'to=functions.add <|constrain|>json<|message|>{"a":1}<|call|>',
            [("reasoning", "Hm.", None), ("call", '{"a":1}', "functions.add")],
        ),
        (
            " to=functions.add<|channel|>commentary json<|message|>{}<|call|>",
            [("call", "{}", "functions.add")],
        ),
        ("<|channel|>commentary<|message|>I look.<|end|>", [("answer", "I look.", None)]),
        ("I go to=x", [("answer", "I go to=x", None)]),
        ("Plain.", [("answer", "Plain.", None)]),
        ("<|channel|>ana", []),
        ("<|chan", [("answer", "<|chan", None)]),
    ],
)
def test_harmony(text: str, expected: list[tuple[str, str, str | None]]) -> None:
    assert [(part.kind, part.text, part.to) for part in split([text], HARMONY)] == expected
    rest = text.removeprefix("<|channel|>analysis<|message|>")
    if rest != text:
        assert [(p.kind, p.text, p.to) for p in split([rest], HARMONY, inside=True)] == expected


PIECES = {
    PAIR: st.sampled_from(["<think>", "</think>", "<", "</", "think", ">", "\n", "a", " b", "é"]),
    HARMONY: st.sampled_from(
        [*MARKS, "<|", "|>", "analysis", "final", " to=", "to=f.x", "\n", " ", "a", "é"]
    ),
    markers(templates.CHANNELS): st.sampled_from(
        ["<|channel>", "thought", "<channel|>", "<", "|", "\n", "a", "channel>"]
    ),
}


@settings(max_examples=400, derandomize=True)
@given(st.data())
def test_however_it_is_cut(data: st.DataObject) -> None:
    of = data.draw(st.sampled_from(sorted(PIECES, key=str)))
    text = "".join(data.draw(st.lists(PIECES[of], max_size=12)))
    inside = data.draw(st.booleans())
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    whole = split([text], of, inside)
    assert split(pieces, of, inside) == whole
    assert split(list(text), of, inside) == whole


def defined(text: str, of: Markers) -> list[tuple[str, str]]:
    """What the parts of a text with pairs are, from the whole of it."""
    kind, found = "answer", [["answer", ""]]
    cut = re.split(f"({re.escape(of.open)}|{re.escape(of.close)})", text)
    for i, piece in enumerate(cut):
        if i % 2:
            kind = "reasoning" if piece == of.open else "answer"
            continue
        if i > 0:
            piece = piece.lstrip("\n")
        if i < len(cut) - 1:
            piece = piece.rstrip("\n")
        if found[-1][0] == kind:
            found[-1][1] += piece
        elif piece:
            found.append([kind, piece])
    return [(kind, joined) for kind, joined in found if joined]


@settings(max_examples=300, derandomize=True)
@given(st.data())
def test_the_parts_of_pairs_are_what_they_are_defined_to_be(data: st.DataObject) -> None:
    of = data.draw(st.sampled_from([PAIR, markers(templates.CHANNELS)]))
    text = "".join(data.draw(st.lists(PIECES[of], max_size=12)))
    assert shown(text, of) == defined(text, of)


@settings(max_examples=300, derandomize=True)
@given(st.lists(PIECES[HARMONY], max_size=12).map("".join))
def test_no_mark_of_harmony_leaks(text: str) -> None:
    splitter = Splitter(HARMONY)
    for part in [*splitter.feed(text), *splitter.finish()]:
        assert not any(mark in part.text for mark in MARKS)


def test_what_is_shown_comes_at_once() -> None:
    """Only what may become a mark, and newlines, wait."""
    splitter = Splitter(PAIR)
    assert splitter.feed("Hello") == [Part("answer", "Hello")]
    assert splitter.feed(" <") == [Part("answer", " ")]
    assert splitter.feed("b>\n") == [Part("answer", "<b>")]
    assert splitter.feed("x") == [Part("answer", "\nx")]
    assert splitter.feed("<think>y") == [Part("reasoning", "y")]
    assert splitter.finish() == []
