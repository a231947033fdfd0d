# What a newcomer and a developer run; `make help` lists it. ARGS goes to the program: make up ARGS="--port 9000".
# stdout belongs to that program alone: make says nothing, and the environment's making is told on stderr.
.SILENT:
.PHONY: help up test check lock proto clean

help: ## list these targets
	sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 8

up: ## run the whole mesh on this machine, until Ctrl-C
	scripts/venv run
	exec .venv/bin/kvpilot up $(ARGS)

test: ## run the test suite, with a real Envoy and Redis
	scripts/venv dev
	exec .venv/bin/python -m pytest $(ARGS)

check: ## run the static checks
	scripts/venv dev
	exec scripts/check

lock: ## bring locks/ in line with pyproject.toml (ARGS=--upgrade: newest versions)
	scripts/venv run
	exec scripts/lock $(ARGS)

proto: ## generate the Python side of proto/
	scripts/venv dev
	exec scripts/proto

clean: ## remove the environment and everything generated beside the sources
	rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
