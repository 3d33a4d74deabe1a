"""The table of peers: others' implementations, timed and checked like our own kernels.

A peer is a function `(problem, inputs)` that does what may be done ahead (gathering pages, packing
weights, compiling) and returns what is timed: a function without arguments that returns the output,
shaped like `inputs["out"]`. It raises `PeerError` for problems that it does not serve. Adding one:
a function in this package and a row; or, without any edit, `path/to/file.py:function`.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from autotune.errors import UnknownChoiceError, UsageError
from autotune.kernels.spec import Inputs
from autotune.problem import Problem

Peer = Callable[[Problem, Inputs], Callable[[], Any]]

PEERS: dict[str, dict[str, str]] = {
    "paged_attention_decode": {
        "sdpa": "autotune.peers.attention:decode_sdpa",
        "sdpa_flash": "autotune.peers.attention:decode_sdpa_flash",
        "sdpa_cudnn": "autotune.peers.attention:decode_sdpa_cudnn",
        "sdpa_gather": "autotune.peers.attention:decode_sdpa_gather",
        "flex": "autotune.peers.flex:decode",
    },
    "paged_attention_prefill": {
        "sdpa": "autotune.peers.attention:prefill_sdpa",
        "sdpa_flash": "autotune.peers.attention:prefill_sdpa_flash",
        "sdpa_cudnn": "autotune.peers.attention:prefill_sdpa_cudnn",
        "flex": "autotune.peers.flex:prefill",
    },
    "fused_mlp": {
        "cublas": "autotune.peers.linear:mlp_cublas",
        "compiled": "autotune.peers.linear:mlp_compiled",
    },
    "dequant_gemm": {
        "cublas": "autotune.peers.linear:dequantised_cublas",
        "int4pack": "autotune.peers.int4pack:int4pack",
    },
}
"""Kernel → name of a peer → "module:function"."""


def peers_of(kernel: str) -> tuple[str, ...]:
    """Names of the peers of a kernel, as `load_peer` takes them."""
    return tuple(f"{kernel}/{name}" for name in PEERS.get(kernel, {}))


def load_peer(name: str) -> Peer:
    """Return the peer `kernel/name` of the table, or the function of `path/to/file.py:function`.

    Raises:
        UnknownChoiceError: no such row.
        UsageError: no such file or function.
    """
    place, _, attribute = name.rpartition(":")
    if place.endswith(".py"):
        module = _load_file(Path(place))
    else:
        kernel, _, short = name.partition("/")
        if short not in PEERS.get(kernel, {}):
            raise UnknownChoiceError("peer", name, [n for k in PEERS for n in peers_of(k)])
        target, _, attribute = PEERS[kernel][short].partition(":")
        module = importlib.import_module(target)
    found = getattr(module, attribute, None)
    if not callable(found):
        raise UsageError(f"peer {name}: there is no function {attribute!r} in {place or module}")
    peer: Peer = found
    return peer


def _load_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"pagetune_peer_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise UsageError(f"peer {path}: no such Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
