"""`clarion check`: whether a model file is what it should be."""

from __future__ import annotations

import json

import click

from clarion.cli import options
from clarion.cli.exit_codes import FOUND_FAULTS
from clarion.cli.progress import stages


@click.command()
@click.argument("model", required=False, type=options.file_name)
@options.model
@click.option(
    "--engine",
    type=click.Choice(["clarion", "llama-cpp"]),
    default="clarion",
    help="llama-cpp: compare its tokens and logits as well.",
)
@click.option("--quick", is_flag=True, help="Compute a quarter of the text.")
@options.isa
@options.threads
@options.as_json
@options.debug
def check(
    model: str | None,
    model_path: str | None,
    engine: str,
    quick: bool,
    isa: str | None,
    threads: int | None,
    as_json: bool,
) -> int:
    """Checks a model file, from its bytes to a short answer.

    A line for each check says ok, failed or skipped, and why.

    file: its bytes are all there. model: hyperparameters and tensors fit a family. tokenizer: texts in
    several scripts come back, special tokens are found by their texts. template: it renders, its special
    tokens are in the vocabulary. logits: all are numbers. fast, high: how far these activations are from
    exact ones, within stated limits. answer: a short one.

    The exit code is 1 if a check failed, and 2 for a file that cannot be read at all.
    """
    from clarion.evaluate.check import QUICK_TOKENS, TOKENS
    from clarion.evaluate.check import check as checks

    update = [lambda what, done, total: None]  # of the bar that is there now
    path = model or model_path
    findings = checks(
        path,
        tokens=QUICK_TOKENS if quick else TOKENS,
        engine=engine,
        threads=threads,
        isa=isa,
        progress=lambda what, done, total: update[0](what, done, total),
    )
    found = []
    while True:
        with stages() as update[0]:  # gone before a line is printed
            finding = next(findings, None)
        if finding is None:
            break
        found.append(finding)
        if not as_json:
            print(f"{finding.name:<10}{finding.state:<9}{finding.detail}", flush=True)
    failed = [finding.name for finding in found if finding.state == "failed"]
    if as_json:
        print(json.dumps({"ok": not failed, "checks": [finding.report() for finding in found]}))
    return FOUND_FAULTS if failed else 0
