"""Compiles the C kernels of this package with the machine's own compiler, once, into a cache.

The kernels are compiled for the very CPU they run on, which a wheel could not do. The cache entry's
name is a hash of sources, compiler and CPU, so that a home folder shared by machines works. OpenMP
comes from PyTorch's own copy: two of them in one process would fight over the cores.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

_SOURCES = Path(__file__).with_name("native")
_UNITS = ("linear", "attention", "layers")
_FLAGS = ("-std=gnu11", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fPIC")
_COMPILE_TIMEOUT_S = 120
_OPENMP_NAMES = ("libgomp", "libiomp5", "libomp")
VARIABLE = "PAGETUNE_CPU_KERNELS"
"""Environment variable: "off", or the folder to keep compiled kernels in."""

log = logging.getLogger(__name__)


def load_library(element: str) -> ctypes.CDLL | None:
    """Load the kernels for activations and KV cache of type `element`, "fp32" or "bf16".

    Returns:
        None where there is no compiler, no OpenMP in the process, or `$PAGETUNE_CPU_KERNELS` is
        "off": the callers then use PyTorch's operations. The reason is logged.
    """
    if os.environ.get(VARIABLE) == "off":
        log.info("C kernels: off by $%s", VARIABLE)
        return None
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None or platform.system() != "Linux":
        log.info("C kernels: no C compiler here; using PyTorch's operations")
        return None
    try:
        _share_openmp()
        return ctypes.CDLL(str(_built(compiler, element)))
    except (OSError, subprocess.SubprocessError) as error:
        output = getattr(error, "stderr", None) or error
        log.warning("C kernels: %s cannot build them; using PyTorch's: %s", compiler, output)
        return None


def _built(compiler: str, element: str) -> Path:
    """The compiled library, from the cache or made now."""
    path = _cache_folder() / f"{element}-{_key(compiler)}.so"
    if path.is_file():
        return path
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        objects = []
        for unit in _UNITS:
            source, target = str(_SOURCES / f"{unit}.c"), f"{scratch}/{unit}.o"
            _run(compiler, *_FLAGS, "-fopenmp", f"-DELEMENT_{element.upper()}", "-c", source,
                 "-o", target)  # fmt: skip
            objects.append(target)
        # Linked without -fopenmp: the library is to find the OpenMP that is loaded already.
        library = f"{scratch}/library.so"
        _run(compiler, "-shared", *objects, "-lm", "-o", library)
        Path(library).rename(path)
    return path


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=_COMPILE_TIMEOUT_S)


def _key(compiler: str) -> str:
    """Hash of all that the machine code depends on."""
    digest = hashlib.sha256()
    for path in sorted(_SOURCES.iterdir()):
        digest.update(path.read_bytes())
    version = subprocess.run(
        [compiler, "--version"], check=True, capture_output=True, timeout=_COMPILE_TIMEOUT_S
    )
    digest.update(version.stdout)
    digest.update(" ".join(_FLAGS).encode())
    digest.update(_cpu_words().encode())
    return digest.hexdigest()[:32]


def _cpu_words() -> str:
    """Model and instruction sets of this CPU."""
    wanted = ("model name", "flags", "Features", "CPU part")
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    found = {line for line in lines if line.startswith(wanted)}
    return "\n".join([platform.machine(), *sorted(found)])


def _share_openmp() -> None:
    """Make the OpenMP that PyTorch has loaded visible to libraries loaded after it.

    Raises:
        OSError: there is none in this process.
    """
    maps = Path("/proc/self/maps").read_text(encoding="utf-8")
    paths = {line.split(maxsplit=5)[5] for line in maps.splitlines() if "/" in line}
    for path in sorted(paths):
        if Path(path).name.startswith(_OPENMP_NAMES):
            ctypes.CDLL(path, ctypes.RTLD_GLOBAL)
            return
    raise OSError("PyTorch has loaded no OpenMP library")


def _cache_folder() -> Path:
    """Owner-only folder, as code is loaded from it.

    `$PAGETUNE_CPU_KERNELS`, else `$XDG_CACHE_HOME/pagetune/cpu`, else `~/.cache/pagetune/cpu`.

    Raises:
        OSError: it cannot be made, or others can write to it.
    """
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    chosen = os.environ.get(VARIABLE)
    folder = Path(chosen or Path(base, "pagetune", "cpu")).expanduser()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    info = folder.stat()
    if info.st_uid != os.getuid() or info.st_mode & 0o022:
        raise OSError(f"{folder} can be written by others; run: chmod 700 {folder}")
    return folder
