# make ablations   set up an environment and run the ablation study on the embedded data set
# make baselines   the same for the comparison with the baselines
# make test        set up an environment and run the tests
# make faults      break real processes, disks and servers under a study (20 minutes; docs/faults.md)
# make namespaces  three nodes with Ray, Slurm and sshd in Linux namespaces, as root (8 minutes; cluster/README.md)
#
# PYTHON=python3.12        the interpreter to make the environment with
# VENV=.venv               where the environment goes
# ARGS="--seeds 3"         further options of the study: make ablations ARGS=--help

PYTHON ?= python3
VENV ?= .venv
STORE ?= runs
OUT ?= out
ARGS ?=

# Without an NVIDIA GPU the CPU build of torch will do; it is a tenth of the size.
TORCH_INDEX ?= $(if $(shell command -v nvidia-smi 2>/dev/null),,https://download.pytorch.org/whl/cpu)

PIP = $(VENV)/bin/python -m pip --disable-pip-version-check --no-input

.PHONY: ablations baselines test faults namespaces check setup dev

ablations: setup
	$(VENV)/bin/python sweeps/ablations.py --store $(STORE) --out $(OUT) $(ARGS)

baselines: setup
	$(VENV)/bin/python sweeps/baselines.py --store $(STORE) --out $(OUT)/baselines $(ARGS)

test: dev
	$(VENV)/bin/python -m pytest

# Writes out/faults.json and out/faults.md. `python tests/faults/fault_report.py out/faults.json` puts them into docs/.
faults: dev
	BBQREC_FAULTS_OUT=$(OUT) $(VENV)/bin/python -m pytest tests/faults tests/sweeps/test_pbt.py -m fault --timeout 900

# Pictures of Ray's dashboard go to out/namespaces.
namespaces: dev
	BBQREC_NAMESPACES_OUT=$(abspath $(OUT))/namespaces $(VENV)/bin/python -m pytest tests/cluster/namespaces -m namespaces -rs

check: dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

setup: $(VENV)/.installed
dev: $(VENV)/.installed-dev

# The stamps are written last: an installation that was cut short is done again.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $(PYTHON) is older than Python 3.11: try make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --retries 1 $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) --constraint constraints.txt --no-deps torch
	$(PIP) install --constraint constraints.txt --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) install --constraint constraints.txt --editable '.[dev]'
	touch $@
