"""How a token is chosen, as options of the command line."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any

from clarion.cli import sections
from clarion.cli.options import together
from clarion.errors import ParameterError

if TYPE_CHECKING:
    from clarion import Options

option = partial(sections.option, section="Sampling")

sampling = together(
    option(
        "-n",
        "--max-tokens",
        type=int,
        help="Tokens to generate at most; 0: only compute the prompt.  [default: until the end]",
    ),
    option("--greedy", is_flag=True, help="Always the most probable token."),
    option("--temp", "temperature", type=float, help="Temperature.  [default: 0.8]"),
    option("--top-k", type=int, help="The k most probable tokens; 0: all.  [default: 40]"),
    option("--top-p", type=float, help="The tokens that reach this probability.  [default: 0.95]"),
    option(
        "--min-p",
        type=float,
        help="Tokens this probable, relative to the first.  [default: 0.05]",
    ),
    option(
        "--typical",
        "typical_p",
        type=float,
        help="Tokens of typical information.  [default: 1]",
    ),
    option("--repeat-penalty", type=float, help="Divides logits of recent tokens.  [default: 1]"),
    option("--presence-penalty", type=float, help="Subtracted from recent tokens.  [default: 0]"),
    option(
        "--frequency-penalty",
        type=float,
        help="Subtracted for each occurrence.  [default: 0]",
    ),
    option(
        "--repeat-last-n",
        "penalty_window",
        type=int,
        help="Tokens that are recent; -1: all.  [default: 64]",
    ),
    option(
        "--dry-multiplier",
        type=float,
        help="Strength of the DRY penalty; 0: none.  [default: 0]",
    ),
    option("--dry-base", type=float, help="Its growth for each token repeated.  [default: 1.75]"),
    option(
        "--dry-allowed-length",
        type=int,
        help="Repetitions that cost nothing yet.  [default: 2]",
    ),
    option("--dry-window", type=int, help="Tokens that DRY looks at.  [default: -1, all]"),
    option(
        "--dry-breaker",
        "dry_breakers",
        multiple=True,
        metavar="TEXT",
        help='No repetition reaches across it; may be given several times.  [default: newline, :, ", *]',
    ),
    option(
        "-l",
        "--logit-bias",
        multiple=True,
        metavar="ID±BIAS",
        help="Added to the logit of a token, as 42+1.5 or 42-inf.",
    ),
    option("--seed", type=int, help="The same seed draws the same text.  [default: random]"),
    option(
        "--stop",
        multiple=True,
        metavar="TEXT",
        help="Ends the text; may be given several times.",
    ),
    option("--ignore-eos", is_flag=True, help="Go on where the model would end."),
)


def chosen(given: dict[str, Any]) -> Options:
    """The options that were given. As elsewhere, -n -1 and --seed -1 mean the same as leaving them out; with
    -n 0 the prompt alone is computed.

    Raises:
        ParameterError: an option is of the wrong kind or out of range.
    """
    from clarion.runtime.sampling import Parameters

    unset: dict[str, tuple[object, ...]] = {"max_tokens": (None, -1), "seed": (None, -1)}
    options: Any = {
        name: value
        for name, value in given.items()
        if value is not False and value not in unset.get(name, (None, ()))
    }
    if "logit_bias" in options:
        options["logit_bias"] = dict(map(_bias, options["logit_bias"]))
    if options.get("dry_breakers") == ("none",):
        options["dry_breakers"] = ()
    n = options.get("max_tokens", 1)
    if n < 0:
        raise ParameterError(f"max_tokens: found {n}, expected 0 or more, or -1 for no limit")
    Parameters.parse(options | {"max_tokens": n or 1})
    return options  # type: ignore[no-any-return]


def _bias(text: str) -> tuple[int, float]:
    """`42+1.5`, `42-1.5` or `42-inf`."""
    found = re.fullmatch(r"(\d{1,10})=?([+-]?(?:\d+\.?\d*|\.\d+|inf))", text)
    if found is None or (found[2][0] not in "+-" and "=" not in text):
        raise ParameterError(f"--logit-bias: found {text[:40]!r}, expected a token id and a bias, as 42+1.5")
    return int(found[1]), float(found[2])
