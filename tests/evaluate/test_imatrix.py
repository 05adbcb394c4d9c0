"""Importance matrices: what is collected, against the float64 interpreter; the file, by its layout."""

import json
from dataclasses import replace

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clarion.cli.main import execute
from clarion.errors import FormatError, ModelError, ParameterError
from clarion.evaluate.collect import collect
from clarion.evaluate.exact import Exact
from clarion.evaluate.imatrix import Imatrix, Statistics
from clarion.gguf import File, Writer
from clarion.plan.operations import OPERATIONS
from tests.end_to_end.files import BUILT_IN
from tests.models.files import unpack

CHUNK = 24


def tokens_for(n=3 * CHUNK + 5, n_vocab=80):
    return np.random.default_rng(0).integers(1, n_vocab, n).tolist()


def expected(path, tokens, bos):
    """Sums and counts from the interpreter's own values, chunk by chunk."""
    sums, counts = {}, {}

    def looks(name):
        """The operation's entry, with a definition that looks at its operands first."""
        entry = OPERATIONS[name]

        def definition(xp, *, a, w, ids=None, **others):
            slots = np.zeros((len(a), 1), int) if ids is None else ids
            rows = a if len(a) == slots.size else np.repeat(a, slots.shape[1], axis=0)
            for weight in (matrix.weight for matrix in w):
                total = sums.setdefault(weight.name, np.zeros((weight.experts, weight.cols)))
                count = counts.setdefault(weight.name, np.zeros(weight.experts))
                for row, e in zip(rows, slots.ravel(), strict=True):
                    total[e] += row * row
                    count[e] += 1
            return entry.definition(xp, a=a, w=w, **others | ({} if ids is None else {"ids": ids}))

        return replace(entry, definition=definition)

    with File.open(path) as file, pytest.MonkeyPatch.context() as patch:
        for name in ("linear", "expert_linear"):
            patch.setitem(OPERATIONS, name, looks(name))
        model = Exact(file)
        for begin in range(0, len(tokens) - CHUNK + 1, CHUNK):
            chunk = tokens[begin : begin + CHUNK]
            model.logits([bos, *chunk[1:]] if bos is not None else chunk)
    return sums, counts


@pytest.mark.parametrize("name", ["llama-q8_0", "qwen3moe", "mixtral-q8_0", "qwen2-tied"])
@pytest.mark.parametrize("bos", [None, 1])
def test_sums_are_those_of_the_inputs(name, bos, tmp_path):
    path, tokens = unpack(name, tmp_path), tokens_for()
    sums, counts = expected(path, tokens, bos)
    with File.open(path) as file:
        found = collect(
            file, tokens, dataset="t", bos=bos, chunk=CHUNK, output=True, activations="exact", threads=2
        )
    assert set(found.statistics) == set(sums)
    for weight, statistics in found.statistics.items():
        np.testing.assert_array_equal(statistics.counts, counts[weight])
        np.testing.assert_allclose(statistics.sums, sums[weight], rtol=1e-4, atol=1e-6)
    assert (found.chunk_count, found.chunk_size, found.datasets) == (3, CHUNK, ("t",))


def test_threads_change_no_bit(tmp_path):
    path, tokens = unpack("qwen3moe", tmp_path), tokens_for()
    with File.open(path) as file:
        one, three = (collect(file, tokens, dataset="t", chunk=CHUNK, threads=n) for n in (1, 3))
    for name, statistics in one.statistics.items():
        np.testing.assert_array_equal(statistics.sums, three.statistics[name].sums)


def test_without_the_output_only_blocks(tmp_path):
    with File.open(unpack("llama-mha", tmp_path)) as file:
        found = collect(file, tokens_for(), dataset="t", chunk=CHUNK, n_chunks=1)
        whole = collect(file, tokens_for(), dataset="t", chunk=CHUNK, n_chunks=1, output=True)
    assert set(whole.statistics) - set(found.statistics) == {"output.weight"}
    assert all(name.startswith("blk.") for name in found.statistics)
    assert found.chunk_count == 1


def test_a_text_shorter_than_a_chunk():
    with File.open(BUILT_IN) as file:
        with pytest.raises(ParameterError, match="expected at least a chunk of 64"):
            collect(file, [1] * 63, dataset="t", chunk=64)
        with pytest.raises(ParameterError, match="at least 1"):
            collect(file, [1] * 63, dataset="t", chunk=0)


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), experts=st.integers(1, 4), cols=st.integers(1, 40))
def test_the_file_is_laid_out_as_llama_imatrix_does(seed, experts, cols, tmp_path_factory):
    rng, path = np.random.default_rng(seed), tmp_path_factory.mktemp("i") / "i.gguf"
    sums = rng.random((experts, cols)).astype(np.float32).astype(np.float64)
    written = Imatrix({"blk.0.x.weight": Statistics(sums, np.arange(experts) * 1.0)}, ("a", "b"), 7, 512)
    written.write(path)
    reader = gguf.GGUFReader(path)
    assert reader.fields["general.type"].contents() == "imatrix"
    assert reader.fields["imatrix.datasets"].contents() == ["a", "b"]
    assert reader.fields["imatrix.chunk_count"].contents() == 7
    assert reader.fields["imatrix.chunk_size"].contents() == 512
    for key in ("imatrix.chunk_count", "imatrix.chunk_size"):
        assert reader.fields[key].types == [gguf.GGUFValueType.UINT32]
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    assert set(tensors) == {"blk.0.x.weight.in_sum2", "blk.0.x.weight.counts"}
    # In ggml's order of dimensions, of which trailing ones are not written: columns first, then experts.
    outer = [experts] if experts > 1 else []
    assert tensors["blk.0.x.weight.in_sum2"].shape.tolist() == [cols, *outer]
    assert tensors["blk.0.x.weight.counts"].shape.tolist() == [1, *outer]
    np.testing.assert_array_equal(tensors["blk.0.x.weight.in_sum2"].data.reshape(experts, cols), sums)
    again = Imatrix.read(path)
    assert (again.datasets, again.chunk_count, again.chunk_size) == (("a", "b"), 7, 512)
    np.testing.assert_array_equal(again.statistics["blk.0.x.weight"].sums, sums)


