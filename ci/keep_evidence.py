"""Takes home what ci/gpu_evidence.sh brought back, so that committing it is `git add`.

    ci/keep_evidence.sh FOLDER...           one folder per call of gpu_evidence

Results go to results/<gpu>/ (each cell that was measured replaces the predicted one), recorded
spaces and compile facts to tests/data/spaces/, tables with environment and commands to
docs/evidence/<gpu>.md, figures to docs/evidence/<gpu>/<stage>.json. Everything is read by the
readers that refuse what makes no sense; nothing simulated is taken, unless --into names another
folder than this checkout. Raw samples stay where they are; the page has their checksums.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evidence.model import judged_spaces
from evidence.page import write_page

from autotune.binary_facts import SUFFIX, read_facts
from autotune.errors import AutotuneError, UsageError
from autotune.recorded_files import read_space
from autotune.results import ResultsStore

ROOT = Path(__file__).resolve().parents[1]
_MOST_BYTES = 1 << 20


def main() -> int:
    """Install; 0 if everything was taken, 2 for a folder without evidence, 4 for a bad file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--into", type=Path, default=ROOT, metavar="DIR", help="default: this one")
    options = parser.parse_args()
    try:
        documents = read_documents(options.folders)
        simulated = [n for n, d in documents.items() if d.get("environment", {}).get("simulated")]
        if simulated and options.into.resolve() == ROOT:
            raise UsageError(f"simulated: {', '.join(simulated)}; nothing of it is a measurement")
        keep(options.folders, documents, options.into)
    except AutotuneError as error:
        print(f"keep_evidence: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def read_documents(folders: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Stage → its document; of a stage in several folders the last.

    Raises:
        UsageError: there is none.
    """
    found = {}
    for folder in folders:
        for path in sorted(folder.glob("*.json")):
            document = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(document, dict) and "command" in document:
                found[path.stem] = document
    if not found:
        raise UsageError(f"no stage of gpu_evidence in {', '.join(map(str, folders))}")
    return found


def keep(folders: Sequence[Path], documents: dict[str, dict[str, Any]], root: Path) -> None:
    """Copy results, spaces, tables and figures under `root`.

    Raises:
        CorruptResultError: a file that came back makes no sense; nothing of it is taken.
    """
    sums: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as scratch:
        unpacked = Path(scratch)
        for folder in folders:
            for path in sorted([*folder.glob("*.tar.gz"), *folder.glob("*.raw.gz")]):
                sums[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
                if path.name.endswith(".tar.gz"):
                    with tarfile.open(path) as archive:
                        archive.extractall(unpacked / path.name[: -len(".tar.gz")], filter="data")
        _keep_results(unpacked / "winners" / "results", root / "results")
        _keep_spaces(unpacked / "spaces", root / "tests" / "data" / "spaces")
        _judge_model(unpacked, documents)
        gpu = _gpu(unpacked, documents)
        figures = root / "docs" / "evidence" / gpu
        figures.mkdir(parents=True, exist_ok=True)
        for name, document in documents.items():
            text = json.dumps(document, indent=1) + "\n"
            if len(text) > _MOST_BYTES:
                print(f"{name}.json is over 1 MiB and stays where it is", file=sys.stderr)
                continue
            (figures / f"{name}.json").write_text(text, encoding="utf-8")
        page = write_page(root / "docs" / "evidence" / f"{gpu}.md", documents, unpacked, sums)
    print(page)


def _keep_results(source: Path, target: Path) -> None:
    kept, brought = ResultsStore(target), ResultsStore(source)
    for path in sorted(source.glob("*/*.json")):
        gpu, kernel = path.parent.name, path.stem
        cells = brought.read(gpu, kernel)
        before = {cell.key: len(cell.selections) for cell in kept.read(gpu, kernel)}
        print(kept.merge(gpu, kernel, cells))
        for cell in cells:
            was = before.get(cell.key, 0)
            print(f"  {len(cell.selections)} points measured, for {was} before: {cell.key}")


def _keep_spaces(source: Path, target: Path) -> None:
    for path in sorted(source.glob("*.json.gz")):
        (read_facts if path.name.endswith(SUFFIX) else read_space)(path)
        if path.stat().st_size > _MOST_BYTES:
            print(f"{path.name} is over 1 MiB and is left out", file=sys.stderr)
            continue
        target.mkdir(parents=True, exist_ok=True)
        print(shutil.copy(path, target / path.name))


def _judge_model(unpacked: Path, documents: dict[str, dict[str, Any]]) -> None:
    """What the stage `model` does, where spaces came back without it: it takes no GPU."""
    done = "model" in documents and "failed" not in documents["model"]
    if done or not (unpacked / "spaces").is_dir():
        return
    told, text = judged_spaces(unpacked / "spaces")
    (unpacked / "model").mkdir(exist_ok=True)
    (unpacked / "model" / "model.md").write_text(text, encoding="utf-8")
    command = "autotune replay --model tests/data/spaces/*.space.json.gz"
    documents["model"] = {**told, "command": command}


def _gpu(unpacked: Path, documents: dict[str, dict[str, Any]]) -> str:
    """Name of the GPU, as folders are named."""
    for path in (*unpacked.glob("winners/results/*"), *unpacked.glob("spaces/*.space.json.gz")):
        return path.name.partition("-")[0]
    devices = {str(d["environment"]["device"]) for d in documents.values() if "environment" in d}
    return "-".join(sorted(devices)).lower().replace(" ", "-") or "unknown"


if __name__ == "__main__":
    raise SystemExit(main())
