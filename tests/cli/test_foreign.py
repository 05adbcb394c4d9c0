"""Flags that people bring along from other programs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import click
import pytest

from clarion.cli.arguments import translate
from clarion.cli.foreign import (
    _BENCH,
    _CONVERT,
    _EMBED,
    _EVAL,
    _IMATRIX,
    _MODEL,
    _QUANTIZE,
    _RUN,
    Flag,
    flags,
)
from clarion.cli.main import cli, execute

GROUP = click.Context(cli, info_name="clarion", **cli.context_settings)


def translated(command: str, *words: str) -> tuple[list[str], list[str]]:
    found = cli.get_command(GROUP, command)
    assert found is not None
    return translate(found, click.Context(found, GROUP, command), words)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--ctx-size 100", "--context 100"),
        ("--ctx-size=100", "--context 100"),
        ("--ctx_size 100", "--context 100"),
        ("--n-predict 5", "--max-tokens 5"),
        ("--n_predict=5", "--max-tokens 5"),
        ("--predict 5", "--max-tokens 5"),
        ("-n5", "-n 5"),
        ("-ub64", "--batch 64"),
        ("-ngl0", ""),
        ("-n=5", "-n 5"),
        ("-n-1", "-n -1"),
        ("-c4096", "-c 4096"),
        ("-s 7", "--seed 7"),
        ("-s7", "--seed 7"),
        ("--temperature 0.5", "--temp 0.5"),
        ("--top_k 3", "--top-k 3"),
        ("-ub 64", "--batch 64"),
        ("--ubatch-size 64", "--batch 64"),
        ("--no-mmap", "--weights copied"),
        ("--mmap", "--weights mapped"),
        ("-lm none", "--weights copied"),
        ("-r User:", "--stop User:"),
        ("--reverse-prompt User:", "--stop User:"),
        ("--system-prompt hi", "--system hi"),
        ("-sys hi", "-sys hi"),
        ("-no-cnv", "--raw"),
        ("-v", "--stats"),
        ("--verbose", "--stats"),
        ("-fa", ""),
        ("-fa on", ""),
        ("--flash-attn auto", ""),
        ("--flash-attn=off", ""),
        ("-fa x.gguf", "x.gguf"),
        ("-ctk q8_0 -ctv q4_0", "-ctk q8_0 -ctv q4_0"),
        ("--cache-type-k q8_0", "--cache-type-k q8_0"),
        ("-ngl 0", ""),
        ("-st --jinja --simple-io --no-display-prompt --log-disable --no-warmup --no-perf", ""),
        ("--mirostat 0 --xtc-probability 0.0 --dynatemp-range 0", ""),
        ("--dry-penalty-last-n 64", "--dry-window 64"),
        ("-l 42+1", "-l 42+1"),
        ("-e", "-e"),
        ("-- -ngl -hf", "-- -ngl -hf"),
        ("-p -hf", "-p -hf"),
        ("-", "-"),
        ("--usage", "--help"),
    ],
)
def test_flags_that_need_no_word(words: str, expected: str) -> None:
    assert translated("run", *words.split()) == (expected.split(), [])


@pytest.mark.parametrize(
    ("command", "words", "expected"),
    [
        (
            "imatrix",
            "-m model.gguf -f text.txt -o out --ctx-size 256 --no-ppl",
            "-m model.gguf -f text.txt -o out --context 256",
        ),
        ("imatrix", "a b -o c --chunk 0 --output-format gguf", "a b -o c"),
        ("quantize", "a b q4_0 --tensor-type attn_v=q6_k", "a b q4_0 --tensor attn_v=q6_k"),
        ("quantize", "--output-tensor-type q8_0 a b q4_0", r"--tensor ^output\.weight$=q8_0 a b q4_0"),
        ("quantize", "--token-embedding-type=q8_0 a b q4_0", r"--tensor ^token_embd\.weight$=q8_0 a b q4_0"),
        ("convert", "folder out.gguf --outtype q8_0", "folder out.gguf --type q8_0"),
        ("check", "-fa a.gguf -ngl 0", "a.gguf"),
    ],
)
def test_flags_of_tools_that_make_and_measure_files(command: str, words: str, expected: str) -> None:
    assert translated(command, *words.split()) == (expected.split(), [])


@pytest.mark.parametrize(
    ("command", "words", "said"),
    [
        ("imatrix", "a b -o c --chunk 3", "--chunks says how far"),
        ("imatrix", "a b -o c -b 512", "-b"),
        ("quantize", "--pure a b q4_0", "--tensor '.=TYPE'"),
        ("quantize", "--leave-output-tensor a b q4_0", "=F16"),
        ("quantize", "--override-kv a=b a b q4_0", "only formats change"),
        ("convert", "folder --outfile out.gguf", "clarion convert DIR_OR_REPO OUT.gguf"),
        ("convert", "folder out.gguf --mmproj", "not implemented"),
        ("quantize", "-hf owner/name out.gguf Q8_0", "clarion pull NAME fetches it"),
        ("check", "--hf-token hf_x", "HF_TOKEN"),
    ],
)
def test_flags_of_these_tools_that_are_refused(command: str, words: str, said: str) -> None:
    with pytest.raises(click.UsageError) as error:
        translated(command, *words.split())
    assert said in error.value.message


@pytest.mark.parametrize(
    ("words", "left", "note"),
    [
        ("-ngl 99", "", "-ngl: accelerators are not used yet"),
        ("--gpu-layers all", "", "--gpu-layers: accelerators"),
        ("--n-gpu-layers=99", "", "--n-gpu-layers: accelerators"),
        ("--mlock", "", "--mlock: no memory is locked"),
        ("-tb 4", "", "-tb: -t is the number of threads"),
        ("--keep 5", "", "--keep: the context is never shifted"),
        ("--color", "", "--color: the text is not coloured"),
        ("--color on m.gguf", "m.gguf", "--color: the text is not coloured"),
        ("-np 4", "", "-np: run writes one text"),
        ("--numa distribute", "", "--numa: "),
        ("-ts 3,1", "", "-ts: accelerators"),
    ],
)
def test_flags_that_change_nothing_say_so(words: str, left: str, note: str) -> None:
    found, notes = translated("run", *words.split())
    assert found == left.split()
    (line,) = notes
    assert line.startswith(note)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("-hft hf_x -hf owner/name", "HF_TOKEN"),
        ("-dr owner/name", "-hf fetches"),
        ("--offline", "HF_HUB_OFFLINE=1"),
        ("-cnv", "clarion chat"),
        ("-i", "clarion chat"),
        ("--interactive-first", "clarion chat"),
        ("--grammar x", "not implemented yet"),
        ("-j {}", "not implemented yet"),
        ("--lora x", "adapters"),
        ("-md x", "draft"),
        ("--rope-scaling yarn", "as the file says"),
        ("--yarn-orig-ctx 5", "as the file says"),
        ("--mirostat 2", "docs/sampling.md"),
        ("--xtc-probability 0.5", "docs/sampling.md"),
        ("--samplers top_k", "one order"),
        ("--image x", "images"),
        ("-o x", "> FILE"),
        ("--verbose-prompt", "clarion tokenize"),
        ("--list-devices", "clarion doctor"),
        ("-lm dio", "expected one of auto, none, mmap"),
        ("-hf", "Option '-hf' requires an argument"),
        ("-ngl", "Option '-ngl' requires an argument"),
        ("-ngl x.gguf Hi", "Option '-ngl' requires a number or 'auto' or 'all', found 'x.gguf'"),
        ("-tb x.gguf Hi", "Option '-tb' requires a number, found 'x.gguf'"),
        ("--keep=many", "requires a number"),
        ("-fa64", "No such option: -fa64"),
        ("-ub64x", "No such option: -ub64x"),
        ("--no-dispaly-prompt", "did you mean --no-display-prompt?"),
        ("--mlok", "did you mean --mlock?"),
        ("-m a.gguf b.gguf -p x", "the model is given more than once: a.gguf and b.gguf"),
        ("-ngl -p x", "Option '-ngl' requires an argument"),
        ("-tb -fa", "Option '-tb' requires an argument"),
        ("--mlock=1", "Option '--mlock' does not take a value"),
        ("-e5", "Option '-e' does not take a value"),
        ("-v2", "Option '-v' does not take a value"),
        ("-prompt x", "did you mean --prompt?"),
        ("-temp 1", "did you mean --temp?"),
        ("--tempature 1", "did you mean --temperature?"),
        ("--n-predct 1", "did you mean --n-predict?"),
        ("-xyz", "No such option: -xyz; clarion run --help"),
        ("-pHello", "No such option: -pHello"),
        ("--colour", "No such option: --colour"),
        ("--verson", "did you mean --version?"),
        ("--json=1", "does not take a value"),
        ("--stop", "Option '--stop' requires an argument. clarion run --help"),
    ],
)
def test_flags_that_are_refused(words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["run", *words.split()]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("clarion: ")
    assert said in line


def test_a_text_that_begins_with_a_dash(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["run", "- a list"]) == 2
    assert "after -p" in capsys.readouterr().err
    assert execute(["run", "-n", "2", "--", "- a list"]) == 0
    assert execute(["run", "-n", "2", "-p", "- a list"]) == 0


@pytest.mark.parametrize(
    ("command", "words", "expected"),
    [
        ("bench", "--n-prompt 5 --n-gen 6 --repetitions 2", "--prompt-tokens 5 --max-tokens 6 --rounds 2"),
        ("bench", "-o json -fa 1 -ngl 0 --no-warmup", "--json"),
        ("bench", "-m x -p 5 -n 6 -r 2 -t 1,2", "-m x -p 5 -n 6 -r 2 -t 1,2"),
        ("eval", "-m x -f y --ctx-size 64 --ppl-stride 3", "x --text y --context 64 --stride 3"),
    ],
)
def test_flags_of_bench_and_eval(command: str, words: str, expected: str) -> None:
    assert translated(command, *words.split()) == (expected.split(), [])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("-m x -p hello --pooling mean", "-m x -p hello --pooling mean"),
        ("-m x -p hello --embd-normalize 2 -ngl 0", "-m x -p hello"),
        ("x hello --embd-normalize -1", "x hello --no-normalize"),
        ("x hello --no-mmap -ub 64 --ctx-size 32", "x hello --weights copied --batch 64 --context 32"),
    ],
)
def test_flags_of_embed(words: str, expected: str) -> None:
    assert translated("embed", *words.split()) == (expected.split(), [])


def test_flags_of_embed_that_are_refused() -> None:
    for words in ("--embd-normalize 1", "--embd-output-format array", "--embd-separator x", "--rerank"):
        with pytest.raises(click.UsageError, match=words.split()[0]):
            translated("embed", "x", "hello", *words.split())
    with pytest.raises(click.UsageError, match="texts that are written"):
        translated("bench", "-embd", "1")


def test_what_a_command_has_not_is_an_error() -> None:
    with pytest.raises(click.UsageError, match="has no --weights"):
        translated("bench", "--no-mmap")
    with pytest.raises(click.UsageError, match="clarion pull NAME"):
        translated("split", "-hf", "owner/name")


@pytest.mark.parametrize("command", ["run", "bench", "eval", "embed"])
def test_the_table_fits_the_commands(command: str) -> None:
    found = cli.get_command(GROUP, command)
    assert found is not None
    own = {name for option in found.get_params(GROUP) for name in (*option.opts, *option.secondary_opts)}
    tables = {"run": (_MODEL, _RUN), "bench": (_BENCH,), "eval": (_EVAL,), "embed": (_EMBED,)}[command]
    for flag in (flag for table in tables for flag in table):
        words = [flag.own] if isinstance(flag.own, tuple) else list(flag.own.values())
        for word in (word for line in words for word in line if word.startswith("-")):
            assert word in own, flag.names
        assert not (set(flag.names) & own), "the command has it itself"
        assert bool(flag.own) + bool(flag.note) + bool(flag.refusal) <= 1, flag.names
    assert len(flags(command)) > 50


@pytest.mark.parametrize(
    ("command", "table"), [("imatrix", _IMATRIX), ("quantize", _QUANTIZE), ("convert", _CONVERT)]
)
def test_these_tables_stand_for_options_that_there_are(command: str, table: tuple[Flag, ...]) -> None:
    found = cli.get_command(GROUP, command)
    assert found is not None
    own = {name for option in found.get_params(GROUP) for name in option.opts}
    for flag in table:
        assert {word for word in flag.own if word.startswith("-")} <= own, flag.names
        assert not (set(flag.names) & own), "the command has it itself"
        assert bool(flag.own) + bool(flag.note) + bool(flag.refusal) <= 1, flag.names


def test_the_result_is_what_our_own_words_give(capsys: pytest.CaptureFixture[str]) -> None:
    ours = "run -p Once --max-tokens 5 --seed 3 --context 64 --temp 0.5 --json"
    theirs = "run -p Once --n-predict 5 -s 3 --ctx-size 64 --temperature 0.5 --json -ngl 99 -fa"
    assert execute(ours.split()) == 0
    expected = json.loads(capsys.readouterr().out)
    assert execute(theirs.split()) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["tokens"] == expected["tokens"]
    assert captured.err.splitlines() == [
        "clarion: -ngl: accelerators are not used yet: everything is computed on the processor"
    ]


def test_the_flags_in_the_document_are_known() -> None:
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    table = page.partition("| llama.cpp | here |\n|---|---|\n")[2].partition("\n\n")[0]
    found = cli.get_command(GROUP, "run")
    assert found is not None
    own = {name for option in found.get_params(GROUP) for name in option.opts}
    first = [row.split("|")[1] for row in table.splitlines() if not row.startswith("| `llama-")]
    named = {name for cell in first for name in re.findall(r"(?<![\w-])--?[a-z][\w-]*(?![\w*-])", cell)}
    assert len(named) > 70
    assert named <= own | set(flags("run"))
