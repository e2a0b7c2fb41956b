# Two commands do everything on a fresh machine: `make run` and `make test`.
# Needs: git, python3 (3.11 or newer) with venv. With a C compiler and Python's headers it compiles the tick path. No GPU.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# Three rows for two cores: at times each waits, for a run's ticks or for what ends (tests/conftest.py has the order).
SIDE_BY_SIDE := -n 3

.PHONY: help install run test test-drawn test-slow test-all check torture bench gpu-proof docs site dist roms image clean

help:            ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/'

install: $(STAMP)  ## virtual environment with everything pinned

$(STAMP): pyproject.toml constraints.txt hatch_build.py $(wildcard rtcore/_tick/*.[ch])
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	sh docker/install.sh $(BIN)/python '.[trace,record,report,sweep,profile,tensorboard,notebook,sb3,torchrl,remote,openpi,completion,dev,mujoco,atari]'
	touch $@

run: install     ## a game played twice by a trained network that takes 100 ms: 15 s by one worker, 15 s by staggered ones
	$(BIN)/rtcore-run --env-id rtcore/Catch-v0 --policy trained --policy-args pad_ms=100 --compare sequential --duration 15 --out runs/latest

test: install    ## the tests, without the slow ones: five to eight minutes on two cores
	$(BIN)/python -m pytest -m "not slow" $(SIDE_BY_SIDE)

test-drawn: install ## what draws its cases, with all of them and, through Hypothesis, three times as many: three minutes
	$(BIN)/python -m pytest -m "(hypothesis or drawn) and not slow" --hypothesis-profile=thorough $(SIDE_BY_SIDE)

# In two rows: most of them are one program each, and compute all the time.
test-slow: test-drawn  ## these and the slow tests, but for a container image, on Ray, wandb, MLflow, Rerun, pyarrow too: twenty minutes
	sh docker/install.sh $(BIN)/python '.[ray,wandb,mlflow,rerun,lerobot]'
	$(BIN)/python -m pytest -m "slow and not image" -n 2

test-all: install  ## every test, the slow ones and those of a container image too
	$(BIN)/python -m pytest --hypothesis-profile=thorough $(SIDE_BY_SIDE)

check: install   ## format, lint, strict types, quick tests: under a minute
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -m "unit or interleaving" $(SIDE_BY_SIDE)

torture: install ## ten minutes of made-up runs with faults, on all cores: does any break a promise?
	$(BIN)/rtcore-torture sim --seeds $$(date +%s)..$$(date +%s) --ticks 2000 --minutes 10

bench: install   ## latency against other transports, and the runtime's own numbers
	$(BIN)/rtcore-profile ipc
	$(BIN)/rtcore-profile tick
	$(BIN)/python -m benchmarks.staggers

gpu-proof: install  ## all of docs/gpu.md on one GPU, in eight minutes at most (options: make gpu-proof PROOF='--device cuda:1')
	$(BIN)/python -m benchmarks.gpu_proof $(PROOF)

docs: install    ## write docs/layout.md, docs/tables.md and the C reader's header anew from the code
	$(BIN)/python -m tools.layoutdoc --write

site: install    ## the pages of docs/ as a site, in site/, with every link and anchor looked at
	sh docker/install.sh $(BIN)/python '.[docs]'
	$(BIN)/python -m mkdocs build --strict

dist: install    ## what is published: source distribution and wheel, in dist/
	sh docker/install.sh $(BIN)/python '.[dist]'
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*

roms:            ## rebuild the Game Boy program byte for byte (needs Debian's sdcc 4.2.0)
	sh envs/rtcore_envs/roms/build.sh

image:           ## container image rtcore:cpu, with docker, podman or buildah (options: make image IMAGE=--help)
	$(PYTHON) docker/build.py $(IMAGE)

clean:           ## remove the virtual environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
