"""Every golden through its graph and plan, executed by the float64 reference: the families' mathematics."""

from __future__ import annotations

import numpy as np
import pytest

from clarion import models, plan
from clarion.plan.output import HiddenRows
from tests.models.files import ENCODERS, NAMES, context, expected, golden, mapped, nmse, vectors
from tests.plan.reference import TARGET, Memory, Reference

T_MAX = 32
LIMIT = 1e-11  # transformers keeps norms, softmax and rotations in float32; goldens hold float32 logits


def compiled(metadata, tensors, longest=None, **options):
    graph = models.build(metadata, tensors, context=longest)
    options = {"activations": "high", "max_tokens": T_MAX, "max_outputs": T_MAX, "context": 128} | options
    return plan.compile(graph.plan(), TARGET, **options)


def run(p, name, ids, chunk=T_MAX, outputs=None):
    """Logits of one sequence, its tokens given to the plan in chunks."""
    program, memory = Reference(p.native_spec(mapped(name, p))), Memory(p.states)
    logits = []
    for start in range(0, len(ids), chunk):
        tokens = ids[start : start + chunk]
        n = len(tokens)
        wanted = range(n) if outputs is None else outputs
        program.run(memory, tokens, np.arange(start, start + n), np.zeros(n, int), list(wanted))
        logits.append(program.buffer("logits"))
    return np.concatenate(logits)


@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "unfused"])
@pytest.mark.parametrize("activations", ["high", "exact"])
@pytest.mark.parametrize("name", NAMES)
def test_logits_of_a_prompt(name, activations, fuse):
    ids, logits = expected(name)
    p = compiled(*golden(name), context(name), activations=activations, fuse=fuse)
    assert nmse(run(p, name, ids), logits) < LIMIT


@pytest.mark.parametrize("name", NAMES)
def test_logits_step_by_step(name):
    ids, logits = expected(name)
    p = compiled(*golden(name), context(name))
    for chunk in (1, 5):
        assert nmse(run(p, name, ids, chunk), logits) < LIMIT


@pytest.mark.parametrize("name", NAMES)
def test_only_the_wanted_logits(name):
    ids, logits = expected(name)
    p = compiled(*golden(name), context(name), max_outputs=3)
    assert nmse(run(p, name, ids, outputs=[31, 4, 4]), logits[[31, 4, 4]]) < LIMIT


@pytest.mark.parametrize("name", ENCODERS)
def test_vectors_of_a_text(name):
    ids, rows, vector = vectors(name)
    for kind, wanted in ((HiddenRows(), rows), (None, vector[None])):
        graph = models.build(*golden(name), output=kind)
        p = plan.compile(graph.plan(), TARGET, max_tokens=40, max_outputs=T_MAX, context=128)
        program, memory = Reference(p.native_spec(mapped(name, p))), Memory(p.states)
        outputs = range(len(ids)) if kind else [len(ids) - 1]
        program.run(memory, ids, np.arange(len(ids)), np.zeros(len(ids), int), outputs)
        assert nmse(program.buffer(p.outputs[0].value), wanted) < LIMIT


IN_ONE_BATCH = [
    "llama-gqa-tied",
    "mistral-window",
    "qwen3moe",
    "qwen3next",
    "qwen35",
    "deepseek2",
    "mamba",
    "mamba2",
]


@pytest.mark.parametrize("name", IN_ONE_BATCH)
def test_sequences_of_one_batch_do_not_see_each_other(name):
    ids, logits = expected(name)
    p = compiled(*golden(name), max_tokens=40)
    program, memory = Reference(p.native_spec(mapped(name, p))), Memory(p.states)
    sequences = np.array([1, 0] * 20)
    positions = np.arange(40) // 2
    program.run(memory, ids[positions], positions, sequences, range(32))
    assert nmse(program.buffer("logits"), logits[positions[:32]]) < LIMIT


