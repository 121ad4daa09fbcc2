# The project's commands. `make` alone lists them.

PYTHON  ?= python3
VENV    := .venv
BIN     := $(VENV)/bin
APT     := nftables python3-nftables iptables iproute2 conntrack bind9-dnsutils redis-tools python3-venv
APT     += mariadb-server-core mariadb-client-core
# Only tests need these.
TOOLS   := nginx curl apache2-utils iperf3
WORKERS ?= 2
SECONDS ?= 600

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint fmt bench chaos soak golden test-container lab-up lab-down clean

help: ## list these commands
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.ready ## install what is missing: system packages, then the package and its extras in .venv

# The system packages are looked for at every run (a few milliseconds); apt is asked only for what is missing.
.PHONY: system tools
system:
	@PYTHON=$(PYTHON) sh .ci/system-packages $(APT)

tools: system
	@sh .ci/system-packages $(TOOLS)

$(VENV)/.ready: pyproject.toml .ci/system-packages | system
	@echo "svcnat: installing the package and its extras into $(VENV)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -e '.[dev]'
	@# PYTHONDONTWRITEBYTECODE would make every start recompile the libraries: compile them once.
	@$(BIN)/python -m compileall -q $(VENV)/lib svcnat || true
	@touch $@

demo: setup ## run the examples: a service and its pods, then a whole application of three tiers, pods dying in both
	@$(BIN)/python netns-lab/back-end/demo.py
	@$(BIN)/python netns-lab/three-tier/demo.py

test: setup tools lint ## run every test, with the real programs that some need
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -q --cov --cov-report=
	@$(BIN)/python -m coverage report --fail-under=100

test-container: setup ## run the examples of the pytest plugin in a podman container (CAP_NET_ADMIN, CAP_SYS_ADMIN)
	@sh .ci/system-packages podman crun debootstrap
	@sh .ci/test-container .container

lint: setup ## ruff, mypy strict, import-linter
	@$(BIN)/ruff check svcnat tests netns-lab
	@$(BIN)/ruff format --check svcnat tests netns-lab
	@$(BIN)/mypy
	@$(BIN)/lint-imports

fmt: setup ## format the code
	@$(BIN)/ruff check --fix --exit-zero svcnat tests netns-lab
	@$(BIN)/ruff format svcnat tests netns-lab

bench: setup ## print the benchmark table (no assertions)
	@$(BIN)/python -m tests.bench

chaos: setup ## random misfortune for SECONDS (600), with new seeds, which it prints
	@$(BIN)/python -m tests.agent.chaos $(SECONDS)

soak: setup ## churn for SECONDS (600) and print what an agent has meanwhile: memory, descriptors, chains (no assertions)
	@$(BIN)/python -m tests.bench.soak $(SECONDS)

golden: setup ## rewrite tests/golden/*/ruleset.nft from the compiler; read the diff before committing it
	@$(BIN)/python -m tests.golden

lab-up: setup ## build the lab of netns-lab/back-end and leave it running
	@$(BIN)/svcnat lab up back-end $(if $(filter 0,$(shell id -u)),,--rootless) -f netns-lab/back-end

lab-down: setup ## remove that lab
	@$(BIN)/svcnat lab down back-end

clean: ## remove what setup made in this folder
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .coverage .hypothesis .container
