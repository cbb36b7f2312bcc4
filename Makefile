# `make` alone says what there is. Every target makes its own environment in .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Nothing but the files that constraints.txt has the hashes of, to build with too.
INSTALL := $(BIN)/uv pip install --python $(BIN)/python --preview-features build-dependency-hashes \
	--require-build-hashes --build-constraints constraints.txt
READY := $(VENV)/.ready
# Committed, so that they can be uploaded in the KFP UI as they are.
COMPILED := compress compress-images scan
# Processes that share the tests by file: whole runs mostly wait for one stage's start after another.
WORKERS ?= 2
# The pair that the committed results were measured with; the newest release is often not there for both.
TORCH := torch==2.14.1 torchvision==0.29.1

.DEFAULT_GOAL := help
.PHONY: help demo test check k8s-check format images image-cpu image-cuda image-submit cifar10 constraints clean

help: ## say what there is
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

demo: $(READY) ## prune a real ResNet-20 to 75 %, bring it back without data, write the report
	$(BIN)/resprout run recipes/demo.yaml

test: $(READY) ## run the tests (one file or more: make test TESTS=tests/resprout)
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder $(TESTS)

check: $(READY) ## lint, formatting, types, import rules, the compiled pipeline, the manifests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint docker/Dockerfile
	$(BIN)/shellcheck .ci/run ci/*.sh docker/*.sh k8s/*.sh k8s/overlays/*/*.sh
	KUBERNETES_VALIDATE=$(BIN)/kubernetes-validate k8s/check.sh 1.30 1.36
	@for name in $(COMPILED); do \
		$(BIN)/resprout compile --pipeline $$name --output $(VENV)/$$name.yaml; \
		diff -u pipeline/$$name.yaml $(VENV)/$$name.yaml || { \
			echo "error: pipeline/$$name.yaml is not what components/ and pipeline/compress.py compile to"; \
			echo "  now: make format, and commit it"; exit 1; }; \
	done

k8s-check: $(READY) ## render and validate the manifests in k8s/, and run their tests; needs kubectl
	KUBERNETES_VALIDATE=$(BIN)/kubernetes-validate k8s/check.sh
	$(BIN)/python -m pytest tests/k8s

format: $(READY) ## rewrite code, tables, the compiled pipeline and its picture as `check` and the tests want them
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python docs/recipe_reference.py
	$(BIN)/python benchmarks/tables.py
	$(BIN)/python benchmarks/plots.py
	for name in $(COMPILED); do $(BIN)/resprout compile --pipeline $$name --output pipeline/$$name.yaml; done
	$(BIN)/python docs/inputs_reference.py
	$(BIN)/python docs/graph.py

images: image-cpu image-cuda ## build the container images, each with its bill of materials (docker/README.md)

image-cpu: ## build the image of stages without a GPU alone
image-cuda: ## build the image of stages with a GPU alone
image-submit: ## build the image that submits runs from inside a cluster (docs/ci.md)
image-cpu image-cuda image-submit: image-%: $(READY)
	SYFT=$${SYFT:-$(BIN)/syft} docker/build.sh $*

cifar10: $(READY) ## fetch all of CIFAR-10 (150 MB) for the benchmarks
	$(BIN)/python examples/resnet20-cifar10/fetch_cifar10.py

constraints: $(READY) ## resolve constraints.txt again, with hashes (all newest: make constraints UPGRADE=--upgrade)
	printf '%s\n' $(TORCH) | $(BIN)/uv pip compile pyproject.toml --constraints - --all-extras --universal \
		--python-version 3.10 --generate-hashes --no-annotate --no-header --no-emit-index-url --quiet $(UPGRADE) \
		--output-file constraints.txt

clean: ## remove the environment and what the tools leave behind; runs/ and data/ stay
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# Bytecode is compiled here, once: PyTorch takes seconds to compile, and each stage of a run is a process of its own.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
		echo "error: Resprout needs Python 3.10 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1)"; \
		echo "  now: install one and say which: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' || { \
		echo "error: '$(PYTHON)' cannot make virtual environments"; \
		echo "  now: install its venv package, on Debian: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	sed -n '/^uv==/,/[^\]$$/p' constraints.txt | $(BIN)/pip install --quiet --require-hashes --requirement /dev/stdin
	$(INSTALL) --require-hashes --requirement constraints.txt
	$(INSTALL) --no-deps --compile-bytecode --editable .
	@touch $@
