# Every task of this house, by hand and in CI. `make help` lists them.

# The first interpreter that runs and is new enough; `make PYTHON=/path/to/python3.12 ...` chooses another.
PYTHON   ?= $(shell for p in python3.11 python3.12 python3.13 python3 python; do \
              $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)
VENV     ?= .venv
BIN      := $(VENV)/bin
STAMP    := $(VENV)/.setup-stamp
# Percentage of branches that `make test` asks for: the one place where the figure stands.
COVERAGE ?= 90
# Processes over which `make test` spreads the test files; each has a broker and a database server of its own.
WORKERS  ?= 3
# Passed through: make demo ARGS=--smoke, make test ARGS=tests/unit/streams
ARGS     ?=

PACKAGES := fincoach_events schemas backends modelkit models streams trainers deployer serving admin stack
SHELL    := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

.PHONY: help
help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "; print "make TARGET [ARGS=...]\n"} \
	      /^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2} \
	      /^##@ / {printf "\n%s\n", substr($$0, 5)}' $(MAKEFILE_LIST)

##@ Use
.PHONY: setup demo up down migrate
setup: $(STAMP) ## Create .venv with the pinned versions (skipped when nothing changed)
	@:

$(STAMP): pyproject.toml fincoach_events/pyproject.toml constraints.txt tools/setup.sh
	@PYTHON="$(PYTHON)" VENV="$(VENV)" tools/setup.sh
	@touch $@

demo: setup ## Show the whole loop on real events (ARGS=--smoke: in under two minutes)
	@$(BIN)/fincoach-learning demo $(ARGS)

up: setup ## Start the whole system on this machine
	@$(BIN)/fincoach-learning up $(ARGS)

down: setup ## Stop it
	@$(BIN)/fincoach-learning down $(ARGS)

migrate: setup ## Bring the database that FINCOACH_DATABASE_URL names to the newest schema
	@$(BIN)/alembic upgrade head

##@ Prove
.PHONY: test prove crash-points seeded-faults check bench chaos
# Numerical libraries use one thread, as in trainings: the threads of several processes would wait for each other.
test prove: export OMP_NUM_THREADS := 1
test prove: export OPENBLAS_NUM_THREADS := 1

test: setup ## Run the tests on real brokers and databases, with coverage of branches (WORKERS=0: in one process)
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --max-worker-restart 0 -m "not prove" \
	  --cov --cov-report=term:skip-covered --cov-fail-under=$(COVERAGE) $(ARGS)

prove: setup ## Run what takes too long for `make test`: outages, chaos, crash points, seeded faults, new examples
	@$(BIN)/python -m pytest -m "prove or hypothesis" --hypothesis-profile=prove $(ARGS)

crash-points: setup ## Kill processes before and after each of their writes (ARGS="--resume", "--only TEXT", "--list")
	@$(BIN)/python -m tests.chaos.rig.crash_points $(ARGS)

seeded-faults: setup ## Seed faults that the oracle must find, with control runs that must hold (ARGS="--only NAME")
	@$(BIN)/python -m tests.chaos.rig.seeded_faults $(ARGS)

check: format-check lint imports types docs-check schema-check test ## All that CI runs, and the documents

bench: setup ## Measure against peers; writes benchmarks/results/latest.json
	@$(BIN)/python -m benchmarks $(ARGS)

# SECONDS is a bash variable, not a make variable: it only comes from the command line or the environment.
chaos: setup ## Inject faults for SECONDS (900) by SEED, then recount everything; JSON=FILE, ONLY="KIND ...", KEEP=1 (ARGS=--help: all options)
	@$(BIN)/python -m tests.chaos $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED)) \
	  $(if $(JSON),--json $(JSON)) $(if $(ONLY),--only $(ONLY)) $(if $(KEEP),--keep) $(ARGS)

##@ Look after
.PHONY: format format-check lint imports types spelling docs docs-check schema-check schema-lock lock hooks wheels clean
format: setup ## Format the code and mend what can be mended safely
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix-only --quiet .

format-check: setup ## Fail where the formatter would change something
	@$(BIN)/ruff format --check .

lint: setup spelling ## ruff, all rules
	@$(BIN)/ruff check .

imports: setup ## Floors, doors and purity (import-linter)
	@$(BIN)/lint-imports

types: setup ## mypy, strict
	@$(BIN)/mypy

spelling: setup ## codespell over code, comments and documents
	@git ls-files -z --cached --others --exclude-standard | xargs -0 $(BIN)/codespell

docs: setup ## Regenerate docs/reference from the code
	@$(BIN)/python -m tools.generate_docs

docs-check: setup ## Fail where docs/reference no longer says what the code does
	@$(BIN)/python -m tools.generate_docs --check

schema-check: setup ## Fail where a message changed without a new version, or breaks what the last release wrote
	@$(BIN)/python -m tools.check_schemas

schema-lock: setup ## Lock the shapes that messages have today (refused for versions that were released)
	@$(BIN)/python -m tools.schema_lock --write

lock: setup ## Write the exact versions of this environment to constraints.txt
	@$(BIN)/python -m tools.lock

hooks: setup ## Install the local git hooks
	@$(BIN)/pre-commit install --hook-type pre-commit --hook-type commit-msg

wheels: setup ## Build both wheels into dist/
	@$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist ./fincoach_events .
	@ls -1 dist

clean: ## Remove caches and build outputs (not .venv, not data)
	@rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage .coverage.* .coverage-html
	@find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