# Each line takes one feature out of a golden. If the logits stayed, the golden would not test that feature.
WITHOUT = [
    ("llama-linear", {"llama.rope.scaling.factor": 1.0}),
    ("llama-yarn", {"llama.rope.scaling.type": "linear"}),
    ("llama-yarn", {"llama.rope.scaling.original_context_length": 64}),
    ("mistral-window", {"llama.attention.sliding_window": 9}),
    ("qwen2-yarn", {"qwen2.rope.scaling.yarn_beta_fast": 32.0}),
    ("qwen2-yarn", {"qwen2.rope.scaling.yarn_beta_slow": 1.0}),
    ("qwen2-yarn", {"qwen2.rope.scaling.attn_factor": 1.0}),
    ("qwen2-partial", {"qwen2.rope.dimension_count": 12}),
    ("qwen3moe-raw", {"qwen3moe.expert_weights_norm": True}),
    ("qwen3moe", {"qwen3moe.expert_weights_norm": False}),
    ("mixtral", {"llama.expert_used_count": 3}),
    ("llama-bias", {"llama.attention.layer_norm_rms_epsilon": 1e-5}),
    ("qwen35", {"qwen35.rope.dimension_count": 4}),
    ("qwen3next", {"qwen3next.expert_weights_norm": False}),
    ("deepseek2", {"deepseek2.rope.scaling.yarn_log_multiplier": 0.0}),
    ("deepseek2", {"deepseek2.expert_weights_scale": 1.0}),
    ("deepseek2", {"deepseek2.expert_weights_norm": False}),
    ("deepseek2", {"deepseek2.expert_group_used_count": 3}),
    ("deepseek2", {"deepseek2.expert_gating_func": 1}),
    ("deepseek2-v2", {"deepseek2.expert_gating_func": 2}),
    ("deepseek2-v2", {"deepseek2.rope.scaling.factor": 2.0}),
    ("mistral4", {"mistral4.attention.temperature_scale": 0.0}),
    ("mistral4", {"mistral4.attention.temperature_length": 8}),
    ("mamba-falcon", {"mamba.ssm.dt_b_c_rms": False}),
    ("gemma2", {"gemma2.attn_logit_softcapping": 0.0}),
    ("gemma2", {"gemma2.final_logit_softcapping": 0.0}),
    ("gemma2", {"gemma2.attention.scale": 12**-0.5}),
    ("gemma2", {"gemma2.attention.sliding_window": 9}),
    ("gemma2", {"gemma2.attention.sliding_window_pattern": 0}),
    ("gemma3", {"gemma3.rope.freq_base_swa": 5000.0}),
    ("gemma3", {"gemma3.rope.scaling.factor": 1.0}),
    ("gemma3-pattern", {"gemma3.attention.sliding_window_pattern": 3}),
    ("gemma4", {"gemma4.rope.freq_base_swa": 100.0}),
    ("gemma4", {"gemma4.final_logit_softcapping": 0.0}),
    ("gemma4-experts", {"gemma4.expert_used_count": 3}),
    ("olmo3", {"olmo2.rope.scaling.factor": 2.0}),
    ("olmo3", {"olmo2.attention.sliding_window": 0}),
    ("phi3", {"phi3.attention.sliding_window": 9}),
    ("phi4-mini", {"phi3.rope.scaling.attn_factor": 1.0}),
    ("phi4-mini", {"phi3.rope.scaling.original_context_length": 128}),
    ("glm4", {"glm4.rope.dimension_sections": [4, 2, 2, 0]}),
    ("gpt-oss", {"gpt-oss.rope.scaling.factor": 1.0}),
    ("gpt-oss", {"gpt-oss.attention.sliding_window": 9}),
    ("gpt-oss", {"gpt-oss.expert_used_count": 3}),
]
UNSTATED = {
    "qwen3moe.expert_weights_norm",
    "qwen3next.expert_weights_norm",
    "gemma2.attention.sliding_window_pattern",
    "glm4.rope.dimension_sections",
}


@pytest.mark.parametrize(("name", "change"), WITHOUT, ids=lambda value: str(value))
def test_each_feature_matters(name, change):
    ids, logits = expected(name)
    metadata, tensors = golden(name)
    assert change.keys() <= metadata.keys() | UNSTATED
    assert nmse(run(compiled(metadata | change, tensors), name, ids), logits) > 1e-8


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("llama-llama3", "rope_freqs"),
        ("llama-bias", "attn_k.bias"),
        ("llama-bias", "ffn_down.bias"),
        ("qwen2-tied", "attn_v.bias"),
        ("gemma4-shared", "layer_output_scale"),
        ("gemma4", "rope_freqs"),
        ("glm4", "attn_q.bias"),
        ("gpt-oss", "attn_output.bias"),
        ("gpt-oss", "ffn_gate_inp.bias"),
        ("gpt-oss", "ffn_up_exps.bias"),
        ("gemma4-experts", "ffn_down_exps.scale"),
        ("deepseek2", "exp_probs_b"),
        ("mamba", "ssm_conv1d.bias"),
        ("mamba2", "ssm_conv1d.bias"),
    ],
)
def test_each_optional_tensor_matters(name, part):
    ids, logits = expected(name)
    metadata, tensors = golden(name)
    rest = {key: tensor for key, tensor in tensors.items() if part not in key}
    assert len(rest) < len(tensors)
    assert nmse(run(compiled(metadata, rest), name, ids), logits) > 1e-8


def test_rotating_halves_where_neighbours_belong_together_is_wrong():
    ids, logits = expected("llama-mha")
    p = compiled(*golden("llama-mha"))
    spec = p.native_spec(mapped("llama-mha", p))
    for op in spec["ops"]:
        if "neox" in op["ints"]:
            op["ints"]["neox"] = 1
    program, memory = Reference(spec), Memory(p.states)
    program.run(memory, ids, np.arange(32), np.zeros(32, int), range(32))
    assert nmse(program.buffer("logits"), logits) > 1e-4
