.DEFAULT_GOAL := help
HOST ?= 127.0.0.1
PORT ?= 8000
MODELS ?= models
WEIGHTS ?= timm/resnext50_32x4d.tv_in1k
PRESET = $(lastword $(subst ., ,$(WEIGHTS)))
STATE ?= $(or $(RESNEXT_STATE),state)
PYTHON ?= python3
COMPOSE ?= docker compose
TENSORBOARD_PORT ?= 6006
BIN := .venv/bin
PEERS := $(patsubst benchmarks/peers/%/requirements.txt,%,$(wildcard benchmarks/peers/*/requirements.txt))
SERVERS := $(filter-out pytorch,$(PEERS))
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
  --no-emit-index-url --no-emit-find-links pyproject.toml

.PHONY: help install serve starter weights imagenet test check check-clients parity-torch chaos openapi-test compose-test wheel-test audit sbom format tensorboard \
  bench bench-peers bench-profile bench-input bench-training bench-openvino bench-fashion bench-few bench-live bench-recipes lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

serve: starter ## set up, train the starter if no version is active yet, and serve (HOST, PORT)
	@RESNEXT_MODELS=$(MODELS) RESNEXT_HOST=$(HOST) RESNEXT_PORT=$(PORT) RESNEXT_WORKER=true exec $(BIN)/python -m app

starter: install ## train ResNeXt-50 on scikit-learn's handwritten digits, if no version is active yet
	@$(BIN)/python -m training starter --models $(MODELS)

weights: install ## download published ImageNet weights, 100 MB, and try them on photos (WEIGHTS=timm/...)
	@$(BIN)/python -m training weights pull $(WEIGHTS)

# nothing is asked of the hub once the weights are here
imagenet: install ## serve ImageNet's 1000 classes by published weights, downloaded the first time (WEIGHTS, HOST, PORT)
	@test -e $(MODELS)/imagenet/ACTIVE || { \
	  { test -e $(or $(RESNEXT_WEIGHTS),weights)/$(PRESET).json || $(BIN)/python -m training weights pull $(WEIGHTS); } && \
	  $(BIN)/python -m training weights publish $(PRESET) --name imagenet --models $(MODELS); }
	@RESNEXT_MODELS=$(MODELS) RESNEXT_MODEL=imagenet RESNEXT_HOST=$(HOST) RESNEXT_PORT=$(PORT) exec $(BIN)/python -m app

install: .venv/installed ## make .venv with the locked dependencies

.venv/installed: requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v < (3, 14) else \
	  "TensorFlow has wheels for Python 3.11 to 3.13, $(PYTHON) is %d.%d; name one: make PYTHON=python3.11" % v[:2])'
	@echo "installing the locked dependencies into .venv, a few minutes the first time"
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# --no-loadscope-reorder: tests/conftest.py puts the groups that take longest first
test: install ## set up and pass the tests, in up to four processes; `make test PYTEST="-k gate"` passes on options
	$(BIN)/pytest --numprocesses auto --maxprocesses 4 --no-loadscope-reorder $(PYTEST)

check: install ## lint, format, types and import rules
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

chaos: install ## attack the service, under 15 minutes; writes its table into docs/reliability.md (PARTS="images clients" only prints)
	$(BIN)/python -m tests.chaos $(PARTS)

openapi-test: .bench/envs/schemathesis/installed ## try the HTTP API with what its OpenAPI document allows, and what it does not; some minutes
	$(BIN)/python -m tests.openapi .bench/envs/schemathesis/bin/schemathesis

.bench/envs/schemathesis/installed: tests/openapi/requirements.txt | install
	@$(BIN)/uv venv --quiet --clear --python 3.11 .bench/envs/schemathesis
	@$(BIN)/uv pip install --quiet --python .bench/envs/schemathesis/bin/python -r $<
	@touch $@

compose-test: install ## build the containers and try everything that docs/containers.md promises (COMPOSE, STEPS); 20 minutes
	COMPOSE="$(COMPOSE)" $(BIN)/python -m tests.compose $(STEPS)

wheel-test: install ## install the wheel of this checkout into a clean environment, serve and train with it; 2 GB, 10 minutes
	$(BIN)/python -m tests.wheel

audit: .bench/envs/supply/installed ## look up known vulnerabilities of all locked packages; 3 where the data cannot be reached
	@$(BIN)/python -m supply.audit .bench/envs/supply/bin/pip-audit

sbom: .bench/envs/supply/installed ## write a bill of materials (CycloneDX) for each lock into build/sbom
	@$(BIN)/python -m supply.sbom .bench/envs/supply/bin/cyclonedx-py

.bench/envs/supply/installed: | install
	@$(BIN)/uv venv --quiet --clear --python 3.11 .bench/envs/supply
	@$(BIN)/uv pip install --quiet --python .bench/envs/supply/bin/python pip-audit==2.10.1 cyclonedx-bom==7.5.0
	@touch $@

format: install ## fix what ruff can fix
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

check-clients: install ## run KServe's own client against the service on HOST and PORT, its models on our manifest; installs 300 MB into .bench
	@test -e .bench/envs/kserve/installed || { \
	  $(BIN)/uv venv --quiet --clear --python 3.11 .bench/envs/kserve && \
	  $(BIN)/uv pip install --quiet --python .bench/envs/kserve/bin/python kserve==0.21.0 kubernetes==37.0.1 pillow && \
	  touch .bench/envs/kserve/installed; }
	.bench/envs/kserve/bin/python tests/clients/kserve_client.py http://$(HOST):$(PORT)

parity-torch: .bench/envs/torch/installed ## compare with torchvision's and timm's ResNeXt-50, which it installs in .bench, 5 GB; 2 minutes
	$(BIN)/python -m tests.parity .bench/envs/torch/bin/python

.bench/envs/torch/installed: tests/parity/requirements.txt | install
	@$(BIN)/uv venv --quiet --clear --python 3.11 .bench/envs/torch
	@$(BIN)/uv pip install --quiet --python .bench/envs/torch/bin/python -r $<
	@touch $@

tensorboard: install ## show the curves of all runs and jobs (TENSORBOARD_PORT, by default 6006; STATE)
	@mkdir -p .tensorboard && ln -sfn $(abspath runs) .tensorboard/runs && ln -sfn $(abspath $(STATE))/jobs .tensorboard/jobs
	@echo "$$(find -L .tensorboard -name 'events.out.*' | wc -l) curves in runs and $(STATE)/jobs; a training with tensorboard off has none"
	$(BIN)/tensorboard --logdir .tensorboard --port $(TENSORBOARD_PORT)

bench: .bench/models/made ## compare the service with other servers, 20 to 25 minutes; writes its part of docs/benchmarks.md
	$(BIN)/python -m benchmarks.serving $(BENCH)

# a minute. On all of training, since a list of modules would go stale unseen; on the lock for what converts and quantizes
.bench/models/made: benchmarks/models.py benchmarks/photos.py $(wildcard training/*.py training/*/*.py) \
  requirements/dev.txt | install
	$(BIN)/python -m benchmarks.models
	@touch $@

bench-peers: $(SERVERS:%=.bench/envs/%/installed) ## install the servers that make bench compares with, 1 GB in .bench

.bench/envs/%/installed: benchmarks/peers/%/requirements.txt | install
	@$(BIN)/uv venv --quiet --clear --python 3.11 .bench/envs/$*
	@$(BIN)/uv pip install --quiet --python .bench/envs/$*/bin/python -r $< && touch $@ || \
	  echo "$* cannot be installed: make bench goes on without it"

bench-profile: .bench/models/made ## show where the time of a run and of a request goes, by kind of node and by stage
	$(BIN)/python -m benchmarks.profile_service

bench-input: install ## time the input pipeline against Keras' ImageDataGenerator, or with BENCH=--presets its presets
	$(BIN)/python -m benchmarks.input_pipeline $(BENCH)

bench-recipes: install ## compare the recipes on few images of Fashion-MNIST; hours, or BENCH=--quick, two minutes
	$(BIN)/python -m benchmarks.recipes $(BENCH)

bench-training: .bench/envs/pytorch/installed ## time a training step against PyTorch, which it installs in .bench; 8 minutes
	$(BIN)/python -m benchmarks.training_step $(BENCH)

bench-openvino: .venv-openvino/installed .bench/models/made ## run the service on OpenVINO, and time it against ONNX Runtime's own CPU provider
	$(BIN)/python -m benchmarks.openvino --models .bench/models/real

.venv-openvino/installed: requirements/serve-openvino.txt | install
	@$(PYTHON) -m venv .venv-openvino
	@.venv-openvino/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/serve-openvino.txt
	@touch $@

bench-fashion: install ## train on all of Fashion-MNIST over HTTP and ask for all its test images; takes hours
	$(BIN)/python -m benchmarks.fashion

bench-few: install ## compare scratch, head and fine-tuning with 20 images a class of Fashion-MNIST; 30 minutes (BENCH)
	$(BIN)/python -m benchmarks.few $(BENCH)

bench-live: install ## time the way from 200 photos to the first right answer of the live model; 10 minutes (BENCH)
	$(BIN)/python -m benchmarks.live $(BENCH)

lock: install ## resolve the dependencies again, into requirements/
	$(COMPILE) --extra train --group dev -o requirements/dev.txt
	$(COMPILE) -c requirements/dev.txt --extra grpc --extra otel -o requirements/serve.txt
	$(COMPILE) -c requirements/dev.txt --extra grpc --extra otel --extra cuda -o requirements/serve-cuda.txt
	$(COMPILE) -c requirements/dev.txt --extra train --extra hub -o requirements/train.txt
	$(COMPILE) -c requirements/dev.txt --extra train --extra hub --extra train-cuda -o requirements/train-cuda.txt
	$(COMPILE) -c requirements/dev.txt --extra grpc --extra otel --group openvino \
	  --excludes requirements/openvino-replaces.txt -o requirements/serve-openvino.txt

clean: ## remove .venv and caches; data, runs and models stay
	rm -rf .venv .venv-openvino build *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .tensorboard
