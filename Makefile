# make demo         nuclei, chairs and rooms by trained networks, minutes of training, real furniture: one page
# make test         run all tests
# make minkowski    build MinkowskiEngine, a second engine for ScanNet: some minutes, once; make test does so where it can
# make check        formatting, lint and types
# make bench        everything against what people use today: tables, a JSON file and a picture; twenty minutes
# make bench-quick  the same in small sizes, two minutes
# make gpu          everything that has a CUDA path, on a real GPU: tests and timings, four minutes; PY=python3 installs nothing
# make hosts       the integrations on the hosts' own code: POINTCEPT=<clone> MMDET3D=<clone> and others, see tests/hosts
# make versions     the core's tests on the oldest Python, torch, numpy and scipy that are declared and on the newest
# make coverage     branches of the core and the adapters that the tests run; fails under 98 and 90 per cent
# make mutants      the core with one operator changed: does a test fail? days; MUTANTS=300 SEED=1: a sample, an hour
# make kills        100 kills of trainings, predictions and studies, which then go on: the results are the same
# make long         two hours of training and 10,000 predictions: does anything grow? HOURS=0.5 PREDICTIONS=1000
# make fuzz         10,000 damaged files of each format that is read: half an hour; SEED=1 draws others
# make docs         the pages as HTML, the notebooks with what they print
# make dist         sdist and wheel in dist/, checked
# make clean        remove the environment, caches and results
#
# The environment is .venv. A torch that is there, in .venv or where PYTHON finds it, is kept; otherwise TORCH is
# installed, for example: make demo TORCH="torch --index-url ..." for another build.

PYTHON ?= python3
TORCH ?= torch==2.13.0
# Threads that wait for each other by spinning are ten times slower when anything else runs; and memory that is handed
# back after each tensor must be mapped anew for the next.
export OMP_WAIT_POLICY ?= PASSIVE
export MALLOC_MMAP_THRESHOLD_ ?= 4000000000
export MALLOC_TRIM_THRESHOLD_ ?= 4000000000

comma := ,
VENV := .venv
PY := $(VENV)/bin/python

.PHONY: help demo test minkowski check bench bench-quick gpu hosts versions version coverage mutants kills long fuzz docs dist clean

help:
	@sed -n 's/^# \{0,1\}//p;/^$$/q' Makefile

demo: $(VENV)/.demo
	@echo "== Objects found in images, shapes and rooms: about seven minutes on two cores"
	$(PY) examples/demo.py $(ARGS)

minkowski: $(VENV)/.minkowski
	@echo "MinkowskiEngine is ready: $(PY) examples/scannet_minkowski.py"

test: $(VENV)/.dev comparison
	@echo "== Running all tests"
	$(PY) -m pytest -rs $(if $(ARGS),$(ARGS),-q -n 2 --dist worksteal --durations 10)

# Sparse networks run in plain torch. MinkowskiEngine is what they are compared with, on machines that can build it.
.PHONY: comparison
comparison: $(VENV)/.dev
	@$(MAKE) --no-print-directory $(VENV)/.minkowski || \
		echo "== MinkowskiEngine could not be built (above). What compares with it is skipped, and waits for: make minkowski"

check: $(VENV)/.dev
	@echo "== Checking format, lint and types"
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy

bench: $(VENV)/.dev comparison
	@echo "== Benchmarks, one thread: leave the machine alone meanwhile"
	$(PY) benchmarks/run.py $(ARGS)

bench-quick: $(VENV)/.dev comparison
	@echo "== Benchmarks in small sizes"
	$(PY) benchmarks/run.py --quick $(ARGS)

