"""Chat templates in the shapes that model families use, and what templates need from their surroundings."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from clarion.errors import ParameterError, TemplateError
from clarion.tokenizer import template
from clarion.tokenizer.template import render

SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": "  Is 1 < 2 & '\u00e9' a letter?\n"}
ASSISTANT = {"role": "assistant", "content": "Yes."}
TOOL = {
    "type": "function",
    "function": {"name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "number"}}}},
}

CHATML = """\
{%- if messages[0].role != 'system' %}
    {{- '<|im_start|>system\\nYou help.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content | trim + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
LLAMA_3 = """\
{% set loop_messages = messages %}
{%- for message in loop_messages -%}
    {% set content = '<|start_header_id|>' ~ message['role'] ~ '<|end_header_id|>\n\n'
        ~ message['content'] | trim ~ '<|eot_id|>' %}
    {%- if loop.index0 == 0 %}{% set content = bos_token ~ content %}{% endif -%}
    {{ content }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif -%}
"""
MISTRAL = """\
{%- if messages[0]["role"] == "system" %}
    {%- set system = messages[0]["content"] %}
    {%- set turns = messages[1:] %}
{%- else %}
    {%- set turns = messages %}
{%- endif %}
{{- bos_token }}
{%- for message in turns %}
    {%- if (message["role"] == "user") != (loop.index0 % 2 == 0) %}
        {{- raise_exception("roles must alternate: user, assistant, user, ...") }}
    {%- endif %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and loop.last %}
            {{- "[AVAILABLE_TOOLS]" + tools | tojson + "[/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {{- "[INST]" }}
        {%- if loop.first and system is defined %}
            {{- system + "\\n\\n" }}
        {%- endif %}
        {{- message["content"] + "[/INST]" }}
    {%- else %}
        {{- message["content"] + eos_token }}
    {%- endif %}
{%- endfor %}
"""
GEMMA = """\
{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}
{% for message in messages %}
{% if (message['role'] == 'assistant') %}{% set role = 'model' %}
{% else %}{% set role = message['role'] %}{% endif %}
{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}
{%- endfor %}
{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}
"""
DEEPSEEK = """\
{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif -%}
{% set ns = namespace(is_first=true, system='') -%}
{% for message in messages %}{% if message['role'] == 'system' -%}
{% set ns.system = ns.system + message['content'] %}{% endif %}{% endfor -%}
{{ bos_token }}{{ ns.system }}
{%- for message in messages -%}
{% if message['role'] == 'user' %}{{ '<\uff5cUser\uff5c>' + message['content'] }}{% endif -%}
{% if message['role'] == 'assistant' and message['tool_calls'] is defined and message['tool_calls'] -%}
{% for call in message['tool_calls'] -%}
{% if ns.is_first %}{% set ns.is_first = false %}<calls>{% endif -%}
{{ call['function']['name'] + '\n' + call['function']['arguments'] | tojson }}
{%- endfor %}</calls>{{ eos_token }}
{%- elif message['role'] == 'assistant' -%}
{{ '<\uff5cAssistant\uff5c>' + message['content'].split('</think>')[-1] + eos_token }}
{%- endif -%}
{% endfor -%}
{% if add_generation_prompt %}{{ '<\uff5cAssistant\uff5c>' }}{% endif %}
"""
CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"function": {"name": "add", "arguments": {"a": 1}}}],
}


