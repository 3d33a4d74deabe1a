"""How an engine is set up: every default stands here, and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from runtime.errors import InvalidParameterError
from runtime.preemption import PreemptionCost, PreemptionMode
from runtime.scheduler_config import SchedulingPolicy
from runtime.weight_format import METHODS, ROUNDED

DTYPE_NAMES = ("auto", "fp32", "bf16", "fp16")
KV_CACHE_DTYPES = ("auto", "int8", "fp8")
KV_CACHE_ALIASES = {"fp8_e4m3": "fp8"}
"""vLLM's names of some of them."""
QUANTIZATIONS = (*ROUNDED, *METHODS)
LOAD_FORMATS = ("auto", "safetensors", "dummy")
MODEL_IMPLS = ("auto", "native", "transformers")


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Names follow vLLM's engine arguments. Raises InvalidParameterError, naming the field."""

    model: Path
    """Folder with config.json and safetensors files."""
    dtype: str = "auto"
    """Of weights and activations; auto takes the checkpoint's, or fp32 on a CPU that has no
    instructions for it."""
    kv_cache_dtype: str = "auto"
    """Of keys and values in the KV cache; auto takes `dtype`. int8 and fp8 (e4m3) have a scale for
    each token and KV head, found when it is written: nothing is to be calibrated."""
    quantization: str | None = None
    """Of the weights of linear layers, the head's excepted: int8 (a scale for each output) and int4
    (a scale and a zero for each group of inputs) round any checkpoint when it is loaded; gptq and
    awq say what the checkpoint must be; None takes it as it is."""
    load_format: str = "auto"
    """Where weights come from: auto and safetensors read the folder's files; dummy makes random
    ones by `seed`, in the shapes of its config.json."""
    model_impl: str = "auto"
    """Whose code computes the model: native is ours, transformers is that library's with our paged
    attention; auto is native where there is one."""
    device: str = "auto"
    """PyTorch's name; auto is "cuda" where there is a GPU and the operations run on it."""
    ops: str = "auto"
    """Operation set that the model runs on; auto is triton on GPUs, torch elsewhere."""
    results: Path | None = None
    """Folder of tuned kernels in place of own and shipped ones."""
    block_size: int | None = None
    """Tokens per KV block; None for the operation set's choice."""
    kv_cache_bytes: int = 1 << 30
    """Most that the KV cache may take; less where all seats together cannot use it."""
    num_blocks: int | None = None
    """KV blocks, block 0 included, in place of `kv_cache_bytes`."""
    gpu_memory_utilization: float | None = None
    """Share of a GPU's memory for weights, logits and KV blocks together, in place of
    `kv_cache_bytes`; None where others share the device. Means nothing on a CPU."""
    swap_bytes: int = 0
    """Host memory for the KV blocks of preempted sequences."""
    max_num_seqs: int = 64
    max_num_batched_tokens: int = 2048
    max_model_len: int | None = None
    """Most tokens of a sequence; None for the model's. A LongRoPE model uses its frequencies for
    short contexts if this is within its original context, else those for long ones."""
    max_queue_len: int = 4096
    policy: SchedulingPolicy = SchedulingPolicy.FCFS
    enable_prefix_caching: bool = True
    enable_chunked_prefill: bool = True
    long_prefill_token_threshold: int | None = None
    preemption_mode: PreemptionMode | str = "auto"
    """"recompute", "swap", or "auto": the cheaper one for each sequence, by measured rates. Where
    there is no room on the host (`swap_bytes`), all is recomputed."""
    preemption_cost: PreemptionCost | None = None
    """Rates that "auto" decides by; None to measure them when the engine starts."""
    enable_forecast: bool = True
    """Hold requests back while those that run are expected to need the blocks."""
    seed: int = 0
    """For requests that bring none."""
    async_scheduling: bool | None = None
    """Schedule each step while the one before it runs, and take results one step late; None where
    the device runs by itself, which is not so on a CPU."""
    threads: int | None = None
    """CPU threads of this process' tensor operations; None leaves them as they are."""
    deterministic: bool = False
    """Sum in one order whatever else is in a batch, and however a prompt is cut: a request's output
    is the same to the bit as that of the request alone."""
    enforce_eager: bool = False
    """Capture no CUDA graphs."""
    cudagraph_capture_sizes: tuple[int, ...] | None = None
    """Batch sizes to capture for steps that only decode; larger batches run without a graph. None
    for sizes that cover all up to `max_num_seqs`, 512 at most."""
    tokenizer: Path | None = None
    """Folder of the tokenizer and the chat template; None for the model's own."""
    skip_tokenizer: bool = False
    """Take and give token ids only."""

    @property
    def text_folder(self) -> Path:
        """Where tokenizer and chat template are."""
        return self.model if self.tokenizer is None else self.tokenizer

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", Path(self.model))
        if self.results is not None:
            object.__setattr__(self, "results", Path(self.results))
        if self.tokenizer is not None:
            object.__setattr__(self, "tokenizer", Path(self.tokenizer))
        if self.kv_cache_dtype in KV_CACHE_ALIASES:
            object.__setattr__(self, "kv_cache_dtype", KV_CACHE_ALIASES[self.kv_cache_dtype])
        if self.dtype not in DTYPE_NAMES:
            raise InvalidParameterError("dtype", self.dtype, f"one of {', '.join(DTYPE_NAMES)}")
        if self.kv_cache_dtype not in KV_CACHE_DTYPES:
            accepts = f"one of {', '.join(KV_CACHE_DTYPES)}"
            raise InvalidParameterError("kv_cache_dtype", self.kv_cache_dtype, accepts)
        if self.quantization is not None and self.quantization not in QUANTIZATIONS:
            accepts = f"one of {', '.join(QUANTIZATIONS)}"
            raise InvalidParameterError("quantization", self.quantization, accepts)
        if self.load_format not in LOAD_FORMATS:
            accepts = f"one of {', '.join(LOAD_FORMATS)}"
            raise InvalidParameterError("load_format", self.load_format, accepts)
        if self.model_impl not in MODEL_IMPLS:
            accepts = f"one of {', '.join(MODEL_IMPLS)}"
            raise InvalidParameterError("model_impl", self.model_impl, accepts)
        for field in ("block_size", "kv_cache_bytes", "max_model_len", "threads"):
            value = getattr(self, field)
            if value is not None and value < 1:
                raise InvalidParameterError(field, value, "at least 1")
        if self.num_blocks is not None and self.num_blocks < 2:
            raise InvalidParameterError("num_blocks", self.num_blocks, "at least 2")
        share = self.gpu_memory_utilization
        if share is not None and not 0 < share <= 1:
            raise InvalidParameterError("gpu_memory_utilization", share, "above 0, and at most 1")
        self._settle_preemption_mode()
        sizes = self.cudagraph_capture_sizes
        if sizes is not None:
            if not sizes or min(sizes) < 1 or max(sizes) > self.max_num_seqs:
                raise InvalidParameterError(
                    "cudagraph_capture_sizes",
                    sizes,
                    f"numbers from 1 to max_num_seqs={self.max_num_seqs}, or None",
                )
            object.__setattr__(self, "cudagraph_capture_sizes", tuple(sorted(set(sizes))))
        if self.swap_bytes < 0:
            raise InvalidParameterError("swap_bytes", self.swap_bytes, "at least 0")

    def _settle_preemption_mode(self) -> None:
        names = [mode.value for mode in PreemptionMode]
        if self.preemption_mode in names:
            object.__setattr__(self, "preemption_mode", PreemptionMode(self.preemption_mode))
        elif self.preemption_mode != "auto" and not isinstance(
            self.preemption_mode, PreemptionMode
        ):
            accepts = f"one of auto, {', '.join(names)}"
            raise InvalidParameterError("preemption_mode", self.preemption_mode, accepts)
