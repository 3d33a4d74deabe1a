"""The sizes of a language model that decide which kernels it needs; weights play no part."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from autotune.errors import UnknownChoiceError, UsageError
from autotune.json_fields import JsonFields

_ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}
_DTYPES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
# Families with Llama's field names whose MLP is plain: down(activation(up(x))), without a gate.
_UNGATED = ("gpt_neox", "phi", "starcoder2")
_EXPERT_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")


@dataclass(frozen=True, slots=True)
class Linear:
    """One weight matrix [n, k] as the engine multiplies it: x [m, k] to y [m, n]."""

    name: str
    n: int
    k: int


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Sizes of a decoder-only model, or of one rank's part of it (`tensor_parallel`)."""

    name: str
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    max_context_len: int
    """Most tokens of prompt and output together."""
    activation: str = "silu"
    """Of the MLP: "silu", "gelu_tanh" or "gelu"."""
    sliding_window: int | None = None
    """Tokens that a windowed layer looks back on, itself included; other layers may see all."""
    softcap: float | None = None
    """Attention scores s become softcap * tanh(s / softcap) before the softmax."""
    attention_scale: float | None = None
    """Factor on the scores where it is not head_dim ** -0.5."""
    dtype: str = "bf16"
    """Of weights and activations: "bf16", "fp16" or "fp32"."""
    gated: bool = True
    """Whether the MLP is down(activation(gate(x)) * up(x)) rather than down(activation(up(x)))."""
    alibi: bool = False
    """Whether positions enter as a slope on the attention scores."""
    kv_dtype: str = "auto"
    """Of the KV cache where an engine quantises it: "int8" or "fp8"; "auto" for `dtype`."""
    kv_scale: str = "head"
    """What a quantised cache keeps a scale for: a "head", or each "token" of it."""

    def __post_init__(self) -> None:
        assert self.num_heads % self.num_kv_heads == 0, "query heads do not divide into KV groups"

    @property
    def group(self) -> int:
        """Query heads that share a KV head."""
        return self.num_heads // self.num_kv_heads

    @property
    def softmax_scale(self) -> float:
        """Factor on the scores, usual or not."""
        return self.head_dim**-0.5 if self.attention_scale is None else self.attention_scale

    def linears(self) -> tuple[Linear, ...]:
        """Every quantisable linear of a layer, fused as the engine runs it: qkv, o, gate_up, down.

        A model without a gate has "up" in place of "gate_up".
        """
        heads = self.num_heads * self.head_dim
        kv_heads = self.num_kv_heads * self.head_dim
        up = (
            Linear("gate_up", 2 * self.intermediate_size, self.hidden_size)
            if self.gated
            else Linear("up", self.intermediate_size, self.hidden_size)
        )
        return (
            Linear("qkv", heads + 2 * kv_heads, self.hidden_size),
            Linear("o", self.hidden_size, heads),
            up,
            Linear("down", self.hidden_size, self.intermediate_size),
        )

    def tensor_parallel(self, n: int) -> ModelShape:
        """Return the part of one of `n` ranks, divided as in Megatron-LM (Shoeybi et al., 2019).

        qkv and gate_up lose columns (N / n), o and down lose rows (K / n). With more ranks than KV
        heads each rank holds one, repeated. The vocabulary stays whole: no tuned kernel sees it.

        Raises:
            UsageError: `n` is below one, or does not divide heads or intermediate size.
        """
        if n < 1:
            raise UsageError(f"tensor parallel size {n} must be at least 1")
        for what, size in (
            ("heads", self.num_heads),
            ("intermediate size", self.intermediate_size),
        ):
            if size % n:
                raise UsageError(f"{self.name} has {what} {size}, which {n} ranks do not divide")
        kv_heads = self.num_kv_heads
        if max(kv_heads, n) % min(kv_heads, n):
            raise UsageError(
                f"{self.name} has {kv_heads} KV heads; use a number of ranks that divides it, or"
                f" a multiple of it, not {n}"
            )
        return dataclasses.replace(
            self,
            num_heads=self.num_heads // n,
            num_kv_heads=max(1, kv_heads // n),
            intermediate_size=self.intermediate_size // n,
        )


# Figures of the published config.json: name, hidden size, intermediate size, layers, heads, KV
# heads, head dimension, vocabulary, longest context, activation, window, soft cap.
_ROWS = (
    ModelShape("llama-3.1-8b", 4_096, 14_336, 32, 32, 8, 128, 128_256, 131_072),
    ModelShape("llama-3.1-70b", 8_192, 28_672, 80, 64, 8, 128, 128_256, 131_072),
    ModelShape("mistral-7b", 4_096, 14_336, 32, 32, 8, 128, 32_768, 32_768),  # v0.3: no window
    ModelShape("qwen2.5-7b", 3_584, 18_944, 28, 28, 4, 128, 152_064, 131_072),
    ModelShape("qwen3-0.6b", 1_024, 3_072, 28, 16, 8, 128, 151_936, 40_960),
    ModelShape("qwen3-8b", 4_096, 12_288, 36, 32, 8, 128, 151_936, 40_960),
    ModelShape("qwen3-32b", 5_120, 25_600, 64, 64, 8, 128, 151_936, 40_960),
    # Its query_pre_attn_scalar is head_dim: the usual attention scale.
    ModelShape(
        "gemma-2-9b", 3_584, 14_336, 42, 16, 8, 256, 256_000, 8_192, "gelu_tanh", 4_096, 50.0
    ),
    ModelShape("phi-3-mini", 3_072, 8_192, 32, 32, 32, 96, 32_064, 4_096, sliding_window=2_047),
)

PRESETS: Mapping[str, ModelShape] = {row.name: row for row in _ROWS}
"""Shapes known without a file, by name."""


def load(name_or_path: str) -> ModelShape:
    """Return a preset, or read the config.json at a path (the file, or the folder that has it).

    A preset wins over a folder of the same name; write `./NAME` for the folder.

    Raises:
        UnknownChoiceError: neither a preset nor an existing path.
        UsageError: the file cannot be read, or a field is missing, wrong or contradictory.
    """
    preset = PRESETS.get(name_or_path.lower())
    if preset is not None:
        return preset
    path = Path(name_or_path)
    if os.path.isdir(name_or_path):  # unlike Path.is_dir, never an OSError for an odd name
        path = path / "config.json"
        if not os.path.isfile(path):
            raise UsageError(f"{name_or_path}: no config.json in this folder; give one that has it")
    elif not os.path.isfile(name_or_path):
        error = UnknownChoiceError("model", name_or_path, PRESETS)
        error.args = (f"{error}; or the path of a config.json, or of a folder that has one",)
        raise error
    absolute = path.absolute()
    name = absolute.parent.name if absolute.stem == "config" else absolute.stem
    return _from_config(JsonFields.read(path), name or "model")


def _from_config(fields: JsonFields, name: str) -> ModelShape:
    """Read the field names of Hugging Face configs (Llama's, and GPT-2's n_embd and so on)."""
    dtype = fields.choice(("dtype", "torch_dtype"), _DTYPES)
    fields = fields.nested("text_config") or fields  # multimodal models
    _refuse_other_architectures(fields)
    hidden_size = fields.required_count("hidden_size", "n_embd")
    heads = fields.required_count("num_attention_heads", "n_head")
    kv_heads = fields.count("num_key_value_heads")
    if kv_heads is None:
        kv_heads = 1 if fields.flag("multi_query", default=False) else heads
    if heads % kv_heads:
        raise fields.error(
            f"num_key_value_heads={kv_heads} must divide num_attention_heads={heads}"
        )
    head_dim = fields.count("head_dim")
    if head_dim is None:
        if hidden_size % heads:
            raise fields.error(f"num_attention_heads={heads} must divide hidden_size; add head_dim")
        head_dim = hidden_size // heads
    gpt2_names = "n_embd" in fields.values
    if gpt2_names and fields.values.get("n_inner") is None:
        intermediate_size = 4 * hidden_size
    else:
        intermediate_size = fields.required_count("intermediate_size", "n_inner")
    return ModelShape(
        name=name,
        hidden_size=hidden_size,
        intermediate_size=intermediate_size,
        num_layers=fields.required_count("num_hidden_layers", "n_layer"),
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        vocab_size=fields.required_count("vocab_size"),
        max_context_len=fields.required_count("max_position_embeddings", "n_positions", "n_ctx"),
        activation=_activation(fields),
        sliding_window=_sliding_window(fields),
        softcap=fields.number("attn_logit_softcapping"),
        attention_scale=_attention_scale(fields, head_dim),
        dtype=dtype or fields.choice(("dtype", "torch_dtype"), _DTYPES) or "bf16",
        gated=not gpt2_names and fields.values.get("model_type") not in _UNGATED,
        alibi=fields.flag("alibi", default=False),
    )


def _refuse_other_architectures(fields: JsonFields) -> None:
    """Raise UsageError for layers that have no such shape, rather than describe them wrongly."""
    for field in _EXPERT_COUNTS:
        if (fields.count(field) or 1) > 1:
            raise fields.error(f"{field}: mixture of experts is not supported; give a dense model")
    if fields.count("kv_lora_rank") is not None:
        raise fields.error("kv_lora_rank: latent attention is not supported; give another model")


def _activation(fields: JsonFields) -> str:
    # Gemma configs carry both names and mean hidden_activation, so these are not aliases.
    for field in ("hidden_activation", "hidden_act", "activation_function"):
        activation = fields.choice((field,), _ACTIVATIONS)
        if activation is not None:
            return activation
    known = ", ".join(sorted(_ACTIVATIONS))
    raise fields.error(f"field hidden_act is missing; add it as one of {known}")


def _sliding_window(fields: JsonFields) -> int | None:
    layer_types = fields.values.get("layer_types")
    unused = isinstance(layer_types, list) and "sliding_attention" not in layer_types
    if unused or not fields.flag("use_sliding_window", default=True):
        return None
    return fields.count("sliding_window")


def _attention_scale(fields: JsonFields, head_dim: int) -> float | None:
    scalar = fields.number("query_pre_attn_scalar")  # Gemma 2 and 3
    scale = fields.number("attention_multiplier") if scalar is None else scalar**-0.5  # Granite
    if scale is None or math.isclose(scale, head_dim**-0.5):
        return None
    return scale
