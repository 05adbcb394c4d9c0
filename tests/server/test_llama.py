"""llama-server's own endpoints."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import clarion
from clarion.server.pool import Served
from clarion.server.run import Running
from tests.server.servers import client, is_idle, running, wait_until, with_template

HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def model(server: Running) -> clarion.Model:
    found = server.server.pool.find("tale").model
    assert found is not None
    return found


def post(server: Running, path: str, **body: Any) -> Any:
    with client(server) as http:
        return http.post(path, json=body)


def chunks(text: str) -> list[dict[str, Any]]:
    """The events of a stream, which has no other end than its last one."""
    lines = [line for line in text.split("\n\n") if line and not line.startswith(":")]
    return [json.loads(line.removeprefix("data: ")) for line in lines]


# ---- tokens -----------------------------------------------------------------------------------------------


def test_tokenize(server: Running, model: clarion.Model) -> None:
    text = "Once upon a <|endoftext|> tïme 🦊"
    for more in (
        {},
        {"add_special": True},
        {"parse_special": False},
        {"add_special": True, "parse_special": False},
    ):
        options = {"add_special": False, "parse_special": True, **more}
        found = post(server, "/tokenize", content=text, **more).json()
        assert found == {"tokens": model.tokenize(text, **options)}
    ids = model.tokenize("Once upon")
    assert post(server, "/tokenize", content=[5, "a b", 6]).json()["tokens"] == [
        5,
        *model.tokenize("a b", add_special=False),
        6,
    ]
    assert post(server, "/tokenize", content="").json() == {"tokens": []}
    assert post(server, "/detokenize", tokens=ids).json() == {"content": model.detokenize(ids)}
    assert post(server, "/detokenize", tokens=[]).json() == {"content": ""}


def test_pieces(server: Running, model: clarion.Model) -> None:
    found = post(server, "/tokenize", content="Once 🦊", with_pieces=True).json()["tokens"]
    pieces = [p["piece"].encode() if isinstance(p["piece"], str) else bytes(p["piece"]) for p in found]
    assert [p["id"] for p in found] == model.tokenize("Once 🦊", add_special=False)
    assert b"".join(pieces).decode().strip() == "Once 🦊"
    assert any(isinstance(p["piece"], list) for p in found), "no token is a part of a character"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=40))
def test_texts_come_back(server: Running, model: clarion.Model, text: str) -> None:
    ids = post(server, "/tokenize", content=text, parse_special=False).json()["tokens"]
    assert post(server, "/detokenize", tokens=ids).json()["content"] == model.detokenize(ids)


def test_apply_template(server: Running, model: clarion.Model) -> None:
    found = post(server, "/apply-template", messages=HELLO)
    assert found.json() == {"prompt": model.apply_chat_template(HELLO)}
    plain = post(server, "/apply-template", messages=HELLO, add_generation_prompt=False).json()
    assert plain == {"prompt": model.apply_chat_template(HELLO, add_generation_prompt=False)}
    tool = {"type": "function", "function": {"name": "add", "parameters": {}}}
    more = {"tools": [tool], "chat_template_kwargs": {"name": "Ann"}, "reasoning_effort": "low"}
    assert post(server, "/apply-template", messages=HELLO, **more).json()["prompt"] == (
        model.apply_chat_template(HELLO, tools=[tool], name="Ann", reasoning_effort="low")
    )


# ---- completion -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_completion(server: Running, model: clarion.Model, stream: bool) -> None:
    expected = model.generate("Once upon a time", max_tokens=12, seed=7)
    asked = {
        "prompt": "Once upon a time",
        "n_predict": 12,
        "seed": 7,
        "stream": stream,
        "return_tokens": True,
    }
    answer = post(server, "/completion", **asked)
    *said, end = chunks(answer.text) if stream else [answer.json()]
    if stream:
        assert "".join(chunk["content"] for chunk in said) == expected.text
        assert tuple(token for chunk in said for token in chunk["tokens"]) == expected.tokens
        assert [chunk["stop"] for chunk in said] == [False] * len(said)
        assert said[-1]["tokens_predicted"] == 12
        assert (end["content"], end["tokens"]) == ("", [])
    else:
        assert (end["content"], tuple(end["tokens"])) == (expected.text, expected.tokens)
    assert (end["stop"], end["stop_type"], end["stopping_word"]) == (True, "limit", "")
    n = expected.timings.prompt_tokens
    assert (end["tokens_evaluated"], end["tokens_predicted"]) == (n, 12)
    timings = end["timings"]
    assert (timings["cache_n"] + timings["prompt_n"], timings["predicted_n"]) == (n, 12)
    assert timings["predicted_ms"] == pytest.approx(11 * timings["predicted_per_token_ms"])
    chosen = end["generation_settings"]
    assert (chosen["seed"], chosen["n_predict"], chosen["top_k"]) == (7, 12, 40)
    assert (end["id_slot"], end["model"], end["index"]) == (-1, "tale", 0)


def test_why_it_stopped(server: Running, model: clarion.Model) -> None:
    whole = model.generate("Once upon a time", max_tokens=30, greedy=True).text
    stop = whole[20:26]
    found = post(
        server, "/completion", prompt="Once upon a time", n_predict=30, temperature=0, stop=[stop]
    ).json()
    assert (found["content"], found["stop_type"]) == (whole[: whole.index(stop)], "word")
    assert found["stopping_word"] == stop
    token = model.tokenize(whole, add_special=False)[3]
    found = post(
        server, "/completion", prompt="Once upon a time", temperature=0, stop_token_ids=[token]
    ).json()
    assert found["stop_type"] == "eos"


def test_control_tokens_stand_for_themselves(server: Running, model: clarion.Model) -> None:
    text = "<|endoftext|>user: Hello"
    n = len(model.tokenize(text, parse_special=True))
    assert n < len(model.tokenize(text))
    assert post(server, "/completion", prompt=text, n_predict=1).json()["tokens_evaluated"] == n


def test_prompts_of_all_kinds(server: Running, model: clarion.Model) -> None:
    ids = model.tokenize("Once upon")
    expected = model.generate(ids, max_tokens=5, greedy=True).text

    def ask(prompt: Any) -> Any:
        return post(server, "/completion", prompt=prompt, n_predict=5, temperature=0).json()

    assert ask(ids)["content"] == ask("Once upon")["content"] == expected
    found = ask([ids, "Once upon", "There"])
    assert [each["index"] for each in found] == [0, 1, 2]
    assert [each["content"] for each in found[:2]] == [expected] * 2
    assert [each["content"] for each in ask(["Once upon"])] == [expected]
    mixed = model.generate(
        [*ids, *model.tokenize(" a time", add_special=False)], max_tokens=5, greedy=True
    ).text
    assert ask([*ids, " a time"])["content"] == mixed


@pytest.mark.parametrize("stream", [False, True])
def test_probabilities(server: Running, model: clarion.Model, stream: bool) -> None:
    expected = model.generate("Once", max_tokens=4, seed=3, logprobs=2).logprobs
    assert expected is not None
    answer = post(server, "/completion", prompt="Once", n_predict=4, seed=3, n_probs=2, stream=stream)
    parts = chunks(answer.text) if stream else [answer.json()]
    found = [each for part in parts for each in part.get("completion_probabilities", [])]
    assert [(each["id"], each["logprob"]) for each in found] == [(e.token, e.logprob) for e in expected]
    for each, wanted in zip(found, expected, strict=True):
        assert [(top["id"], top["logprob"]) for top in each["top_logprobs"]] == list(wanted.top)
        assert bytes(each["bytes"]) == model.tokenizer.piece(each["id"])


def test_infill(tmp_path: Path) -> None:
    """A vocabulary that has tokens for it: the prompt is what such models were trained with."""
    path = with_template(
        tmp_path / "code.gguf",
        **{f"tokenizer.ggml.fim_{name}_token_id": 10 + i for i, name in enumerate(("pre", "suf", "mid"))},
    )
    with running([Served("code", path)]) as server, client(server) as http:
        model = server.server.pool.find("code").model
        assert model is not None

        def ids(text: str) -> list[int]:
            return model.tokenize(text, add_special=False)

        def expected(before: list[int], begun: str = "") -> str:
            prompt = [*model.tokenizer.before, *before, 10, *ids("a = "), 11, *ids("\nb"), 12, *ids(begun)]
            return model.generate(prompt, max_tokens=6, greedy=True).text

        def ask(**more: Any) -> str:
            body = {"input_prefix": "a = ", "input_suffix": "\nb", "n_predict": 6, "temperature": 0, **more}
            answer = http.post("/infill", json=body)
            assert answer.status_code == 200, answer.text
            found: str = answer.json()["content"]
            return found

        assert ask() == expected([])
        assert ask(prompt="the ") == expected([], "the ")
        extra = [{"filename": "x.py", "text": "x = 1\n"}, {"text": "y"}]
        assert ask(input_extra=extra) == expected([*ids("\n\nx.py\nx = 1\n"), *ids("\n\n\ny"), *ids("\n\n")])


def test_files_before_have_their_tokens(tmp_path: Path) -> None:
    names = ("pre", "suf", "mid", "rep", "sep")
    more = {f"tokenizer.ggml.fim_{name}_token_id": 10 + i for i, name in enumerate(names)}
    with running([Served("code", with_template(tmp_path / "code.gguf", **more))]) as server:
        found = post(
            server, "/infill", input_prefix="a", input_extra=[{"filename": "f", "text": "t"}], n_predict=1
        )
        model = server.server.pool.find("code").model
        assert model is not None

        def n(text: str) -> int:
            return len(model.tokenize(text, add_special=False))

        tokens = 6 + len(model.tokenizer.before) + n("repository\n") + n("f\nt\n") + n("this file\n") + n("a")
        assert found.json()["tokens_evaluated"] == tokens


# ---- props ------------------------------------------------------------------------------------------------


def test_props(server: Running, model: clarion.Model) -> None:
    with client(server) as http:
        found = http.get("/props").json()
        assert http.get("/props?model=gpt-x").json() == found
        assert http.get("/props?model=nothing").status_code == 404
        assert http.post("/props", json={}).status_code == 405
    assert found["default_generation_settings"]["n_ctx"] == 512
    assert found["default_generation_settings"]["params"]["temperature"] == 0.8
    assert (found["model_alias"], found["model_path"], found["is_sleeping"]) == ("tale", "tale.gguf", False)
    assert found["total_slots"] == 32
    assert found["chat_template"] == model.metadata["tokenizer.chat_template"]
    assert (found["bos_token"], found["eos_token"]) == ("<|endoftext|>", "<|endoftext|>")
    assert found["build_info"] == f"clarion {clarion.__version__}"
    assert found["modalities"] == {"vision": False, "audio": False}


# ---- slots ------------------------------------------------------------------------------------------------


@pytest.fixture
def saving(chat_model: Path, tmp_path: Path) -> Iterator[Running]:
    folder = tmp_path / "slots"
    folder.mkdir()
    with running([Served("tale", chat_model)], slot_save_path=str(folder), parallel=4) as server:
        yield server


def test_a_slot_survives_the_server(saving: Running, chat_model: Path, tmp_path: Path) -> None:
    """What was computed for a conversation is not computed again by the next server."""
    model = saving.server.pool.find("tale").model
    assert model is not None
    ids = model.tokenize("Tell of the miller and his sons. " * 12)
    asked = {"n_predict": 8, "ignore_eos": True, "return_tokens": True}
    answer = post(saving, "/completion", prompt=ids, id_slot=2, **asked).json()
    assert answer["id_slot"] == 2
    ids += answer["tokens"]
    found = post(saving, "/slots/2?action=save", filename="miller.bin").json()
    file = tmp_path / "slots" / "miller.bin"
    assert (found["id_slot"], found["filename"], found["n_saved"]) == (2, "miller.bin", len(ids))
    assert found["n_written"] == file.stat().st_size > 0
    assert found["timings"]["save_ms"] > 0
    more = [*ids, *model.tokenize(" More!", add_special=False)]
    expected = post(saving, "/completion", prompt=more, temperature=0, n_predict=4).json()["content"]
    with running([Served("tale", chat_model)], slot_save_path=str(file.parent), parallel=4) as second:
        restored = post(second, "/slots/1?action=restore", filename="miller.bin").json()
        assert (restored["n_restored"], restored["n_read"]) == (len(ids), found["n_written"])
        again = post(second, "/completion", prompt=more, temperature=0, n_predict=4).json()
        assert (again["content"], again["timings"]["cache_n"]) == (expected, len(ids))
        with client(second) as http:
            assert [slot["n_remembered"] for slot in http.get("/slots").json()] == [0, len(ids), 0, 0]
        again = post(second, "/slots/1?action=save", filename="again").json()
        assert again["n_saved"] == len(ids)
        assert (file.parent / "again").read_bytes() == file.read_bytes()
        assert post(second, "/slots/1?action=erase").json() == {"id_slot": 1, "n_erased": len(ids)}
        assert post(second, "/slots/1?action=erase").json()["n_erased"] == 0


def test_what_is_saved_may_be_given(saving: Running) -> None:
    model = saving.server.pool.find("tale").model
    assert model is not None
    text = "Once upon a time there was"
    found = post(saving, "/slots/0?action=save", filename="a", prompt=text).json()
    assert found["n_saved"] == len(model.tokenize(text, parse_special=True))
    found = post(saving, "/slots/0?action=save", filename="a", messages=HELLO).json()
    assert found["n_saved"] == len(model.tokenize_chat(HELLO))


@pytest.mark.parametrize("path", ["/completion", "/v1/completions", "/v1/chat/completions"])
def test_a_request_names_its_slot(saving: Running, path: str) -> None:
    for stream in (False, True):
        body: dict[str, Any] = {"prompt": "Once"} if "chat" not in path else {"messages": HELLO}
        answer = post(saving, path, **body, max_tokens=5, ignore_eos=True, id_slot=1, stream=stream)
        assert answer.status_code == 200
        wait_until(lambda: is_idle(saving), "it is not over")
        tokens = saving.server.pool.find("tale").tally.slots.pop(1)
        assert len(tokens) > 5
    other = post(saving, path, **body, max_tokens=1, id_slot=99)
    assert other.headers["x-clarion-ignored"] == "id_slot"
    assert "x-clarion-ignored" not in post(saving, path, **body, max_tokens=1, id_slot=-1).headers
    assert not saving.server.pool.find("tale").tally.slots


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("/slots/0", {"filename": "a"}, 400, "action"),
        ("/slots/0?action=copy", {"filename": "a"}, 400, "action"),
        ("/slots/4?action=save", {"filename": "a"}, 400, "id_slot"),
        ("/slots/-1?action=save", {"filename": "a"}, 400, "id_slot"),
        ("/slots/x?action=save", {"filename": "a"}, 400, "id_slot"),
        ("/slots/99999999999999?action=save", {"filename": "a"}, 400, "id_slot"),
        ("/slots/0?action=save", {"filename": "a"}, 400, "id_slot"),  # nothing is remembered
        ("/slots/0?action=save", {}, 400, "filename"),
        ("/slots/0?action=save", {"filename": 5}, 400, "filename"),
        ("/slots/0?action=save", {"filename": "a", "prompt": "x", "messages": HELLO}, 400, "prompt"),
        ("/slots/0?action=save", {"filename": "a", "prompt": []}, 400, "prompt"),
        ("/slots/0?action=save", {"filename": "a", "prompt": [10**9]}, 400, "prompt[0]"),
        ("/slots/0?action=restore", {"filename": "nothing"}, 404, "filename"),
        ("/slots/0?action=restore", {"filename": "a", "model": "nothing"}, 404, "model"),
    ],
)
def test_what_cannot_be_saved(
    saving: Running, path: str, body: dict[str, Any], status: int, param: str
) -> None:
    answer = post(saving, path, **body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param), answer.text


def test_no_way_out_of_the_folder(saving: Running, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"CLARSTAT")
    names = (
        "../secret",
        "..",
        ".",
        "",
        "/etc/passwd",
        "a/b",
        "a\\b",
        ".hidden",
        "a\0b",
        "x" * 201,
        "é" * 150,
    )
    for name in (*names, str(secret), "C:x", "a\nb", "\ud800".encode("utf-8", "replace").decode() + "/"):
        for action in ("save", "restore"):
            answer = post(saving, f"/slots/0?action={action}", filename=name, prompt="x")
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, "filename"), name
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["secret"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(st.sampled_from("ab.-_ /\\\0é\n~%$*"), max_size=12))
def test_files_stay_in_the_folder(saving: Running, tmp_path: Path, name: str) -> None:
    answer = post(saving, "/slots/0?action=save", filename=name, prompt="x")
    assert answer.status_code in (200, 400), answer.text
    for path in tmp_path.rglob("*"):
        assert path.parent == tmp_path / "slots" or path == tmp_path / "slots"


def test_files_that_are_no_states(saving: Running, tmp_path: Path) -> None:
    assert post(saving, "/slots/0?action=save", filename="good", prompt="Once upon").status_code == 200
    folder = tmp_path / "slots"
    good = (folder / "good").read_bytes()
    for content in (b"", b"CLARSTAT", good[:-1], good[:40], good + b"x", b"GGUF" + good[4:]):
        (folder / "bad").write_bytes(content)
        answer = post(saving, "/slots/0?action=restore", filename="bad")
        assert answer.status_code in (400, 500), answer.text
        assert str(tmp_path) not in answer.text
    (folder / "sub").mkdir()
    assert post(saving, "/slots/0?action=restore", filename="sub").status_code == 404
    assert post(saving, "/slots/0?action=restore", filename="good").status_code == 200


def test_without_a_folder_nothing_is_saved(server: Running) -> None:
    for action in ("save", "restore"):
        answer = post(server, f"/slots/0?action={action}", filename="a", prompt="x")
        assert (answer.status_code, answer.json()["error"]["code"]) == (501, "slots_not_saved")


# ---- what is wrong ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "content"),
        ("/tokenize", {"content": 5}, "content"),
        ("/tokenize", {"content": ["a", None]}, "content[1]"),
        ("/tokenize", {"content": [True]}, "content[0]"),
        ("/tokenize", {"content": ["a", 10**9]}, "content[1]"),
        ("/tokenize", {"content": "a", "add_special": 1}, "add_special"),
        ("/detokenize", {"tokens": "a"}, "tokens"),
        ("/detokenize", {"tokens": [5, -1]}, "tokens[1]"),
        ("/detokenize", {"tokens": [10**30]}, "tokens[0]"),
        ("/apply-template", {}, "messages"),
        ("/apply-template", {"messages": [{"role": "user"}]}, "messages[0].content"),
        ("/completion", {}, "prompt"),
        ("/completion", {"prompt": []}, "prompt"),
        ("/completion", {"prompt": [[]]}, "prompt[0]"),
        ("/completion", {"prompt": ["a", None]}, "prompt[1]"),
        ("/completion", {"prompt": [1, None]}, "prompt[1]"),
        ("/completion", {"prompt": [10**9]}, "prompt[0]"),
        ("/completion", {"prompt": "a", "n_probs": -1}, "n_probs"),
        ("/completion", {"prompt": "a", "n_predict": -2}, "n_predict"),
        ("/completion", {"prompt": "a", "grammar": "root ::= x"}, "grammar"),
        ("/completion", {"prompt": "a", "image_data": [{}]}, "image_data"),
        ("/infill", {"input_prefix": 5}, "input_prefix"),
        ("/infill", {"input_prefix": "a", "prompt": [1]}, "prompt"),
        ("/infill", {"input_prefix": "a", "input_extra": [{"filename": "a"}]}, "input_extra[0]"),
        ("/infill", {"input_prefix": "a"}, "suffix"),  # its vocabulary has no tokens for that
    ],
)
def test_a_wrong_field_is_named(server: Running, path: str, body: dict[str, Any], param: str) -> None:
    answer = post(server, path, **body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param, answer.text
    if "model" not in body:
        assert post(server, path, **{**body, "model": "nothing"}).status_code in (400, 404)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 10**12) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
FIELDS = (
    *("content", "tokens", "messages", "prompt", "input_prefix", "input_suffix", "input_extra", "filename"),
    *(
        "n_predict",
        "n_probs",
        "stream",
        "id_slot",
        "add_special",
        "with_pieces",
        "tools",
        "truncation",
        "stop",
    ),
)
PATHS = ("/tokenize", "/detokenize", "/apply-template", "/completion", "/infill", "/slots/0?action=save")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(PATHS), body=st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=4))
def test_hostile_bodies(server: Running, path: str, body: dict[str, Any]) -> None:
    """Whatever is sent: an answer, or an error of the request; never one of the server."""
    answer = post(server, path, **{"n_predict": 1, **body, "max_tokens": 1})
    assert answer.status_code in (200, 400, 501), answer.text
    if answer.status_code != 200:
        assert answer.json()["error"]["message"]


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from(("/props", "/slots", "/ps", "/metrics", "/health", "/v1/models")),
    query=st.binary(max_size=20),
)
def test_hostile_queries(server: Running, path: str, query: bytes) -> None:
    from urllib.parse import quote_from_bytes

    with client(server) as http:
        answer = http.get(f"{path}?model={quote_from_bytes(query)}")
    assert answer.status_code in (200, 404), answer.text
