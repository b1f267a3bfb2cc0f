# The targets of contributors. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
PROTO_VENV := .cache/proto-venv
PROTO_BASELINE := protos/baseline.binpb
INTEROP_VENV := .cache/interop-venv
SBOM_VENV := .cache/sbom-venv
DOCS_VENV := .cache/docs-venv
KUBERNETES_VENV := .cache/kubernetes-venv
# The oldest release that its project still supports.
KUBERNETES := 1.35
RAY_VENV := .cache/ray-venv
QUEUE_PEERS_VENV := .cache/queue-peers-venv
JAVASCRIPT := .cache/interop-javascript
# Older published clients, each in an environment of its own.
OLDER_CLIENTS := 1.20 1.50 1.70 1.80
OLDER_READY := $(foreach version,$(OLDER_CLIENTS),.cache/interop-$(version)-venv/.ready)
CONTAINER_BASE := .cache/containers/base.tar
SOURCES := fal fal_grpc fal_mcp fal_server fal_runner cli tests scripts examples benchmarks
TESTS ?= tests
# Processes that run tests at once: many tests wait for programs that they started, so more than cores may be quicker.
WORKERS ?= 2
# These call the code in their own process, so `make cov` sees it. All others start controllers and runners.
COVERED_TESTS := $(addprefix tests/,access agents/test_route.py client contract core deploy grpc http loops services store)
# These take minutes, and some need programs that a small machine lacks.
SYSTEM_TESTS := $(addprefix tests/,clock e2e incidents isolation terminal torture upgrade agents/test_mcp.py \
	cli/test_completion_in_shells.py cli/test_up.py docs/test_sessions.py setups)
