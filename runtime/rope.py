"""Rotary position embedding: the table of cosines and sines that a model's parameters give.

RoPE is of Su et al. (RoFormer, 2021); NTK-by-parts and YaRN of Peng et al. (2023); LongRoPE of Ding
et al. (2024); the llama3 rule came with Llama 3.1. Operations are in float32 and in the order of
Hugging Face's `modeling_rope_utils`, so that angles agree to the last bit at long distances.
"""

from __future__ import annotations

import math

import torch

from runtime.rope_config import RopeConfig, RopeKind


def build_rope_table(
    config: RopeConfig, max_len: int, dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """Return cosines and sines of every position, scaled as the method says.

    LongRoPE has two sets of frequencies, for contexts up to the original length and beyond; which
    one is used is decided by `max_len` for all sequences, as keys once written are not rotated
    again.

    Args:
        config: the parameters.
        max_len: positions 0 to `max_len` - 1.
        dtype: of the table; the angles are computed in float32.
        device: of the table.

    Returns:
        [max_len, 2, rotary_dim / 2]: cosines, then sines.
    """
    frequencies, scale = _frequencies(config, max_len)
    positions = torch.arange(max_len, dtype=torch.float32)
    angles = positions[:, None] * frequencies  # [max_len, rotary_dim / 2]
    table = torch.stack((angles.cos() * scale, angles.sin() * scale), dim=1)
    return table.to(device=device, dtype=dtype)


def _frequencies(config: RopeConfig, max_len: int) -> tuple[torch.Tensor, float]:
    """Angle per position of each pair of dimensions, and the factor on cosines and sines."""
    exponents = torch.arange(0, config.rotary_dim, 2, dtype=torch.float32) / config.rotary_dim
    wavelengths = config.theta**exponents  # [rotary_dim / 2], over 2 pi
    if config.kind is RopeKind.LINEAR:
        return 1.0 / wavelengths / config.factor, 1.0
    if config.kind is RopeKind.LLAMA3:
        return _llama3(config, 1.0 / wavelengths), 1.0
    if config.kind is RopeKind.YARN:
        return _yarn(config, wavelengths), _yarn_scale(config)
    if config.kind is RopeKind.LONGROPE:
        assert config.original_max_position is not None
        is_long = max_len > config.original_max_position
        stretch = torch.tensor(config.long_factor if is_long else config.short_factor)
        return 1.0 / (stretch * wavelengths), _longrope_scale(config)
    return 1.0 / wavelengths, 1.0


def _llama3(config: RopeConfig, frequencies: torch.Tensor) -> torch.Tensor:
    """Slow turns are stretched, fast ones kept, those between blended."""
    assert config.original_max_position is not None
    turns = config.original_max_position / (2 * math.pi / frequencies)  # within the first context
    blend = (turns - config.low_freq_factor) / (config.high_freq_factor - config.low_freq_factor)
    stretched = frequencies / config.factor
    blended = (1 - blend) * stretched + blend * frequencies
    result = torch.where(turns < config.low_freq_factor, stretched, blended)
    return torch.where(turns > config.high_freq_factor, frequencies, result)


def _yarn(config: RopeConfig, wavelengths: torch.Tensor) -> torch.Tensor:
    """Interpolate dimensions that turn rarely, keep those that turn often, ramp between."""
    dim, original = config.rotary_dim, config.original_max_position
    assert original is not None

    def dimension_of(turns: float) -> float:
        return dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(config.theta))

    low, high = dimension_of(config.beta_fast), dimension_of(config.beta_slow)
    if config.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    width = high - low or 0.001
    ramp = torch.clamp((torch.arange(dim // 2, dtype=torch.float32) - low) / width, 0, 1)
    kept = 1 - ramp
    return 1.0 / (config.factor * wavelengths) * (1 - kept) + 1.0 / wavelengths * kept


def _yarn_scale(config: RopeConfig) -> float:
    def mscale(weight: float) -> float:
        return 1.0 if config.factor <= 1 else 0.1 * weight * math.log(config.factor) + 1.0

    if config.attention_factor is not None:
        return config.attention_factor
    if config.mscale is not None and config.mscale_all_dim is not None:
        return mscale(config.mscale) / mscale(config.mscale_all_dim)
    return mscale(1.0)


def _longrope_scale(config: RopeConfig) -> float:
    assert config.original_max_position is not None
    if config.attention_factor is not None:
        return config.attention_factor
    if config.factor <= 1:
        return 1.0
    return math.sqrt(1 + math.log(config.factor) / math.log(config.original_max_position))
