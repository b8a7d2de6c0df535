# make hear   sound from the shipped model, seconds after installation
# make demo   a corpus, a dataset, three minutes of training and sound, from nothing; again: trains on
# make app    play the shipped model in the browser
# make test   the tests
# make torture   long trials: kills, full disks, long runs, broken files, random inputs; hours
# make test-accelerators   every config compiled for a TPU and a GPU, without a device; an hour
# All make .venv from requirements.txt first. Another Python: make demo PYTHON=python3.12
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/requirements.stamp
ALL := $(VENV)/requirements-test.stamp
MODEL := technogen_jax/pretrained/technogan.npz
# Large memory pages, with glibc: training steps on a CPU take 6 to 14 percent less time:
# experiments/log/2026-11-29-decoding-by-beats-and-songs.md.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1

.PHONY: hear app demo test test-accelerators torture lint
.DEFAULT_GOAL := demo

hear: $(STAMP)
	$(PY) -m technogen_jax.sample --workdir $(MODEL) --output runs/hear --n 16

app: $(STAMP)
	$(PY) -m pip install --quiet -r requirements-app.txt
	$(PY) -m technogen_jax.app --workdir $(MODEL)

demo: $(STAMP)
	$(PY) -m data_prep.synthesize --output demo/tracks --tracks 24 --minutes 1,2
	$(PY) -m data_prep.prepare --input demo/tracks --output demo/records --channels 2 --grid bars --bars 2
	$(PY) -m technogen_jax.train --config configs/demo.py --workdir demo/run
	$(PY) -m technogen_jax.sample --workdir demo/run --n 16
	$(PY) -m technogen_jax.sample --workdir demo/run --minutes 1
	@echo
	@echo "Listen: demo/run/sound/*.wav, sixteen loops and a track of a minute"
	@echo "Look:   demo/run/sound/*.png, generated above, real below"
	@echo "Longer training makes it better: run make demo again to continue."

test: $(ALL)
	$(PY) -m pytest -n auto --maxprocesses 4

# In an environment of its own: the compilers need another jax than requirements.txt may give.
test-accelerators:
	$(PYTHON) -m venv .venv-accelerators
	.venv-accelerators/bin/python -m pip install --quiet -r experiments/ahead_of_time/requirements.txt -r requirements-test.txt
	.venv-accelerators/bin/python -m pytest tests/integration/test_ahead_of_time.py

torture: $(STAMP)
	$(PY) -m experiments.torture

lint: $(STAMP)
	$(VENV)/bin/pip install -q ruff
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .

# Installed again when requirements.txt changes. An interrupted installation leaves no stamp and is repeated.
$(STAMP): requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "TechnoGen needs Python 3.11 or newer; found $$($(PYTHON) --version 2>&1). Try: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade pip
	$(PY) -m pip install --quiet -r requirements.txt
	@touch $@

$(ALL): $(STAMP) $(wildcard requirements-*.txt)
	$(PY) -m pip install --quiet -r requirements-test.txt
	@touch $@
