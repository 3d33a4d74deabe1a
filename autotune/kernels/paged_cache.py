"""Paged KV caches for checks: random, shuffled, with NaN wherever a kernel must not look."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autotune.kernels.dtypes import torch_dtype
from autotune.kernels.kv_quant import quantise

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class PagedCache:
    """Keys and values in pages, and who owns which page."""

    k: torch.Tensor  # [num_pages, block_size, num_kv_heads, head_dim]
    v: torch.Tensor  # the same
    block_tables: torch.Tensor  # int32 [num_seqs, max_pages]
    k_scale: torch.Tensor | None = None  # fp32, see `kv_quant`; None with a cache of plain numbers
    v_scale: torch.Tensor | None = None

    def quantised(self, kv_dtype: str, kv_scale: str, is_odd: bool) -> PagedCache:
        """The same cache as codes and scales, poison included; itself for kv_dtype "auto".

        Heads are made differently loud, and with scales per token their values, so that a wrong
        scale shows; see `_loudness`. What `is_odd` has scales of tokens lie in memory as
        [num_pages, num_kv_heads, block_size], where what a program reads of a page is one piece;
        or else the keys of the last head of several all zeros, and their scale zero.
        """
        if kv_dtype == "auto":
            return self
        import torch

        heads = 0.5 ** (torch.arange(self.k.shape[2], device=self.k.device) % 4)[:, None]
        tokens = self._loudness() if kv_scale == "token" else torch.ones_like(heads)
        is_silent = is_odd and kv_scale == "head" and len(heads) > 1
        k_heads = heads.clone()
        if is_silent:
            k_heads[-1] = 0.0
        k = quantise(self.k * k_heads, kv_dtype, kv_scale)
        v = quantise(self.v * heads * tokens, kv_dtype, kv_scale)
        k_scale, v_scale = k.scales, v.scales
        if is_silent:
            k_scale[-1] = 0.0
        if kv_scale == "token" and is_odd:
            k_scale, v_scale = (
                x.transpose(1, 2).contiguous().transpose(1, 2) for x in (k_scale, v_scale)
            )
        return PagedCache(k.codes, v.codes, self.block_tables, k_scale, v_scale)

    def _loudness(self) -> torch.Tensor:
        """Factors on values, fp32 [num_pages, block_size, num_kv_heads, 1].

        Neighbouring tokens differ; and every 16 tokens of a context are twice as loud as those
        before them, of odd heads half as loud, for 256 tokens at a time. So the loudest token so
        far changes from tile to tile, or was in the first.
        """
        import torch

        num_pages, block_size, num_kv_heads, _ = self.k.shape
        device = self.k.device
        tables = self.block_tables.long()
        index = torch.zeros(num_pages, dtype=torch.long, device=device)  # of a page in its context
        index[tables] = torch.arange(tables.shape[1], device=device).expand_as(tables)
        slots = torch.arange(block_size, device=device)
        steps = (index[:, None] * block_size + slots) // 16 % 16  # [num_pages, block_size]
        signs = 1 - 2 * (torch.arange(num_kv_heads, device=device) % 2)
        powers = steps[..., None] * signs - (slots % 4)[:, None]
        return torch.exp2(powers.float())[..., None]


def make_paged_cache(
    context_lens: list[int],
    block_size: int,
    num_kv_heads: int,
    head_dim: int,
    dtype: str,
    seed: int,
    device: str,
) -> PagedCache:
    """Build a cache whose pages are shuffled over a pool a quarter larger than needed.

    Slots past a sequence's length, pages of nobody and page 0 hold NaN. Table entries past a
    sequence's pages point to page 0. Sequences of equal length share their first page.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    pages_of = [math.ceil(length / block_size) for length in context_lens]
    num_pages = 1 + sum(pages_of) + sum(pages_of) // 4 + 1
    shape = (num_pages, block_size, num_kv_heads, head_dim)
    k = torch.full(shape, math.nan)
    v = torch.full(shape, math.nan)
    order = (1 + torch.randperm(num_pages - 1, generator=generator)).tolist()
    tables = torch.zeros((len(context_lens), max(1, *pages_of)), dtype=torch.int32)
    first_page_of: dict[int, int] = {}
    for seq, (length, count) in enumerate(zip(context_lens, pages_of, strict=True)):
        for index in range(count):
            shared = first_page_of.get(length) if index == 0 and length >= block_size else None
            page = shared if shared is not None else order.pop()
            tables[seq, index] = page
            if index == 0:
                first_page_of.setdefault(length, page)
            if shared is None:
                filled = min(block_size, length - index * block_size)
                content = (filled, num_kv_heads, head_dim)
                k[page, :filled] = torch.randn(content, generator=generator)
                v[page, :filled] = torch.randn(content, generator=generator)
    kind = torch_dtype(dtype)
    return PagedCache(k.to(kind).to(device), v.to(kind).to(device), tables.to(device))


