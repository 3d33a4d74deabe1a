"""Train the demo model: a Llama of a million parameters, on the text that comes with Python.

Example: python ci/train_demo.py out/demo-model

A few minutes on two cores; a folder that is up to date is left alone. The folder appears when all
is done: an interrupted training leaves nothing behind.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import platform
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from demo_model.training import Progress, Recipe

STAMP = "demo.json"
"""What the folder was made of; with the same, it is up to date."""
_INTERRUPTED = 130
_USAGE = 2
_PROMPTS = ("Return the", "If the file", "An exception")
_QUESTIONS = ("What is queue.Queue?", "What is a dict?", "Hello")


class FolderError(Exception):
    """The folder cannot be written, or holds something that is not ours to replace."""


def main(words: list[str] | None = None) -> int:
    """Train unless up to date; 0 done, 2 the folder cannot be used, 130 interrupted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where to put the model")
    parser.add_argument("--steps", type=int, help="fewer than usual give a worse model sooner")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, help="default 2; other sums, if changed")
    options = parser.parse_args(words)
    if options.steps is not None and options.steps < 1:
        parser.error("--steps must be at least 1")
    try:
        return _make(options)
    except FolderError as error:
        print(f"train_demo: {error}", file=sys.stderr)
        return _USAGE
    except OSError as error:
        print(f"train_demo: {error.filename or options.folder}: {error.strerror}", file=sys.stderr)
        return _USAGE
    except KeyboardInterrupt:
        print("train_demo: interrupted; no model was written", file=sys.stderr)
        return _INTERRUPTED


def _make(options: argparse.Namespace) -> int:
    folder: Path = options.folder
    wanted = _stamp(options)
    if _read_stamp(folder) == wanted:
        print(f"{folder} is up to date")
        return 0
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Beside the folder, so that it can be renamed; made first, so that no minute is spent in vain.
    with tempfile.TemporaryDirectory(prefix=".train-demo-", dir=folder.parent) as name:
        made = Path(name) / "model"
        made.mkdir()
        _train(options, made)
        (made / STAMP).write_text(json.dumps(wanted, indent=1) + "\n", encoding="utf-8")
        if folder.exists():
            folder.rename(Path(name) / "old")
        made.rename(folder)
    print(f"wrote {folder}")
    return 0


def _stamp(options: argparse.Namespace) -> dict[str, object]:
    digest = hashlib.sha256()
    here = Path(__file__).resolve().parent
    for path in (*sorted((here / "demo_model").glob("*.py")), Path(__file__)):
        digest.update(path.read_bytes())
    words = {"steps": options.steps, "seed": options.seed, "threads": options.threads}
    return {"sources": digest.hexdigest(), "python": platform.python_version(), **words}


def _read_stamp(folder: Path) -> object:
    if not folder.exists():
        return None
    if not folder.is_dir():
        raise FolderError(f"{folder} is a file; name a folder")
    try:
        return json.loads((folder / STAMP).read_text(encoding="utf-8"))
    except FileNotFoundError:
        if any(folder.iterdir()):
            raise FolderError(f"{folder} is in use and not by a demo model; name another") from None
        return None
    except ValueError:
        return None


def _train(options: argparse.Namespace, folder: Path) -> None:
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    from demo_model.corpus import read_corpus
    from demo_model.training import Recipe, make_model, train
    from demo_model.vocabulary import Vocabulary

    recipe = Recipe(seed=options.seed)
    if options.steps is not None:
        recipe = dataclasses.replace(recipe, num_steps=options.steps)
    corpus = read_corpus()
    vocabulary = Vocabulary(corpus.texts(), recipe.vocab_size)
    model = make_model(recipe, vocabulary)
    print(
        f"training {model.num_parameters():,} parameters on {len(corpus.documents)} documents and "
        f"{len(corpus.questions)} questions, {recipe.num_steps} steps",
        flush=True,
    )
    every = max(1, recipe.num_steps // 14)
    train(model, recipe, corpus, vocabulary, _report, every, options.threads)
    model.to(torch.bfloat16).save_pretrained(folder)
    vocabulary.save(folder, recipe.max_position)
    _show(folder, recipe)


def _report(progress: Progress) -> None:
    left_s = progress.elapsed_s / progress.step * (progress.num_steps - progress.step)
    print(
        f"step {progress.step:>4} of {progress.num_steps}   loss {progress.loss:.2f}   "
        f"{progress.elapsed_s:.0f} s, {left_s:.0f} s left",
        flush=True,
    )


def _show(folder: Path, recipe: Recipe) -> None:
    """Print what the saved model says, as transformers reads it."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompts = [(text, tokenizer(text)["input_ids"]) for text in _PROMPTS]
    for question in _QUESTIONS:
        chat = [{"role": "user", "content": question}]
        rendered = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        prompts.append(
            (f"{question} →", tokenizer(rendered, add_special_tokens=False)["input_ids"])
        )
    for text, ids in prompts:
        given = torch.tensor([ids])
        done = model.generate(
            given,
            attention_mask=torch.ones_like(given),
            do_sample=False,
            max_new_tokens=min(40, recipe.max_position - len(ids)),
        )
        said = tokenizer.decode(done[0, len(ids) :], skip_special_tokens=True)
        print(f"  {text} {said.strip()}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
