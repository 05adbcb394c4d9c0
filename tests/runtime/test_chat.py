"""Conversations: from messages to ids and to answers, on the built-in model with a chat template."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import clarion
from clarion.errors import ParameterError, TemplateError
from clarion.gguf import File, Writer

TEMPLATE = "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
MESSAGES = [{"role": "user", "content": "Tell of <|endoftext|>."}]
TOOLS = [{"type": "function", "function": {"name": "look"}}]

Make = Callable[..., clarion.Model]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Loads the built-in model with other metadata."""
    loaded = []

    def load(**templates: str) -> clarion.Model:
        path = tmp_path / "chat.gguf"
        with File.open(clarion_file()) as file:
            metadata = dict(file.metadata.exact())
            for name, text in templates.items():
                key = "tokenizer.chat_template" + ("" if name == "default" else f".{name}")
                metadata[key] = text
            metadata["tokenizer.ggml.add_bos_token"] = True
            with Writer(path, metadata) as writer:
                for tensor in file.tensors.values():
                    writer.add(tensor.name, tensor.shape, tensor.format, tensor.data)
        loaded.append(clarion.load(path, context=128))
        return loaded[-1]

    yield load
    for model in loaded:
        model.close()


def clarion_file() -> Path:
    return Path(clarion.__file__).parent / "data" / "tale-q8_0.gguf"


def test_chat_is_the_template_tokenized_and_continued(make: Make) -> None:
    chat = make(default=TEMPLATE)
    text = chat.apply_chat_template(MESSAGES)
    assert text == "<|endoftext|>user: Tell of <|endoftext|>.\n"
    ids = chat.tokenize_chat(MESSAGES)
    assert ids == chat.tokenize(text, add_special=False, parse_special=True)
    assert ids[0] == chat.tokenizer.bos
    assert ids[1] != chat.tokenizer.bos
    answer = chat.chat(MESSAGES, max_tokens=10, greedy=True)
    assert answer.tokens == chat.generate(ids, max_tokens=10, greedy=True).tokens


def test_every_way_to_chat_gives_the_same(make: Make) -> None:
    chat = make(default=TEMPLATE)
    options: Any = {"max_tokens": 12, "seed": 1}
    expected = chat.chat(MESSAGES, **options)
    for stream in (chat.chat(MESSAGES, stream=True, **options), chat.chat_stream(MESSAGES, **options)):
        assert isinstance(stream, clarion.TextStream)
        assert "".join(stream) == expected.text
        assert stream.completion is not None
        assert stream.completion.tokens == expected.tokens

    async def run() -> None:
        assert (await chat.achat(MESSAGES, **options)).tokens == expected.tokens
        for stream in (
            await chat.achat(MESSAGES, stream=True, **options),
            chat.achat_stream(MESSAGES, **options),
        ):
            assert isinstance(stream, clarion.AsyncTextStream)
            assert "".join([piece async for piece in stream]) == expected.text

    asyncio.run(run())


def test_progress_and_variables_reach_chat(make: Make) -> None:
    heard: list[tuple[int, int]] = []
    chat = make(default=TEMPLATE + "{{ mood }}{{ 'tools' if tools }}")
    options: Any = {"tools": TOOLS, "variables": {"mood": "gay"}, "max_tokens": 3, "greedy": True}
    answer = chat.chat(MESSAGES, progress=lambda *item: heard.append(item), **options)
    ids = chat.tokenize_chat(MESSAGES, tools=TOOLS, mood="gay")
    assert heard == [(len(ids), len(ids))]
    assert answer.tokens == chat.generate(ids, max_tokens=3, greedy=True).tokens
    with pytest.raises(ParameterError, match=r"colour: unknown option"):
        chat.chat(MESSAGES, colour="red")  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variables": [1]}, r"variables: found \[1\], expected a dictionary of names"),
        ({"variables": {1: 2}}, r"variables: found \{1: 2\}, expected a dictionary of names"),
        ({"variables": {"tools": []}}, r"variables: found 'tools', which is an argument of its own"),
        ({"variables": {"messages": []}}, r"variables: found 'messages', which is an argument"),
        ({"variables": {"x": object()}}, r"the variables of a chat template must be JSON"),
        ({"progress": 5}, r"progress: found 5, expected a function of two numbers"),
    ],
)
def test_what_chat_takes_is_checked(make: Make, options: Any, message: str) -> None:
    chat = make(default=TEMPLATE)
    for call in (chat.chat, chat.chat_stream):
        with pytest.raises(ParameterError, match=message):
            call(MESSAGES, **options)
    with pytest.raises(ParameterError, match=message):
        asyncio.run(chat.achat(MESSAGES, **options))


