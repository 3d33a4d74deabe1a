"""Finds out how a model attends by running its code once on tensors without content.

Sizes are read off the tensors and scales off the arguments that arrive at the attention interface,
not out of a configuration whose fields have other names in every model.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch

from runtime.errors import UnsupportedModelError
from runtime.generic.attention_call import AttentionCall
from runtime.generic.interface import PROBING, rule_of, set_handler
from runtime.generic.mask_rule import read_window
from runtime.ops.base import AttentionSpec

_NUM_TOKENS = 6
_HARMLESS = frozenset(
    {
        "cache_position",
        "is_causal",  # what counts is the mask
        "output_attentions",
        "output_hidden_states",
        "output_router_logits",
        "position_embeddings",
        "position_ids",
        "return_dict",
        "sliding_window",  # what counts is the mask
        "use_cache",
    }
)
"""Options of attention calls that do not change what is computed, given the mask."""
_READ = frozenset({"dropout", "scaling", "softcap"})


class Recorder:
    """Answers attention calls with tensors of the right shape, and notes what was asked."""

    def __init__(self, config: Any, where: str) -> None:
        self._config = config
        self._where = where
        self._names: dict[torch.nn.Module, str] = {}
        self.calls: list[AttentionCall] = []

    def attach(self, model: torch.nn.Module) -> None:
        """Listen to every module of a model."""
        for name, module in model.named_modules():
            self._names[module] = name
            set_handler(module, self)

    def __call__(
        self,
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        **options: Any,
    ) -> tuple[torch.Tensor, None]:
        """Take note; raises UnsupportedModelError for what paged attention cannot do."""
        name = self._names[module]
        where = f"{self._where}: {name}"
        if any(call.module == name for call in self.calls):
            raise UnsupportedModelError(f"{where}: one set of weights attends in several layers")
        for option, given in options.items():
            if option not in _HARMLESS | _READ and given is not None and given is not False:
                raise UnsupportedModelError(
                    f"{where}: attention takes {option!r}, which paged attention does not know"
                )
        if options.get("dropout"):
            raise UnsupportedModelError(f"{where}: attention has a dropout outside of training")
        _, num_heads, num_tokens, key_dim = query.shape
        _, num_kv_heads, num_keys, _ = key.shape
        value_dim = value.shape[3]
        if num_tokens != _NUM_TOKENS or num_keys != _NUM_TOKENS:
            raise UnsupportedModelError(
                f"{where}: attends with {num_tokens} queries to {num_keys} keys in a sequence of "
                f"{_NUM_TOKENS} tokens (cross-attention, or keys that are no tokens)"
            )
        if value.shape[1] != num_kv_heads or num_heads % num_kv_heads:
            raise UnsupportedModelError(
                f"{where}: {num_heads} query, {num_kv_heads} key and {value.shape[1]} value heads"
            )
        rule = rule_of(attention_mask)
        if rule is None:
            raise UnsupportedModelError(
                f"{where}: the model makes its attention mask by itself, not by transformers' mask "
                "functions, so what it means is not known"
            )
        scaling = options.get("scaling")
        spec = AttentionSpec(
            num_heads=num_heads,
            num_kv_heads=num_kv_heads,
            head_dim=max(key_dim, value_dim),
            scale=key_dim**-0.5 if scaling is None else float(scaling),
            window=read_window(rule, self._declared_window(options), where),
            softcap=options.get("softcap"),
        )
        self.calls.append(AttentionCall(name, spec, key_dim, value_dim))
        out = query.new_empty((1, num_tokens, num_heads, value_dim))
        return out, None

    def _declared_window(self, options: dict[str, Any]) -> int | None:
        given = options.get("sliding_window")
        declared = getattr(self._config, "sliding_window", None) if given is None else given
        return declared if isinstance(declared, int) and declared > 0 else None


def probe(model: Any, where: str) -> tuple[tuple[AttentionCall, ...], str, Any]:
    """Find a model's attention calls, in their order, and its body.

    Args:
        model: of a class of transformers, on the meta device.
        where: names it in errors.

    Returns:
        The calls; the name of the module that makes hidden states of token ids; the class of its
        output.

    Raises:
        UnsupportedModelError: something in it has no form in paged attention.
    """
    assert model.config._attn_implementation == PROBING
    recorder = Recorder(model.config, where)
    recorder.attach(model)
    bodies = _Bodies(model)
    _still_rope(model)
    ids = torch.zeros((1, _NUM_TOKENS), dtype=torch.int64, device="meta")
    try:
        with torch.inference_mode(), bodies:
            model(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                position_ids=torch.arange(_NUM_TOKENS, device="meta")[None],
                use_cache=False,
            )
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
        raise UnsupportedModelError(
            f"{where}: its code does not run on tensors without content, by which its attention "
            f"would be understood: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        ) from error
    name = type(model).__name__
    if not recorder.calls:
        raise UnsupportedModelError(
            f"{where}: the attention of {name}, if it has one, does not go through transformers' "
            "attention interface, so it cannot be given a paged cache"
        )
    if bodies.found is None:
        raise UnsupportedModelError(
            f"{where}: {name} has no part that gives the last hidden states of token ids"
        )
    body, output_class = bodies.found
    if "position_ids" not in inspect.signature(model.get_submodule(body).forward).parameters:
        raise UnsupportedModelError(
            f"{where}: {name} does not take positions (position_ids): the tokens of several "
            "sequences in one step could not be told apart"
        )
    return tuple(recorder.calls), body, output_class


def _still_rope(model: Any) -> None:
    """Keep rotary embeddings from looking at positions, which have no content here.

    Those that change with the positions of a call alter no shape and no scale; how far they may be
    trusted is for `context_guard` to say.
    """
    for module in model.modules():
        kind = getattr(module, "rope_type", None)
        if isinstance(kind, str):
            module.rope_type = "default"
        elif isinstance(kind, dict):
            module.rope_type = dict.fromkeys(kind, "default")


class _Bodies:
    """Watches which of the modules that may be a model's body its forward pass calls."""

    def __init__(self, model: Any) -> None:
        self._names = {module: name for name, module in model.named_modules()}
        inner = model.base_model
        self._candidates = {inner.get_decoder(), inner, *model.children()}
        self._hooks: list[Any] = []
        self.found: tuple[str, Any] | None = None
        """Name, and class of output; the outermost one that was called."""

    def __enter__(self) -> None:
        for module in self._candidates:
            if self._names.get(module):
                self._hooks.append(module.register_forward_hook(self._see))

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _see(self, module: Any, inputs: Any, output: Any) -> None:
        # Hooks fire as calls end: the outermost one is the last to be seen.
        if getattr(output, "last_hidden_state", None) is not None:
            self.found = (self._names[module], type(output))
