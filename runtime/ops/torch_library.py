"""The C kernels as Python calls on tensors; what each computes is said beside its source."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_float, c_int32, c_int64, c_void_p
from typing import Any

import torch

from runtime.kv_cache import LayerKV
from runtime.model_input import ModelInput
from runtime.ops.base import AttentionSpec
from runtime.ops.torch_build import load_library

_ELEMENTS: dict[torch.dtype, str] = {torch.float32: "fp32", torch.bfloat16: "bf16"}
_CODES = {torch.float32: 0, torch.bfloat16: 0, torch.int8: 1, torch.float8_e4m3fn: 2}
"""What a KV cache of a type is to codes.h."""


class PackedLinear(ctypes.Structure):
    """`packed_linear` of linear.c."""

    _fields_ = (
        ("weights", c_void_p),
        ("scales", c_void_p),
        ("zeros", c_void_p),
        ("bias", c_void_p),
        ("k", c_int64),
        ("n", c_int64),
        ("group", c_int64),
        ("format", c_int32),
        ("activation", c_int32),
    )


class AttentionStep(ctypes.Structure):
    """`attention_step` of attention.c."""

    _fields_ = (
        ("tables", c_void_p),
        ("query_starts", c_void_p),
        ("context_lens", c_void_p),
        ("table_stride", c_int64),
        ("num_seqs", c_int64),
        ("block_size", c_int64),
        ("num_heads", c_int64),
        ("num_kv_heads", c_int64),
        ("head_dim", c_int64),
        ("window", c_int64),
        ("scale", c_float),
        ("softcap", c_float),
        ("codes", c_int32),
        ("key_scales", c_void_p),
        ("value_scales", c_void_p),
        ("one_order", c_int32),
    )


class CpuKernels:
    """Kernels for activations of one type. Threads: as many as PyTorch uses."""

    def __init__(self, library: ctypes.CDLL, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.most_head_dim = _function(library, "attention_most_dim", c_int64)()
        self.tile_columns = _function(library, "tile_columns", c_int32)()
        self.advise = _function(library, "advise", None, c_void_p, c_int64)
        self._scratch_floats = _function(library, "scratch_floats", c_int64, c_int64)
        p, n, i, f = c_void_p, c_int64, c_int32, c_float
        self._linear = _function(library, "linear", None, POINTER(PackedLinear), p, p, n, p, i)
        self._attention = _function(
            library, "attention", None, POINTER(AttentionStep), p, n, p, p, p, i
        )
        self._rms_norm = _function(library, "rms_norm", None, *[p] * 6, *[n] * 4, f, i)
        self._rotate = _function(library, "rotate_and_write", None, *[p] * 10, *[n] * 8, i, i)
        self._scratch = torch.empty(0)

    @classmethod
    def load(cls, dtype: torch.dtype) -> CpuKernels | None:
        """Compile or find the kernels for a type; None where that cannot be done."""
        if dtype not in _ELEMENTS:
            return None
        library = load_library(_ELEMENTS[dtype])
        return None if library is None else cls(library, dtype)

    def linear(self, packed: PackedLinear, x: torch.Tensor) -> torch.Tensor:
        """Multiply float32 [rows, k] by packed weights: [rows, n]."""
        assert x.dtype == torch.float32
        assert x.shape[1] == packed.k, f"{x.shape[1]} inputs to a layer of {packed.k}"
        x = x.contiguous()
        threads = torch.get_num_threads()
        floats = threads * self._scratch_floats(packed.k)
        if self._scratch.numel() < floats:
            self._scratch = torch.empty(floats)
        out = x.new_empty((x.shape[0], packed.n))
        scratch = self._scratch.data_ptr()
        self._linear(packed, x.data_ptr(), out.data_ptr(), x.shape[0], scratch, threads)
        return out

    def rms_norm(
        self,
        x: torch.Tensor,
        residual: torch.Tensor | None,
        weight: torch.Tensor,
        eps: float,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Norm of x, or of x + residual, and that sum (x itself without a residual).

        x is [rows, size], or [rows, heads, size] with contiguous heads; weight is of x's type or
        float32.
        """
        size = x.shape[-1]
        inner = x.shape[1] if x.ndim == 3 else 1
        if x.stride(-1) != 1 or (x.ndim == 3 and x.stride(1) != size):
            x = x.contiguous()
        out = torch.empty(x.shape, dtype=x.dtype)
        total = x if residual is None else torch.empty_like(out)
        is_wide = weight.dtype != x.dtype
        assert not is_wide or weight.dtype == torch.float32
        self._rms_norm(
            x.data_ptr(),
            None if residual is None else residual.contiguous().data_ptr(),
            None if is_wide else weight.data_ptr(),
            weight.data_ptr() if is_wide else None,
            out.data_ptr(),
            total.data_ptr(),
            x.shape[0],
            inner,
            size,
            x.stride(0),
            eps,
            torch.get_num_threads(),
        )
        return out, total

    def rotate_and_write(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        kv: LayerKV,
        rope_table: torch.Tensor,
        step: ModelInput,
    ) -> torch.Tensor:
        """Rotate queries in place and return them; write rotated keys, and values, to their slots.

        Into a quantised cache go codes, of heads of at most `most_head_dim`.
        rope_table is [max_len, 2, rotary_dim / 2].
        """
        query, key, value = _by_token(query), _by_token(key), _by_token(value)
        key_scales, value_scales = _scales(kv)
        self._rotate(
            query.data_ptr(),
            key.data_ptr(),
            value.data_ptr(),
            kv.key.data_ptr(),
            kv.value.data_ptr(),
            key_scales,
            value_scales,
            rope_table.data_ptr(),
            step.positions.data_ptr(),
            step.slot_mapping.data_ptr(),
            query.shape[0],
            query.shape[1],
            key.shape[1],
            query.shape[2],
            rope_table.shape[2],
            query.stride(0),
            key.stride(0),
            value.stride(0),
            _CODES[kv.key.dtype],
            torch.get_num_threads(),
        )
        return query

    def attention(
        self,
        query: torch.Tensor,
        kv: LayerKV,
        step: ModelInput,
        spec: AttentionSpec,
        *,
        one_order: bool = False,
    ) -> torch.Tensor:
        """Attend over paged context: [num_tokens, num_heads * head_dim].

        With `one_order` a query's sums do not depend on how many queries are beside it.
        """
        tables = step.tables
        assert tables is not None, "the step was built without tables"
        query = _by_token(query)
        out = query.new_empty((query.shape[0], spec.num_heads * spec.head_dim))
        layout = AttentionStep(
            tables.block_table.data_ptr(),
            tables.query_starts.data_ptr(),
            tables.context_len.data_ptr(),
            tables.block_table.stride(0),
            tables.context_len.shape[0],
            step.block_size,
            spec.num_heads,
            spec.num_kv_heads,
            spec.head_dim,
            spec.window or 0,
            spec.scale,
            spec.softcap or 0.0,
            _CODES[kv.key.dtype],
            *_scales(kv),
            int(one_order),
        )
        self._attention(
            layout,
            query.data_ptr(),
            query.stride(0),
            kv.key.data_ptr(),
            kv.value.data_ptr(),
            out.data_ptr(),
            torch.get_num_threads(),
        )
        return out


def _scales(kv: LayerKV) -> tuple[int | None, int | None]:
    """Where a layer's scales lie; None of plain numbers."""
    if not kv.is_quantised:
        return None, None
    key_scales, value_scales = kv.scales
    return key_scales.data_ptr(), value_scales.data_ptr()


def _by_token(x: torch.Tensor) -> torch.Tensor:
    """[num_tokens, heads, dim] with contiguous heads; tokens may lie apart."""
    return x if x.stride(2) == 1 and x.stride(1) == x.shape[2] else x.contiguous()


def _function(library: ctypes.CDLL, name: str, result: Any, *arguments: Any) -> Any:
    function = library[name]
    function.restype = result
    function.argtypes = arguments
    return function
