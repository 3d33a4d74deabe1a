"""From a config.json to a model class of transformers, and to what the engine must know of it.

A model is refused here, before any weight is read, where its configuration or a run of its code
without content shows that paged attention cannot serve it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import CONFIG_MAPPING, AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from runtime.config_fields import ConfigFields
from runtime.errors import (
    ConfigFieldError,
    ModelError,
    UnknownArchitectureError,
    UnsupportedModelError,
)
from runtime.generic.attention_call import AttentionCall
from runtime.generic.interface import PROBING, register
from runtime.generic.probe import probe
from runtime.model_sizes import ModelSizes, read_dtype
from runtime.models import FAMILIES

_ATTENDING = frozenset({"full_attention", "sliding_attention", "chunked_attention"})
_BAD_CONFIG = (StrictDataclassError, ValueError, TypeError, KeyError, AttributeError)
"""What transformers' configuration classes raise for values that make no sense."""


@dataclass(frozen=True, slots=True)
class GenericConfig(ModelSizes):
    """A model of transformers that can be served."""

    impl: ClassVar[str] = "transformers"
    model_class: Any
    """Of transformers."""
    hf_config: Any
    """Its `PreTrainedConfig`."""
    calls: tuple[AttentionCall, ...]
    """Its attention calls; the index is that of the layer in the KV cache."""
    body: str
    """Name of the module that computes the last hidden states of token ids."""
    output_class: Any
    """Of that module."""
    where: str
    """Names config.json in errors."""


def read_generic_config(folder: Path, values: Mapping[str, Any]) -> GenericConfig:
    """Find the model's class, build it without weights, and see how it attends.

    Args:
        folder: of the model.
        values: the fields of its config.json; the end tokens are taken from here.

    Raises:
        UnknownArchitectureError: transformers has no causal language model of this name.
        ConfigFieldError: a field is missing or wrong.
        UnsupportedModelError: it cannot be served; the message says why.
    """
    where = str(folder / "config.json")
    fields = ConfigFields(values, where)
    names = values.get("architectures")
    if not isinstance(names, list) or not names or not isinstance(names[0], str):
        raise fields.error("architectures", "is missing")
    architecture = names[0]
    _check_architecture(fields, architecture)
    if fields.nested("quantization_config") is not None:
        raise fields.error(
            "quantization_config",
            f"is set: quantised weights are supported of {', '.join(FAMILIES)} only",
        )
    config_class = CONFIG_MAPPING[fields.text("model_type")]
    try:
        hf_config = config_class.from_pretrained(folder, local_files_only=True)
    except _BAD_CONFIG as error:
        raise ModelError(f"{where}: transformers refuses it: {_one_line(error)}") from error
    _check_kind(hf_config, architecture, where)
    model = _build_without_weights(hf_config, architecture, where)
    text = model.config.get_text_config()
    calls, body, output_class = probe(model, where)
    spec = calls[0].spec
    for call in calls:
        if (call.spec.num_kv_heads, call.spec.head_dim) != (spec.num_kv_heads, spec.head_dim):
            raise UnsupportedModelError(
                f"{where}: {calls[0].module} has {spec.num_kv_heads} KV heads of {spec.head_dim}, "
                f"{call.module} {call.spec.num_kv_heads} of {call.spec.head_dim}: layers of "
                "different KV shapes are not supported"
            )
    num_layers = getattr(text, "num_hidden_layers", len(calls))
    if num_layers != len(calls):
        raise UnsupportedModelError(
            f"{where}: {len(calls)} of {num_layers} layers attend through transformers' attention "
            "interface; the others keep something else between tokens, or share what is kept"
        )
    max_position = getattr(text, "max_position_embeddings", None)
    if not isinstance(max_position, int) or max_position < 2:
        raise UnsupportedModelError(f"{where}: nothing in it says how long a context may be")
    eos = {"eos_token_id": getattr(text, "eos_token_id", None), **values}
    return GenericConfig(
        architecture=architecture,
        vocab_size=text.vocab_size,
        num_layers=len(calls),
        num_kv_heads=spec.num_kv_heads,
        head_dim=spec.head_dim,
        max_position=max_position,
        dtype=read_dtype(fields),
        eos_token_ids=ConfigFields(eos, where).token_ids("eos_token_id"),
        model_class=type(model),
        hf_config=model.config,
        calls=calls,
        body=body,
        output_class=output_class,
        where=where,
    )


def _check_architecture(fields: ConfigFields, architecture: str) -> None:
    model_type = fields.text("model_type", "")
    known = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    if architecture not in known.values() or architecture.endswith("ForConditionalGeneration"):
        where = fields.where
        if fields.flag("is_encoder_decoder") or architecture.endswith("ForConditionalGeneration"):
            raise UnsupportedModelError(
                f"{where}: {architecture} takes more than a text to continue (it has an encoder, "
                "or reads images or sound): give a decoder-only language model"
            )
        if fields.values.get("auto_map") is not None:
            raise UnsupportedModelError(
                f"{where}: {architecture} is not part of transformers but code in the model's own "
                "folder (auto_map), which is never run: give a model that transformers has"
            )
        raise UnknownArchitectureError(where, architecture, FAMILIES, set(known.values()))
    if known.get(model_type) != architecture:
        expected = sorted(kind for kind, name in known.items() if name == architecture)
        raise ConfigFieldError(
            fields.where,
            "model_type",
            f"is {model_type!r}, but {architecture} is of {', '.join(expected)}",
        )


def _check_kind(hf_config: Any, architecture: str, where: str) -> None:
    if hf_config.is_encoder_decoder:
        raise UnsupportedModelError(
            f"{where}: {architecture} has an encoder: give a decoder-only language model"
        )
    text = hf_config.get_text_config()
    kinds = getattr(text, "layer_types", None) or getattr(text, "layers_block_type", None) or ()
    other = sorted(set(kinds) - _ATTENDING - {"attention"})
    if other:
        raise UnsupportedModelError(
            f"{where}: {architecture} has layers of kind {', '.join(other)}, whose state between "
            "tokens is not the keys and values of a causal attention: only those are kept in pages"
        )


def _build_without_weights(hf_config: Any, architecture: str, where: str) -> Any:
    register()
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(
                hf_config,
                attn_implementation=PROBING,
                # What transformers' kernels for experts are declared for.
                dtype=torch.bfloat16,
                trust_remote_code=False,
            )
    except (*_BAD_CONFIG, AssertionError, ImportError, RuntimeError) as error:
        if isinstance(error, KeyError) and error.args == (PROBING,):
            raise UnsupportedModelError(
                f"{where}: the attention of {architecture} does not go through transformers' "
                "attention interface, so it cannot be given a paged cache"
            ) from error
        raise UnsupportedModelError(
            f"{where}: transformers cannot build {architecture} from it: {_one_line(error)}"
        ) from error
    if model._is_stateful:
        raise UnsupportedModelError(
            f"{where}: {architecture} is recurrent: its state is not keys and values in pages"
        )
    return model.eval()


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
