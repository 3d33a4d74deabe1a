"""Everything about an engine that is settled before weights are loaded."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from runtime.config import EngineConfig
from runtime.dummy_weights import check_load_format
from runtime.errors import DeviceError, InvalidParameterError
from runtime.gpu_memory import GpuMemory, weight_bytes
from runtime.kv_format import KVFormat, check_kv_cache_dtype
from runtime.loader import DTYPES, make_ops
from runtime.memory import plan_memory
from runtime.model_config import ModelConfig, load_model_config, with_quantization
from runtime.model_sizes import ModelSizes
from runtime.ops.base import BlockSizeChoice, OperationSet
from runtime.ops.limits import StepLimits
from runtime.ops.request import Demands, OpsRequest
from runtime.scheduler_config import SchedulerConfig
from runtime.stream import Stream, make_stream
from runtime.weight_memory import LinearMemory, shape_bytes


@dataclass(frozen=True, slots=True)
class EnginePlan:
    """An engine on paper."""

    config: EngineConfig
    model: ModelSizes
    kv: KVFormat
    device: torch.device
    ops: OperationSet
    dtype_name: str
    block_size: BlockSizeChoice
    limits: SchedulerConfig
    stream: Stream
    """Where the device's work goes."""

    @property
    def dtype(self) -> torch.dtype:
        """Of weights and activations."""
        dtype: torch.dtype = DTYPES[self.dtype_name]
        return dtype

    @property
    def linears(self) -> LinearMemory | None:
        """What quantised linears take, and as plain numbers would; None of plain ones."""
        return LinearMemory.of(self.model, DTYPES[self.model.dtype].itemsize)

    @property
    def bytes_per_block(self) -> int:
        """Of a KV block, in all layers."""
        return self.block_size.size * self.kv.token_bytes(self.model)


def plan_engine(
    config: EngineConfig, *, gpu: str | None = None, ops: OperationSet | None = None
) -> EnginePlan:
    """Settle device, operations, type, block size and memory; resolves kernels, loads no weights.

    Args:
        config: what is wanted.
        gpu: plan for this GPU, which may be absent; such a plan cannot be run.
        ops: operations that are shared with another engine, over the same model.

    Raises:
        ModelError: the model's folder cannot be served.
        InvalidParameterError: a limit is off, a name is in no table, or the KV cache cannot be of
            the type that is wanted.
        DeviceError: the operations cannot run here.
    """
    model = load_model_config(config.model, config.model_impl)
    check_kv_cache_dtype(config.kv_cache_dtype, model)
    if config.deterministic and model.impl != "native":
        raise InvalidParameterError(
            "deterministic", True, f"False: {model.architecture} runs transformers' own code"
        )
    model = with_quantization(model, config.quantization)
    check_load_format(config.load_format, model)
    name, device = _choose(config, gpu)
    if ops is None:
        demands = Demands.of(model)
        request = OpsRequest(demands, device, config.results, gpu, config.deterministic)
        ops = make_ops(name, request)
    is_auto = config.dtype == "auto"
    dtype_name = ops.auto_dtype(model.dtype) if is_auto else config.dtype
    max_len = config.max_model_len or model.max_position
    if config.block_size is None:
        block_size = ops.choose_block_size(dtype_name, config.kv_cache_dtype, max_len)
    else:
        block_size = BlockSizeChoice(config.block_size, "as asked")
    # On paper, a GPU need not be here.
    stream = make_stream(device if gpu is None else torch.device("cpu"))
    element_bytes = DTYPES[dtype_name].itemsize
    kv = KVFormat.of(config.kv_cache_dtype, dtype_name, element_bytes)
    limits = plan_memory(
        config,
        model,
        block_size.size,
        kv.token_bytes(model),
        kv_bytes=_kv_bytes(config, model, element_bytes, device, gpu),
        is_asynchronous=stream.is_asynchronous or gpu is not None,
    )
    ops.resolve(dtype_name, config.kv_cache_dtype, block_size.size, StepLimits.of(limits))
    return EnginePlan(config, model, kv, device, ops, dtype_name, block_size, limits, stream)


def _kv_bytes(
    config: EngineConfig,
    model: ModelSizes,
    element_bytes: int,
    device: torch.device,
    gpu: str | None,
) -> int | None:
    """What a GPU has for KV blocks, if it is to be shared out; None for a fixed size."""
    share = config.gpu_memory_utilization
    if share is None or config.num_blocks is not None or device.type != "cuda":
        return None
    is_dummy = config.load_format == "dummy"
    if gpu is not None and not is_dummy and not any(config.model.glob("*.safetensors")):
        return None  # planned on paper, of a configuration alone: nothing says how much is taken
    memory = GpuMemory.of(device) if gpu is None else GpuMemory.of_absent(gpu)
    if isinstance(model, ModelConfig) and (is_dummy or model.linears is not None):
        weights = shape_bytes(model, element_bytes)  # files say nothing, or have other sizes
    else:
        weights = weight_bytes(config.model, DTYPES[model.dtype].itemsize, element_bytes)
    return memory.kv_bytes(share, weights, config.max_num_batched_tokens, model.vocab_size)


def _choose(config: EngineConfig, gpu: str | None) -> tuple[str, torch.device]:
    """Operation set and device where the caller leaves either open."""
    wants_gpu = config.device == "auto" and torch.cuda.is_available()
    on_gpu = gpu is not None or wants_gpu or config.device.startswith("cuda")
    name = config.ops
    if name == "auto":
        name = "triton" if on_gpu else "torch"
    if config.device != "auto":
        device = torch.device(config.device)
    else:
        device = torch.device("cuda" if name == "triton" else "cpu")
    if name == "triton" and device.type != "cuda":
        raise DeviceError(f"--ops triton runs on GPUs, not on device {device.type}")
    if name == "interpreter" and device.type != "cpu":
        raise DeviceError(f"--ops interpreter runs on CPU tensors, not on device {device.type}")
    return name, device
