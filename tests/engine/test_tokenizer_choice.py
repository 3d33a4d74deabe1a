"""The quick way to a tokenizer ends at the one that transformers chooses by itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_models import save_model
from tiny_tokenizer import save_tokenizer
from transformers import AutoTokenizer

from runtime.tokenizer import Tokenizer

TEXT = "The quick fox: 12,345 ünïcode\n\n  spaces"


@pytest.mark.parametrize(
    "declared",
    [None, "TokenizersBackend", "PreTrainedTokenizerFast", "LlamaTokenizer", "Qwen2TokenizerFast"],
)
@pytest.mark.parametrize("case", ["llama", "qwen2"])
def test_same_class_and_same_ids(tmp_path: Path, case: str, declared: str | None) -> None:
    save_model(case, tmp_path)
    save_tokenizer(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["tokenizer_class"] = declared
    path.write_text(json.dumps(config), encoding="utf-8")
    found = Tokenizer.load(tmp_path)
    expected = AutoTokenizer.from_pretrained(tmp_path)
    assert type(found.hf_tokenizer) is type(expected)
    assert found.encode(TEXT) == expected(TEXT)["input_ids"]


def test_a_tokenizer_does_not_load_the_compiler(tmp_path: Path) -> None:
    save_model("llama-text", tmp_path)
    save_tokenizer(tmp_path)
    code = (
        "import sys\nfrom pathlib import Path\nfrom runtime.tokenizer import Tokenizer\n"
        "Tokenizer.load(Path(sys.argv[1]))\n"
        "print([name for name in ('torch._dynamo', 'sympy') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