@pytest.mark.parametrize(
    ("source", "messages", "expected"),
    [
        (
            CHATML,
            [USER],
            "<|im_start|>system\nYou help.<|im_end|>\n"
            "<|im_start|>user\nIs 1 < 2 & '\u00e9' a letter?<|im_end|>\n<|im_start|>assistant\n",
        ),
        (
            LLAMA_3,
            [SYSTEM, USER],
            "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|><|start_header_id|>user"
            "<|end_header_id|>\n\nIs 1 < 2 & '\u00e9' a letter?<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n",
        ),
        (
            MISTRAL,
            [SYSTEM, USER, ASSISTANT, USER],
            "<s>[INST]Be brief.\n\n  Is 1 < 2 & '\u00e9' a letter?\n[/INST]Yes.</s>"
            "[INST]  Is 1 < 2 & '\u00e9' a letter?\n[/INST]",
        ),
        (
            GEMMA,
            [USER, ASSISTANT],
            "<s><start_of_turn>user\nIs 1 < 2 & '\u00e9' a letter?<end_of_turn>\n"
            "<start_of_turn>model\nYes.<end_of_turn>\n<start_of_turn>model\n",
        ),
        (
            DEEPSEEK,
            [
                SYSTEM,
                {"role": "user", "content": "1+1?"},
                CALL,
                {"role": "assistant", "content": "<think>x</think>2"},
            ],
            '<s>Be brief.<\uff5cUser\uff5c>1+1?<calls>add\n{"a": 1}</calls></s>'
            "<\uff5cAssistant\uff5c>2</s><\uff5cAssistant\uff5c>",
        ),
    ],
    ids=["chatml", "llama-3", "mistral", "gemma", "deepseek"],
)
def test_families(source, messages, expected):
    assert render(source, messages, bos_token="<s>", eos_token="</s>") == expected


def test_no_generation_prompt():
    assert (
        render(CHATML, [SYSTEM], add_generation_prompt=False) == "<|im_start|>system\nBe brief.<|im_end|>\n"
    )


def test_tools_are_json_as_it_is():
    text = render(MISTRAL, [USER], tools=[TOOL | {"note": "<\u00e9> & 'x'"}], bos_token="<s>")
    start, end = text.index("[AVAILABLE_TOOLS]") + 17, text.index("[/AVAILABLE_TOOLS]")
    assert text[start:end] == json.dumps([TOOL | {"note": "<\u00e9> & 'x'"}], ensure_ascii=False)


FEATURES = {
    "{{ [1, 'a'] | tojson }}": '[1, "a"]',
    "{{ {'b': 1, 'a': 2} | tojson(indent=1) }}": '{\n "b": 1,\n "a": 2\n}',
    "{{ {'b': 1, 'a': 2} | tojson(sort_keys=True, separators=(',', ':')) }}": '{"a":2,"b":1}',
    "{{ '\u00e9<' | tojson }}": '"\u00e9<"',
    "{% for i in range(9) %}{% if i == 1 %}{% continue %}{% endif %}{{ i }}"
    "{% if i == 3 %}{% break %}{% endif %}{% endfor %}": "023",
    "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}": (
        "2"
    ),
    "{% macro f(x, y='!') %}{{ x }}{{ y }}{% endmacro %}{{ f('a') }}{{ f('b', y='?') }}": "a!b?",
    "{% generation %}{{ messages[1].content }}{% endgeneration %}": "Yes.",
    "  {% if true %}\n  x\n  {% endif %}\n": "  x\n",
    "{{ messages | selectattr('role', 'equalto', 'assistant') | map(attribute='content') | first }}": "Yes.",
    "{{ messages | map(attribute='role') | join(',') }}": "user,assistant",
    "{{ 'a,b'.split(',')[1].upper() }}{{ ' x '.strip() }}{{ 'abc'[::-1] }}{{ 'x' in 'xy' }}": "BxcbaTrue",
    "{{ {'a': {'b': 1}}.get('a').b }}{% for k, v in {'x': 1}.items() %}{{ k }}{{ v }}{% endfor %}": "1x1",
    "{{ {'append': 1, '_x': 2}.append }}{{ {'append': 1, '_x': 2}['_x'] }}": "12",
    "{{ messages[0].nothing is defined }}{{ nothing | default('d') }}{{ messages[0].name }}": "Falsed",
    "{{ '%s-%d' | format('a', 2) }}{{ '{}{x}'.format(1, x=2) }}": "a-212",
    "{{ 'ab' * 2 }}{{ 2 ** 10 }}{{ 2 ** 0.5 < 2 }}{{ 1.5 * 2 }}": "abab1024True3.0",
    "{{ answer }}{{ tools is none }}{{ add_generation_prompt }}": "42TrueTrue",
    "{{ documents is none }}{{ documents is defined }}{{ nothing is none }}": "TrueTrueFalse",
    "{{ cycler('a', 'b').next() }}{{ dict(a=1) | tojson }}": 'a{"a": 1}',
    "{{ strftime_now('%Y') | int > 2000 }}": "True",
    "{% for x in [1, 2] %}{{ loop.index }}{{ loop.last }}{{ loop.previtem }}{% endfor %}": "1False2True1",
}


