# Every target installs what it needs into .venv first; nothing but Python >= 3.11 is expected.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: help demo demo-model test check format gate gate-gpu evidence soak fleet bench bench-baseline \
	bench-compare bench-scheduler bench-step bench-launch bench-http \
	fuzz-server stress clean
help:            ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## */\t/' | expand -t 18

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(STAMP)

demo: $(STAMP)   ## tune for an A100 without one; train a tiny model, let it talk, check it
	@echo "1 of 4: tune Llama-3.1-8B's kernels for an A100, without an A100"
	@$(BIN)/autotune run --gpu a100 --model llama-3.1-8b --trials 8 --results out/demo
	@echo "2 of 4: train a tiny Llama on the text that comes with Python"
	@$(BIN)/python ci/train_demo.py $(DEMO_MODEL)
	@echo "3 of 4: let the engine continue a text, and answer a question"
	@$(BIN)/runtime generate $(DEMO_MODEL) --prompt "If the file" --chat "What is a dict?"
	@echo "4 of 4: check the engine against transformers, token by token"
	@$(BIN)/runtime check $(DEMO_MODEL)

DEMO_MODEL ?= out/demo-model

demo-model: $(STAMP) ## train the demo's model, unless it is up to date
	$(BIN)/python ci/train_demo.py $(DEMO_MODEL)

test: $(STAMP)   ## the whole suite, two processes
	$(BIN)/python -m pytest -n 2 --dist worksteal

check: $(STAMP)  ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(STAMP) ## apply the formatter and the safe fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The side to compare with: another checkout, or these results themselves.
BASE ?= results

gate: $(STAMP)   ## templates still compile to the committed facts (BASE=checkout: and to its)
	$(BIN)/autotune gate $(BASE) . --static-only $(GATE_REPORTS)

gate-gpu: $(STAMP) ## the same, then what differs from BASE timed on this machine's GPU
	$(BIN)/autotune gate $(BASE) . $(GATE_REPORTS)

evidence: $(STAMP) ## rehearse what ci/gpu_evidence.sh does on a GPU, on a simulated one
	PYTHON=$(BIN)/python ci/gpu_evidence.sh --simulate h200 --budget 60 --out out/evidence

soak: $(STAMP)   ## 100,000 random scheduler steps against a shadow of the KV cache
	$(BIN)/python ci/soak.py --steps 100000

fleet: $(STAMP)  ## 8 workers killed at random share a search, through journals and PostgreSQL
	$(BIN)/python ci/fleet_trial.py --storage journal:$$(mktemp -d)
	$(BIN)/python ci/fleet_postgres.py --patience 5

bench-scheduler: $(STAMP) ## microseconds per scheduler step at 256 running sequences
	$(BIN)/python ci/bench_scheduler.py

bench-step: $(STAMP) ## microseconds of the host per decode step at 256 sequences, without the model
	$(BIN)/python ci/bench_step.py

bench-launch: $(STAMP) ## microseconds of the host per kernel launch, with a stub where there is no GPU
	$(BIN)/python ci/bench_launch.py

fuzz-server: $(STAMP) ## 200 examples, right and wrong, for every operation of the server's API
	PYTHONPATH=.:tests/engine:tests/server $(BIN)/python tests/server/fuzz_api.py --examples 200

stress: $(STAMP) ## 50,000 short requests over 256 connections; three minutes: SECONDS=180
	$(BIN)/python ci/stress.py $(if $(SECONDS),--seconds $(SECONDS))

HTTP_MODEL ?= out/m125

bench-http: $(STAMP) ## the same requests through the server and offline, in turns (at most 1.1 x)
	$(BIN)/python ci/bench_http.py $(HTTP_MODEL) $(HTTP_FLAGS)

# Where a run is recorded, and what it is compared with: of this machine, or any other recording.
BENCH     ?= out/bench.json
BASELINE  ?= ci/benchmarks/baseline.json

bench: $(STAMP)  ## time what runs here (kernels too, where there is a GPU) into out/bench.json
	@mkdir -p $(dir $(BENCH))
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest ci/benchmarks \
		--benchmark-json=$(BENCH) --benchmark-save-data

bench-baseline: $(STAMP) ## keep out/bench.json, shortened, as what bench-compare compares with
	$(BIN)/python ci/bench_baseline.py $(BENCH) $(BASELINE)

bench-compare: $(STAMP) ## out/bench.json against the baseline kept (BASELINE=FILE: another)
	$(BIN)/autotune gate $(BASELINE) $(BENCH)

clean:           ## remove the virtual environment and tool caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