def write(path, tensors, **metadata):
    values = {"general.type": "imatrix", "imatrix.chunk_count": 1, "imatrix.chunk_size": 8}
    values |= {key.replace("_", ".", 1): value for key, value in metadata.items()}
    with Writer(path, values) as writer:
        for name, (shape, data) in tensors.items():
            writer.add(name, shape, "F32", np.asarray(data, np.float32))
    return path


def test_files_of_others_are_read(tmp_path):
    """As llama-imatrix writes now: with sums of the inputs themselves, and ones for trailing dimensions."""
    tensors = {
        "blk.0.a.weight.in_sum2": ((1, 4), [1, 2, 3, 4]),
        "blk.0.a.weight.counts": ((1, 1), [2]),
        "blk.0.a.weight.in_sum": ((1, 4), [-1, 2, 3, 4]),
    }
    found = Imatrix.read(write(tmp_path / "i.gguf", tensors, imatrix_datasets=["x"]))
    assert found.datasets == ("x",)
    np.testing.assert_array_equal(found.importance("blk.0.a.weight", 1, 4), [[0.5, 1, 1.5, 2]])
    assert found.importance("blk.1.a.weight", 1, 4) is None
    with pytest.raises(ModelError, match="another model"):
        found.importance("blk.0.a.weight", 1, 8)


GOOD = {"a.in_sum2": ((4,), [1, 2, 3, 4]), "a.counts": ((1,), [2])}


@pytest.mark.parametrize(
    ("tensors", "metadata", "message"),
    [
        (GOOD, {"general_type": "model"}, "expected 'imatrix'"),
        (GOOD, {"imatrix_chunk_count": "many"}, "imatrix.chunk_count"),
        (GOOD, {"imatrix_chunk_size": -1}, "imatrix.chunk_size"),
        ({"a.weight": ((4,), [1, 2, 3, 4])}, {}, "no tensor's name"),
        ({"a.in_sum2": GOOD["a.in_sum2"]}, {}, "no 'a.counts'"),
        ({**GOOD, "a.counts": ((3,), [1, 1, 1])}, {}, "3 counts"),
        ({**GOOD, "a.in_sum2": ((4,), [1, 2, np.nan, 4])}, {}, "no sums of squares"),
        ({**GOOD, "a.counts": ((1,), [-1])}, {}, "no sums of squares"),
    ],
)
def test_files_that_are_none(tmp_path, tensors, metadata, message):
    path = write(tmp_path / "i.gguf", tensors, **metadata)
    with pytest.raises(FormatError, match=message):
        Imatrix.read(path)


def test_a_model_is_no_importance_matrix():
    with pytest.raises(FormatError, match="expected 'imatrix'"):
        Imatrix.read(BUILT_IN)


def test_experts_without_tokens_count_as_the_others():
    means = Statistics(np.array([[2.0, 4], [0, 0], [4, 2]]), np.array([1.0, 0, 2])).means
    np.testing.assert_allclose(means, [[2, 4], [2, 2], [2, 1]])
    np.testing.assert_array_equal(Statistics(np.zeros((2, 3)), np.zeros(2)).means, np.ones((2, 3)))


def test_the_command_line(tmp_path, capsys):
    text, out, both = tmp_path / "t.txt", tmp_path / "i.gguf", tmp_path / "both.gguf"
    text.write_text("Once upon a time there was a king who had three sons. " * 30)
    command = ["imatrix", str(BUILT_IN), str(text), "-c", "64", "-t", "1"]
    assert execute([*command, "-o", str(out), "--chunks", "2"]) == 0
    assert "49 matrices, 2 chunks of 64 tokens" in capsys.readouterr().out
    assert execute([*command, "-o", str(both), "--in-file", str(out), "--process-output", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["matrices"] == 50  # the output is the table of embeddings
    one, two = Imatrix.read(out), Imatrix.read(both)
    assert two.chunk_count == figures["chunks"] > one.chunk_count == 2
    assert two.datasets == (str(text), str(text))
    first = one.statistics["blk.0.attn_q.weight"]
    assert (two.statistics["blk.0.attn_q.weight"].sums >= first.sums).all()
    assert execute([*command, "-o", str(out), "-c", "2048"]) == 2
    assert "expected at least a chunk of 2048" in capsys.readouterr().err


def test_model_and_text_may_stand_after_options(tmp_path, capsys):
    text = tmp_path / "text.txt"
    text.write_text("Once upon a time there was a king. " * 20)
    model, out = str(BUILT_IN), tmp_path / "out.gguf"
    for words in ([model, str(text)], ["-m", model, "-f", str(text)], ["-f", str(text), model]):
        out.unlink(missing_ok=True)
        assert execute(["imatrix", *words, "-o", str(out), "-c", "32", "--chunks", "1"]) == 0
        assert out.exists()
    assert execute(["imatrix", "-m", model, str(text), "more", "-o", str(out)]) == 2
    assert "unexpected extra argument (more)" in capsys.readouterr().err
