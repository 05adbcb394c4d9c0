"""What templates must not do: reach Python, take much of anything, or go on for ever. The engine lives."""

from __future__ import annotations

import time

import pytest

from clarion.errors import TemplateError
from clarion.tokenizer import template
from clarion.tokenizer.template import render

USER = {"role": "user", "content": "hi"}
ATTRIBUTE_WALKS = (
    "{{ ''.__class__ }}",
    "{{ ''['__class__'] }}",
    "{{ ().__class__.__bases__[0].__subclasses__() }}",
    "{{ messages | attr('__class__') }}",
    "{{ messages | map('attr', '__class__') | list }}",
    "{{ messages | map(attribute='content.__class__') | list }}",
    "{{ messages | groupby('content.__class__') }}",
    "{{ '{0.__class__}'.format(1) }}",
    "{{ '{0.__class__.__mro__}' | format(1) }}{{ ''.format_map({}) }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ joiner.__init__ }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ namespace(a=1)._Namespace__attrs }}",
    "{{ lipsum.__globals__ }}",
    "{{ range.__class__ }}",
    "{{ dict.__mro__ }}",
    "{{ dict.fromkeys([1]) }}",
    "{{ raise_exception.__globals__ }}",
    "{{ strftime_now.__code__ }}",
    "{{ self._TemplateReference__context }}",
    "{{ self.__init__.__globals__ }}",
    "{% macro m() %}{% endmacro %}{{ m.__call__ }}{{ m._func }}",
    "{% for x in [1] %}{{ loop._iterator }}{% endfor %}",
    "{{ ('x' | attr('__class__')) }}",
    "{{ ('x' | attr('for' ~ 'mat'))('{0.__class__}') }}{{ ('{0.__class__}' | attr('format'))(1) }}",
    "{{ ('{a.__class__}' | attr('format_map'))({'a': 1}) }}",
    "{{ messages[0] | attr('update') }}",
    "{{ messages | attr('append') }}",
    "{{ messages | map('attr', 'pop') | list }}",
    "{{ messages[0] | attr('__init__') | attr('__globals__') }}",
    "{{ cycler | attr('__init__') }}",
    "{{ dict | attr('fromkeys') }}",
    "{% set n = namespace(a=1) %}{{ n | attr('_Namespace__attrs') }}",
    "{% for x in [1] %}{{ loop | attr('_iterator') }}{% endfor %}",
    "{% generation %}{{ caller.__globals__ }}{% endgeneration %}",
    "{% generation %}{{ self.__class__ }}{% endgeneration %}",
    "{{ 'x'.copy }}{{ 'x'.copy() }}",
    "{{ (1).__class__ }}",
    "{{ (1.5).hex() }}",
    "{{ 'x'.encode() }}",
    "{{ messages.append(1) }}",
    "{{ messages[0].update({}) }}",
    "{{ messages[0].pop('role') }}",
    "{{ (x for x in []).gi_frame }}",
    "{{ caller.__globals__ }}",
    "{{ url_for.__globals__ }}",
)


@pytest.mark.parametrize("source", ATTRIBUTE_WALKS)
def test_attribute_walks_are_refused(source):
    with pytest.raises(TemplateError):
        render(source, [USER])


# Of text, list, dictionary: what Python has and templates do not need.
REFUSED = {
    "''": ("encode", "maketrans", "isidentifier"),
    "[]": ("append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"),
    "{}": ("clear", "fromkeys", "pop", "popitem", "setdefault", "update"),
}


@pytest.mark.parametrize(("value", "name"), [(value, name) for value in REFUSED for name in REFUSED[value]])
def test_other_methods_are_refused_by_name(value, name):
    with pytest.raises(TemplateError, match=f"access to '{name}' of '.*' is forbidden"):
        render(f"{{{{ {value} | attr('{name}') }}}}", [USER])
    with pytest.raises(
        TemplateError, match=f"access to '{name}' of '.*' is forbidden|has no attribute '{name}'"
    ):
        render(f"{{{{ {value}.{name}() }}}}", [USER])


