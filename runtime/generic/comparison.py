"""How the checks at load judge: rows of numbers side by side, foreign errors made refusals."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from runtime.errors import UnsupportedModelError
from runtime.generic.config import GenericConfig

_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.15, torch.float16: 0.05}
"""Largest median, over the rows of a step, of |difference| / |reference|. What is wrong moves rows
by about their own length; the rounding of half precision, through all layers and now and then to
another expert, does not move half of them so far."""
_NOTHING = 1e-20


def compare_rows(
    config: GenericConfig,
    found: torch.Tensor,
    expected: torch.Tensor,
    dtype: torch.dtype,
    where: str,
) -> None:
    """Compare [num_rows, n] with [num_rows, n], both computed in `dtype`.

    Raises:
        UnsupportedModelError: they differ by more than rounding; says `where`.
    """
    wide = expected.float()
    # A padding token's row may be all zeros.
    errors = (found.float() - wide).norm(dim=1) / wide.norm(dim=1).clamp_min(_NOTHING)
    # Not "above", so that NaN fails as well.
    if not bool(errors.median() <= _TOLERANCE[dtype]):
        raise UnsupportedModelError(
            f"{config.where}: {config.architecture} {where} does not compute what it computes by "
            f"itself (relative error {errors.median():.2g}): it keeps something else than keys and "
            "values between tokens, or takes positions from elsewhere"
        )


@contextmanager
def refusing(config: GenericConfig) -> Iterator[None]:
    """Turn what transformers' code raises into a refusal."""
    try:
        yield
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
        raise UnsupportedModelError(
            f"{config.where}: {config.architecture} does not run with paged attention: "
            f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        ) from error
