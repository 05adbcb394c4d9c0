"""benchmarks/compare.py asks every engine for the same work, and says what the answers say."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from clarion.host import choose
from tests.end_to_end.files import BUILT_IN

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import compare_table
from engines import (
    Engine,
    Work,
    add_rounds,
    entries,
    from_batched_bench,
    from_llama_bench,
    llama_bench,
    named_program,
    versions,
)
from measured_work import depths, texts

FOLDER = Path(__file__).parents[2] / "benchmarks"
WORK = Work(prompts=(256,), generated=64, texts=(1, 16), depths=(0, 4096))
ANSWER = {
    "prompt": {"0": {"256": 200.0}, "4096": {"256": 100.0}},
    "generation": {"0": 40.0, "4096": 30.0},
    "texts": {"16": 160.0},
    "version": "1.2",
}


def engine(name: str, cache: str = "f16", threads: int = 1, **changes: Any) -> Engine:
    measured = ANSWER | {"date": "2026-12-01"}
    isa = ""
    if name.startswith("Clarion"):
        _, isa, _ = name.split()
        cost = {"bytes_per_token": 10**9, "products_per_token": 10**9}
        measured |= cost | {"bandwidth": 50e9, "multiply": 400e9}
    return Engine(name, "folder/small.gguf", threads, cache, [name], isa=isa, rounds=[measured | changes])


def cells(table: str) -> list[dict[str, str]]:
    """The rows of a table, under their heads."""
    head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines())
    return [dict(zip(head, row, strict=True)) for row in rows]


def test_texts_stand_beside_one_text_and_depths_beside_none() -> None:
    groups = compare_table.grouped([engine("peer"), engine("Clarion avx2 high", texts={"16": 320.0})])
    peer, ours = cells(compare_table.speeds(groups, WORK))
    assert peer["16 texts"] == "160.0, ×4.00"
    assert ours["16 texts"] == "320.0, ×8.00"
    assert peer["prompt 256 at 4096"] == "100.0, 50%"
    assert peer["generation at 4096"] == "30.0, 75%"
    assert ours["of bandwidth"] == "80%"  # 40 · 1 GB of 50 GB/s
    (ratio,) = cells(compare_table.ratios(groups, WORK))
    assert (ratio["16 texts"], ratio["prompt 256 at 4096"]) == ("2.00", "1.00")


def test_a_ratio_is_of_one_round() -> None:
    one = engine("peer")
    one.rounds += [one.rounds[0] | {"generation": {"0": 80.0, "4096": 20.0}}] * 2
    groups = compare_table.grouped([one, engine("Clarion avx2 high")])
    groups[0].engines[1].rounds.extend(groups[0].engines[1].rounds * 2)
    row = cells(compare_table.speeds(groups, WORK))[0]
    assert row["generation"] == "80.0 (40.0 to 80.0)"
    assert row["generation at 4096"] == "20.0 (20.0 to 30.0), 25%"


def test_a_share_is_of_the_peak_with_the_same_instructions() -> None:
    names = ("peer", "Clarion avx2 high", "Clarion avx512vnni high")
    found = [engine(name, multiply=800e9 if "512" in name else 400e9) for name in names]
    rows = cells(compare_table.speeds(compare_table.grouped(found), WORK))
    assert [row["of products"] for row in rows] == ["25%", "50%", "25%"]
    (cost,) = cells(compare_table.costs(found))
    assert cost["products a second"] == "800.0 G/s"


def test_what_was_not_measured_is_empty() -> None:
    silent = engine("Clarion avx2 high", prompt={"0": {"256": 9.0}}, generation={}, texts={})
    (row,) = cells(compare_table.speeds(compare_table.grouped([silent]), WORK))
    assert row["prompt 256"] == "9.0"
    assert [row[name] for name in ("generation", "of bandwidth", "16 texts", "generation at 4096")] == [
        ""
    ] * 4


def test_engines_are_beside_those_with_the_same_cache() -> None:
    found = [engine(name, cache) for cache in ("f16", "q8_0") for name in ("peer", "Clarion avx2 high")]
    groups = compare_table.grouped(found)
    assert [[engine.cache for engine in group.engines] for group in groups] == [["f16"] * 2, ["q8_0"] * 2]
    assert len(cells(compare_table.costs(found))) == 1  # a token costs the same with either


def test_the_head_names_processor_days_and_versions() -> None:
    found = [
        engine("llama", built_for="AVX2", flash_attention="auto, enabled"),
        engine("Clarion avx2 high", date="2026-12-03"),
        engine("Clarion avx2 fast"),
    ]
    assert compare_table.heading("Some CPU, 2 cores", found, versions(found)) == (
        "Some CPU, 2 cores, 2026-12-01 to 2026-12-03, 1 round; tokens/s:\n\n"
        "- llama: 1.2, compiled for AVX2, flash attention auto, enabled\n"
        "- Clarion avx2 high, Clarion avx2 fast: 1.2"
    )


def test_one_text_and_no_past_are_always_measured() -> None:
    assert texts("16,4") == [1, 4, 16]
    assert texts("") == [1]
    assert depths("4096") == [0, 4096]
    with pytest.raises(ValueError, match="from 0 on"):
        depths("-1")


def test_llama_bench_says_prompts_and_generation_by_depth() -> None:
    tests: list[dict[str, Any]] = [
        {"n_prompt": 256, "n_gen": 0, "avg_ts": 200.0, "build_commit": "abc", "flash_attn": -1},
        {"n_prompt": 0, "n_gen": 64, "avg_ts": 40.0, "build_commit": "abc", "flash_attn": -1},
    ]
    deep = [test | {"n_depth": 4096, "avg_ts": test["avg_ts"] / 2} for test in tests]
    assert from_llama_bench([test | {"n_depth": 0} for test in tests] + deep) == {
        "prompt": {"0": {"256": 200.0}, "4096": {"256": 100.0}},
        "generation": {"0": 40.0, "4096": 20.0},
        "texts": {},
        "version": "abc",
        "flash_attention": "auto",
    }
    older = [{**test, "flash_attn": False} for test in tests]  # knows no depth
    assert from_llama_bench(older)["generation"] == {"0": 40.0}


def test_llama_batched_bench_says_the_speed_of_all_texts() -> None:
    output = """
