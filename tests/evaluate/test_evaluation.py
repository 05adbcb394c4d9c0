"""Whole evaluations of the built-in model, and of a coarser copy of it."""

import json
import math
from html.parser import HTMLParser

import gguf
import numpy as np
import pytest

import clarion
from clarion.cli.main import execute
from clarion.errors import ModelError, ParameterError, UnsupportedError
from clarion.evaluate import report
from clarion.evaluate.chunks import halves
from clarion.evaluate.evaluation import Track, evaluate
from clarion.evaluate.figures import score
from clarion.evaluate.request import EXACT, Request, run
from clarion.gguf import File, Writer
from tests.end_to_end.files import BUILT_IN

TEXT = "Once upon a time there was a girl who lived in a <b>house</b> & had a cat. It said: 'No!'\n" * 13
CONTEXT = 64


@pytest.fixture(scope="module")
def coarse(tmp_path_factory):
    path = tmp_path_factory.mktemp("coarse") / "tale-q4_0.gguf"
    kind = gguf.GGMLQuantizationType.Q4_0
    with File.open(BUILT_IN) as file, Writer(path, file.metadata.exact()) as writer:
        for tensor in file.tensors.values():
            if tensor.format.name == "Q8_0":
                values = gguf.quants.dequantize(np.asarray(tensor.data), gguf.GGMLQuantizationType.Q8_0)
                data = gguf.quants.quantize(values.reshape(tensor.shape), kind)
                writer.add(tensor.name, tensor.shape, "Q4_0", data)
            else:
                writer.add(tensor.name, tensor.shape, tensor.format, tensor.data)
    return path


@pytest.fixture(scope="module")
def evaluation(coarse):
    request = Request([coarse, BUILT_IN], TEXT, reference=BUILT_IN, context=CONTEXT, threads=1, details=True)
    return run(request)


