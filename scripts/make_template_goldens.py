"""Writes tests/tokenizer/goldens/templates.json: what transformers renders for parts of chat templates.

Needs transformers. What it refuses has no text.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers.utils.chat_template_utils import render_jinja_template

GOLDEN = Path(__file__).parents[1] / "tests/tokenizer/goldens/templates.json"

VARIABLES: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": "Be brief.\tOr not."},
        {"role": "user", "content": " Is 1 < 2 & '\u00e9' a letter?\n"},
        {
            "role": "assistant",
            "content": "<think>\nHm.\n</think>\n\nYes.",
            "tool_calls": [
                {"id": "c1", "function": {"name": "add", "arguments": {"a": 1, "b": [True, None, "\u00e9"]}}},
                {"id": "c2", "function": {"name": "look", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "content": '{"sum": 3}', "name": "add"},
        {"role": "user", "content": [{"type": "text", "text": "And this?"}, {"type": "image"}]},
        {"role": "assistant", "content": "No."},
    ],
    "tools": [
        {
            "type": "function",
            "function": {
                "name": "add",
                "description": "Adds numbers.",
                "parameters": {
                    "type": "object",
                    "properties": {"a": {"type": "number", "enum": [1, 2]}, "b": {"type": "number"}},
                    "required": ["a"],
                },
            },
        }
    ],
    "bos_token": "<s>",
    "eos_token": "</s>",
    "enable_thinking": False,
}
GENERATION = [
    "{% set sep = ',' %}{% generation %}{% set sep = ';' %}x{{ sep }}{% endgeneration %}{{ sep }}",
    "{% generation %}{% set only = 1 %}{% endgeneration %}{{ only is defined }}",
    "{% set n = namespace(i=0) %}{% generation %}{% set n.i = 3 %}{% endgeneration %}{{ n.i }}",
    "{% for m in messages %}{% generation %}{% set last = m.role %}{{ loop.index }}{{ last }}"
    "{% endgeneration %}{{ last is defined }}{% endfor %}",
    "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ loop.first }}{{ loop.last }}"
    "{{ loop.index0 }}{{ loop.length }}{{ m.content }}{{ eos_token }}{% endgeneration %}{% endif %}"
    "{% endfor %}",
    "{% macro turn(m) %}{% generation %}[{{ m.role }}]{% endgeneration %}{% endmacro %}"
    "{% for m in messages %}{{ turn(m) }}{% endfor %}",
    "{% generation %}a{% generation %}b{% endgeneration %}c{% endgeneration %}",
    "{% set x = 1 %}{% generation %}{% set x = 2 %}{% generation %}{% set x = 3 %}{{ x }}{% endgeneration %}"
    "{{ x }}{% endgeneration %}{{ x }}",
    "a  {%- generation -%}  b  {%- endgeneration -%}  c",
    "a\n  {% generation %}\n  b\n  {% endgeneration %}\nc\n",
    "a\n  {%+ generation +%}\n  b\n  {%+ endgeneration +%}\nc\n",
    "{% generation %}{% endgeneration %}|",
    "{% generation %}{% for i in range(5) %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}"
    "{% endgeneration %}",
    "{% for i in range(5) %}{% generation %}{% if i == 3 %}{% break %}{% endif %}{{ i }}"
    "{% endgeneration %}{% endfor %}",
    "{% generation %}{% macro f() %}m{% endmacro %}{{ f() }}{% endgeneration %}{{ f is defined }}",
    "{% macro f() %}<{{ caller() }}>{% endmacro %}{% generation %}{% call f() %}{{ bos_token }}{% endcall %}"
    "{% endgeneration %}",
    "{% set text %}{% generation %}{{ bos_token }}{% endgeneration %}{% endset %}{{ text | length }}",
    "{% generation %}{{ messages[1].content | trim }}\n{% endgeneration %}\n|",
    "{% generation x %}a{% endgeneration %}",
    "{% generation %}a",
    "{% endgeneration %}",
    "{% for m in messages recursive %}{% generation %}{{ m.role }}{% endgeneration %}{% endfor %}",
    "{% generation %}{{ raise_exception('no') }}{% endgeneration %}",
    "{% if false %}{% generation %}x{% endgeneration %}{% else %}y{% endif %}",
    "{% filter upper %}{% generation %}x{% endgeneration %}{% endfilter %}",
    "{% with y = 2 %}{% generation %}{{ y }}{% set y = 3 %}{% endgeneration %}{{ y }}{% endwith %}",
]
METHODS = [
    "{{ messages[0].content.isascii() }}{{ messages[1].content.isascii() }}",
    "{{ messages[0].content.isprintable() }}{{ 'abc'.isprintable() }}{{ ''.isprintable() }}",
    "{{ messages[0].content.expandtabs() }}|{{ messages[0].content.expandtabs(2) }}|"
    "{{ 'a\\tb'.expandtabs(tabsize=0) }}|{{ 'a\\tb'.expandtabs(-3) }}",
    "{{ 'abca'.translate({97: 'x', 98: none, 99: 100}) }}{{ 'abc'.translate({}) }}",
    "{{ 'abc'.translate({97: 'long text'}) }}",
    "{% set c = messages.copy() %}{{ c == messages }}{{ c | length }}{{ c[1:].copy() | length }}",
    "{% set c = messages[0].copy() %}{{ c.role }}{{ c == messages[0] }}",
    "{{ ('x' | attr('upper'))() }}{{ ('a,b' | attr('split'))(',') }}",
    "{{ messages[0] | attr('role') is defined }}{{ messages[0] | attr('nothing') is defined }}",
    "{{ (messages[0] | attr('get'))('role') }}{{ (messages | attr('copy'))() | length }}",
    "{% set n = namespace(a=1) %}{{ n | attr('a') }}{{ n | attr('b') is defined }}",
    "{{ ('{}-{x}' | attr('format'))(1, x=2) }}",
    "{{ ['a', 'b'] | map('attr', 'nothing') | select('defined') | list }}",
    "{% for m in messages %}{{ loop | attr('index') }}{% endfor %}",
]
CONSTRUCTS = [
    "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' + (m.content | string | trim) + "
    "'<|im_end|>\\n' }}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}"
    "{%- endif %}",
    "{%- set ns = namespace(multi=true, last=messages | length - 1) %}{%- for m in messages[::-1] %}"
    "{%- set index = (messages | length - 1) - loop.index0 %}{%- if ns.multi and m.role == 'user' and "
    "m.content is string %}{%- set ns.multi = false %}{%- set ns.last = index %}{%- endif %}{%- endfor %}"
    "{{ ns.last }}",
    "{% for m in messages %}{% if m.content is string %}{% set content = m.content.split('</think>')[-1]"
    ".lstrip('\\n') %}{% else %}{% set content = '' %}{% endif %}[{{ content }}]{% endfor %}",
    "{% set m = messages[2] %}{{ m.content.split('</think>')[0].rstrip('\\n').split('<think>')[-1]"
    ".lstrip('\\n') }}",
    "{% for t in tools %}{{ t | tojson }}\n{% endfor %}{{ tools | tojson(indent=4) }}",
    "{% for c in messages[2].tool_calls %}{% set f = c.function %}{{ f.name }}"
    "{% if f.arguments is string %}{{ f.arguments }}{% else %}{{ f.arguments | tojson }}{% endif %}"
    "{% endfor %}",
    "{% for p in messages[4].content %}{% if p.type == 'text' %}{{ p.text }}{% elif p.type == 'image' %}"
    "<img>{% endif %}{% endfor %}",
    "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}"
    "{{ messages | rejectattr('role', 'in', ['user', 'tool']) | map(attribute='role') | join('/') }}",
    "{% for k, v in tools[0].function.parameters.properties.items() %}{{ k }}:{{ v.type }}"
    "{% if k in tools[0].function.parameters.required %}!{% endif %}{% if v.enum %}{{ v.enum | join('|') }}"
    "{% endif %};{% endfor %}",
    "{{ tools[0]['function'] | items | list | length }}{{ tools[0].function | dictsort | first }}",
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>{% endif %}",
    "{% if not date_string is defined %}{% set date_string = '26 Jul 2024' %}{% endif %}{{ date_string }}",
    "{{ messages[0].content | replace('brief', 'long') | upper }}{{ 'a-b'.replace('-', '+', 1).title() }}",
    "{% set parts = messages[0].content.partition('.') %}{{ parts[0] }}|{{ parts[2] }}",
    "{{ '%s is %d' | format('x', 3) }}{{ '%05.1f' % 2.25 }}{{ 7 % 4 }}{{ '%s' % messages[0].role }}",
    "{{ 'x' | center(5) }}|{{ 'x'.ljust(3) }}|{{ 'x'.rjust(3, '-') }}|{{ '7'.zfill(3) }}",
    "{{ 'a\\nb' | indent(2) }}{{ 'a\\nb' | indent(2, true) }}{{ 'a b c' | wordwrap(3) }}",
    "{{ [1, 2, 3] | batch(2, 0) | list }}{{ [1, 2, 3] | slice(2) | list }}{{ [3, 1] | sort | first }}",
    "{{ messages | groupby('role') | map('first') | join(',') }}",
    "{% for a, b in {'x': 1, 'y': 2}.items() %}{{ loop.cycle('odd', 'even') }}{{ a }}{{ b }}"
    "{{ ',' if not loop.last }}{% else %}none{% endfor %}",
    "{% set x %}{{ bos_token }}a{% endset %}{{ x.startswith(bos_token) }}{{ x[bos_token | length:] }}",
    "{% macro typed(t) -%}{%- if t is string -%}{{ t }}{%- elif t is mapping -%}{{ t.type }}{%- else -%}"
    "{% for u in t %}{{ typed(u) }}{{ '|' if not loop.last }}{% endfor %}{%- endif -%}{%- endmacro %}"
    "{{ typed(['a', {'type': 'b'}, ['c', 'd']]) }}",
    "{{ raise_exception('roles must alternate') }}",
    "{{ messages[9].role }}",
    "{{ messages[9] is defined }}{{ messages[-1].role }}{{ messages[1:3] | length }}",
    "{{ none }}{{ true }}{{ 1.0 }}{{ [none, 'a'] }}{{ {'a': none} }}{{ 3 // 2 }}{{ 3 / 2 }}",
    "{{ 'é<>&' | tojson }}{{ 'é<>&' | e }}{{ '<' | safe }}"
    "{{ {'b': 1, 'a': [1, 2]} | tojson(sort_keys=true) }}",
    "  {% if true %}\n  x\n  {% endif %}\n  {# note #}\ny\n",
    "{{ messages | map(attribute='content') | select('string') | map('length') | sum }}",
    "{{ dict(a=1, **{'b': 2}) | tojson }}{{ namespace(a=1).a }}{{ range(3) | list }}",
    "{{ 'abc' | first }}{{ 'abc' | last }}{{ 'abc' | reverse }}{{ ['b', 'a'] | unique | join }}",
    "{{ (messages | first)['content'][:5] ~ 1 ~ none }}{{ 'a' in 'abc' and 'z' not in 'abc' }}",
    "{{ 'x' if messages[0]['role'] == 'system' else raise_exception('no') }}{{ not tools is none }}",
    "{%- if tools is iterable and tools | length > 0 %}{{ tools is sequence }}{{ tools[0] is mapping }}"
    "{% endif %}",
    "{{ '12' | int + 1 }}{{ '1.5' | float * 2 }}{{ 'x' | default('y') }}{{ nothing | default('y', true) }}",
    "{{ [1, 2].append(3) }}",
    "{{ messages[0].update({}) }}",
    "{{ ''.__class__ }}{{ ''.__class__.__mro__ }}",
]


def expected(template: str) -> str | None:
    """The text, or None where it is refused."""
    variables = {name: value for name, value in VARIABLES.items() if name != "messages"}
    tools = variables.pop("tools")
    try:
        rendered, _ = render_jinja_template(
            conversations=[VARIABLES["messages"]],
            tools=tools,
            chat_template=template,
            add_generation_prompt=True,
            **variables,
        )
    except Exception as error:
        print(f"refused: {template[:60]!r}: {error}")
        return None
    return str(rendered[0])


def main() -> None:
    templates = {template: expected(template) for template in (*GENERATION, *METHODS, *CONSTRUCTS)}
    golden = {"variables": VARIABLES, "expected": templates}
    GOLDEN.write_text(json.dumps(golden, indent=1, ensure_ascii=True) + "\n")


if __name__ == "__main__":
    main()
