# Everything runs in a virtual environment of the project's own.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Installed first and by itself, before anything that would pull another build.
TORCH := torch==2.13.0

.PHONY: demo test test-fast e2e setup check format packs chart docs screenshots audit licenses clean \
	image lock .chromium .promtool

demo: $(VENV)/.demo
	$(BIN)/paraserve demo $(if $(filter 1,$(DEMO_EXIT)),--exit)

# `auto`: a worker a core, and for `test` more that mostly wait (tests/workers.py).
WORKERS ?= auto
FAST := not (ray or browser or k8s or slow or reference or e2e)

# Modules are compiled once, not again by each of the many processes of the tests.
test test-fast: export PYTHONDONTWRITEBYTECODE :=
# Each worker has a core; more threads of a library would spin for one.
test test-fast: export OMP_NUM_THREADS ?= 1

test: $(VENV)/.dev .chromium .promtool
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup -m "not e2e" $(PYTEST_ARGS)

# The quick unit tests: neither a cluster nor a browser, nothing that computes for seconds.
test-fast: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m "$(FAST)" $(PYTEST_ARGS)

# A release from install to uninstall on real nodes, with the requests that each step costs.
# On this machine (root; tests/e2e/node.py says what it takes), or on a cluster of yours with
# KubeRay: make e2e OPERATOR=real KUBECONFIG=... IMAGE=registry/paraserve TAGS=0.2.0,0.2.1
OPERATOR ?= played
e2e: $(VENV)/.dev
	E2E_OPERATOR=$(OPERATOR) E2E_IMAGE=$(IMAGE) E2E_TAGS=$(TAGS) \
		$(BIN)/python -m pytest -m e2e $(PYTEST_ARGS)

setup: $(VENV)/.dev

# What CI and pre-commit run besides the tests.
check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Trains the built-in demo packs anew; needs espeak-ng's library (Debian: libespeak-ng1).
packs: $(VENV)/.dev
	$(BIN)/python -m recipes.demo_packs.train

# Writes what the chart derives from the code: schema, profiles, dashboards.
chart: $(VENV)/.dev
	$(BIN)/python deploy/generate_chart.py
	$(BIN)/python deploy/generate_dashboards.py

# Writes what the documentation derives from the code.
docs: $(VENV)/.dev
	$(BIN)/python docs/generate_api.py
	$(BIN)/python docs/generate_settings.py
	$(BIN)/python docs/generate_metrics.py
	$(BIN)/python docs/generate_cli.py

# Takes the pictures of docs/ui.md from a demo service.
screenshots: $(VENV)/.dev .chromium
	$(BIN)/python -m tests.ui.screenshots

# The browser of the tests of the web page, from Debian, where that can be had.
.chromium:
	@command -v chromium google-chrome chromium-browser > /dev/null || [ -n "$$CHROMIUM" ] \
		|| { [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null \
			&& apt-get update -qq && apt-get install -y -qq chromium fonts-noto-cjk; } \
		|| echo "no Chromium: the tests of the web page are skipped"

# The image, with docker or, where that is not there, buildah. DEVICE=cuda for GPUs.
DEVICE ?= cpu
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
IMAGE ?= paraserve:$(VERSION)$(if $(filter cuda,$(DEVICE)),-cuda)
image:
	@if docker version > /dev/null 2>&1; then \
		docker build --file deploy/Dockerfile --build-arg DEVICE=$(DEVICE) --tag $(IMAGE) .; \
	else \
		buildah bud --format docker --layers --ignorefile deploy/Dockerfile.dockerignore \
			--file deploy/Dockerfile --build-arg DEVICE=$(DEVICE) --tag $(IMAGE) .; \
	fi

# Writes the versions and hashes that the image installs.
lock: .venv-lock
	deploy/lock.sh $(CURDIR)/.venv-lock/bin/uv $(if $(UPGRADE),--upgrade)

.venv-lock:
	$(PYTHON) -m venv $@
	$@/bin/pip install --disable-pip-version-check --quiet "uv>=0.9"

# promtool, which runs the alerts on made-up series, from Debian, where that can be had.
.promtool:
	@command -v promtool > /dev/null || [ -n "$$PROMTOOL" ] \
		|| { [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null \
			&& apt-get update -qq && apt-get install -y -qq --no-install-recommends prometheus > /dev/null; } \
		|| echo "no promtool: the tests of the alerts are skipped"

# checkov's dependencies clash with ours.
.venv-checkov:
	$(PYTHON) -m venv $@
	$@/bin/pip install --disable-pip-version-check --quiet checkov==3.3.30

# Known holes of what is installed here, from PyPI's database; needs the internet.
audit: $(VENV)/.dev .venv-audit
	.venv-audit/bin/pip-audit --path "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"

# Writes docs/licenses.md from what is installed here.
licenses: $(VENV)/.dev .venv-audit
	.venv-audit/bin/python docs/generate_licenses.py $(BIN)/python

.venv-audit:
	$(PYTHON) -m venv $@
	$@/bin/pip install --disable-pip-version-check --quiet "pip-audit>=2.7" "pip-licenses>=5"

clean:
	rm -rf $(VENV) .venv-checkov .venv-audit .venv-lock .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/.torch:
	@echo "==> virtual environment in $(VENV); first PyTorch, then the rest"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check --progress-bar on --upgrade "pip>=24"
	deploy/install-torch.sh $(BIN)/python $(TORCH)
	@touch $@

$(VENV)/.demo: $(VENV)/.torch pyproject.toml
	@echo "==> Paraserve and what it runs on (about 0.3 GB to download, 0.7 GB on disk)"
	$(BIN)/pip install --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.torch pyproject.toml
	@echo "==> Paraserve, its tests and linters (about 1 GB to download, 3 GB on disk)"
	$(BIN)/pip install --disable-pip-version-check --editable '.[dev]'
	@touch $@
