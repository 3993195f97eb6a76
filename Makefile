# make quickstart   the environment, then the first training run: real text, a real encoder, no model hub
# make test         the environment, then style, spelling and type checks and the test suite
# make coverage     the test suite with line coverage, which must not fall below its floor
# make test-extras  the slow tests, most of them of optional extras
# make docs         the site, into build/site; to read it: python -m http.server --directory build/site
# make soak         real faults done to real runs (docs/reliability.md); some fifteen minutes
# make reproduce CONFIG=configs/arccse-bert-base.yaml ARGS='--train_file sentences.txt'
#                   train a recipe, score it on the seven STS sets, print the published row above ours
# make fields       write the table of all fields of a run anew, after a change of the arguments
# make clean        remove the environment and the quickstart's output; other runs stay

PYTHON ?= python3
REQUIREMENTS ?= requirements.txt
BIN := .venv/bin
DONE := .venv/$(REQUIREMENTS).done
CONFIG ?= configs/quickstart.yaml

# A folder in SentEval's layout; where it is given, the quickstart's control is STS-B dev.
SENTEVAL ?= $(if $(ARCCSE_SHARED_DATA),$(ARCCSE_SHARED_DATA)/senteval)
STS := $(if $(SENTEVAL),--eval_tasks stsb_dev --eval_data $(SENTEVAL))

# The quickstart's own folder is replaced; that of another recipe is not.
OVERWRITE := $(if $(filter configs/quickstart.yaml,$(CONFIG)),--overwrite_output_dir)

export TOKENIZERS_PARALLELISM := false

.PHONY: quickstart test coverage test-extras docs soak reproduce fields clean

quickstart: .venv/quickstart
	$(BIN)/accelerate launch --config_file configs/accelerate/cpu.yaml run_arccse.py $(CONFIG) $(STS) $(OVERWRITE)
	@echo "The same in an environment of your own:"
	@echo "    pip install -r requirements.txt -r requirements-quickstart.txt && pip install --no-deps -e ."
	@echo "    accelerate launch run_arccse.py $(CONFIG) $(OVERWRITE)"

test: .venv/quickstart
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/typos .
	$(BIN)/mypy
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

coverage: .venv/quickstart
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile \
		--cov=arccse_hf --cov-report=term:skip-covered

test-extras: .venv/quickstart .venv/extras
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m extras --numprocesses 2

docs: .venv/extras
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

soak: .venv/quickstart
	$(BIN)/pip install --quiet 'cyclonedx-bom>=7,<8'
	$(BIN)/python benchmarks/soak.py --output benchmarks/results/soak.json $(ARGS)

reproduce: .venv/quickstart
	$(BIN)/python -m arccse_hf reproduce $(CONFIG) $(ARGS)

fields: $(DONE)
	$(BIN)/python -m arccse_hf.training.fields

# The mark bears the name of the requirements, so that others are installed in place of these.
$(DONE): $(REQUIREMENTS) pyproject.toml
	$(PYTHON) -m venv .venv
	rm -f .venv/*.done
	$(BIN)/pip install --quiet --requirement $(REQUIREMENTS)
	$(BIN)/pip install --quiet --no-deps --editable .
	touch $@

# The lowest versions that pyproject.toml allows: make test REQUIREMENTS=requirements-lowest.txt
requirements-lowest.txt: pyproject.toml requirements.txt
	$(PYTHON) tests/lowest_versions.py > $@

.venv/quickstart: $(DONE) requirements-quickstart.txt
	$(BIN)/pip install --quiet --requirement requirements-quickstart.txt
	touch $@

.venv/extras: $(DONE) requirements-extras.txt
	$(BIN)/pip install --quiet --requirement requirements-extras.txt
	touch $@

clean:
	rm -rf .venv runs/quickstart
