"""ModernBERT: norms before each block, most layers with a window and a rotation of their own.

Warner et al., 2024, Smarter, Better, Faster, Longer.
"""

from __future__ import annotations

from dataclasses import replace

from clarion.errors import UnsupportedError
from clarion.models.blocks import Gate, Layer, attention, encoder, feed_forward, silu_gate
from clarion.models.family import ENCODER_KEYS, Computed, Family, HuggingFace, Integer, Settings
from clarion.models.hyperparameters import figures
from clarion.models.jina_bert import gelu_gate
from clarion.models.keys import Keys, shown
from clarion.models.rope import plain_rope
from clarion.plan.checkpoint import Checkpoint
from clarion.plan.graph import Array, Graph

_GATES: dict[str, Gate] = {"gelu": gelu_gate, "silu": silu_gate}


def build(keys: Keys, w: Checkpoint) -> Graph:
    """The graph; see `clarion.models.build`."""
    found = figures(keys, w, norm="attention.layer_norm_epsilon")
    n_layer, window = found.all.n_layer, found.all.window
    # Of each three layers the first sees the whole text.
    near = keys.flags(
        "attention.sliding_window_pattern", n_layer, [i % 3 > 0 for i in range(n_layer)], first=True
    )
    local = plain_rope(keys.number("rope.freq_base_swa", 10000.0), found.all.n_rot)
    activation = keys.text("hidden_activation", "gelu")
    if activation not in _GATES:
        raise UnsupportedError(
            f"{keys.name('hidden_activation')} is {shown(activation)}, known are {', '.join(_GATES)}"
        )

    def block(layer: Layer, x: Array) -> Array:
        g, w, eps = layer.g, layer.w, layer.hp.norm_eps
        # A window of w counts w / 2 positions on each side.
        width = window // 2 + 1 if near[layer.number] and window else 0
        layer = replace(layer, hp=replace(layer.hp, window=width), rope=local if width else layer.rope)
        # The first layer has none: its rows come from a norm.
        y = g.layer_norm(x, w.attn_norm, eps) if layer.number or "weight" in w.attn_norm else x
        x = x + attention(layer, y, causal=False)
        return x + feed_forward(layer, g.layer_norm(x, w.ffn_norm, eps), gate=_GATES[activation])

    return encoder(
        keys,
        w,
        block,
        given=found,
        norm="output_norm",
        activation=lambda g: lambda x: g.gelu(x, tanh=False),
        classified_by="mean",
    )


def _of_full(config: Settings) -> float:
    """The base of the rotation in layers that see the whole text."""
    full = config.child("rope_parameters").child("full_attention")
    named = full.number("rope_theta") if full.get("rope_theta") else None
    return named or config.number("global_rope_theta", default=160000.0)


def _of_windows(config: Settings) -> float:
    local = config.child("rope_parameters").child("sliding_attention")
    named = local.number("rope_theta") if local.get("rope_theta") else None
    return named or config.number("local_rope_theta", default=10000.0)


def _pooling(config: Settings) -> int | None:
    """The file's number for how the vector is made that a classifier gets."""
    named = config.get("classifier_pooling")
    if named not in (None, "mean", "cls"):
        raise config.unsupported("classifier_pooling", named, "mean or cls")
    return {None: None, "mean": 1, "cls": 2}[named]


_LAYER = "model.layers.{layer}."
_MODERN = HuggingFace(
    "modernbert",
    roots=("model.", ""),
    beside=("decoder.", "head.", "classifier."),
    common=ENCODER_KEYS,
    keys={
        "attention.value_length": None,
        "attention.sliding_window": Integer(("local_attention",), 128),
        "attention.sliding_window_pattern": Integer(("global_attn_every_n_layers",), 3),
        "rope.freq_base": Computed(_of_full),
        "rope.freq_base_swa": Computed(_of_windows),
        "hidden_activation": Computed(lambda config: config.get("hidden_activation")),
        "classifier.pooling_type": Computed(_pooling),
    },
    tensors={
        "token_embd": "model.embeddings.tok_embeddings",
        "token_embd_norm": "model.embeddings.norm",
        "attn_norm": _LAYER + "attn_norm",
        "attn_qkv": _LAYER + "attn.Wqkv",
        "attn_output": _LAYER + "attn.Wo",
        "ffn_norm": _LAYER + "mlp_norm",
        "ffn_up": _LAYER + "mlp.Wi",
        "ffn_down": _LAYER + "mlp.Wo",
        "output_norm": "model.final_norm",
        "cls": "head.dense",
        "cls.norm": "head.norm",
        "cls.output": "classifier",
    },
    only={"classifier_activation": ("gelu",), "hidden_activation": ("gelu", "silu")},
    writes=False,
    rotates=False,  # as its keys say
)
FAMILY = Family("modern-bert", build, (_MODERN,))
