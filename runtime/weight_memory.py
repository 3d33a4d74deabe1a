"""What quantised linears take in memory, and what they save; worked out before any is read."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.model_config import ModelConfig
from runtime.model_sizes import ModelSizes


@dataclass(frozen=True, slots=True)
class LinearMemory:
    """Of the linears of all layers, in bytes; embedding, head and norms are not counted."""

    words: str
    """How they are stored."""
    quantised: int
    plain: int
    """If they were numbers of a type."""

    @classmethod
    def of(cls, model: ModelSizes, number_bytes: int) -> LinearMemory | None:
        """Count them.

        Args:
            model: any.
            number_bytes: of a plain number, and of a scale or zero.

        Returns:
            None where they are not quantised.
        """
        if not isinstance(model, ModelConfig) or model.linears is None:
            return None
        linears, shapes = model.linears, model.linear_shapes
        return cls(
            linears.words,
            model.num_layers * sum(linears.num_bytes(n, k, number_bytes) for n, k in shapes),
            model.num_layers * sum(n * k * number_bytes for n, k in shapes),
        )

    @property
    def saved(self) -> int:
        """What the plain numbers would take beyond."""
        return self.plain - self.quantised


def shape_bytes(model: ModelConfig, number_bytes: int) -> int:
    """Of a model in memory, from its shapes alone: matrices, embedding and head; no norms, biases.

    Args:
        model: of a family of ours.
        number_bytes: of a plain number, and of a scale or zero.
    """
    linears = LinearMemory.of(model, number_bytes)
    if linears is not None:
        layers = linears.quantised
    else:
        layers = model.num_layers * sum(n * k * number_bytes for n, k in model.linear_shapes)
    tables = 1 if model.tie_word_embeddings else 2
    return layers + tables * model.vocab_size * model.hidden_size * number_bytes
