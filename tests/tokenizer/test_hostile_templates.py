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
    "output": "{% for i in range(99999) %}{% for j in range(99999) %}xxxxxxxxxx{% endfor %}{% endfor %}",
}


@pytest.mark.parametrize("source", TOO_MUCH.values(), ids=TOO_MUCH)
def test_too_much_is_refused(source):
    begin = time.monotonic()
    with pytest.raises(TemplateError):
        render(source, [])
    assert time.monotonic() - begin < template.WALL_SECONDS


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
