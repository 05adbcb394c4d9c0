"""Repositories: what is fetched of them, and what is said where that is not possible."""

import json
import os
import signal
import subprocess
import sys

import pytest

from clarion.convert import convert
from clarion.convert.hub import Repository
from clarion.errors import FileError
from clarion.gguf import File
from tests.convert.checkpoints import bytes_tokenizer, write
from tests.convert.files import read_safetensors, unpack
from tests.convert.hub import COMMIT, Hub


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Checkpoints with files beside them that nobody needs; and a repository that holds no checkpoint."""
    root = tmp_path_factory.mktemp("repositories")
    found = {f"some/{name}": unpack(name, root / name) for name in ("qwen2", "llama3", "llama-pickled")}
    for folder in found.values():
        for name in ("README.md", "model.onnx", "consolidated.safetensors"):
            (folder / name).write_bytes(b"not needed")
    (found["some/qwen2"] / "pytorch_model.bin").write_bytes(b"the same weights once more")
    (root / "gguf").mkdir()
    (root / "gguf" / "model.gguf").write_bytes(b"GGUF")
    return {**found, "some/gguf": root / "gguf"}


@pytest.fixture
def hub(folders):
    hub = Hub(dict(folders))
    yield hub
    hub.close()


@pytest.fixture
def command(hub, tmp_path):
    """The arguments and the environment of a process, whose cache is empty at first."""

    def make(source, **changes):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        environment |= {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "cache"), **changes}
        arguments = [sys.executable, "-m", "clarion", "convert", source, str(tmp_path / "out.gguf")]
        return {"args": arguments, "env": environment, "stderr": subprocess.PIPE, "text": True}

    return make


@pytest.fixture
def converted(command, tmp_path):
    """Converts and returns the file's bytes."""

    def run(source, **changes):
        done = subprocess.run(**command(source, **changes), stdout=subprocess.PIPE)
        assert (done.returncode, done.stderr) == (0, "")
        return (tmp_path / "out.gguf").read_bytes()

    return run


@pytest.fixture
def refused(command, tmp_path):
    """Converts in vain and returns the message."""

    def run(source, **changes):
        done = subprocess.run(**command(source, **changes), stdout=subprocess.PIPE)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.count("\n") == 1
        assert not (tmp_path / "out.gguf").exists()
        return done.stderr

    return run


@pytest.fixture
def nowhere(hub):
    """An endpoint where nobody listens any more."""
    hub.close()
    return hub.endpoint


@pytest.mark.parametrize("name", ["qwen2", "llama3", "llama-pickled"])
def test_a_repository_is_its_folder(name, hub, folders, converted, tmp_path):
    found = converted(f"some/{name}")
    (path,) = convert(folders[f"some/{name}"], tmp_path / f"{name}.gguf")
    assert path.read_bytes() == found
    asked = hub.files()
    assert len(set(asked)) == len(asked)
    wanted = {path.name for path in folders[f"some/{name}"].iterdir()}
    wanted -= {"README.md", "model.onnx", "consolidated.safetensors"}
    assert set(asked) == wanted - ({"pytorch_model.bin"} if name == "qwen2" else set())
    assert asked[0] == "config.json"
    assert asked[-1].endswith((".safetensors", ".bin"))


def test_small_files_and_templates_in_a_folder_are_fetched(tmp_path, hub, converted):
    tokenizer = bytes_tokenizer()
    templates = {f"additional_chat_templates/{name}.jinja": name for name in ("rag", "tool_use")}
    notes = {"additional_chat_templates/notes.txt": "not needed", "other/chat_template.jinja": "not needed"}
    special = {"special_tokens_map.json": '{"bos_token": "<|begin|>"}', "chat_template.jinja": "default"}
    files = {**templates, **notes, **special}
    hub.repositories["some/tiny"] = write(tmp_path / "tiny", tokenizer, files=files)
    found = converted("some/tiny")
    convert(tmp_path / "tiny", tmp_path / "wanted.gguf")
    assert found == (tmp_path / "wanted.gguf").read_bytes()
    assert {*templates, *special} < set(hub.files())
    assert not set(notes) & set(hub.files())
    with File.open(tmp_path / "wanted.gguf") as file:
        assert file.metadata["tokenizer.chat_template.tool_use"] == "tool_use"


