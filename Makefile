# The face of the project. `make` alone lists the targets; docs/architecture.md tells what stands behind them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
# native or docker; if not given, `make up` looks for a Docker engine, and `make demo` takes plain processes.
MODE ?=
SCENARIO ?= average
ARGS ?=
FILE ?=
FORCE ?=
SUITE ?= jobs
SOURCES := service observability loadtest compose dashboards alerts bench tests

.PHONY: help install programs rabbitmq demo up secrets down status roll logs backup restore measure load test test-stack \
	test-faults check format alerts dashboards lock capacity bench

help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  \033[1m%-12s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# -- install ---------------------------------------------------------------------------------------------

$(STAMP): requirements/dev.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; '$(PYTHON)' is $$($(PYTHON) -V 2>&1). Try: make PYTHON=python3.12 ..."; exit 2; }
	@[ -x $(PY) ] || $(PYTHON) -m venv $(VENV) \
	  || { echo "A virtual environment could not be made. On Debian or Ubuntu: apt install python3-venv"; exit 2; }
	@echo "Installing the Python packages of $< ..."
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

install: $(STAMP) ## install the Python packages into .venv

programs: install ## fetch or build Prometheus, Loki, Tempo ... into the cache
	@$(PY) -m compose.binaries fetch || echo "The rest goes on without what is missing."

rabbitmq: install ## install RabbitMQ where apt and root allow it, without starting the system's own
	@$(PY) -m compose.install_rabbitmq || echo "The rest goes on without it; its tests are skipped."

# -- run -------------------------------------------------------------------------------------------------

demo: install ## everything, then 60 s of load, the verdict, the report and the URLs
	@$(PY) -m compose up --mode $(or $(MODE),native)
	@$(PY) -m compose run -- $(PY) -m service.db seed
	@status=0; $(MAKE) load SCENARIO=demo || status=$$?; $(PY) -m compose endpoints --show; exit $$status

up: install ## start the stack and wait until it is healthy (MODE=docker or native)
	@$(PY) -m compose up --mode $(or $(MODE),auto)

secrets: install ## generate the passwords and keys that are not there yet
	@$(PY) -m compose secrets

down: install ## stop the stack (its data stays)
	@$(PY) -m compose down

status: install ## what runs, where, and in which version
	@$(PY) -m compose status

roll: install ## replace the API's containers one by one, with no request lost (ARGS=worker)
	@$(PY) -m compose roll $(ARGS)

logs: install ## the newest log lines of every component (ARGS="api -f")
	@$(PY) -m compose logs $(ARGS)

backup: install ## PostgreSQL and Grafana's state into one archive below backups/
	@$(PY) -m compose backup $(ARGS)

restore: install ## replace the stack's data by an archive's (FILE=backups/..., FORCE=1 if there is data)
	@[ -n "$(FILE)" ] || { echo "Which archive? make restore FILE=backups/yardstick-...zip"; exit 2; }
	@$(PY) -m compose restore "$(FILE)" $(if $(filter-out 0,$(FORCE)),--yes)

load: install ## a load test against the running stack (SCENARIO=average)
	@$(PY) -m loadtest run --scenario $(SCENARIO) --stack $(ARGS)

# -- measure ---------------------------------------------------------------------------------------------

SUITES := jobs
PEERS := .venv-bench/saq .venv-bench/taskiq

# Each peer in an environment of its own, with the newest packages that it takes.
.venv-bench/%/.installed: requirements/bench-%.lock
	@[ -x .venv-bench/$*/bin/python ] || $(PYTHON) -m venv .venv-bench/$*
	@echo "Installing the Python packages of $< ..."
	@.venv-bench/$*/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

measure: install ## CPU and memory of each component at rest and under load (ARGS=--publish)
	@$(PY) -m compose measure --scenario $(SCENARIO) $(ARGS)

bench: $(if $(filter $(SUITES),$(SUITE)),install $(PEERS:%=%/.installed)) ## jobs per second beside plain arq, taskiq and SAQ (SUITE=jobs)
	@[ -n "$(filter $(SUITES),$(SUITE))" ] || { echo "There is no suite '$(SUITE)'. There are: $(SUITES)"; exit 2; }
	@$(PY) -m bench $(SUITE) $(ARGS)

# -- prove -----------------------------------------------------------------------------------------------

# All of them in two processes, as most of them wait most of the time; a choice in one.
SHARED := --numprocesses 2 --no-loadscope-reorder

test: programs rabbitmq $(PEERS:%=%/.installed) ## every test that this machine can run (ARGS="tests/contract -k redis")
	@$(PY) -m pytest -rs $(or $(ARGS),$(SHARED))

test-stack: programs ## the tests against the live stack (YARDSTICK_MODE=docker: in containers)
	@$(PY) -m pytest -rs tests/stack $(ARGS)

test-faults: programs ## what breaks on purpose: the live stack, and KILLS=200 kills on each queue engine
	@KILLS=$${KILLS:-200} $(PY) -m pytest -rs tests/faults $(ARGS)

check: install ## format, lint, types, import direction, generated files, rules, configuration
	@$(VENV)/bin/ruff format --check --quiet $(SOURCES) || { echo "Run: make format"; exit 1; }
	@$(VENV)/bin/ruff check --quiet $(SOURCES)
	@$(VENV)/bin/mypy --no-error-summary
	@$(VENV)/bin/lint-imports  | tail -4
	@$(PY) -m service.settings --example | diff -u .env.example - || { echo "Run: $(PY) -m service.settings --example > .env.example"; exit 1; }
	@$(PY) -m dashboards.build --check
	@$(PY) -m compose.discovery --check
	@$(PY) -m alerts.verify
	@$(PY) -m compose verify
	@echo "check: all good"

format: install ## format the sources and mend what the linter can
	@$(VENV)/bin/ruff check --fix --quiet $(SOURCES) || true
	@$(VENV)/bin/ruff format --quiet $(SOURCES)

# -- generate --------------------------------------------------------------------------------------------

alerts: install ## alert and recording rules from alerts/slo.yaml
	@$(PY) -m alerts.build

dashboards: install ## the dashboards' JSON
	@$(PY) -m dashboards.build

PEER_LOCK := $(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-annotate --no-header
LOCK := $(PEER_LOCK) pyproject.toml
lock: install ## compile requirements/*.lock from pyproject.toml (ARGS=--upgrade)
	@$(LOCK) $(ARGS) --extra stack --extra dev -o requirements/dev.lock
	@$(LOCK) -c requirements/dev.lock -o requirements/service.lock
	@$(subst pyproject.toml,requirements/load.in,$(LOCK)) -c requirements/dev.lock -o requirements/load.lock
	@$(LOCK) -c requirements/dev.lock --extra ansible -o requirements/ansible.lock
	@$(PEER_LOCK) $(ARGS) --group bench-saq -o requirements/bench-saq.lock
	@$(PEER_LOCK) $(ARGS) --group bench-taskiq -o requirements/bench-taskiq.lock

# -- to come ---------------------------------------------------------------------------------------------

capacity: ## (not built yet) the highest arrival rate that meets the SLOs
	@echo "make capacity is not built yet."; exit 2