APART := $(SYSTEM_TESTS) $(addprefix tests/,cluster containers interop ray signals)
OTHER_TESTS := $(filter-out $(COVERED_TESTS) $(APART),$(patsubst %/.,%,$(wildcard tests/*/.)) $(wildcard tests/test_*.py))

# Thousands of processes start here. Compile what they import once, even if this shell keeps no bytecode.
unexport PYTHONDONTWRITEBYTECODE

# Write nothing outside the project: the caches of pip, uv and buf are in it too.
export PIP_NO_CACHE_DIR := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Trust what the machine trusts, as pip does: behind a proxy with an authority of its own nothing else works.
ifneq ($(wildcard /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/ca-bundle.pem /etc/ssl/cert.pem),)
export UV_SYSTEM_CERTS ?= 1
endif
export UV_CACHE_DIR := $(CURDIR)/.cache/uv
export BUF_CACHE_DIR := $(CURDIR)/.cache/buf
export UV_LINK_MODE := copy
export UV_NO_CONFIG := 1

# What meets files, locks, signals, pipes and processes. The rest of the client's tests would say the same on any system.
CLIENT_TESTS := tests/e2e/test_other_systems.py \
	$(patsubst %,tests/client/test_%.py,channel config exec_link http lifetime logs session settings) \
	$(patsubst %,tests/cli/test_%.py,api_fields app_logs apps completion confirm copying deploy exec help interrupts \
		lists logs logs_of_apps profile runners)

.PHONY: help
help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(STAMP) ## make .venv with everything that development needs

$(STAMP): requirements/bootstrap.txt requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "fal-grpc needs Python 3.11 or newer; set PYTHON=/path/to/python3.11")'
	@echo "Setting up $(VENV) (once; about a minute on a cold cache)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --require-hashes -r requirements/bootstrap.txt
	@$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements/dev.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

.PHONY: demo
demo: $(STAMP) ## start a controller, deploy, call, list, enter and stop an app, and clean up
	@$(BIN)/python scripts/demo.py

.PHONY: demo-cluster
demo-cluster: $(STAMP) $(if $(RAY),$(RAY_VENV)/.ready) ## switch machines off beneath two controllers; RAY=1 has Ray place runners; needs what test-cluster needs
	@$(BIN)/python -m scripts.demo_cluster $(if $(RAY),--ray)

.PHONY: test
test: $(STAMP) ## run the tests
	@echo "Left out: make test-system (whole controllers, and programs of Debian), test-interop (the published packages),"
	@echo "          test-containers (podman), test-cluster, test-ray and test-setups (machines in namespaces), test-signals (hours)"
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(addprefix --ignore ,$(APART)) $(TESTS)

.PHONY: test-system
test-system: $(STAMP) ## run the tests of whole controllers; needs tmux, vi, less, top, zsh, fish and faketime
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not cluster" $(SYSTEM_TESTS)

.PHONY: check
check: $(STAMP) ## in seconds: formatting, lint, types of what changed, the fast tests
	@$(BIN)/ruff format --check --quiet $(SOURCES) || { echo "run: make fmt"; exit 1; }
	@$(BIN)/ruff check --quiet $(SOURCES)
	@PATH="$(CURDIR)/$(BIN):$$PATH" lint-imports --no-cache >/dev/null || { echo "run: make lint"; exit 1; }
	@$(BIN)/mypy
	@$(BIN)/python -m scripts.changed | xargs --no-run-if-empty $(BIN)/basedpyright --level error
	@$(BIN)/python -m pytest -q -m "not slow" --hypothesis-profile=quick tests/core tests/contract tests/deploy tests/test_house.py

RUNS ?= 10

.PHONY: properties
properties: $(STAMP) ## look for examples that break a property, 10 times; RUNS= changes that, TESTS= chooses
	@for run in $$(seq $(RUNS)); do echo "run $$run of $(RUNS)"; $(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal \
		-m hypothesis --hypothesis-profile=search $(if $(filter tests,$(TESTS)),$(COVERED_TESTS),$(TESTS)); done

.PHONY: cov
cov: $(STAMP) ## branch coverage of what runs inside the tests' own process; fails if it falls below the floor
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --cov --cov-report=term $(COVERED_TESTS)

.PHONY: torture
torture: $(STAMP) ## faults under load for 15 minutes, then a check of every promise; SEED=N repeats a run, FAULTS= chooses
	@$(BIN)/python -m tests.torture --minutes $(or $(MINUTES),15) $(if $(SEED),--seed $(SEED)) $(if $(FAULTS),--faults '$(FAULTS)')

FUZZ_SECONDS ?= 3600

.PHONY: fuzz
fuzz: $(STAMP) ## send nonsense to every door of a controller for an hour; FUZZ_SECONDS= shortens it, SEED=N repeats it
	@$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS) $(if $(SEED),--seed $(SEED))

TIMES ?= 200

.PHONY: test-signals
test-signals: $(STAMP) ## send each signal at 200 times of each long command's life (hours); TIMES= sends 6 to each
	@FAL_SIGNAL_TIMES=$(TIMES) $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal tests/signals

.PHONY: test-client
test-client: $(STAMP) ## run the client's tests that meet another system, without what only POSIX has
	@PYTHONPATH=$(CURDIR)/tests/support/without_posix $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal \
		-k "not terminal and not at_any_import" $(CLIENT_TESTS)

.PHONY: test-interop
test-interop: $(STAMP) docs $(INTEROP_VENV)/.ready $(OLDER_READY) $(PROTO_VENV)/.ready $(JAVASCRIPT)/.ready ## run the published packages and a browser against this controller; needs npm and chromium
	@FAL_INTEROP_PYTHON=$(CURDIR)/$(INTEROP_VENV)/bin/python FAL_PROTO_PYTHON=$(CURDIR)/$(PROTO_VENV)/bin/python \
		$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile tests/interop
	@$(BIN)/python -m tests.interop.report --check

.PHONY: test-containers
test-containers: $(STAMP) $(INTEROP_VENV)/.ready container-engine $(CONTAINER_BASE) ## run apps in real containers; needs podman, here and there runsc
	@FAL_INTEROP_PYTHON=$(CURDIR)/$(INTEROP_VENV)/bin/python $(BIN)/python -m pytest tests/containers

.PHONY: test-cluster
test-cluster: $(STAMP) ## power off, cut off and freeze machines with nodes; needs root or namespaces of users, and iproute2
	@$(BIN)/python -m tests.cluster

.PHONY: test-ray
test-ray: $(STAMP) $(RAY_VENV)/.ready ## place runners by a Ray cluster on machines made of namespaces; needs what test-cluster needs
	@$(BIN)/python -m tests.ray

.PHONY: test-setups
test-setups: $(STAMP) $(if $(filter sqlite-local postgresql-local postgresql-nodes,$(SETUP)),,$(RAY_VENV)/.ready) ## run one suite on each way to run a platform; SETUP= chooses, such as postgresql-nodes; needs what test-cluster needs
	@$(BIN)/python -m tests.setups $(addprefix -k ,$(SETUP))

$(RAY_VENV)/.ready: requirements/ray.txt $(STAMP)
	@$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python $(RAY_VENV)
	@$(BIN)/uv pip sync --quiet --python $(RAY_VENV)/bin/python --require-hashes requirements/ray.txt
	@touch $@

.PHONY: container-engine
container-engine:
	@command -v podman >/dev/null || { echo "podman is missing; on Debian: apt install podman runsc"; exit 1; }

$(CONTAINER_BASE): scripts/container_base.py requirements/dev.txt requirements/interop.txt $(STAMP)
	@$(BIN)/python -m scripts.container_base $@

.PHONY: pictures
pictures: $(STAMP) ## take the pictures of the dashboard's pages for the documentation; needs chromium
	@$(BIN)/python -m tests.interop.pictures

.PHONY: compatibility
compatibility: ## write docs/reference/compatibility.md from the last `make test-interop`
	@$(BIN)/python -m tests.interop.report

$(INTEROP_VENV)/.ready: requirements/interop.txt $(STAMP)
	@$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python $(INTEROP_VENV)
	@$(BIN)/uv pip sync --quiet --python $(INTEROP_VENV)/bin/python --require-hashes requirements/interop.txt
	@touch $@

$(OLDER_READY): .cache/interop-%-venv/.ready: requirements/interop-%.txt $(STAMP)
	@$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python $(@D)
	@$(BIN)/uv pip sync --quiet --python $(@D)/bin/python --require-hashes $<
	@touch $@

$(JAVASCRIPT)/.ready: requirements/javascript/package-lock.json
	@mkdir -p $(JAVASCRIPT)
	@cp requirements/javascript/*.json $(JAVASCRIPT)
	@cd $(JAVASCRIPT) && npm ci --silent --ignore-scripts --no-audit --no-fund --cache $(CURDIR)/.cache/npm
	@touch $@

.PHONY: ci
ci: $(STAMP) ## check everything that CI checks
	@$(MAKE) --no-print-directory lock-check
	@$(MAKE) --no-print-directory -j$(WORKERS) --output-sync=target \
		lint type proto-check gen-check sbom manifests docs $(INTEROP_VENV)/.ready $(OLDER_READY) $(JAVASCRIPT)/.ready
	@$(MAKE) --no-print-directory cov
	@$(MAKE) --no-print-directory test TESTS="$(OTHER_TESTS)"
	@$(MAKE) --no-print-directory test-system
	@$(MAKE) --no-print-directory fuzz FUZZ_SECONDS=60
	@$(MAKE) --no-print-directory test-interop
	@mkdir -p .cache/containers
	@found=$$($(BIN)/python -P -m fal_server.builders .cache/containers/trial); \
	if grep -q '"works": true' <<<"$$found"; then $(MAKE) --no-print-directory test-containers; \
	else echo "Left out: make test-containers, for no container runs on this machine: $$found"; fi
	@$(MAKE) --no-print-directory test-client
	@$(MAKE) --no-print-directory test-signals TIMES=

.PHONY: fmt
fmt: $(STAMP) ## format the code and the .proto files
	@$(BIN)/ruff format --quiet $(SOURCES)
	@$(BIN)/ruff check --quiet --fix $(SOURCES)
	@$(BIN)/buf format -w protos

.PHONY: lint
lint: $(STAMP) ## check formatting, lint, import rules and .proto files
	@$(BIN)/ruff format --check --quiet $(SOURCES) || { echo "run: make fmt"; exit 1; }
	@$(BIN)/ruff check $(SOURCES)
	@PATH="$(CURDIR)/$(BIN):$$PATH" lint-imports --no-cache
	@$(BIN)/buf format --diff --exit-code protos
	@$(BIN)/buf lint protos
	@$(BIN)/buf breaking protos --against $(PROTO_BASELINE)

.PHONY: type
type: type-mypy type-pyright type-tests ## check types with mypy strict and pyright strict, and the tests by the basic rules of pyright

.PHONY: type-mypy
type-mypy: $(STAMP)
	@$(BIN)/mypy

.PHONY: type-pyright
type-pyright: $(STAMP)
	@$(BIN)/basedpyright --level error

.PHONY: type-tests
type-tests: $(STAMP)
	@$(BIN)/basedpyright --level error --project tests

.PHONY: proto
proto: $(STAMP) $(PROTO_VENV)/.ready ## regenerate the stubs and docs/reference from protos/
	@$(PROTO_VENV)/bin/python scripts/gen_proto.py

.PHONY: proto-check
proto-check: $(STAMP) $(PROTO_VENV)/.ready ## fail if generated files differ from what protos/ gives
	@$(PROTO_VENV)/bin/python scripts/gen_proto.py --check

.PHONY: gen
gen: $(STAMP) ## regenerate the blocking client from its asyncio sources
	@$(BIN)/python scripts/gen_blocking.py

.PHONY: gen-check
gen-check: $(STAMP) ## fail if the blocking client is not what its asyncio sources give
	@$(BIN)/python scripts/gen_blocking.py --check

.PHONY: proto-baseline
proto-baseline: $(STAMP) ## at a release: make protos/ the contract that later changes must not break
	@$(BIN)/buf build protos --exclude-source-info -o $(PROTO_BASELINE)

$(PROTO_VENV)/.ready: requirements/proto.txt $(STAMP)
	@$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python $(PROTO_VENV)
	@$(BIN)/uv pip sync --quiet --python $(PROTO_VENV)/bin/python --require-hashes requirements/proto.txt
	@touch $@

.PHONY: lock
lock: $(STAMP) ## resolve the lock files again
	@$(BIN)/python scripts/lock.py

.PHONY: lock-check
lock-check: $(STAMP) ## fail if a lock file names a registry or lacks a requirement
	@$(BIN)/python scripts/lock.py --check

.PHONY: sbom
sbom: $(SBOM_VENV)/.ready ## write dist/sbom.json, which lists what a controller is made of (CycloneDX)
	@mkdir -p dist
	@$(SBOM_VENV)/bin/cyclonedx-py requirements requirements/controller.txt --pyproject pyproject.toml \
		--output-reproducible --validate -o dist/sbom.json 2>/dev/null || { echo "the list is not valid CycloneDX"; exit 1; }
	@echo "dist/sbom.json"

$(SBOM_VENV)/.ready: requirements/sbom.txt $(STAMP)
	@$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python $(SBOM_VENV)
	@$(BIN)/uv pip sync --quiet --python $(SBOM_VENV)/bin/python --require-hashes requirements/sbom.txt
	@touch $@

.PHONY: docs
docs: $(DOCS_VENV)/.ready ## build the site of docs/ with strict links; the controller serves it at /docs, and wheels have it
	@$(BIN)/python -m scripts.build_docs

$(DOCS_VENV)/.ready: requirements/docs.txt $(STAMP)
	@$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python $(DOCS_VENV)
	@$(BIN)/uv pip sync --quiet --python $(DOCS_VENV)/bin/python --require-hashes requirements/docs.txt
	@touch $@

.PHONY: manifests
manifests: $(KUBERNETES_VENV)/.ready ## check the manifests of docs/howto/kubernetes against the schemas of Kubernetes
	@$(KUBERNETES_VENV)/bin/kubernetes-validate --strict --quiet --kubernetes-version $(KUBERNETES) docs/howto/kubernetes/*.yaml

$(KUBERNETES_VENV)/.ready: requirements/kubernetes.txt $(STAMP)
	@$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python $(KUBERNETES_VENV)
	@$(BIN)/uv pip sync --quiet --python $(KUBERNETES_VENV)/bin/python --require-hashes requirements/kubernetes.txt
	@touch $@

.PHONY: bench
bench: $(STAMP) ## measure speed, as ratios taken side by side
	@$(BIN)/python -m benchmarks

.PHONY: bench-versions
bench-versions: $(STAMP) ## measure the commit BEFORE= and this tree side by side
	@test -n "$(BEFORE)" || { echo "run: make bench-versions BEFORE=COMMIT"; exit 2; }
	@mkdir -p .cache/before/$(BEFORE)
	@git archive $(BEFORE) | tar -x -C .cache/before/$(BEFORE)
	@$(MAKE) --no-print-directory -C .cache/before/$(BEFORE) setup
	@$(BIN)/python -m benchmarks._versions .cache/before/$(BEFORE)

.PHONY: bench-peers
bench-peers: $(STAMP) ## measure beside nginx, HAProxy, LitServe, BentoML and Ray Serve; write docs/explanation/performance/peers.md
	@$(BIN)/python -m benchmarks.peers

.PHONY: bench-growth
bench-growth: $(STAMP) ## measure what grows with apps, runners, requests and lines; write docs/explanation/performance/growth.md
	@$(BIN)/python -m benchmarks.growth write

.PHONY: bench-placed
bench-placed: $(STAMP) $(RAY_VENV)/.ready ## measure starts and requests on other machines, also placed by Ray; needs what test-cluster needs
	@$(BIN)/python -m benchmarks placed

.PHONY: bench-queue-peers
bench-queue-peers: $(STAMP) $(QUEUE_PEERS_VENV)/.ready ## measure the queue on PostgreSQL beside procrastinate: rates, and faults
	@$(BIN)/python -m benchmarks queue_peers

$(QUEUE_PEERS_VENV)/.ready: requirements/queue-peers.txt $(STAMP)
	@$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python $(QUEUE_PEERS_VENV)
	@$(BIN)/uv pip sync --quiet --python $(QUEUE_PEERS_VENV)/bin/python --require-hashes requirements/queue-peers.txt
	@touch $@

.PHONY: clean
clean: ## remove everything that was built
	@rm -rf $(VENV) .cache dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
