"""Tiny random models of every family, saved as checkpoints, and what Hugging Face says of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

VOCAB_SIZE = 151

_COMMON: Mapping[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    # Far from uniform attention and from ties, so that a wrong mask or position shows.
    "initializer_range": 0.3,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}

LONGROPE: Mapping[str, Any] = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "partial_rotary_factor": 0.5,
    "factor": 2.0,
    "short_factor": [1.0, 1.1, 1.3],
    "long_factor": [2.0, 3.0, 4.0],
}

CONFIGS: dict[str, Mapping[str, Any]] = {
    "llama": {"model_type": "llama"},
    "llama-tied-biased": {
        "model_type": "llama",
        "num_key_value_heads": 4,
        "tie_word_embeddings": True,
        "attention_bias": True,
        "mlp_bias": True,
        "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 500.0},
    },
    "llama3": {
        "model_type": "llama",
        "num_key_value_heads": 1,
        "head_dim": 16,
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 100.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    },
    "mistral": {"model_type": "mistral", "sliding_window": 20},
    "qwen2": {
        "model_type": "qwen2",
        "use_sliding_window": True,
        "sliding_window": 9,
        "max_window_layers": 1,
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 1000.0,
            "factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    },
    "qwen3": {"model_type": "qwen3", "head_dim": 20},
    "phi3": {
        "model_type": "phi3",
        "sliding_window": 33,
        "original_max_position_embeddings": 128,
        "rope_parameters": LONGROPE,
    },
    "gemma2": {
        "model_type": "gemma2",
        "head_dim": 16,
        "num_hidden_layers": 3,
        "query_pre_attn_scalar": 8,
        "sliding_window": 12,
        "attn_logit_softcapping": 4.0,
        "final_logit_softcapping": 6.0,
    },
}
"""Name of a case -> its own fields; several cases may be of one family."""


GENERIC: dict[str, Mapping[str, Any]] = {
    # Learned positions, packed weights stored the other way round, a tied head.
    "gpt2": {"model_type": "gpt2", "n_inner": 80},
    # Positions from an offset, a body within the body.
    "opt": {"model_type": "opt", "init_std": 0.3, "ffn_dim": 80, "word_embed_proj_dim": 48},
    # Attention beside the MLP, rotation of a part of each head.
    "gpt_neox": {"model_type": "gpt_neox", "rotary_pct": 0.5},
    "phi": {"model_type": "phi", "partial_rotary_factor": 0.5},
    # Windows on some layers, norms of queries and keys, two rotary bases.
    "gemma3": {
        "model_type": "gemma3_text",
        "head_dim": 16,
        "num_hidden_layers": 3,
        "query_pre_attn_scalar": 8,
        "sliding_window": 12,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
    # Multipliers of embedding, residuals, attention and logits.
    "granite": {
        "model_type": "granite",
        "embedding_multiplier": 3.0,
        "residual_multiplier": 0.7,
        "attention_multiplier": 0.4,
        "logits_scaling": 2.0,
    },
    # Rotation of neighbouring pairs, layers without any, scaled logits.
    "cohere2": {
        "model_type": "cohere2",
        "sliding_window": 12,
        "logit_scale": 0.5,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    # Experts, saved one by one and computed stacked.
    "mixtral": {"model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2},
    # Values of fewer dimensions than keys.
    "deepseek_v3": {
        "model_type": "deepseek_v3",
        "num_key_value_heads": 4,
        "head_dim": 8,
        "q_lora_rank": 24,
        "kv_lora_rank": 16,
        "qk_nope_head_dim": 12,
        "qk_rope_head_dim": 8,
        "v_head_dim": 12,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "n_group": 2,
        "topk_group": 1,
        "first_k_dense_replace": 1,
    },
    # Layers without positions.
    "smollm3": {"model_type": "smollm3", "no_rope_layers": [1, 0]},
}
"""Models that transformers' code computes, each of another character."""


SPECIAL: dict[str, Mapping[str, Any]] = {
    # A window that transformers' cache knows, and its masks do not.
    "moshi": {"model_type": "moshi", "sliding_window": 20, "ffn_dim": 80},
    # Queries grow from position 8191 on, by a position that is not the one given.
    "llama4": {
        "model_type": "llama4_text",
        "head_dim": 12,
        "intermediate_size_mlp": 80,
        "max_position_embeddings": 16_384,
        "no_rope_layers": [0, 0],
        "layer_types": ["full_attention", "full_attention"],
        "moe_layers": [],
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
    },
    "llama-text": {"model_type": "llama", "vocab_size": 300},
    "llama-server": {
        "model_type": "llama",
        "vocab_size": 320,  # more than the tokenizer has, as padded checkpoints do
        "max_position_embeddings": 2048,
    },
    "llama-long": {"model_type": "llama", "max_position_embeddings": 1024},
}
"""Cases for special ends: the tokenizer of `tiny_tokenizer`, the workloads of the benchmark."""

LLAMA_8B = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "torch_dtype": "bfloat16",
    "eos_token_id": 2,
}
"""What `config.json` says of Llama-3.1-8B's shape: planned on paper, never built."""


def save_model(name: str, folder: Path) -> Any:
    """Save a case's checkpoint in fp32 and return Hugging Face's model."""
    fields = {**_COMMON, **(CONFIGS | GENERIC | SPECIAL)[name]}
    config = AutoConfig.for_model(fields.pop("model_type"), **fields)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        config, dtype=torch.float32, attn_implementation="eager"
    )
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            # Norms and biases are ones and zeros at first, and would hide what forgets them.
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
            if fields.get("query_pre_attn_scalar") and "post_" in parameter_name:
                # Gemma's scaled embedding outweighs what its normed layers add, at first.
                parameter.add_(4.0)
            assert parameter.isfinite().all(), parameter_name
    model.eval()
    model.save_pretrained(folder)
    return model


def hf_greedy(model: Any, prompt: Sequence[int], num_tokens: int, **options: Any) -> list[int]:
    """Greedy continuation of one prompt by `generate`."""
    ids = torch.tensor([list(prompt)])
    done = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=num_tokens,
        **options,
    )
    output: list[int] = done[0, len(prompt) :].tolist()
    return output


def make_prompts(lengths: Sequence[int], seed: int = 0) -> list[list[int]]:
    """Random token ids, special ones left out."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(3, VOCAB_SIZE, (n,), generator=generator).tolist() for n in lengths]
