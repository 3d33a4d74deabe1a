"""How far the cost model is to be trusted, in a line: what its fit showed on unseen problems."""

from __future__ import annotations

from collections.abc import Sequence

from autotune.arch import GPUS, GpuArch
from autotune.coefficients import CoefficientTable, Trust, class_of, kind_of, shipped


def trust_line(kernel: str, arch: GpuArch, table: CoefficientTable | None = None) -> str:
    """Where others' measured winners stood in the model's order, for kernels like this one."""
    known = table or shipped()
    kind = kind_of(kernel)
    lines = known.trust.get(kind, ())
    factor = f"times within ×÷ {known.error_factor(kind, arch):g}"
    own = [line for line in lines if line.gpu == arch.name]
    if own:
        return f"cost model: {factor}; {_evidence(own)} on this GPU"
    near = [line for line in lines if class_of(GPUS[line.gpu]) == class_of(arch)]
    if near:
        return f"cost model: {factor}; {_evidence(near)} on {_gpus(near)}, a near relative"
    if lines:
        return f"cost model: {factor}; {_evidence(lines)} on {_gpus(lines)}, none like this one"
    return f"cost model: {factor}, a guess: nothing was measured for kernels like this one"


def trust_document(kernel: str, arch: GpuArch) -> dict[str, object]:
    """The same as JSON types: error factor, and every line of the kind's evidence."""
    kind, table = kind_of(kernel), shipped()
    return {
        "kind": kind,
        "error_factor": table.error_factor(kind, arch),
        "evidence": [
            {
                "family": line.family,
                "gpu": line.gpu,
                "records": line.records,
                "median_percentile": line.percentile,
                "median_regret": line.regret,
                "median_fold": line.fold,
            }
            for line in table.trust.get(kind, ())
        ],
    }


def _evidence(lines: Sequence[Trust]) -> str:
    records = sum(line.records for line in lines)
    share = sum(line.records * line.percentile for line in lines) / records
    regret = sum(line.records * line.regret for line in lines) / records
    text = (
        f"{records} measured winners of others stood in its best {share:.1%}, regret {regret:.1%}"
    )
    folds = [line.fold for line in lines if line.fold is not None]
    return text + (f", times {max(folds):.2f}x off" if folds else "")


def _gpus(lines: Sequence[Trust]) -> str:
    return ", ".join(sorted({line.gpu for line in lines}))
