"""What transformers renders, and refuses, for constructs that chat templates are made of."""

from __future__ import annotations

import pytest

from clarion.errors import TemplateError
from clarion.tokenizer.template import render
from tests.tokenizer.files import golden

GOLDEN = golden("templates")


@pytest.mark.parametrize("template", GOLDEN["expected"])
def test_a_construct_gives_what_transformers_gives(template):
    expected = GOLDEN["expected"][template]
    if expected is None:
        with pytest.raises(TemplateError):
            render(template, **GOLDEN["variables"])
    else:
        assert render(template, **GOLDEN["variables"]) == expected


def test_there_are_enough_of_both():
    refused = [template for template, text in GOLDEN["expected"].items() if text is None]
    assert len(GOLDEN["expected"]) - len(refused) >= 60
    assert len(refused) >= 8