# With PY=python3 on that interpreter as it is; nothing is installed. With pytest-xdist eight processes compile kernels.
GPU_TESTS := $(filter-out %/compiled_cases.py,$(wildcard tests/gpu/*.py)) tests/core tests/adapters/test_pointnet2.py
gpu: export PYTHONPATH := $(CURDIR):$(CURDIR)/adapters:$(CURDIR)/shapes
gpu: $(if $(filter $(VENV)/bin/python,$(PY)),$(VENV)/.dev)
	@echo "== On this GPU: what has a CUDA path against its reference, then timings"
	$(PY) -m pytest -q -k "cuda or _cases or _sizes" $(GPU_TESTS) \
		$$($(PY) -c 'import xdist; print("-n 8 --dist worksteal")' 2>/dev/null)
	$(PY) benchmarks/gpu.py $(ARGS)

# Packages that a host needs, such as mmengine and spconv, are looked for in HOST_SITE too: pip install --target it.
# Each host in a process of its own, as their packages and stand-ins do not go together.
HOST_SITE ?= .cache/hosts
export POINTCEPT MMDET3D EMBEDSEG SPATIAL_EMBEDDINGS SOFTGROUP MASK3D TORCH_POINTS3D
hosts: export PYTHONPATH := $(CURDIR):$(CURDIR)/adapters:$(CURDIR)/shapes:$(CURDIR)/tests/hosts:$(abspath $(HOST_SITE))
hosts: $(if $(filter $(VENV)/bin/python,$(PY)),$(VENV)/.dev)
	@echo "== The hosts' own code on this machine's CPU"
	@for file in tests/hosts/*_cases.py; do \
		$(PY) -m pytest -q -rs -s -p no:cacheprovider -o addopts=--import-mode=importlib \
			-o pythonpath="tests/helpers benchmarks studies" $$file $(ARGS); \
		code=$$?; test $$code -eq 0 || test $$code -eq 5 || exit 1; \
	done

# The oldest are the bounds of pyproject.toml. Tests of Triton's kernels need a newer torch, and run in "make test".
OLDEST := torch==2.6.0 numpy==1.24.0 scipy==1.10.0
NEWEST := torch numpy scipy
NOT_IN_VERSIONS := $(wildcard tests/core/test_triton*.py) tests/core/test_objective_twins.py
# A Python that is not there is left out, and said.
find_python = $(if $(shell $(1) --version 2>/dev/null),$(1))
versions:
	@$(MAKE) --no-print-directory version NAME=oldest VERSION_PYTHON=$(or $(call find_python,python3.10),$(PYTHON)) PACKAGES="$(OLDEST)"
	@$(MAKE) --no-print-directory version NAME=newest VERSION_PYTHON=$(or $(call find_python,python3.13),$(PYTHON)) PACKAGES="$(NEWEST)"

version:
	@echo "== The core's tests on $(PACKAGES), $$($(VERSION_PYTHON) --version), in .cache/versions/$(NAME)"
	test -x .cache/versions/$(NAME)/bin/python || $(VERSION_PYTHON) -m venv .cache/versions/$(NAME)
	.cache/versions/$(NAME)/bin/python -m pip install -q $(PACKAGES) pytest hypothesis mpmath torchmetrics
	PYTHONPATH=$(CURDIR):$(CURDIR)/adapters .cache/versions/$(NAME)/bin/python -m pytest -q -p no:cacheprovider \
		tests/core $(foreach file,$(NOT_IN_VERSIONS),--ignore=$(file)) $(ARGS)

DAMAGES ?= 10000
SEED ?= 0
fuzz: export DAMAGE_SEED := $(SEED)
fuzz: export DAMAGES := $(DAMAGES)
fuzz: $(VENV)/.dev
	@echo "== $(DAMAGES) damaged files of each format"
	$(PY) -m pytest -q -n 2 --dist worksteal tests/adapters/test_damaged_files.py $(ARGS)

# Of both packages in one run of all tests; kernels for CUDA are left out in pyproject.toml.
coverage: $(VENV)/.dev
	@echo "== Branches that the tests run"
	rm -f .cache/coverage/.coverage*
	mkdir -p .cache/coverage
	$(PY) -m pytest -q -n 2 --dist worksteal --cov --cov-report= $(ARGS)
	$(PY) -m coverage report --include "probemb_lib/*" --fail-under 98
	$(PY) -m coverage report --include "adapters/*" --fail-under 90

MUTANTS ?= 0
mutants: $(VENV)/.dev
	@echo "== Mutants of the core"
	$(PY) tests/reliability/mutation_score.py --sample $(MUTANTS) --seed $(SEED) $(ARGS)

KILLS ?= 100
kills: $(VENV)/.dev
	@echo "== $(KILLS) kills"
	$(PY) tests/reliability/kills.py --kills $(KILLS) --seed $(SEED) $(ARGS)

HOURS ?= 2
PREDICTIONS ?= 10000
long: $(VENV)/.dev
	@echo "== $(PREDICTIONS) predictions and $(HOURS) hours of training"
	$(PY) tests/reliability/long_runs.py --hours $(HOURS) --predictions $(PREDICTIONS) $(ARGS)

docs: $(VENV)/.docs
	@echo "== Building the pages"
	$(PY) -m sphinx -W -q -b html docs docs/_build/html
	@! grep -rlE --include='*.html' '<(script|link|img)[^>]* (src|href)="https?:' docs/_build/html || \
		{ echo "The pages above ask another host for something; they are to be read offline"; exit 1; }
	@echo "docs/_build/html/index.html"

dist: $(VENV)/.dev
	@echo "== Building the sdist and the wheel"
	rm -rf dist
	$(PY) -m build --no-isolation
	$(PY) -m twine check --strict dist/*
	$(PY) -m pytest -q tests/test_package.py tests/test_docs.py -k "wheel or sdist or version"

clean:
	rm -rf $(VENV) .cache build dist docs/_build runs .pytest_cache .mypy_cache .ruff_cache .hypothesis

# A stamp is written when everything of its extra is installed and can be imported, so an interrupted installation
# goes on at the next call. Packages that an interruption left damaged are installed again, a torch that works never.
$(VENV)/.demo: EXTRAS := partnet,train,baselines,viz,images
$(VENV)/.demo: IMPORTS := torch_geometric, h5py, plyfile, lightning_fabric, tqdm, tyro, safetensors, threadpoolctl, \
	sklearn, matplotlib, plotly, imageio, tifffile, monai, probemb_lib, probemb_adapters, probemb_shapes
$(VENV)/.dev: EXTRAS := all,dev
$(VENV)/.dev: IMPORTS := torch_geometric, h5py, plyfile, laspy, pypcd4, pye57, lightning_fabric, tqdm, tyro, safetensors, \
	threadpoolctl, sklearn, matplotlib, plotly, tensorboard, imageio, tifffile, monai, lightning, huggingface_hub, probemb_lib, probemb_adapters, probemb_shapes, \
	pytest, pytest_cov, cosmic_ray, hypothesis, ipykernel, mpmath, nbclient, xdist, hatchling, build, twine \
	$(if $(filter Linux-x86_64,$(shell uname -sm | tr ' ' '-')),$(comma) triton)
$(VENV)/.docs: EXTRAS := all,docs
$(VENV)/.docs: IMPORTS := sphinx, furo, latex2mathml, myst_nb, torch_geometric, h5py, lightning_fabric, sklearn, plotly, \
	probemb_lib, probemb_adapters, probemb_shapes

$(VENV)/.demo $(VENV)/.dev $(VENV)/.docs: pyproject.toml Makefile
	@echo "== Installing probemb_lib[$(EXTRAS)] into $(VENV) (once)"
	@$(MAKE) --no-print-directory install EXTRAS="$(EXTRAS)" IMPORTS="$(IMPORTS)"
	@touch $@

# Wheels are kept in the user's cache, one for each version of torch and Python.
$(VENV)/.minkowski: EXTRAS := scannet,train,viz
$(VENV)/.minkowski: IMPORTS := torch_geometric, plyfile, lightning_fabric, tqdm, tyro, safetensors, threadpoolctl, matplotlib, \
	plotly, probemb_lib, probemb_adapters, probemb_shapes
$(VENV)/.minkowski: pyproject.toml Makefile adapters/probemb_adapters/networks/minkowski_build.py
	@echo "== Installing probemb_lib[$(EXTRAS)] and MinkowskiEngine into $(VENV) (once)"
	@$(MAKE) --no-print-directory install EXTRAS="$(EXTRAS)" IMPORTS="$(IMPORTS)"
	@$(PY) -m probemb_adapters.networks.minkowski_build
	@touch $@

.PHONY: install
install:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "Python 3.10 or newer is needed, $(PYTHON) is older: make PYTHON=python3.11 ..."; exit 1; }
	@test -x $(PY) || $(PYTHON) -m venv $$($(PYTHON) -c 'import torch; print("--system-site-packages")' 2>/dev/null) $(VENV) || \
		{ echo "the venv module of $(PYTHON) does not work (Debian: apt-get install python3-venv)"; exit 1; }
	@$(PY) -m pip --version >/dev/null 2>&1 || $(PY) -m ensurepip --upgrade
	@$(PY) -c 'import torch; print("keeping torch", torch.__version__)' 2>/dev/null || \
		{ echo "== Installing $(TORCH)"; $(PY) -m pip install -q --force-reinstall $(TORCH); }
	@$(PY) -m pip install -q -e ".[$(EXTRAS)]"
	@$(PY) -c 'import $(IMPORTS)' 2>/dev/null || { \
		echo "== Some packages are damaged: installing all but torch again"; \
		$(PY) -m pip list --format=freeze --exclude-editable --exclude torch | \
			xargs $(PY) -m pip install -q --force-reinstall --no-deps; \
		$(PY) -c 'import $(IMPORTS)'; }
