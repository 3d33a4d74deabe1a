"""A model's sizes and switches, read from Hugging Face's config.json here and nowhere else."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.config_fields import ConfigFields, read_json_object
from runtime.errors import InvalidParameterError, ModelFolderError, UnknownArchitectureError
from runtime.model_sizes import ModelSizes, read_dtype
from runtime.models import FAMILIES
from runtime.rope_config import RopeConfig, read_rope_config
from runtime.weight_format import ROUNDED, WeightFormat, read_weight_format

_ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
}
_SLIDING = "sliding_attention"
_FULL = "full_attention"


@dataclass(frozen=True, slots=True)
class ModelConfig(ModelSizes):
    """What a model of one of our families is made of, weights excepted."""

    hidden_size: int
    intermediate_size: int
    num_heads: int
    norm_eps: float
    activation: str
    """Of the gated MLP: "silu", "gelu" or "gelu_tanh"."""
    rope: RopeConfig
    windows: tuple[int | None, ...]
    """Per layer: tokens that it looks back on, the newest included; None for all."""
    attention_scale: float
    attention_softcap: float | None
    """Scores s become cap * tanh(s / cap) before the softmax."""
    logit_softcap: float | None
    attention_bias: bool
    mlp_bias: bool
    tie_word_embeddings: bool
    linears: WeightFormat | None
    """How the layers' linears are quantised; None for plain numbers."""

    @property
    def linear_shapes(self) -> tuple[tuple[int, int], ...]:
        """Outputs and inputs of a layer's linears: packed qkv, output, packed gate-up, down."""
        width = self.num_heads * self.head_dim
        hidden, inner = self.hidden_size, self.intermediate_size
        qkv = width + 2 * self.num_kv_heads * self.head_dim
        return (qkv, hidden), (hidden, width), (2 * inner, hidden), (hidden, inner)

    @classmethod
    def from_hf(cls, values: Mapping[str, Any], where: str = "config.json") -> ModelConfig:
        """Read the object in a config.json.

        Args:
            values: its fields.
            where: how errors name it.

        Raises:
            UnknownArchitectureError: no family has its architecture.
            ConfigFieldError: a field is missing, wrong or asks for what is not supported.
        """
        names = values.get("architectures")
        if not isinstance(names, list) or not names or not isinstance(names[0], str):
            raise ConfigFields(values, where).error("architectures", "is missing")
        architecture = names[0]
        if architecture not in FAMILIES:
            raise UnknownArchitectureError(where, architecture, FAMILIES)
        # A null is "none" even where the family's default is a value: it hides the default.
        fields = ConfigFields({**FAMILIES[architecture].defaults, **values}, where)
        num_heads = fields.count("num_attention_heads")
        num_kv_heads = fields.count("num_key_value_heads", num_heads)
        if num_heads % num_kv_heads:
            raise fields.error(
                "num_key_value_heads", f"is {num_kv_heads}, not a part of {num_heads}"
            )
        hidden_size = fields.count("hidden_size")
        head_dim = fields.optional_count("head_dim")
        if head_dim is None:
            if hidden_size % num_heads:
                raise fields.error("head_dim", "is missing, and hidden_size does not give it")
            head_dim = hidden_size // num_heads
        num_layers = fields.count("num_hidden_layers")
        max_position = fields.count("max_position_embeddings")
        query_scalar = fields.number("query_pre_attn_scalar", float(head_dim))
        return cls(
            architecture=architecture,
            vocab_size=fields.count("vocab_size"),
            hidden_size=hidden_size,
            intermediate_size=fields.count("intermediate_size"),
            num_layers=num_layers,
            num_heads=num_heads,
            num_kv_heads=num_kv_heads,
            head_dim=head_dim,
            max_position=max_position,
            norm_eps=fields.number("rms_norm_eps"),
            activation=_activation(fields),
            rope=read_rope_config(fields, head_dim, max_position),
            windows=_windows(fields, num_layers),
            attention_scale=query_scalar**-0.5,
            attention_softcap=fields.optional_number("attn_logit_softcapping"),
            logit_softcap=fields.optional_number("final_logit_softcapping"),
            attention_bias=fields.flag("attention_bias"),
            mlp_bias=fields.flag("mlp_bias"),
            tie_word_embeddings=fields.flag("tie_word_embeddings"),
            linears=read_weight_format(fields),
            dtype=read_dtype(fields),
            eos_token_ids=fields.token_ids("eos_token_id"),
        )


