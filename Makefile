# Needs Python 3.11 or newer, make and a network for the first installation; nothing else.
# Every recipe uses relative paths, so the folder's name may hold spaces.

first_of = $(shell for p in $(1); do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)
PYTHON ?= $(call first_of,python3.11 python3.12 python3.13 python3.14 python3 python)
PYTHON_NEWEST ?= $(call first_of,python3.14 python3.13 python3.12 python3.11 python3 python)
PY := .venv/bin/python
PY_OLDEST := .venv-oldest/bin/python
PY_NEWEST := .venv-newest/bin/python
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check
# tests/conftest.py says which tests one process runs, and which come first
PYTEST := -m pytest -q -rs -n auto --maxprocesses=4 --dist loadscope --no-loadscope-reorder
DEMO := .demo

.PHONY: help demo demo-two test test-fast test-long test-crash test-batch fuzz test-browser test-oldest test-newest coverage lint test-lint format golden compare clean

help:
	@echo "make demo         a talking video from the bundled portrait, speech and small model, and what can be measured on it"
	@echo "make demo-two     two drawn people who take turns, by the small model for two speakers"
	@echo "make test         lint and all tests, those in a ComfyUI and a browser too"
	@echo "make test-fast    tests that start no server and no browser and make no whole videos"
	@echo "make test-long    more cases of what the tests have a sample of"
	@echo "make test-crash   a crash and a failure at every call that changes a file, and the resumed videos; needs cc"
	@echo "make test-batch   forty jobs on two workers, killed twelve times, compared with single runs, timed"
	@echo "make fuzz         20 000 more spoilt files: no crash, no wrong result, bounded memory and time"
	@echo "make test-browser fifty random sequences of what a user does with presets, in a real ComfyUI and a browser"
	@echo "make test-oldest  all but ComfyUI with the oldest supported PyTorch, transformers and diffusers"
	@echo "make test-newest  likewise with the newest PyTorch and transformers that pip gives"
	@echo "make coverage     the lines of the engine that no test reaches"
	@echo "make lint         style, imports between rooms, types;  make format  rewrites"
	@echo "make test-lint    plants faults in a copy and sees that lint finds them"
	@echo "make golden UPSTREAM=path/to/InfiniteTalk   recomputes tests/data from upstream's own code"
	@echo "make compare UPSTREAM=path/to/InfiniteTalk FLAGS='...'   one window by both, side by side (no FLAGS: small files)"
	@echo "make clean        removes the environments and everything that was built"

demo: .venv/installed
	@mkdir -p $(DEMO)
	$(PY) generate_infinitetalk.py --preset demo --save_file $(DEMO)/talking --overwrite
	$(PY) generate_infinitetalk.py evaluate $(DEMO)/talking.mp4 assets/speech.wav --picture $(DEMO)/talking.png

demo-two: .venv/installed
	@mkdir -p $(DEMO)
	$(PY) generate_infinitetalk.py --preset demo --lora_dir none --size 384x192 --image assets/drawn_pair.png \
	  --infinitetalk_dir assets/demo_model/InfiniteTalk/multi/infinitetalk.safetensors \
	  --audio assets/speech.wav --timeline assets/turns.json --save_file $(DEMO)/two --overwrite

test: lint
	$(PY) $(PYTEST)

test-fast: .venv/installed-test
	$(PY) $(PYTEST) --ignore=tests/comfy -m "not whole and not long"

test-long: .venv/installed-test
	$(PY) $(PYTEST) -m long

test-crash: .venv/installed-test
	$(PY) -m infinitetalk.tests.support.crashing

test-batch: .venv/installed-test
	$(PY) -m infinitetalk.tests.support.batches --timed

fuzz: .venv/installed-test
	$(PY) -m infinitetalk.tests.fuzz --numbers 1000-2000

test-browser: .venv/installed-test
	PRESET_SEQUENCES=50 $(PY) -m pytest -q -rs tests/comfy/test_presets.py

test-oldest: .venv-oldest/installed-test
	$(PY_OLDEST) $(PYTEST) --ignore=tests/comfy

test-newest: .venv-newest/installed-test
	$(PY_NEWEST) $(PYTEST) --ignore=tests/comfy

coverage: .venv/installed-test
	$(PY) $(PYTEST) --ignore=tests/comfy --cov --cov-report=term-missing:skip-covered

# checked under the package's name, whatever the folder is called
lint: .venv/installed-test
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	@mkdir -p .venv/lint && ln -sfn ../.. .venv/lint/infinitetalk
	PYTHONPATH=.venv/lint $(PY) -c 'import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())'
	MYPYPATH=.venv/lint $(PY) -m mypy --cache-dir .mypy_cache -p infinitetalk.pipeline -p infinitetalk.nodes -p infinitetalk.scripts

test-lint: .venv/installed-test
	$(PY) -m infinitetalk.scripts.planted

format: .venv/installed-test
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

golden: .venv/installed-test
	@test -n "$(UPSTREAM)" || { echo "Say where upstream's clone is: make golden UPSTREAM=path/to/InfiniteTalk"; exit 2; }
	$(PY) -m infinitetalk.tests.golden --upstream "$(UPSTREAM)"

compare: .venv/installed-test
	@test -n "$(UPSTREAM)" || { echo "Say where upstream's clone is: make compare UPSTREAM=path/to/InfiniteTalk"; exit 2; }
	$(PY) -m infinitetalk.scripts.compare "$(UPSTREAM)" $(FLAGS)

clean:
	rm -rf .venv .venv-oldest .venv-newest .comfy $(DEMO) build dist infinitetalk.egg-info .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis .coverage

.venv/installed: pyproject.toml tests/constraints.txt | .venv/bin/python
	$(PY) $(PIP_INSTALL) --editable . --constraint tests/constraints.txt
	@touch $@

.venv/installed-test: pyproject.toml tests/constraints.txt | .venv/bin/python
	$(PY) $(PIP_INSTALL) --editable ".[test,oracles]" --constraint tests/constraints.txt
	@touch $@ .venv/installed

.venv-oldest/installed-test: pyproject.toml tests/constraints-oldest.txt | .venv-oldest/bin/python
	$(PY_OLDEST) $(PIP_INSTALL) --editable ".[test,oracles]" --constraint tests/constraints-oldest.txt
	@touch $@

# what was newest when it was made: make clean, to have it anew; without torchaudio, which follows PyTorch later
.venv-newest/installed-test: pyproject.toml | .venv-newest/bin/python
	$(PY_NEWEST) $(PIP_INSTALL) --upgrade --upgrade-strategy eager --editable ".[test]"
	@touch $@

.venv-newest/bin/python: PYTHON := $(PYTHON_NEWEST)
.venv/bin/python .venv-oldest/bin/python .venv-newest/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; found $$(python3 --version 2>&1). Name one: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 2; }
	"$(PYTHON)" -m venv $(@D)/..
