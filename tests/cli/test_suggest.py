"""What is suggested for a name that does not exist."""

from __future__ import annotations

import pytest

from clarion.cli.suggest import nearest

OPTIONS = [
    "--dry-base",
    "--temp",
    "--top-k",
    "--top-p",
    "--max-tokens",
    "--seed",
    "--verbose",
    "-m",
    "--prompt",
]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("--temperatur", None),
        ("--tmep", "--temp"),
        ("-temp", "--temp"),
        ("--promt", "--prompt"),
        ("-prompt", "--prompt"),
        ("--max-token", "--max-tokens"),
        ("--max_tokens", "--max-tokens"),
        ("--MAX-TOKENS", "--max-tokens"),
        ("--max", "--max-tokens"),
        ("--sede", "--seed"),
        ("--verbos", "--verbose"),
        ("--bananas", None),
        ("--to", None),
        ("-q", None),
        ("-M", "-m"),
        ("--", None),
    ],
)
def test_the_nearest_name(word: str, expected: str | None) -> None:
    assert nearest(word, OPTIONS) == expected


def test_a_name_that_is_nowhere_near_is_not_suggested() -> None:
    assert nearest("--verbose", ["--dry-base", "--version"]) is None
    assert nearest("rum", ["run", "bench"]) == "run"
    assert nearest("quantise", ["quantize"]) == "quantize"
    assert nearest("nothing", []) is None