main: n_kv_max = 4096, n_batch = 2048, n_ubatch = 512, flash_attn = 0, n_threads = 1

|    PP |     TG |    B |   N_KV |   T_PP s | S_PP t/s |   T_TG s | S_TG t/s |      T s |    S t/s |
|-------|--------|------|--------|----------|----------|----------|----------|----------|----------|
|     1 |     12 |    4 |     52 |    0.108 |    37.03 |    0.679 |    70.69 |    0.787 |    66.07 |
|     1 |     12 |   16 |    208 |    0.373 |    42.89 |    1.878 |   102.23 |    2.251 |    92.40 |
"""
    assert from_batched_bench(output) == {"4": 70.69, "16": 102.23}


def test_several_texts_are_asked_of_the_batched_program_of_the_same_name() -> None:
    batched = dict([named_program("ik -rtr=/ik/llama-batched-bench -rtr")])
    found = llama_bench("m.gguf", 2, "q8_0:f16", WORK, "ik -rtr=/ik/llama-bench -rtr 1", batched)
    assert found.name == "ik -rtr (q8_0:f16)"
    assert found.command[:3] == ["/ik/llama-bench", "-rtr", "1"]
    assert " ".join(found.command).endswith("-ctk q8_0 -ctv f16 -d 0,4096 -o json")
    assert found.texts_command[:2] == ["/ik/llama-batched-bench", "-rtr"]
    assert " ".join(found.texts_command).endswith("-npl 16")
    assert not llama_bench("m.gguf", 2, "f16", WORK, "other=/other/llama-bench", batched).texts_command


def test_earlier_rounds_are_of_the_same_commands() -> None:
    measured, other = engine("peer"), engine("peer")
    report = json.loads(json.dumps({"engines": list(entries([measured]))}))
    again, changed = (Engine("peer", one.model, 1, "f16", list(one.command)) for one in (measured, other))
    changed.command.append("--texts")
    add_rounds([again, changed], report)
    assert again.rounds == measured.rounds
    assert changed.rounds == []


def compare(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(FOLDER / "compare.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_all_engines_are_measured_in_turns(tmp_path: Path) -> None:
    answer = ANSWER | {"prompt": {"0": {"8": 200.0}, "64": {"8": 100.0}}, "generation": {"0": 40, "64": 30}}
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho '{json.dumps(answer | {'texts': {'3': 100}})}'\n")
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    result, plot = tmp_path / "result.json", tmp_path / "result.svg"
    arguments = [
        str(BUILT_IN),
        "--llama-python",
        str(python),
        "--isa",
        choose().name,
        "--activations",
        "fast",
    ]
    arguments += ["-t", "1", "-p", "8", "-n", "4", "--texts", "3", "--depth", "64", "--json", str(result)]
    done = compare(*arguments, "-r", "1", "--plot", str(plot))
    assert done.returncode == 0, done.stderr
    head, table, *_ = done.stdout.split("\n\n| ")
    assert "llama-cpp-python: 1.2" in head
    peer, ours = cells("| " + table)
    assert peer["3 texts"] == "100.0, ×2.50"
    assert all(ours[name] for name in ("prompt 8", "3 texts", "prompt 8 at 64", "generation at 64"))
    assert plot.read_text().startswith("<svg")
    report = json.loads(result.read_text())
    assert report["versions"]["llama-cpp-python"] == "1.2"
    assert {"date", "others"} <= report["engines"][1]["rounds"][0].keys()

    again = compare(*arguments, "-r", "0", "--add")
    assert again.stdout == done.stdout
    result.write_text(json.dumps(report | {"processor": "another"}))
    refused = compare(*arguments, "-r", "1", "--add")
    assert refused.returncode == 1
    assert "the earlier rounds are of another" in refused.stderr


def test_a_batched_program_without_its_like_is_an_error() -> None:
    done = compare("model.gguf", "--llama-bench", "a=x", "--llama-batched-bench", "b=y")
    assert done.returncode == 2
    assert "no --llama-bench is called b" in done.stderr
