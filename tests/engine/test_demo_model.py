"""The demo model, trained shortly: real text and margins, the same as transformers everywhere."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pytest
import torch
import train_demo
from demo_model.corpus import Corpus
from demo_model.forward import Forward
from demo_model.muon import Muon
from demo_model.stream import IGNORED, Stream
from demo_model.training import Recipe, make_model, train
from demo_model.vocabulary import Vocabulary
from demo_model.workers import Workers
from torch.nn.functional import cross_entropy
from transformers import AutoTokenizer

from runtime.chat_template import ChatTemplate
from runtime.check.engine_bench import EngineBench
from runtime.check.exact import check_exact
from runtime.check.forced import Noise, check_forced
from runtime.check.reference import Reference, ReferenceRun
from runtime.check.scenarios import Scenario
from runtime.cli import main
from runtime.preemption import PreemptionMode

SCRIPT = Path(train_demo.__file__)
NUM_TOKENS = 24
TEXTS = ("Return the", "If the file is not found, the", "An", "A context manager for\nthe list.")
CORPUS = Corpus(("Return the sum.", "Return the list of names."), (("What is it?", "A name."),))
TINY = Recipe(num_steps=3, num_rows=2, row_length=16, hidden_size=64, num_layers=1, vocab_size=300)


@dataclass(frozen=True)
class Trained:
    folder: Path
    printed: str


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("demo") / "model"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder), "--steps", "45", "--threads", "1"],
        capture_output=True,
        text=True,
        check=True,
    )
    return Trained(folder, done.stdout)


def tiny_weights(seed: int) -> dict[str, torch.Tensor]:
    vocabulary = Vocabulary(CORPUS.texts(), 300)
    recipe = dataclasses.replace(TINY, seed=seed)
    model = make_model(recipe, vocabulary)
    train(model, recipe, CORPUS, vocabulary, lambda progress: None)
    return model.state_dict()


def test_the_seed_decides_the_weights() -> None:
    first, again, other = (tiny_weights(seed) for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["model.norm.weight"], other["model.norm.weight"])


def test_only_answers_and_documents_are_learnt() -> None:
    vocabulary = Vocabulary(CORPUS.texts(), 300)
    ids, num_given = vocabulary.chat("What is it?", "A name.")
    stream = Stream(Corpus((), CORPUS.questions), vocabulary, seed=0)
    inputs, targets = next(stream.batches(1, len(ids)))
    assert inputs[0].tolist() == ids
    assert targets[0].tolist() == [*[IGNORED] * (num_given - 1), *ids[num_given:], IGNORED]


def test_the_loss_and_its_gradients_are_those_of_transformers() -> None:
    vocabulary = Vocabulary(CORPUS.texts(), 300)
    model = make_model(dataclasses.replace(TINY, hidden_size=128, num_layers=2), vocabulary)
    # Two chunks of logits, the second not full.
    ids, targets = next(Stream(CORPUS, vocabulary, seed=0).batches(5, 100))
    ours = Forward(model, 100).loss(ids, targets)
    ours.backward()
    gradients = {name: weight.grad for name, weight in model.named_parameters()}
    model.zero_grad()
    theirs = cross_entropy(
        model(ids).logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum"
    )
    theirs.backward()
    assert (targets == IGNORED).any()
    torch.testing.assert_close(ours, theirs)
    for name, weight in model.named_parameters():
        assert weight.grad is not None
        # Sums over all tokens: float32 is as good as its largest elements.
        rounding = 1e-5 * weight.grad.abs().max().item()
        torch.testing.assert_close(gradients[name], weight.grad, rtol=0, atol=rounding)


def test_an_orthogonal_update_of_every_matrix() -> None:
    shapes = [(8, 24), (24, 8), (16, 16), (8, 24)]
    source = torch.manual_seed(0)
    matrices = [torch.zeros(shape, requires_grad=True) for shape in shapes]
    for matrix in matrices:
        matrix.grad = torch.randn(matrix.shape, generator=source)
    with Workers(2) as workers:
        Muon(matrices, lr=1.0, workers=workers).step()
    for matrix in matrices:
        moved = matrix.detach() / max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5
        found = torch.linalg.svdvals(moved)
        assert found.min() > 0.3
        assert found.max() < 1.4
        assert (moved * matrix.grad).sum() < 0, "downhill"
    assert not torch.equal(matrices[0], matrices[3])


def test_the_loss_falls_and_the_samples_are_text(trained: Trained) -> None:
    losses = [float(word) for word in re.findall(r"loss (\d+\.\d+)", trained.printed)]
    assert losses[0] > 6.5
    assert losses[-1] < 5.6
    samples = [line for line in trained.printed.splitlines() if line.startswith("  ")]
    assert len(samples) == 6
    assert sum(len(sample) for sample in samples) > 100
    assert sum(path.stat().st_size for path in trained.folder.iterdir()) < 5e6


def test_the_chat_is_what_was_trained(trained: Trained) -> None:
    chat = [{"role": "user", "content": "What is it?"}]
    text = ChatTemplate.load(trained.folder).render(chat)
    tokenizer = AutoTokenizer.from_pretrained(trained.folder)
    assert text == tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    names = tokenizer.convert_ids_to_tokens(ids)
    assert names[:2] == ["<s>", "<|user|>"]
    assert names[-1] == "<|assistant|>"
    assert tokenizer("it")["input_ids"][0] == tokenizer.bos_token_id


def test_the_engine_talks(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--prompt", "Return the", "--chat", "What is a list?", "--max-tokens", "12", "--json"]
    assert main(["generate", str(trained.folder), *words]) == 0
    outputs = json.loads(capsys.readouterr().out)
    assert all(re.search(r"[a-z]{2}", output["outputs"][0]["text"]) for output in outputs)


def scenarios() -> Sequence[Scenario]:
    """Cold or warm, one by one or together, whole or in chunks, preempted or not."""
    found = []
    chunks = (None, 5)
    for is_warm, one_by_one, chunk in product((False, True), (False, True), chunks):
        options = {"long_prefill_token_threshold": chunk, "block_size": 4}
        name = f"warm {is_warm}, one by one {one_by_one}, chunks of {chunk}"
        found.append(Scenario(name, options, one_by_one=one_by_one, is_warm=is_warm))
    for mode, is_warm, chunk in product(PreemptionMode, (False, True), chunks):
        options = {
            "long_prefill_token_threshold": chunk,
            "preemption_mode": mode,
            "swap_bytes": 1 << 24,
            "enable_forecast": False,
        }
        name = f"preempted by {mode.value}, warm {is_warm}, chunks of {chunk}"
        found.append(Scenario(name, options, is_warm=is_warm, preemption=mode))
    return found


def reference_runs(folder: Path, dtype: str) -> list[ReferenceRun]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    reference = Reference(folder, dtype, [])  # long outputs: the short-trained model ends early
    return [reference.run(tokenizer(text)["input_ids"], NUM_TOKENS) for text in TEXTS]


def max_len(runs: Sequence[ReferenceRun]) -> int:
    return max(len(run.prompt) for run in runs) + NUM_TOKENS


def test_the_same_tokens_in_fp32_however_the_work_is_cut(trained: Trained) -> None:
    runs = reference_runs(trained.folder, "fp32")
    assert len({run.tokens for run in runs}) > 1, "the text must depend on the prompt"
    bench = EngineBench(trained.folder, "fp32", max_len(runs), "auto")
    outcomes = list(check_exact(bench, runs, NUM_TOKENS, scenarios()))
    assert len(outcomes) == 16
    assert [(o.scenario, str(o.mismatch)) for o in outcomes if not o.passed] == []
    assert [o.scenario for o in outcomes if o.note.startswith("0 ")] == [], "not exercised"


def test_forced_decode_in_bf16_however_the_work_is_cut(trained: Trained) -> None:
    runs = reference_runs(trained.folder, "bf16")
    wide = Reference(trained.folder, "fp32", [])
    exact = [wide.score(run) for run in runs]
    best = torch.cat([run.logprobs for run in runs]).topk(2).values
    is_clear = (best[:, 0] - best[:, 1]) > Noise.measure(runs, exact).tie
    assert is_clear.float().mean() > 0.5, "most margins must be wider than the noise"
    bench = EngineBench(trained.folder, "bf16", max_len(runs), "auto")
    bad = []
    for scenario in scenarios():
        engine = bench.engine(scenario)
        for _ in range(1 + scenario.is_warm):
            outcome = check_forced(engine, runs, exact)
        if not outcome.passed:
            bad.append((scenario.name, outcome.mismatch, outcome.problem))
    assert bad == []


def test_up_to_date_means_left_alone(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    before = (trained.folder / "model.safetensors").stat().st_mtime_ns
    assert train_demo.main([str(trained.folder), "--steps", "45", "--threads", "1"]) == 0
    assert "is up to date" in capsys.readouterr().out
    assert (trained.folder / "model.safetensors").stat().st_mtime_ns == before


def test_folders_of_others_are_not_touched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.txt").write_text("mine", encoding="utf-8")
    assert train_demo.main([str(tmp_path)]) == 2
    assert "not by a demo model" in capsys.readouterr().err
    assert train_demo.main([str(tmp_path / "thesis.txt")]) == 2
    assert "is a file" in capsys.readouterr().err
    assert train_demo.main([str(tmp_path / "thesis.txt" / "below")]) == 2
    assert "thesis.txt: File exists" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_an_interrupt_leaves_nothing(tmp_path: Path) -> None:
    running = subprocess.Popen(
        [sys.executable, "-u", str(SCRIPT), str(tmp_path / "model"), "--threads", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with running:
        assert running.stdout is not None
        assert running.stderr is not None
        assert running.stdout.readline().startswith("training ")
        os.kill(running.pid, signal.SIGINT)
        assert running.wait(120) == 130
        assert "interrupted; no model was written" in running.stderr.read()
    assert list(tmp_path.iterdir()) == []