def load_model_config(folder: Path, impl: str = "auto") -> ModelSizes:
    """Read a model folder's config.json, and its generation_config.json for the end tokens.

    Args:
        folder: of the model.
        impl: whose code computes it, one of `config.MODEL_IMPLS`.

    Returns:
        A `ModelConfig` where it is a family of ours, else a `GenericConfig`.

    Raises:
        ModelFolderError: there is no such folder, or it has no config.json.
        ModelError: as `ModelConfig.from_hf`.
    """
    if folder.is_file():
        raise ModelFolderError(
            f"{folder}: a file{_gguf_hint(folder.parent, folder.name)}; give the folder "
            "with config.json and safetensors files"
        )
    if not folder.is_dir():
        raise ModelFolderError(
            f"{folder}: no such folder; give a local folder with config.json and safetensors files"
        )
    path = folder / "config.json"
    if not path.is_file():
        raise ModelFolderError(f"{folder}: no config.json in this folder{_gguf_hint(folder)}")
    values = read_json_object(path)
    generation = folder / "generation_config.json"
    if generation.is_file():
        eos = read_json_object(generation).get("eos_token_id")
        if eos is not None:
            values = {**values, "eos_token_id": eos}
    names = values.get("architectures")
    is_ours = isinstance(names, list) and bool(names) and names[0] in FAMILIES
    if impl == "native" or (impl == "auto" and is_ours):
        return ModelConfig.from_hf(values, str(path))
    # transformers' modelling code is loaded only for models that it computes.
    from runtime.generic.config import read_generic_config

    return read_generic_config(folder, values)


def with_quantization(model: ModelSizes, name: str | None) -> ModelSizes:
    """The model with its linears as the caller wants them, `EngineConfig.quantization`.

    Raises:
        InvalidParameterError: its checkpoint is of another kind, or transformers computes it.
    """
    if name is None:
        return model
    if not isinstance(model, ModelConfig):
        raise InvalidParameterError(
            "quantization",
            name,
            f"left out for {model.architecture}, which transformers' code computes; supported are "
            f"{', '.join(FAMILIES)}",
        )
    own = model.linears
    if name in ROUNDED and own is None:
        return dataclasses.replace(model, linears=WeightFormat.rounding(name))
    if own is None:
        accepts = f"left out, or one of {', '.join(ROUNDED)}: config.json has no {name}"
        raise InvalidParameterError("quantization", name, accepts)
    if name != own.method:
        accepts = f"left out, or {own.method}, as config.json says of this checkpoint"
        raise InvalidParameterError("quantization", name, accepts)
    return model


def _gguf_hint(folder: Path, name: str = "*") -> str:
    found = [path for path in sorted(folder.glob(name)) if path.suffix == ".gguf"]
    return f"; {found[0].name} is GGUF, which is not supported: use safetensors" if found else ""


def _activation(fields: ConfigFields) -> str:
    # Gemma's configs carry both names and mean hidden_activation.
    has_own = fields.values.get("hidden_activation") is not None
    field = "hidden_activation" if has_own else "hidden_act"
    name = fields.text(field, "silu")
    if name not in _ACTIVATIONS:
        raise fields.error(field, f"is {name!r}; supported are {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]


def _windows(fields: ConfigFields, num_layers: int) -> tuple[int | None, ...]:
    """Window of each layer: by `layer_types`, else by `max_window_layers`, else on all."""
    window = fields.optional_count("sliding_window")
    if window is None or not fields.flag("use_sliding_window", default=True):
        return (None,) * num_layers
    types = fields.values.get("layer_types")
    if types is None:
        first, every = 0, fields.count("window_every", 1)  # a family's default, in no config.json
        if "use_sliding_window" in fields.values:
            first = fields.count("max_window_layers", num_layers)
        return tuple(
            window if index >= first and (index - first) % every == 0 else None
            for index in range(num_layers)
        )
    if not isinstance(types, list) or len(types) != num_layers:
        raise fields.error("layer_types", f"must be a list of {num_layers} names")
    for name in types:
        if name not in (_SLIDING, _FULL):
            raise fields.error("layer_types", f"has {name!r}; supported are {_SLIDING}, {_FULL}")
    return tuple(window if name == _SLIDING else None for name in types)
