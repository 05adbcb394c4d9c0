"""`run` with a model that has a chat template: one turn of chat, or a text to continue."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import clarion
from clarion.gguf import File, Writer
from clarion.host.threads import most_threads
from tests.end_to_end.files import BUILT_IN

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}{{ name | default('assistant') }}:{% endif %}"
)
CLARION = [sys.executable, "-m", "clarion"]
END = ["-n", "8", "--greedy"]
NOTE = "clarion: answering one turn of chat, in the model's chat template; --raw continues the text instead"


def run(*arguments: str | bytes, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        [*CLARION, "run", *arguments],
        **{"capture_output": True, "text": True, "stdin": subprocess.DEVNULL, "timeout": 120, **options},
    )


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The built-in model with a chat template, and one more."""
    path = tmp_path_factory.mktemp("chat") / "chat.gguf"
    with File.open(BUILT_IN) as file:
        more = {
            "tokenizer.chat_template": TEMPLATE,
            "tokenizer.chat_template.short": "{{ messages[-1].content }}",
        }
        with Writer(path, {**file.metadata.exact(), **more}) as writer:
            for name, tensor in file.tensors.items():
                writer.add(name, tensor.shape, tensor.format, tensor.data)
    return str(path)


def generated(path: str | None, ids: list[int]) -> str:
    with clarion.load(path) as model:
        return model.generate(ids, max_tokens=8, greedy=True).text + "\n"


def chat_ids(path: str, *messages: tuple[str, str], **more: object) -> list[int]:
    with clarion.load(path) as model:
        spoken = [{"role": role, "content": text} for role, text in messages]
        return model.tokenize_chat(spoken, **more)  # type: ignore[arg-type]


def test_a_prompt_is_a_turn_of_chat(path: str) -> None:
    expected = generated(path, chat_ids(path, ("user", "Hi there")))
    result = run(path, "Hi there", *END)
    assert (result.returncode, result.stdout, result.stderr) == (0, expected, NOTE + "\n")
    assert run(path, *END, input="Hi there\n", stdin=None).stdout == expected
    assert run("-m", path, "-p", "Hi there", "-st", *END).stdout == expected
    report = json.loads(run(path, "Hi there", *END, "--json").stdout)
    assert report["chat"] is True
    assert report["text"] + "\n" == expected


@pytest.mark.parametrize("flag", ["--raw", "-no-cnv", "--no-conversation"])
def test_raw_continues_the_text(path: str, flag: str) -> None:
    with clarion.load(path) as model:
        expected = generated(path, model.tokenize("Hi there"))
    result = run(path, "Hi there", flag, *END)
    assert (result.returncode, result.stdout, result.stderr) == (0, expected, "")
    assert run("Hi there", flag, *END).stdout == expected


def test_ids_stay_as_they_are(path: str, tmp_path: Path) -> None:
    (tmp_path / "ids").write_text("1 2 3")
    result = run(path, "--ids-file", str(tmp_path / "ids"), *END)
    assert (result.stdout, result.stderr) == (generated(path, [1, 2, 3]), "")


@pytest.mark.parametrize("flag", ["--system", "-sys", "--system-prompt"])
def test_the_system_speaks_first(path: str, flag: str) -> None:
    expected = generated(path, chat_ids(path, ("system", "Be brief"), ("user", "Hi")))
    assert run(path, "Hi", flag, "Be brief", *END).stdout == expected


def test_templates(path: str, tmp_path: Path) -> None:
    jinja = "Q: {{ messages[-1].content }} A:"
    (tmp_path / "t.jinja").write_text(jinja + "\n")
    expected = generated(path, chat_ids(path, ("user", "Hi"), template=jinja))
    assert run(path, "Hi", "--chat-template", jinja, *END).stdout == expected
    assert run(path, "Hi", "--chat-template", str(tmp_path / "t.jinja"), *END).stdout == expected
    assert run(path, "Hi", "--chat-template-file", str(tmp_path / "t.jinja"), *END).stdout == expected
    result = run("Hi", "--chat-template", jinja, *END)  # a model that has none
    assert result.stdout == expected
    assert "in the given chat template" in result.stderr
    short = generated(path, chat_ids(path, ("user", "Hi"), template="short"))
    assert run(path, "Hi", "--chat-template", "short", *END).stdout == short


