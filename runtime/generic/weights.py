"""A model of transformers with the weights of a checkpoint, or a refusal that names a tensor.

Renaming, stacking of experts, splitting of packed weights and tying are transformers' own rules
for each class; what they leave over, missing or of another shape is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers.utils import logging

from runtime.checkpoint import Checkpoint
from runtime.errors import WeightError
from runtime.generic.interface import SERVING


def load_weights(
    model_class: Any,
    hf_config: Any,
    checkpoint: Checkpoint,
    dtype: torch.dtype,
    device: torch.device,
) -> Any:
    """Build the model's class with the tensors of a checkpoint.

    Raises:
        WeightError: a tensor is missing, left over, of another shape, or cannot be converted.
    """
    tensors = {name: checkpoint.lazy(name) for name in checkpoint}
    where = checkpoint.folder
    try:
        with _quiet():
            model, report = model_class.from_pretrained(
                None,
                config=hf_config,
                state_dict=tensors,
                dtype=dtype,
                attn_implementation=SERVING,
                # Reported and refused below, with their names.
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except (RuntimeError, ValueError) as error:
        raise WeightError(
            f"{where}: transformers cannot make {hf_config.model_type}'s weights of these tensors: "
            f"{' '.join(str(error).split())[:300]}"
        ) from error
    for name, found, expected in sorted(report["mismatched_keys"]):
        raise WeightError(
            f"{where}: tensor {name!r} has shape {list(found)}, but config.json makes it "
            f"{list(expected)}"
        )
    for kind, said in (("missing_keys", "is missing"), ("unexpected_keys", "belongs to no layer")):
        names = sorted(report[kind])
        if names:
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise WeightError(f"{where}: tensor {names[0]!r} {said}{more}")
    if report["error_msgs"]:
        raise WeightError(f"{where}: {report['error_msgs'][0]}")
    return model.to(device).eval()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' progress bar and report away: the errors here say the same."""
    had_bar, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if had_bar:
            logging.enable_progress_bar()