def random_paged_cache(
    num_seqs: int,
    context_len: int,
    block_size: int,
    num_kv_heads: int,
    head_dim: int,
    dtype: str,
    seed: int,
    device: str,
) -> PagedCache:
    """Build a cache for timing: full sequences, pages shuffled over the pool, page 0 unused."""
    import torch

    generator = torch.Generator(device=device).manual_seed(seed)
    pages_per_seq = math.ceil(context_len / block_size)
    num_pages = 1 + num_seqs * pages_per_seq
    shape = (num_pages, block_size, num_kv_heads, head_dim)
    kind = torch_dtype(dtype)
    k = torch.randn(shape, dtype=kind, device=device, generator=generator)
    v = torch.randn(shape, dtype=kind, device=device, generator=generator)
    order = 1 + torch.randperm(num_pages - 1, generator=torch.Generator().manual_seed(seed))
    tables = order.to(torch.int32).reshape(num_seqs, pages_per_seq).to(device)
    return PagedCache(k, v, tables)


def gather_context(
    cache: torch.Tensor, table_row: torch.Tensor, length: int, scale: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the first `length` tokens of one sequence, fp64 [length, num_kv_heads, head_dim].

    `scale` is that of a quantised cache: fp32 [num_kv_heads], or [num_pages, block_size,
    num_kv_heads].
    """
    block_size = cache.shape[1]
    pages = table_row[: math.ceil(length / block_size)].long()
    gathered = cache[pages].flatten(0, 1)[:length].double()
    if scale is None:
        return gathered
    factors = scale if scale.dim() == 1 else scale[pages].flatten(0, 1)[:length]
    return gathered * factors.double()[..., None]


def attend(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float,
    window: int,
    softcap: float,
    slopes: torch.Tensor | None = None,
    sinks: torch.Tensor | None = None,
) -> torch.Tensor:
    """Causal attention of the newest queries, in fp64: the definition, with no tricks.

    Args:
        q: [query_len, num_heads, head_dim]; its last row is the newest token.
        k: [context_len, num_kv_heads, head_dim], queries' own tokens included.
        v: the same.
        scale: factor on the logits.
        window: tokens that a query sees, itself included; 0 for all.
        softcap: logits become softcap * tanh(logits / softcap); 0 for none.
        slopes: [num_heads]; logits get slope * (key position - query position) added (ALiBi).
        sinks: [num_heads]; a further logit per head, of a key whose value is zero.

    Returns:
        fp64 [query_len, num_heads, head_dim]; zeros where there is no key.
    """
    import torch

    query_len, num_heads, _ = q.shape
    context_len = k.shape[0]
    if context_len == 0 or query_len == 0:
        return torch.zeros_like(q, dtype=torch.float64)
    group = num_heads // k.shape[1]
    keys = k.double().repeat_interleave(group, dim=1)  # [context_len, num_heads, head_dim]
    values = v.double().repeat_interleave(group, dim=1)
    logits = torch.einsum("qhd,khd->hqk", q.double(), keys) * scale
    if softcap:
        logits = softcap * torch.tanh(logits / softcap)
    at = torch.arange(context_len - query_len, context_len, device=q.device)[:, None]
    key_at = torch.arange(context_len, device=q.device)[None, :]
    if slopes is not None:
        logits = logits + slopes.double()[:, None, None] * (key_at - at)
    hidden = key_at > at
    if window:
        hidden = hidden | (key_at <= at - window)
    logits = logits.masked_fill(hidden, -math.inf)
    if sinks is not None:
        column = sinks.double()[:, None, None].expand(-1, query_len, 1)
        logits = torch.cat([logits, column], dim=-1)
    weights = torch.softmax(logits, dim=-1)[..., :context_len]
    return torch.einsum("hqk,khd->qhd", weights, values)
