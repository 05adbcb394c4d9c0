"""Lines of a prompt that are different in each request and mean nothing to a model.

A popular coding client puts a line at the head of its system prompt that counts its requests:

    x-anthropic-billing-header: cc_version=...; cc_entrypoint=...; cch=...;

Whatever stands behind a difference has to be computed again, and behind this one stands the whole
conversation: minutes instead of a moment, in every turn. The line is meant for another server's accounts. It
is set apart, and the model does not get it.
"""

from __future__ import annotations

import re
from typing import Final

_LINE: Final = re.compile(r"x-anthropic-billing-header:[^\n]*(?:\n+|$)", re.IGNORECASE)


def without_changing_lines(text: str) -> str:
    """The text of a system prompt without such lines at its head."""
    while (found := _LINE.match(text)) is not None:
        text = text[found.end() :]
    return text
