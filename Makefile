# `make help` lists the targets. Everything runs in .venv, which the first target makes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUST := Cargo.toml Cargo.lock $(wildcard src/*.rs) $(wildcard src/*/*.rs)
INSTALLED := $(VENV)/.installed

# Where Rust was missing, the build has fetched its compiler alone, without what checks and tests with it.
CARGO := $(shell command -v cargo)

.DEFAULT_GOAL := help
.PHONY: help demo test quick packages fmt lint types layers rust bench bench-relay bench-connect bench-server lab life interop sim sim-report fuzz clean

help:  ## List the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(INSTALLED): pyproject.toml $(RUST)
	@command -v cc >/dev/null \
		|| { echo "the engine is linked by a C compiler: apt-get install gcc libc6-dev, or xcode-select --install"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "quice needs Python 3.10 or newer: make PYTHON=/path/to/python3 $(MAKECMDGOALS)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
		|| { echo "$(PYTHON) can make no environments: apt-get install python3-venv"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(INSTALLED) packages  ## Send 100 MB between two peers behind NATs (with root), or over loopback
	$(BIN)/python -m lab.demo

test: $(INSTALLED) packages lint types layers rust  ## Every test, lint, types and import layers
	$(BIN)/python -m pytest

quick: $(INSTALLED)  ## The tests that take seconds
	$(BIN)/python -m pytest -q -m 'not lab and not slow'

packages:  ## Install the Debian packages that tests use (root on Debian), or name them
	@sh lab/packages.sh

fmt: $(INSTALLED)  ## Format Python and Rust
	$(BIN)/ruff format . && $(BIN)/ruff check --fix . ; cargo fmt

lint: $(INSTALLED)  ## ruff, rustfmt and clippy
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
ifdef CARGO
	cargo fmt --check && cargo clippy --quiet --all-targets -- -D warnings
	PYO3_PYTHON=$(CURDIR)/$(BIN)/python cargo clippy --quiet --features python -- -D warnings
else
	@echo "NOT CHECKED HERE: the Rust code, which needs cargo, clippy and rustfmt; install Rust to have it checked"
endif

types: $(INSTALLED)  ## mypy, strict
	$(BIN)/mypy

layers: $(INSTALLED)  ## Who may import whom
	$(BIN)/lint-imports --no-cache

rust: $(INSTALLED)  ## The engine's own tests
ifdef CARGO
	cargo test --quiet
else
	@echo "NOT TESTED HERE: the engine's own tests, which need cargo; install Rust to have them run"
endif

bench: $(INSTALLED)  ## Throughput, latency and memory beside the peers, in one table
	$(BIN)/python -m bench

bench-relay: $(INSTALLED) packages  ## What a packet costs our relay, and QUIC through it, beside coturn (ten minutes)
	$(BIN)/python -m bench.relay
	$(BIN)/python -m bench.relayed

bench-connect: $(INSTALLED) packages  ## From connect() to the answer, behind NATs and beside the peers, in one table
	$(BIN)/python -m bench.connect

bench-server: $(INSTALLED) packages  ## Memory for a registered peer, CPU for a message, one process and several with Redis (two minutes)
	$(BIN)/python -m bench.server

lab: $(INSTALLED) packages  ## Ten connections through every pair of NATs, in a table
	$(BIN)/python -m lab.matrix --runs 10

life: $(INSTALLED) packages  ## 1 GiB over one connection while everything happens to the network (two minutes)
	$(BIN)/python -m lab.life
	$(BIN)/python -m lab.blocked

interop: $(INSTALLED) packages  ## How fast our ICE agent and others find a pair, in a table
	$(BIN)/python -m interop

sim: $(INSTALLED)  ## 10,000 random sessions and 1,000 lives in the simulated internet; SEED=N or LIFE=N repeats one
	$(if $(LIFE),,$(BIN)/python -m scenarios random $(if $(SEED),--seed $(SEED),--sessions 10000))
	$(if $(SEED),,$(BIN)/python -m scenarios life $(if $(LIFE),--seed $(LIFE),--seeds 1000))

sim-report: $(INSTALLED)  ## Times for every pair of NATs in the simulated internet, and a picture of them
	$(BIN)/python -m scenarios report --svg docs/nat-pairs.svg
	$(BIN)/python -m scenarios report --loss 5
	$(BIN)/python -m scenarios report --loss 20

fuzz: $(INSTALLED)  ## A minute of mutated input for everything that reads a stranger's bytes; or INPUTS=10000000
	$(BIN)/python -m fuzz $(if $(INPUTS),--inputs $(INPUTS),--seconds 60)

clean:  ## Remove what the other targets made
	rm -rf $(VENV) target bench/native/target interop/pion/bin bench/connect/pion/bin .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +; rm -f python/quice/*.so
