"""Compile the entry points of a rendered module for a target, without a device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from autotune.arch import GpuArch
from autotune.errors import CandidateError


@dataclass(frozen=True, slots=True)
class Binary:
    """One compiled entry point."""

    entry: str
    asm: Mapping[str, Any]
    """Triton's stages by name: `ttir`, `ttgir`, `llir`, then `ptx` and `cubin`, or `amdgcn` and
    `hsaco`; text but for the last."""
    shared_bytes: int
    num_warps: int
    num_stages: int

    @property
    def machine_code(self) -> bytes:
        """The loadable object: cubin or hsaco."""
        code: bytes = self.asm["cubin"] if "cubin" in self.asm else self.asm["hsaco"]
        return code


def cross_compile(module: ModuleType, arch: GpuArch) -> tuple[Binary, ...]:
    """Compile every entry point that `module.ENTRY_POINTS` declares, in launch order.

    Arguments not listed under `unaligned` are compiled as multiples of 16, which is what Triton's
    launcher finds for contiguous tensors; so the binary is the one that will run. Line information
    is left out: it would put file names into the binary and its hash.

    Raises:
        CandidateError: Triton or the assembler refuses an entry point.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
    from triton.compiler.errors import CompilationError

    if arch.vendor == "amd":
        target = GPUTarget("hip", arch.target, arch.warp_size)
    else:
        target = GPUTarget("cuda", arch.capability, arch.warp_size)
    binaries = []
    for entry, facts in module.ENTRY_POINTS.items():
        function = getattr(module, entry)
        signature = dict(facts["signature"])
        unaligned = facts["unaligned"]
        assert list(signature) == function.arg_names, f"{entry}: signature and arguments differ"
        attributes = {
            (index,): [["tt.divisibility", 16]]
            for index, name in enumerate(signature)
            if name not in unaligned and not signature[name].startswith("tensordesc")
        }
        source = ASTSource(function, signature, constexprs={}, attrs=attributes)
        options = {
            "num_warps": facts["num_warps"],
            "num_stages": facts["num_stages"],
            **facts.get("options", {}),
        }
        try:
            with triton.knobs.compilation.scope():
                triton.knobs.compilation.disable_line_info = True
                compiled = triton.compile(source, target=target, options=options)
        except CompilationError as error:
            raise CandidateError(_located(module, error)) from error
        except (RuntimeError, ValueError, IndexError, AssertionError) as error:
            # Passes and ptxas report through these; the text is long, its end says what.
            text = str(error).strip().splitlines() or [type(error).__name__]
            raise CandidateError(f"{entry}: {text[-1][:300]}") from error
        binaries.append(
            Binary(
                entry=entry,
                asm=dict(compiled.asm),
                shared_bytes=int(compiled.metadata.shared),
                num_warps=facts["num_warps"],
                num_stages=facts["num_stages"],
            )
        )
    return tuple(binaries)


def _located(module: ModuleType, error: Any) -> str:
    """Triton counts lines from the `def` of a function and names no file: make both absolute."""
    from triton.runtime.jit import JITFunction

    cause = error
    while isinstance(cause.__cause__, type(error)):  # the innermost call is where it went wrong
        cause = cause.__cause__
    line = getattr(cause.node, "lineno", 1)
    for function in vars(module).values():
        if isinstance(function, JITFunction) and function.src == cause.src:
            decorators = next(
                (n for n, text in enumerate(function.raw_src) if text.lstrip().startswith("def ")),
                0,
            )
            line += function.starting_line_number + decorators - 1
    message = (cause.error_message or str(cause)).strip().splitlines()
    return f"{module.__file__}:{line}: {message[-1] if message else 'compilation failed'}"