TOO_MUCH = {
    "range": "{{ range(10 ** 9) }}",
    "range beyond integers": "{{ range(2 ** 100) }}",
    "repeated text": "{{ 'x' * 10 ** 9 }}",
    "repeated list": "{{ [0] * 99999 * 99999 }}",
    "power": "{{ 9 ** 99999 }}",
    "products": "{% set ns = namespace(n=3) %}"
    "{% for i in range(99) %}{% set ns.n = ns.n * ns.n %}{% endfor %}",
    "recursive macro": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "recursive loop": "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "nested expression": "{{ " + "(" * 20_000 + "1" + ")" * 20_000 + " }}",
    "nested lists": "{{ " + "[" * 20_000 + "]" * 20_000 + " }}",
    "nested blocks": "{% if 1 %}" * 5_000 + "{% endif %}" * 5_000,
    "many negations": "{{ " + "not " * 100_000 + "1 }}",
    "doubled text": "{% set ns = namespace(x='xx') %}"
    "{% for i in range(40) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "joined text": "{{ 'x'.join(['y' * 99999] * 99999) }}",
    "padded text": "{{ 'x'.center(10 ** 10) }}",
    "padding filter": "{{ 'x' | center(10 ** 10) }}",
    "formatted text": "{{ '%9999999999d' | format(1) }}",
    "formatted width": "{{ '{:9999999999}'.format(1) }}",
    "replaced text": "{% set x = 'x' * 99999 %}{{ x.replace('x', x) | length }}",
    "tabs": "{{ 'a\\tb'.expandtabs(10 ** 9) }}",
    "tabs beyond integers": "{{ 'a\\tb'.expandtabs(2 ** 100) }}",
    "tabs by key": "{{ 'a\\tb'['expandtabs'](10 ** 9) | length }}",
    "tabs by name": "{{ 'a\\tb'.expandtabs(tabsize=10 ** 9) | length }}",
    "tabs by attr": "{{ ('a\\tb' | attr('expandtabs'))(10 ** 9) | length }}",
    "tabs of a safe text": "{{ ('a\\tb' | safe).expandtabs(10 ** 9) | length }}",
    "many tabs": "{{ ('\\t' * 1000).expandtabs(2000) | length }}",
    "tabs of a long text": "{% set x = 'x' * 99999 %}"
    "{{ (x ~ x ~ x ~ x ~ x ~ x ~ x ~ x ~ x ~ x ~ x).expandtabs() | length }}",
    "translated": "{{ ('a' * 99999).translate({97: 'b' * 99}) | length }}",
    "translated to a long text": "{{ 'a'.translate({97: 'b' * 99999 ~ 'b' * 99999}) * 99 }}",
    "translated all": "{{ ('ab' * 49999).translate({97: 'x' * 99999, 98: 'y' * 99999}) | length }}",
    "translated by a text": "{{ ('\\x00' * 99999).translate(['b' * 99]) | length }}",
    "translated long text": "{% set x = 'x' * 99999 %}"
    "{{ (x ~ x ~ x ~ x ~ x ~ x ~ x ~ x ~ x ~ x ~ x).translate({}) | length }}",
    "centred": "{{ 'x'.center(10 ** 8) | length }}",
    "left": "{{ 'x'.ljust(10 ** 8) | length }}",
    "right": "{{ 'x'.rjust(10 ** 8) | length }}",
    "zeros": "{{ 'x'.zfill(10 ** 8) | length }}",
    "centred by filter": "{{ 'x' | center(width=10 ** 8) | length }}",
    "replaced": "{{ ('x' * 99999).replace('x', 'y' * 99) | length }}",
    "replaced by filter": "{{ ('x' * 99999) | replace('x', 'y' * 99) | length }}",
    "joined": "{{ ('y' * 9999).join('x' * 999) | length }}",
    "joined by filter": "{{ ('x' * 999) | join('y' * 9999) | length }}",
    "format": "{{ '{:99999999}'.format(1) | length }}",
    "nested format": "{{ '{:{}}'.format(1, 99999999) | length }}",
    "format of a mapping": "{{ '{a:99999999}'.format_map({'a': 1}) | length }}",
    "operator": "{{ ('%99999999d' % 1) | length }}",
    "operator with a width": "{{ ('%*d' % (99999999, 1)) | length }}",
    "format filter": "{{ '%99999999d' | format(1) | length }}",
    "indented": "{{ 'a\\nb' | indent(10 ** 8) | length }}",
    "indented lines": "{{ ('a\\n' * 9999) | indent(9999) | length }}",
    "indented JSON": "{{ [1] | tojson(indent=10 ** 8) | length }}",
    "wrapped": "{{ ('a b ' * 999) | wordwrap(1, true, 'x' * 9999) | length }}",
    "batch": "{{ [1] | batch(10 ** 8, 0) | list | length }}",
    "slice": "{{ [1] | slice(10 ** 8) | list | length }}",
    "copied list": "{% set ns = namespace(x=[0] * 9999) %}"
    "{% for i in range(40) %}{% set ns.x = ns.x.copy() + ns.x.copy() %}{% endfor %}",
    "generation": "{% generation %}{% for i in range(99999) %}{{ 'x' * 99999 }}{% endfor %}"
    "{% endgeneration %}",
    "nested generations": "{% generation %}" * 5_000 + "{% endgeneration %}" * 5_000,
    "output": "{% for i in range(99999) %}{% for j in range(99999) %}xxxxxxxxxx{% endfor %}{% endfor %}",
}