def test_the_bos_is_not_doubled(make: Make) -> None:
    chat = make(default=TEMPLATE)
    bos = chat.tokenizer.bos
    text = chat.apply_chat_template([{"role": "user", "content": "Hello"}])
    assert chat.tokenize(text, parse_special=True) == chat.tokenize_chat(
        [{"role": "user", "content": "Hello"}]
    )
    # What does not begin with it still gets it, and what is not parsed is text.
    assert chat.tokenize("Hello", parse_special=True)[:1] == [bos]
    assert chat.tokenize("Hello <|endoftext|>", parse_special=True).count(bos) == 2
    assert chat.tokenize("<|endoftext|>")[0] == bos
    assert chat.tokenize("<|endoftext|>")[1:] == chat.tokenize("<|endoftext|>", add_special=False)
    assert chat.tokenize("", parse_special=True) == [bos]
    assert chat.tokenize("<|endoftext|>" * 2, parse_special=True) == [bos, bos]


# ---- which template ----------------------------------------------------------------------------------


def test_templates_have_names(make: Make) -> None:
    model = make(default="D", rag="R{{ messages[0].content }}", tool_use="T{{ tools[0].type }}")
    assert dict(model.tokenizer.chat_templates) == {
        "default": "D",
        "rag": "R{{ messages[0].content }}",
        "tool_use": "T{{ tools[0].type }}",
    }
    apply = model.apply_chat_template
    assert apply(MESSAGES) == "D"
    assert apply(MESSAGES, tools=None) == apply(MESSAGES, tools=[]) == "D"
    assert apply(MESSAGES, tools=TOOLS) == "Tfunction"
    assert apply(MESSAGES, template="rag") == "RTell of <|endoftext|>."
    assert apply(MESSAGES, template="tool_use", tools=TOOLS) == "Tfunction"
    assert apply(MESSAGES, template="{{ messages[0].role }}!") == "user!"
    assert model.tokenize_chat(MESSAGES, tools=TOOLS) == model.tokenize("Tfunction", add_special=False)
    assert model.chat(MESSAGES, template="rag", max_tokens=2, greedy=True).tokens == (
        model.generate(model.tokenize_chat(MESSAGES, template="rag"), max_tokens=2, greedy=True).tokens
    )
    with pytest.raises(TemplateError, match=r"chat\.gguf: .* named 'rga'; found: default, rag, tool_use"):
        apply(MESSAGES, template="rga")
    with pytest.raises(ParameterError, match=r"template: found 5, expected a name or a text in Jinja"):
        apply(MESSAGES, template=5)  # type: ignore[arg-type]


def test_a_default_template_may_use_tools_itself(make: Make) -> None:
    model = make(default="D{{ tools | length if tools }}", rag="R")
    assert model.apply_chat_template(MESSAGES, tools=TOOLS) == "D1"


def test_tools_that_a_template_does_not_use_are_not_dropped_silently(make: Make) -> None:
    model = make(default="D{{ messages[0].content }}")
    with pytest.warns(UserWarning, match="does not use tools"):
        assert model.apply_chat_template(MESSAGES, tools=TOOLS).startswith("D")


def test_a_warning_points_at_the_line_that_called(make: Make) -> None:
    model = make(default="D{{ messages[0].content }}")
    calls: dict[str, Callable[[], object]] = {
        "apply": lambda: model.apply_chat_template(MESSAGES, tools=TOOLS),
        "tokenize": lambda: model.tokenize_chat(MESSAGES, tools=TOOLS),
        "chat": lambda: model.chat(MESSAGES, tools=TOOLS, max_tokens=1),
        "stream": lambda: list(model.chat_stream(MESSAGES, tools=TOOLS, max_tokens=1)),
    }
    for call in calls.values():
        with pytest.warns(UserWarning, match="does not use tools") as found:
            call()
        assert found[0].filename == __file__


def test_a_file_without_a_default_template(make: Make) -> None:
    model = make(tool_use="T{{ tools | length }}")
    assert model.apply_chat_template(MESSAGES, tools=TOOLS) == "T1"
    with pytest.raises(TemplateError, match="no chat template named 'default'; found: tool_use"):
        model.chat(MESSAGES)


def test_a_model_without_a_template_says_so() -> None:
    with clarion.load(context=64) as model:
        assert dict(model.tokenizer.chat_templates) == {}
        for call in (model.chat, model.chat_stream, model.tokenize_chat, model.apply_chat_template):
            with pytest.raises(TemplateError, match=r"tale-q8_0\.gguf: the model has no chat template"):
                call(MESSAGES)  # type: ignore[operator]
        assert model.apply_chat_template(MESSAGES, template="{{ messages[0].role }}") == "user"


