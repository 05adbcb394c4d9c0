"""The commands as a person meets them: real processes, streams, signals and terminals."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import clarion
from clarion.cli.main import execute
from clarion.gguf import File, Writer
from tests.end_to_end.files import BUILT_IN

PROMPT = "Once upon a time"
CLARION = [sys.executable, "-m", "clarion"]


def run(*arguments: str | bytes, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        [*CLARION, *arguments],
        **{"capture_output": True, "text": True, "stdin": subprocess.DEVNULL, "timeout": 120, **options},
    )


@pytest.fixture(scope="module")
def expected() -> Iterator[clarion.Completion]:
    with clarion.load(context=256) as model:
        yield model.generate(PROMPT, max_tokens=20, greedy=True)


# ---- what commands print ------------------------------------------------------------------------------


def test_run_prints_the_text_and_then_statistics(expected: clarion.Completion) -> None:
    result = run("run", PROMPT, "-n", "20", "--greedy", "--stats")
    assert result.returncode == 0
    assert result.stdout == expected.text + "\n"
    (line,) = result.stderr.splitlines()
    for word in (
        "load",
        "first token",
        "prompt 5 tokens",
        "generation 20 tokens",
        "tokens/s",
        "seed",
    ):
        assert word in line


def test_run_is_quiet_where_nobody_watches(expected: clarion.Completion) -> None:
    assert run("run", PROMPT, "-n", "20", "--greedy").stderr == ""


@pytest.mark.parametrize("source", ["-p", "-f", "stdin", "--ids-file", "model and prompt"])
def test_prompts_from_everywhere(source: str, expected: clarion.Completion, tmp_path: Path) -> None:
    text, ids = tmp_path / "prompt.txt", tmp_path / "ids"
    text.write_text(PROMPT + "\n")
    with clarion.load(context=64) as model:
        ids.write_text(json.dumps(model.tokenize(PROMPT)))
        path = str(model.path)
    arguments = {
        "-p": ["-p", PROMPT],
        "-f": ["-f", str(text)],
        "stdin": ["-m", path],
        "--ids-file": [path, "--ids-file", str(ids)],
        "model and prompt": [path, PROMPT],
    }[source]
    with text.open() as stdin:
        result = run("run", *arguments, "-n", "20", "--greedy", stdin=stdin)
    assert result.stdout == expected.text + "\n"


def test_run_json(expected: clarion.Completion) -> None:
    result = run("run", PROMPT, "-n", "20", "--seed", "5", "--temp", "0.9", "--json")
    report = json.loads(result.stdout)
    assert report["seed"] == 5
    assert len(report["tokens"]) == report["generated_tokens"] == 20
    assert report["prompt_tokens"] == 5
    assert report["finish_reason"] == "length"
    assert report["generated_tokens_per_second"] > 0
    assert report["chat"] is False
    assert result.stderr == ""
    assert json.loads(run("run", PROMPT, "-n", "20", "--greedy", "--json").stdout)["text"] == expected.text


def test_options_reach_the_sampler(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["run", PROMPT, "-n", "30", "--greedy", "--stop", "son", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["stopped_by"] == "son"
    assert "son" not in report["text"]
    assert execute(["run", PROMPT, "-n", "20", "--seed", "-1", "--repeat-penalty", "1.3", "--json"]) == 0
    assert execute(["run", PROMPT, "-n", "20", "--seed", "3", "--top-k", "1", "--json"]) == 0
    greedy = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert execute(["run", PROMPT, "-n", "20", "--temp", "0", "--json"]) == 0
    assert greedy["text"] == json.loads(capsys.readouterr().out)["text"]


def test_tokenize() -> None:
    result = run("tokenize", "Once upon", "--json")
    report = json.loads(result.stdout)
    assert "".join(report["pieces"][1:]) == "Once upon"
    lines = run("tokenize", "Once upon").stdout.splitlines()
    assert [int(line.split()[0]) for line in lines] == report["ids"]
    assert (
        json.loads(run("tokenize", "Once upon", "--json", "--no-special").stdout)["ids"] == report["ids"][1:]
    )


def test_tokens_that_are_a_part_of_a_character_are_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["tokenize", "\u00e9", "--no-special"]) == 0
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == [r"b'\xc3'", r"b'\xa9'"]
    assert execute(["tokenize", "\u00e9", "--no-special", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pieces"] == [[0xC3], [0xA9]]


def test_inspect(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["inspect"]) == 0
    out = capsys.readouterr().out
    for word in (
        "llama.block_count",
        "tokenizer.ggml.tokens",
        "(4,096 items)",
        "blk.5.ffn_down.weight",
        "Q8_0",
    ):
        assert word in out
    assert execute(["inspect", "--plan"]) == 0
    plan = capsys.readouterr().out
    for word in ("attention", "blk.5.ffn_down", "states: 7 × paged", "logits (logits)"):
        assert word in plan
    assert execute(["inspect", "--program", "-c", "100"]) == 0
    program = capsys.readouterr().out
    for word in ("attention", "blk.5.ffn_down", "fusion removed", "fallbacks", "on the host"):
        assert word in program
    assert execute(["inspect", "--plan", "--program"]) == 2


def test_doctor() -> None:
    out = run("doctor", env={**os.environ, "CLARION_ISA": "generic"}).stdout
    for word in (
        "processor",
        "cores",
        "memory",
        "generic: CLARION_ISA=generic",
        "generic_formats ",
        "generic_latent ",
        "generic_measure ",
        "generic_recurrent ",
        "generic_operations ",
    ):
        assert word in out


def test_bench(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["bench", "-p", "20", "-n", "5", "-t", "1,2", "-r", "2", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [result["threads"] for result in report["results"]] == [1, 2]
    for result in report["results"]:
        assert len(result["prompt"]) == len(result["generation"]) == 2
        assert min(result["prompt"] + result["generation"]) > 0
        assert result["bandwidth"] > 1e8
        assert result["multiply"] > 1e8
    assert execute(["bench", "-p", "20", "-n", "5", "-t", "1", "-r", "1"]) == 0
    assert "tokens/s" in capsys.readouterr().out


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ([], ["run"], ["bench"], ["inspect"], ["tokenize"], ["doctor"]):
        assert execute([*command, "--help"]) == 0
        assert "Usage: clarion" in capsys.readouterr().out
    assert execute([]) == 0
    assert "Usage: clarion" in capsys.readouterr().out
    assert execute(["--version"]) == 0
    assert capsys.readouterr().out == f"clarion {clarion.__version__}\n"


@pytest.mark.parametrize(
    "code", ["import clarion", "from clarion.cli.main import execute; execute(['--help'])"]
)
def test_nothing_heavy_is_imported_early(code: str) -> None:
    probe = "import sys; print(*sys.modules, file=sys.stderr)"
    modules = subprocess.run([sys.executable, "-c", f"{code}; {probe}"], capture_output=True, text=True)
    loaded = set(modules.stderr.split())
    assert "clarion" in loaded
    assert not loaded & {"numpy", "tokenizers", "jinja2", "rich", "asyncio", "clarion.gguf", "clarion.model"}


def test_run_imports_only_what_it_uses() -> None:
    arguments = ["run", "x", "-n", "1", "--weights", "mapped"]
    code = f"import sys; from clarion.cli.main import execute; execute({arguments})"
    probe = "print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", f"{code}; {probe}"], capture_output=True, text=True)
    loaded = set(done.stderr.split())
    assert "clarion.model" in loaded
    assert not loaded & {"numpy", "jinja2", "rich", "asyncio", "concurrent.futures", "secrets", "statistics"}
    assert not loaded & {"clarion.cli.bench", "clarion.convert", "clarion.gguf.writer", "clarion.quantize"}


# ---- errors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "/nowhere/model.gguf", "x"], "/nowhere/model.gguf"),
        (["run", "-m", "/", "x"], "/"),
        (["run", "-m", __file__, "x"], "test_commands.py"),
        (["run", "-m", "/dev/null", "x"], "/dev/null"),
        (["run", "x", "-n", "many"], "'many' is not a valid integer"),
        (["run", "x", "--temp", "nan"], "temperature: found nan"),
        (["run", "x", "--top-p", "2"], "top_p: found 2.0, expected a number from 0 to 1"),
        (["run", "x", "--min-p", "-1"], "min_p: found -1.0"),
        (["run", "x", "--top-k", "-1"], "top_k: found -1"),
        (["run", "x", "--seed", str(2**64)], "seed: found 18446744073709551616"),
        (["run", "x", "--stop", ""], "stop: found ''"),
        (["run", "x", "-c", "0"], "context: found 0"),
        (["run", "one two three four five six", "-c", "4"], "tokens leaves no room in the context of 4"),
        (["run", "x", "-t", "0"], "threads: found 0"),
        (["run", "x", "-b", "0"], "batch: found 0"),
        (["run", "x", "--activations", "rough"], "activations"),
        (["run", "x", "--kv", "f8"], "kv"),
        (["run", "x", "--isa", "z80"], "'z80' is unknown"),
        (["run", "x", "--colour"], "No such option"),
        (["run", "m", "x", "-p", "y"], "the prompt is given more than once"),
        (["run", "x", "y", "z"], "the prompt is given more than once"),
        (["run", "-f", "/nowhere/prompt"], "/nowhere/prompt: cannot be read: No such file"),
        (["run", "-f", "/"], "/: cannot be read: Is a directory"),
        (["run", "--ids-file", "/"], "/: cannot be read: Is a directory"),
        (["run", "-f", "/dev/zero"], "/dev/zero: found more than 134217728 bytes"),
        (["run", "-f", sys.executable], "expected UTF-8"),
        (["run", "x", "--temp", "inf"], "temperature: found inf, expected a number from 0 to 1000"),
        (["run", "x", "--min-p", "nan"], "min_p: found nan"),
        (
            ["run", "x", "--repeat-penalty", "0"],
            "repeat_penalty: found 0.0, expected a number from 1e-06 to 1000",
        ),
        (["run", "x", "-n", "9" * 30], "max_tokens: found 9999"),
        (["run", "x", "-n", "-2"], "max_tokens: found -2, expected 0 or more, or -1"),
        (["run", "x", "-c", "9" * 30], "context: found 9999"),
        (["run", "x", "-t", "1000000"], "threads: found 1000000, expected an integer from 1 to 1024"),
        (["run", "x", "--weights", "somewhere"], "weights: found 'somewhere'"),
        (["run", "x", "-ctk", "f7"], "kv is 'f7:f16'"),
        (["run", "-m"], "Option '-m' requires an argument"),
        (["run", "--ids-file", __file__], "expected token ids"),
        (["run", "x\udcff"], "the prompt: found byte 0xff at offset 1, expected UTF-8"),
        (["run", "-p", "\u00e9\udcff"], "the prompt: found byte 0xff at offset 2, expected UTF-8"),
        (["run", "x", "--stop", "a\udc80"], "--stop: found byte 0x80 at offset 1, expected UTF-8"),
        (["run", "x", "--system", "\udcff"], "--system: found byte 0xff at offset 0, expected UTF-8"),
        (["run", "x", "--dry-breaker", "\udcff"], "--dry-breaker: found byte 0xff at offset 0"),
        (["run", "x", "--kv", "\udcff"], "--kv: found byte 0xff at offset 0, expected UTF-8"),
        (["split", "x", "y", "--max-size", "\udcff"], "--max-size: found byte 0xff"),
        (["caf\udce9"], "No such command 'caf\\xe9'"),
        (["run", "-m", "a\udcff.gguf", "x"], "a\\xff.gguf: no such file"),
        (["tokenize", "-p", "x\udcff"], "the text: found byte 0xff at offset 1, expected UTF-8"),
        (["sing"], "No such command 'sing'"),
        (["inspect", "/nowhere"], "/nowhere"),
        (["tokenize", "-m", "/nowhere", "x"], "/nowhere"),
        (["bench", "/nowhere"], "/nowhere"),
        (["bench", "-t", "one"], "-t: found 'one'"),
        (["bench", "-r", "0"], "-r: found 0"),
        (["bench", "-p", "9" * 12], "context: found 1000000000000"),
        (["inspect", "one", "two"], "unexpected extra argument (two)"),
        (["doctor", "well"], "unexpected extra argument (well)"),
        (["quantize", "/nowhere", "out.gguf", "Q4_0"], "/nowhere: no such file"),
        (["eval", "--text", "/nowhere"], "/nowhere: cannot be read"),
        (["eval", "--text", "/dev/null"], "the text has 1 tokens"),
        ([""], "No such command ''"),
        (["run", "-m", "a\nb\x1b[31m.gguf", "x"], "a b\\x1b[31m.gguf"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("clarion: ")
    assert message in line
    assert "internal error" not in line


BAD_FILES = {
    "empty": lambda path: path.touch(),
    "folder": lambda path: path.mkdir(),
    "pipe": lambda path: os.mkfifo(path),
    "broken link": lambda path: path.symlink_to("nowhere"),
    "loop of links": lambda path: path.symlink_to(path.name),
    "text": lambda path: path.write_text("version https://example.org\n" * 20),
    "noise": lambda path: path.write_bytes(b"GGUF\x03\0\0\0" + bytes(range(256)) * 8),
    "half of a model": lambda path: path.write_bytes(BUILT_IN.read_bytes()[: BUILT_IN.stat().st_size // 2]),
    "head of a model": lambda path: path.write_bytes(BUILT_IN.read_bytes()[:100_000]),
    "only a vocabulary": lambda path: vocabulary_only(path),
}


def vocabulary_only(path: Path) -> None:
    with File.open(BUILT_IN) as file, Writer(path, file.metadata.exact()):
        pass


@pytest.mark.parametrize("command", ["run", "bench", "inspect", "tokenize", "merge", "quantize"])
@pytest.mark.parametrize("kind", BAD_FILES)
def test_bad_files_are_one_line_that_names_them(
    kind: str, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "bad.gguf", str(tmp_path / "out.gguf")
    BAD_FILES[kind](path)
    more = {"run": ["x"], "tokenize": ["x"], "merge": [out], "quantize": [out, "Q4_0"]}.get(command, [])
    code = execute([command, str(path), *more])
    captured = capsys.readouterr()
    if kind == "only a vocabulary" and command not in ("run", "bench"):
        assert (code, captured.err) == (0, "")
        return
    assert (code, captured.out) == (2, "")
    (line,) = captured.err.splitlines()
    assert line.startswith(f"clarion: {path}: ")
    assert "internal error" not in line
    assert [entry.name for entry in tmp_path.iterdir()] == ["bad.gguf"]


def test_the_process_ends_with_that_line_and_code(tmp_path: Path) -> None:
    ids = tmp_path / "ids"
    ids.write_text("0 4096")
    for arguments, options in (
        (["run", "--ids-file", str(ids)], {}),
        (["run", b"ab\xff"], {}),
        (["run"], {"input": "\udcff", "errors": "surrogateescape", "stdin": None}),
        (["doctor"], {"env": {**os.environ, "CLARION_ISA": "z80"}}),
    ):
        result = run(*arguments, **options)  # type: ignore[arg-type]
        assert (result.returncode, result.stdout) == (2, "")
        assert len(result.stderr.splitlines()) == 1


def test_debug_shows_the_traceback() -> None:
    result = run("run", "/nowhere/model.gguf", "x", "--debug")
    assert result.returncode == 2
    assert "Traceback" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("clarion: ")


def test_a_full_disk_is_an_error() -> None:
    with open("/dev/full", "w") as full:
        result = run("run", PROMPT, "-n", "5", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert result.returncode == 2
    assert "standard output: No space left" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_notes_that_nobody_can_read_do_not_end_the_work(expected: clarion.Completion) -> None:
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with open("/dev/full", "w") as full:
        heard = {"capture_output": False, "stdout": subprocess.PIPE, "stderr": full, "env": buffered}
        result = run("run", PROMPT, "-n", "20", "--greedy", "--stats", "--mlock", **heard)
        assert (result.returncode, result.stdout) == (0, expected.text + "\n")
        result = run("sing", **heard)
        assert (result.returncode, result.stdout) == (2, "")


@pytest.mark.parametrize("command", ["run", "embed", "tokenize"])
def test_closed_streams(command: str) -> None:
    """What can be printed nowhere is an error, notes aside."""
    more = {"run": ["-n", "3", "--stats"], "embed": [], "tokenize": []}[command]
    for closed, code in ((">&-", 2), ("2>&-", 0), (">&- 2>&-", 2), ("<&-", 0)):
        process = ["sh", "-c", f'exec "$@" {closed}', "sh", *CLARION, command, PROMPT, *more]
        result = subprocess.run(process, capture_output=True, timeout=120)
        assert result.returncode == code
        if closed == ">&-":
            assert result.stderr == b"clarion: standard output: it is closed\n"


# ---- signals and terminals ----------------------------------------------------------------------------


def test_a_reader_that_leaves() -> None:
    with subprocess.Popen(
        [*CLARION, "run", PROMPT, "--ignore-eos"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(1)
        process.stdout.close()
        assert process.wait(120) == 141
        assert process.stderr.read() == b""


def cpu_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("as_json", [False, True])
def test_an_interrupt_ends_the_text_and_still_reports(as_json: bool) -> None:
    arguments = ["run", PROMPT, "--ignore-eos", "--stats", "-c", "100000"]
    with subprocess.Popen(
        [*CLARION, *arguments, *(["--json"] if as_json else [])],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        if as_json:
            while cpu_seconds(process.pid) < 2:  # it starts in less than one
                assert process.poll() is None
                time.sleep(0.05)
        else:
            assert process.stdout.read(20)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 130
        assert "Traceback" not in err
        if as_json:
            assert json.loads(out)["finish_reason"] == "cancelled"
        else:
            assert out.endswith("\n")
            warning, line = err.splitlines()
            assert "more than the 2048 tokens that the model was made for" in warning
            assert "tokens/s" in line


def test_ctrl_c_on_a_terminal() -> None:
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, [*CLARION, "run", PROMPT, "--ignore-eos"])
    seen = os.read(terminal, 100)
    os.write(terminal, b"\x03")
    try:
        while data := os.read(terminal, 65536):
            seen += data
    except OSError:  # Linux says so when the other end is closed
        pass
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 130
    assert b"Traceback" not in seen
    assert b"tokens/s" in seen.splitlines()[-1]  # standard error is a terminal: no --stats needed
    assert b"cancelled" not in seen


def test_no_prompt_on_a_terminal_is_an_error() -> None:
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, [*CLARION, "run"])
    seen = os.read(terminal, 1000)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
    assert b"no prompt" in seen