@pytest.mark.parametrize("source", TOO_MUCH.values(), ids=TOO_MUCH)
def test_too_much_is_refused(source):
    begin = time.monotonic()
    with pytest.raises(TemplateError):
        render(source, [])
    assert time.monotonic() - begin < template.WALL_SECONDS


@pytest.mark.parametrize(
    "name", ["tabs", "many tabs", "translated", "translated all", "translated long text"]
)
def test_what_takes_or_gives_more_than_a_megabyte_says_so(name):
    with pytest.raises(TemplateError, match=r"'(expandtabs|translate)' of more than 1048576 characters"):
        render(TOO_MUCH[name], [])


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% for i in range(99999) %}{{ ('a ' * 9999).split() | sort | length }}{% endfor %}",
    ],
)
def test_a_template_that_does_not_end_is_stopped_and_the_next_one_works(source):
    with pytest.raises(TemplateError, match="takes too much time or memory"):
        render(source, [])
    assert render("{{ 1 + 1 }}", []) == "2"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ ('\\t' * 1000).expandtabs(1000) | length }}", "1000000"),
        ("{{ ('\\t' * 100000).expandtabs(10) | length }}", "1000000"),
        ("{{ ('a' * 99999).translate({97: 'b' * 10}) | length }}", "999990"),
        ("{{ 'x'.center(10 ** 6) | length }}", "1000000"),
        ("{{ 'a,a'.split(',', 10 ** 12) | length }}{{ 'aa'.replace('a', 'b', 10 ** 12) }}", "2bb"),
        (
            "{{ 1700000000 | tojson }}{{ '%d' | format(1700000000) }}{{ '{}'.format(10 ** 12) }}",
            "170000000017000000001000000000000",
        ),
        ("{{ '%d' % 10 ** 12 }}{{ 1700000000 % 1000 }}", "10000000000000"),
        ("{{ 5000000 | center(9) }}", " 5000000 "),
    ],
)
def test_large_numbers_that_make_nothing_large_are_allowed(source, expected):
    assert render(source, []) == expected


def test_long_conversations_are_not_too_long_for_methods():
    messages = [{"role": "user", "content": "x y" * 200_000}] * 3
    assert render("{{ messages | map(attribute='content') | join(',') | length }}", messages) == "1800002"
    assert render("{{ messages[0].content.replace(' ', '  ') | length }}", messages) == "800000"