def test_perplexity_is_that_of_the_logits():
    found = run(Request([], TEXT, context=CONTEXT, threads=1)).report()
    surprises = []
    with clarion.load(threads=1) as model:
        tokens = model.tokenize(TEXT)
        for begin in range(0, len(tokens) // CONTEXT * CONTEXT, CONTEXT):
            seen = [tokens[0], *tokens[begin + 1 : begin + CONTEXT]]  # each chunk begins with BOS
            logits = model.logits(seen).astype(np.float64)
            for j in range(CONTEXT // 2, CONTEXT - 1):
                row = logits[j] - logits[j].max()
                surprises.append(np.log(np.exp(row).sum()) - row[tokens[begin + j + 1]])
    (figures,) = found["models"]
    assert found["scored_tokens"] == len(surprises)
    assert figures["perplexity"] == pytest.approx(math.exp(np.mean(surprises)), rel=1e-6)
    assert figures["tokens_per_second"] > 0
    assert "divergence" not in figures


@pytest.mark.parametrize("stride", [None, 20])
def test_chunks_that_share_steps_have_the_same_scores(stride):
    found = [
        run(Request([], TEXT, context=CONTEXT, stride=stride, threads=threads, options={"batch": batch}))
        for batch, threads in ((CONTEXT, 1), (2, 1), (150, 2), (1024, 2))
    ]
    with clarion.load(threads=1) as model:
        chunks = list(halves(found[0].tokens, CONTEXT, found[0].tokens[0]))
        alone = score(
            model.logits(chunks[1].tokens, first=chunks[1].first), np.array(chunks[1].targets), None
        )
    if stride is None:
        n = found[0].chunk_sizes[0]
        np.testing.assert_array_equal(
            found[0].models[0].surprise[n : n + len(alone.surprise)], alone.surprise
        )
    for other in found[1:]:
        for name in ("surprise", "choice"):
            of_one, of_other = (getattr(e.models[0].scores, name) for e in (found[0], other))
            np.testing.assert_array_equal(of_one, of_other)


def test_progress_counts_the_chunks_of_all_models():
    heard = []
    chunks = list(halves([1] * 20, 4, None))
    evaluate(
        [1] * 20, chunks, _tracks("m", _Fake(4), _Fake(4)), None, None, progress=lambda *n: heard.append(n)
    )
    assert heard == [(i + 1, 10) for i in range(10)]


@pytest.mark.full
def test_exact_arithmetic_is_near_and_more_so_with_better_activations():
    means = []
    for activations in ("exact", "high", "fast"):
        options = {"activations": activations}
        request = Request([], TEXT, EXACT, CONTEXT, n_chunks=3, threads=1, options=options)
        (figures,) = run(request).report()["models"]
        means.append(figures["divergence"]["mean"])
    assert means == sorted(means)
    assert means[0] < 1e-10 < means[1] < 2e-6 < means[2]


def test_a_coarser_model_is_farther_from_the_reference(evaluation):
    coarse, same = evaluation.report()["models"]
    assert coarse["divergence"]["mean"] > 1e-3 > 1e-5 > same["divergence"]["mean"]
    assert coarse["same_choice"] < 1
    assert same["same_choice"] > 0.97
    assert coarse["bytes"] < same["bytes"]
    order = ["median", "p99", "p999", "greatest"]
    assert sorted(order, key=coarse["divergence"].get) == order


def test_the_worst_places_are_where_the_text_says(evaluation):
    track = evaluation.models[0]
    places = evaluation.places(track)
    assert places[0].divergence == track.divergence.max()
    assert [place.divergence for place in places] == sorted((p.divergence for p in places), reverse=True)
    for place in places:
        assert place.before + place.token + place.after in TEXT


def test_strides_score_all_tokens():
    found = run(Request([], TEXT, context=CONTEXT, stride=16, threads=1))
    assert len(found.positions) == len(found.tokens) - 1
    assert (found.positions == np.arange(1, len(found.tokens))).all()


def test_details_say_where_the_error_comes_from(evaluation, coarse):
    of_coarse, of_same = evaluation.details
    assert len(of_coarse.layers) == len(of_same.layers) == 7
    assert min(of_coarse.layers) > 1e-2 > 1e-3 > max(of_same.layers) > 0
    assert of_same.tensors == []
    with File.open(coarse) as file:
        matrices = [name for name, tensor in file.tensors.items() if len(tensor.shape) > 1]
    assert [error.name for error in of_coarse.tensors] == matrices
    for error in of_coarse.tensors:
        assert error.format == "Q4_0"
        assert 0.05 < error.error < 0.2
        assert 0.02 < error.product_error < 0.2
    assert evaluation.report()["models"][0]["details"]["layers"] == of_coarse.layers


def test_details_against_exact_arithmetic_grow_with_coarser_activations():
    worst = []
    for activations in ("exact", "high", "fast"):
        options = {"activations": activations, "batch": 20}
        request = Request([], TEXT, EXACT, CONTEXT, n_chunks=1, threads=1, options=options, details=True)
        (details,) = run(request).details
        worst.append(max(details.layers))
        assert details.tensors == []
    assert worst == sorted(worst)
    assert worst[0] < 1e-5 < worst[1] < 2e-3 < worst[2] < 0.1


class _Page(HTMLParser):
    VOID = ("meta", "br", "line", "circle", "polyline")

    def __init__(self):
        super().__init__()
        self.open, self.links = [], []

    def handle_starttag(self, tag, attributes):
        if tag not in self.VOID:
            self.open.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href", "xlink:href")]
        assert tag not in ("script", "link", "b")

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_nothing(evaluation, tmp_path):
    report.write(tmp_path / "out.html", evaluation)
    text = (tmp_path / "out.html").read_text()
    page = _Page()
    page.feed(text)
    assert page.open == []
    assert page.links == []
    assert "url(" not in text
    assert "@import" not in text
    assert "nan" not in text
    heads = ("Size against divergence", "Error by layer", "Error of the weights", "Error of their products")
    for word in (*heads, "blk.0.attn_q.weight (Q4_0)", ">attn_q</text>", "99.9%"):
        assert word in text
    assert "&lt;b&gt;" in text
    assert [path.name for path in tmp_path.iterdir()] == ["out.html"]


def test_tokens_that_are_line_breaks_are_seen():
    place = report.Passage(1, 0.5, "before", "\n", "after", "\n\n", "<b>")
    passage = report._passage(place)
    for token in ("⏎", "⏎⏎", "&lt;b&gt;"):
        assert f"<mark>{token}</mark>" in passage


def test_one_model_without_a_reference_has_a_page():
    page = _Page()
    page.feed(report.page(run(Request([], TEXT, context=CONTEXT, n_chunks=1, threads=1))))
    assert page.open == []


def test_the_command_line(tmp_path, capsys):
    text, page = tmp_path / "text.txt", tmp_path / "page.html"
    text.write_text(TEXT)
    arguments = ["eval", "--text", str(text), "-c", "64", "--chunks", "2", "-t", "1", "--reference", "exact"]
    assert execute([*arguments, "--report", str(page)]) == 0
    assert "mean KLD" in capsys.readouterr().out
    assert page.exists()
    assert execute([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["chunks"] == 2
    assert found["reference"]["engine"] == "float64"


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["-c", "512"], "at least two chunks"),
        (["-c", "64", "--chunks", "0"], "chunks"),
        (["-c", "64", "--stride", "64"], "stride"),
        (["-c", "64", "--kv", "q8"], "kv"),
        (["-c", "64", "--reference", "nowhere.gguf"], "nowhere.gguf"),
        (["-c", "64", "--report", "/nowhere/page.html", "--chunks", "1"], "/nowhere/page.html"),
        ([str(BUILT_IN), str(BUILT_IN), "-c", "64", "--reference", "exact"], "one model"),
    ],
)
def test_errors_are_one_line(tmp_path, capsys, arguments, word):
    text = tmp_path / "text.txt"
    text.write_text(TEXT)
    assert execute(["eval", "--text", str(text), "-t", "1", *arguments]) == 2
    message = capsys.readouterr().err
    assert word in message
    assert message.count("\n") == 1


def test_a_missing_engine_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    with pytest.raises(UnsupportedError, match="pip install llama-cpp-python"):
        run(Request([], TEXT, context=CONTEXT, engine="llama-cpp"))
    with pytest.raises(ParameterError, match="engine"):
        run(Request([], TEXT, context=CONTEXT, engine="other"))


def test_llama_cpp_comes_near():
    pytest.importorskip("llama_cpp")
    request = Request([], TEXT, EXACT, CONTEXT, n_chunks=2, threads=1, engine="llama-cpp")
    (figures,) = run(request).report()["models"]
    assert 1e-7 < figures["divergence"]["mean"] < 1e-2


class _Fake:
    name = "fake"

    def __init__(self, width, value=0.0):
        self.width, self.value = width, value

    def logits(self, chunks, take):
        for i, chunk in enumerate(chunks):
            take(i, 0, np.full((len(chunk.targets), self.width), self.value, np.float32))

    def close(self):
        pass


def _tracks(path, *engines):
    return [(Track(path, engine.name, 0), engine) for engine in engines]


def test_logits_that_are_no_numbers(tmp_path):
    chunks = list(halves([1] * 8, 4, None))
    with pytest.raises(ModelError, match="not numbers"):
        evaluate([1] * 8, chunks, _tracks(tmp_path, _Fake(4, np.nan)), None, None)


def test_vocabularies_of_different_sizes(tmp_path):
    chunks = list(halves([1] * 8, 4, None))
    model, reference = _tracks(tmp_path, _Fake(4), _Fake(5))
    with pytest.raises(ModelError, match="the reference's 5"):
        evaluate([1] * 8, chunks, [model], reference, None)
    with pytest.raises(ParameterError, match="no chunks"):
        evaluate([1] * 8, [], [model], None, None)