def test_one_file_of_weights_goes_before_an_index(tmp_path, hub, converted):
    folder = write(tmp_path / "tiny", bytes_tokenizer())
    index = {"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    hub.repositories["some/tiny"] = folder
    converted("some/tiny")
    assert hub.files()[-1] == "model.safetensors"
    assert not {name for name in hub.files() if "index" in name}


def test_a_tied_output_whose_shard_the_repository_lacks(tmp_path, hub, converted):
    tokenizer = bytes_tokenizer()
    folder = write(tmp_path / "tiny", tokenizer, tie_word_embeddings=True)
    names = read_safetensors(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    index = {"weight_map": {**dict.fromkeys(names, "a.safetensors"), "lm_head.weight": "b.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    hub.repositories["some/tiny"] = folder
    converted("some/tiny")
    assert hub.files()[-1] == "a.safetensors"


def test_what_is_in_the_cache_is_not_fetched_again(hub, converted):
    found = converted("some/qwen2")
    asked = len(hub.files())
    assert converted("some/qwen2@main") == found
    assert converted(f"some/qwen2@{COMMIT}") == found
    assert len(hub.files()) == asked
    hub.close()
    assert converted("some/qwen2") == found
    assert converted("some/qwen2", HF_HUB_OFFLINE="1") == found


def test_a_connection_that_breaks(hub, command, folders, tmp_path):
    hub.breaks = "model.safetensors"
    done = subprocess.run(**command("some/qwen2"), stdout=subprocess.PIPE)
    assert done.returncode == 0
    assert hub.files()[-2:] == ["model.safetensors"] * 2
    (path,) = convert(folders["some/qwen2"], tmp_path / "wanted.gguf")
    assert (tmp_path / "out.gguf").read_bytes() == path.read_bytes()


def test_an_interrupted_download_goes_on_with_the_file_it_stopped_in(hub, command, converted, tmp_path):
    hub.breaks, hub.hangs = "model-00002-of-00002.safetensors", True
    process = subprocess.Popen(**command("some/llama3"))
    assert hub.broken.wait(60)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[1].strip() == ""
    assert process.returncode == 130
    assert not (tmp_path / "out.gguf").exists()
    asked = len(hub.files())
    converted("some/llama3")
    assert hub.files()[asked:] == ["model-00002-of-00002.safetensors"]


def test_a_repository_that_is_not_there(refused):
    message = refused("some/model")
    assert "some/model: no such folder, and no such repository at http" in message
    assert "hf auth login" in message


def test_a_revision_that_is_not_there(refused):
    assert "the repository has no revision 'v9'" in refused("some/qwen2@v9")


def test_a_gated_repository(hub, refused):
    hub.gated = {"some/qwen2"}
    assert f"access is restricted; ask for it at {hub.endpoint}/some/qwen2" in refused("some/qwen2")


def test_a_repository_without_a_checkpoint(hub, refused):
    assert "some/gguf: no weights, expected one of model.safetensors" in refused("some/gguf")
    assert hub.files() == []


def test_no_network(nowhere, refused):
    assert f"and {nowhere} cannot be reached: " in refused("some/qwen2")
    assert "offline mode" in refused("some/qwen2", HF_HUB_OFFLINE="1")


def test_without_the_library(tmp_path, refused):
    (tmp_path / "huggingface_hub.py").write_text("raise ImportError")
    paths = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    assert "pip install 'clarion[hub]'" in refused("some/qwen2", PYTHONPATH=paths)


@pytest.mark.parametrize(
    "text", ["gpt2", "a/b/c", "./a", "/a/b", "../a", "a/..", "a/b@", "a /b", "a/b@é", ""]
)
def test_what_is_no_name(text):
    with pytest.raises(FileError, match="no such folder; expected one, or a repository"):
        Repository.parse(text)


def test_names_that_the_hub_does_not_allow(refused):
    assert "some/a..b: cannot be downloaded: " in refused("some/a..b")


@pytest.mark.parametrize("text", ["a/b", "Qwen/Qwen3-0.6B", "a/b@v1.0", f"a/b@{COMMIT}", "a/b@refs/pr/1"])
def test_names(text):
    repository = Repository.parse(text)
    assert str(repository) == text
    assert repository.name == text.partition("@")[0].partition("/")[2]