@pytest.mark.parametrize(("source", "expected"), FEATURES.items())
def test_features(source, expected):
    assert render(source, [USER, ASSISTANT], answer=42) == expected


def test_documents():
    assert render("{{ documents[0].text }}", [USER], documents=[{"text": "d"}]) == "d"


def test_messages_may_hold_any_text():
    text = "".join(map(chr, range(0x300))) + "\ud800\U0001f600"
    assert render("{{ messages[0].content }}", [{"role": "user", "content": text}]) == text


def test_long_conversation():
    messages = [{"role": "user", "content": "x" * 10_000}] * 200
    assert len(render("{% for m in messages %}{{ m.content }}{% endfor %}", messages)) == 2_000_000


def test_threads_share_the_worker():
    with ThreadPoolExecutor(8) as pool:
        texts = pool.map(lambda i: render("{{ messages[0] }}", [i]), range(50))
        assert list(texts) == [str(i) for i in range(50)]


def test_worker_stays():
    render("x", [])
    process = template._worker._process
    render("y", [])
    with pytest.raises(TemplateError):
        render("{% if %}", [])
    assert template._worker._process is process


def test_an_interrupted_reply_is_not_that_of_the_next_request(monkeypatch):
    worker = template._Worker()
    requests = [json.dumps({"template": text, "variables": {}}).encode() for text in ("one", "two")]
    assert worker.render(requests[0]) == "one"
    read = template._read

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(template, "_read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        worker.render(requests[0])
    monkeypatch.setattr(template, "_read", read)
    assert worker.render(requests[1]) == "two"
    worker.stop()


@pytest.mark.parametrize("value", [object(), {1, 2}, b"x"])
def test_values_that_are_no_json_are_refused(value):
    with pytest.raises(ParameterError, match="must be JSON"):
        render("x", [value])


def test_circular_and_deep_values_are_refused():
    circle: list[object] = []
    circle.append(circle)
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    for value in (circle, deep):
        with pytest.raises(ParameterError, match="must be JSON"):
            render("x", [value])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("a\nb {% if %}", "line 2: Expected an expression"),
        ("{{ x | nothing }}", "line 1: No filter named 'nothing'"),
        ("\n\n{{ raise_exception('no such role') }}", "line 3: no such role"),
        ("\n{{ nothing.at.all }}", "line 2: 'nothing' is undefined"),
        ("{{ none + 'x' }}", "line 1: TypeError"),
        ("{{ 1 / 0 }}", "line 1: ZeroDivisionError"),
        ("{{ 'x'.nothing() }}", "line 1: 'str object' has no attribute 'nothing'"),
        ("{% include 'x' %}", "line 1"),
        ("{% extends 'x' %}", "line 1"),
    ],
)
def test_errors_name_the_line(source, message):
    with pytest.raises(TemplateError, match=f"^chat template: {message}"):
        render(source, [USER])


def test_long_template():
    with pytest.raises(TemplateError, match="has 1048577 characters, at most 1048576 are allowed"):
        render("x" * (2**20 + 1), [])


def test_worker_that_does_not_start(monkeypatch):
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    worker = template._Worker()
    with pytest.raises(TemplateError, match="does not start: FileNotFoundError"):
        worker.render(b"{}")
    monkeypatch.setattr("sys.executable", "/bin/true")
    with pytest.raises(TemplateError, match="does not start: EOFError"):
        worker.render(b"{}")