# ---- messages ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ("hello", r"messages: found 'hello', expected a list of messages such as \[\{\"role\": \"user\""),
        (b"hello", r"messages: found b'hello', expected a list of messages"),
        (None, r"messages: found None, expected a list of messages"),
        (5, r"messages: found 5, expected a list of messages"),
        ({"role": "user", "content": "x"}, r"messages: found \{.*\}, expected a list of messages"),
        ([], r"messages: found none, expected a list of messages"),
        (["hello"], r'messages\[0\]: found \'hello\', expected a dictionary with "role" and "content"'),
        ([("user", "hello")], r"messages\[0\]: found \('user', 'hello'\), expected a dictionary"),
        ([{}], r'messages\[0\]\["role"\]: found none, expected a role such as "user"'),
        ([{"content": "x"}], r'messages\[0\]\["role"\]: found none'),
        ([{"role": None, "content": "x"}], r'messages\[0\]\["role"\]: found None'),
        ([{"role": "", "content": "x"}], r'messages\[0\]\["role"\]: found \'\''),
        ([{"role": 1, "content": "x"}], r'messages\[0\]\["role"\]: found 1'),
        ([{"role": "user"}], r'messages\[0\]\["content"\]: found none, expected a text'),
        ([{"role": "user", "content": None}], r'messages\[0\]\["content"\]: found None, expected a text'),
        ([{"role": "user", "text": "x"}], r'messages\[0\]\["content"\]: found none'),
        ([MESSAGES[0], {"role": "user"}], r'messages\[1\]\["content"\]: found none'),
        ([{"role": "assistant", "tool_calls": []}], r'messages\[0\]\["content"\]: found none'),
        ([{"role": "user", "content": 5}], r'\["content"\]: found 5, expected a text or a list of parts'),
        ([{"role": "user", "content": b"x"}], r'\["content"\]: found b\'x\', expected a text'),
        ([{"role": "user", "content": {"type": "text"}}], r'\["content"\]: found \{\'type\''),
        ([{"role": "user", "content": [5]}], r'messages\[0\]\["content"\]\[0\]: found 5, expected a part'),
        ([{"role": "user", "content": [{"text": "x"}]}], r'\["content"\]\[0\]: found .*, expected a part'),
        ([{"role": "user", "content": [{"type": "text"}]}], r'\["content"\]\[0\]\["text"\]: found None'),
    ],
)
def test_messages_that_are_none_are_named(make: Make, messages: Any, message: str) -> None:
    chat = make(default="{{ messages | tojson }}")

    async def achat() -> None:
        await chat.achat(messages)

    async def achat_stream() -> None:
        await anext(chat.achat_stream(messages))

    for call in (chat.chat, chat.chat_stream, chat.tokenize_chat, chat.apply_chat_template):
        with pytest.raises(ParameterError, match=message):
            call(messages)  # type: ignore[operator]
    for acall in (achat, achat_stream):
        with pytest.raises(ParameterError, match=message):
            asyncio.run(acall())


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "system", "content": ""}, {"role": "user", "content": "x"}],
        [{"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]}],
        [{"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}],
        [{"role": "assistant", "content": None, "reasoning_content": "Well."}],
        [{"role": "tool", "content": {"temperature": 20}, "name": "weather"}],
        [{"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "image"}, "y"]}],
        [{"role": "user", "content": []}],
        ({"role": "user", "content": "x"},),
        [{"role": "user", "content": "x", "name": "Anna", "extra": [1, None]}],
    ],
)
def test_messages_that_templates_know_reach_them(make: Make, messages: Any) -> None:
    import json

    chat = make(default="{{ messages | tojson }}")
    assert json.loads(chat.apply_chat_template(messages)) == list(messages)


def test_messages_may_come_from_a_generator(make: Make) -> None:
    chat = make(default=TEMPLATE)
    assert chat.apply_chat_template(m for m in MESSAGES) == chat.apply_chat_template(MESSAGES)


@pytest.mark.parametrize(
    ("tools", "message"),
    [
        ({"type": "function"}, r"tools: found \{.*\}, expected a list of descriptions"),
        ("look", "tools: found 'look', expected a list"),
        ([len], r"tools\[0\]: found <built-in function len>, expected a dictionary"),
    ],
)
def test_tools_that_are_none_are_named(make: Make, tools: Any, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        make(default="{{ tools }}").apply_chat_template(MESSAGES, tools=tools)