def test_variables(path: str) -> None:
    expected = generated(path, chat_ids(path, ("user", "Hi"), name="wolf"))
    assert run(path, "Hi", "--chat-template-kwargs", '{"name": "wolf"}', *END).stdout == expected


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["Hi", "--system", "Be brief"], "has no chat template"),
        (["Hi", "--chat-template-kwargs", "{}"], "has no chat template"),
        (["CHAT", "Hi", "--system", "x", "--raw"], "--system is for a turn of chat, which --raw is not"),
        (["CHAT", "Hi", "--chat-template", "x", "--raw"], "--chat-template is for a turn of chat"),
        (
            ["CHAT", "--ids-file", "x", "--system", "x"],
            "--system is for a turn of chat, which --ids-file is not",
        ),
        (["CHAT", "Hi", "--chat-template", "nowhere"], "no chat template named 'nowhere'"),
        (["CHAT", "Hi", "--chat-template", "./nowhere"], "./nowhere: cannot be read: No such file"),
        (["CHAT", "Hi", "--chat-template", "t.jinja"], "t.jinja: cannot be read: No such file"),
        (["CHAT", "Hi", "--chat-template", "{{ messages"], "chat template"),
        (["CHAT", "Hi", "--chat-template-kwargs", "{"], "no JSON"),
        (["CHAT", "Hi", "--chat-template-kwargs", "[1]"], "expected a JSON object"),
        (["CHAT", "Hi", "--chat-template-kwargs", '{"messages": 1}'], "messages cannot be set"),
        (["CHAT", "Hi", "--chat-template-kwargs", "[" * 100_000], "no JSON"),
        (["CHAT", "Hi", "-cnv"], "clarion chat"),
        (["CHAT", "Hi", "-c", "1"], "leaves no room in the context of 1"),
        (["CHAT", "Hi", "--temp", "-1"], "temperature: found -1.0"),
        (["CHAT", "Hi", "-n", "-5"], "max_tokens: found -5"),
        (["CHAT", "-i"], "clarion chat"),
        (["CHAT", ""], "the command line: the prompt is empty"),
        (["CHAT", "-p", ""], "the command line: the prompt is empty"),
        (["CHAT"], "standard input: the prompt is empty"),
        (["CHAT", "-"], "standard input: the prompt is empty"),
        (["CHAT", "-f", "-"], "standard input: the prompt is empty"),
        (["CHAT", "-f", "/dev/null"], "/dev/null: the prompt is empty"),
        (["CHAT", "--ids-file", "/dev/null"], "/dev/null: the prompt is empty"),
        (["CHAT", "--ids-file", "-"], "standard input: the prompt is empty"),
    ],
)
def test_what_is_refused(path: str, arguments: list[str], said: str) -> None:
    result = run(*(path if word == "CHAT" else word for word in arguments))
    assert (result.returncode, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("clarion: ")
    assert said in line
    assert "internal error" not in line


def test_names_of_control_tokens(path: str) -> None:
    text = "The end<|endoftext|>The"
    with clarion.load(path) as model:
        (token,) = model.tokenize("<|endoftext|>", add_special=False, parse_special=True)
        as_text, parsed = model.tokenize(text), model.tokenize(text, parse_special=True)
    assert token not in as_text[1:]
    assert token in parsed[1:]
    for arguments in ([text], [path, text, "--raw"]):
        result = run(*arguments, *END)
        assert result.stdout == generated(None, as_text)
        (line,) = result.stderr.splitlines()
        assert "the text holds <|endoftext|>" in line
        assert "--parse-special" in line
        result = run(*arguments, *END, "--parse-special")
        assert (result.stdout, result.stderr) == (generated(None, parsed), "")
    result = run(path, text, *END)
    assert "the prompt holds <|endoftext|>" in result.stderr
    assert NOTE in result.stderr
    assert run(path, text, *END, "--parse-special").stderr == NOTE + "\n"
    for arguments, said in (([text], True), ([text, "--parse-special"], False), (["The end"], False)):
        result = subprocess.run([*CLARION, "tokenize", *arguments], capture_output=True, text=True)
        assert ("--parse-special" in result.stderr) == said


def test_input_from_everywhere(tmp_path: Path) -> None:
    with clarion.load() as model:
        ids = model.tokenize("Once upon a time")
    expected = generated(None, ids)
    (tmp_path / "t").write_text("\ufeffOnce upon a time\n")
    np.save(tmp_path / "ids.npy", np.array(ids))
    np.save(tmp_path / "row.npy", np.array([ids], np.int32))
    np.array(ids, "<i4").tofile(tmp_path / "ids.bin")
    (tmp_path / "ids.txt").write_text(", ".join(map(str, ids)))
    assert run("-f", str(tmp_path / "t"), *END).stdout == expected
    for name in ("ids.npy", "row.npy", "ids.bin", "ids.txt"):
        assert run("--ids-file", str(tmp_path / name), *END).stdout == expected
        with (tmp_path / name).open("rb") as stdin:
            assert run("--ids-file", "-", *END, stdin=stdin).stdout == expected
    for arguments in ([], ["-"], ["-p", "-"], ["-f", "-"], [str(BUILT_IN), "-"], ["-m", str(BUILT_IN), "-"]):
        assert run(*arguments, *END, input="Once upon a time\n", stdin=None).stdout == expected
    piped = subprocess.run(
        [*CLARION, "tokenize", "-", "--json"], input="Once upon a time\n", capture_output=True, text=True
    )
    assert json.loads(piped.stdout)["ids"] == ids


def test_escapes() -> None:
    with clarion.load() as model:
        newline, letters = (generated(None, model.tokenize(text)) for text in ("a\nb", r"a\nb"))
    for arguments in (["-e", "-p", r"a\nb"], ["--escape", r"a\nb"], ["-p", "a\nb"], ["-e", r"a\x0ab"]):
        result = run(*arguments, *END)
        assert (result.stdout, result.stderr) == (newline, "")
    result = run(r"a\nb", *END)
    assert result.stdout == letters
    assert "-e reads it as a newline" in result.stderr
    result = run(r"a\nb", "--no-escape", *END)
    assert (result.stdout, result.stderr) == (letters, "")


def test_nothing_to_generate(path: str) -> None:
    result = run("Once upon a time", "-n", "0", "--stats")
    assert (result.returncode, result.stdout) == (0, "")
    assert "prompt 5 tokens" in result.stderr
    assert "generation 0 tokens · seed" in result.stderr
    report = json.loads(run("Once upon a time", "-n", "0", "--json").stdout)
    assert (report["text"], report["tokens"], report["finish_reason"]) == ("", [], "length")
    assert (report["prompt_tokens"], report["generated_tokens"]) == (5, 0)
    assert report["prompt_tokens_per_second"] > 0
    assert run("Once", "-n", "0", "--temp", "-1").returncode == 2
    assert run("one two three four five six", "-n", "0", "-c", "4").returncode == 2
    assert run(path, "Hi", "-n", "0").stderr == NOTE + "\n"


def test_warnings_of_context_and_threads() -> None:
    result = run("Once", "-c", "3000", *END)
    assert result.returncode == 0
    assert "-c 3000 is more than the 2048 tokens that the model was made for" in result.stderr
    assert run("Once", "-c", "2048", *END).stderr == ""
    many = most_threads() + 1
    result = run("Once", "-t", str(many), *END)
    assert result.returncode == 0
    assert f"-t {many} is more than the {many - 1} processor" in result.stderr
    assert run("Once", "-t", "1", *END).stderr == ""


def test_the_error_of_the_context_says_what_to_do() -> None:
    result = run("one two three four five six", "-c", "4")
    assert result.returncode == 2
    for said in ("leaves no room in the context of 4", "-c", "context=", "2048"):
        assert said in result.stderr


def test_no_bandwidth_is_measured(tmp_path: Path) -> None:
    """Only what `doctor --measure` recorded is shown: measuring takes seconds and memory."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    for more in (["--stats"], ["--json"]):
        code = (
            "import sys; from clarion.cli.main import execute\n"
            f"execute(['run', 'Once', '-n', '3', *{more}])\n"
            "print('clarion.runtime.measure' in sys.modules)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60
        )
        assert done.stdout.splitlines()[-1] == "False"
        assert "GB/s" not in done.stderr
    report = json.loads(run("Once", "-n", "3", "--json", env=environment).stdout)
    assert report["bandwidth"] is None
    assert report["bandwidth_share"] is None
