# Two commands matter: `make demo` and `make test`. Each sets up what it needs.

VENV   := .venv
PYTHON := $(VENV)/bin/python
# Every third-party program the tests run, by Debian package.
TEST_PACKAGES := sstp-client iproute2 tshark systemd
TEST_PACKAGES += chromium

# What boots a virtual machine with Debian's stock kernel.
KTLS_PACKAGES := qemu-system-x86 seabios busybox-static kmod cpio
# Its own, and what every leg must keep to. (There a damaged record cannot be made: what is written
# to a socket is sealed; and 2,000 calls would take minutes.)
KTLS_TESTS := tests/ktls/guest.py tests/net/test_leg.py tests/net/test_ending.py -k "guest or native and not newest and not damaged and not nothing"

# What sees each wrong access to memory.
VALGRIND_PACKAGES := valgrind

# The balancers that the bench measures ours beside; Envoy comes from PyPI.
BENCH_PACKAGES := haproxy nginx-light libnginx-mod-stream stunnel4 hitch

.DEFAULT_GOAL := help
.PHONY: help setup demo test soak interop test-ktls test-valgrind check format docs lessons bench bench-quick clean

help:  ## show this help
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(VENV)/ready-run  ## make the virtual environment with what sstplb itself needs

demo: $(VENV)/ready-run  ## watch SSTP calls go through all three modes; until Ctrl-C (ARGS="--once --json")
	@$(VENV)/bin/sstplb demo $(ARGS)

test: $(VENV)/ready-dev system-packages  ## run all tests
	$(PYTHON) -m pytest -n auto $(ARGS)

soak: $(VENV)/ready-dev  ## 100 reloads and 20 upgrades under calls, by one process and by two workers
	SSTPLB_SOAK=1 $(PYTHON) -m pytest -s tests/stories/test_upgrade.py -k refused $(ARGS)

interop: $(VENV)/ready-dev system-packages  ## run only the tests with third-party client and server
	$(PYTHON) -m pytest tests/interop $(ARGS)

test-ktls: $(VENV)/ready-dev  ## run calls through the kernel's TLS, in a virtual machine that has it
	@sh .ci/need $(KTLS_PACKAGES)
	python3 tests/ktls/boot.py $(PYTHON) -m pytest -q --color=no -p no:cacheprovider $(KTLS_TESTS) $(ARGS)

test-valgrind: $(VENV)/ready-dev  ## 10,000 connections and two balancers under valgrind (ARGS="--connections 210 --calls 20")
	@sh .ci/need $(VALGRIND_PACKAGES)
	PYTHONPATH=. $(PYTHON) tests/memory/under_valgrind.py $(ARGS)

check: $(VENV)/ready-dev  ## format, lint and types
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/ruff check
	$(VENV)/bin/mypy

format: $(VENV)/ready-dev  ## put the source into the house format
	$(VENV)/bin/ruff format
	$(VENV)/bin/ruff check --fix

docs: $(VENV)/ready-run  ## write the configuration reference and conf/full.yaml from the schema
	$(PYTHON) -m sstplb schema --full-yaml > conf/full.yaml
	$(PYTHON) -m sstplb schema --reference docs/configuration.md

lessons: $(VENV)/ready-run  ## run every lesson, and write docs/lessons from what happened
	$(PYTHON) -m sstplb lesson run all --markdown docs/lessons

bench: $(VENV)/ready-bench bench-packages  ## cost beside the peers, the whole grid (ARGS="--only offload")
	$(PYTHON) -m bench run $(ARGS)

bench-quick: $(VENV)/ready-bench bench-packages  ## the same in about three minutes, beside nginx and HAProxy
	$(PYTHON) -m bench run --quick $(ARGS)

clean:  ## remove what make made
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .cache

# --- set-up -----------------------------------------------------------------------------------

# Debian splits the venv module from python3; without it `python3 -m venv` fails half way.
$(VENV)/bin/python:
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo 'sstplb needs Python 3.11 or newer; this is:'; python3 --version; exit 1; }
	@python3 -c 'import ensurepip, venv' 2>/dev/null || sh .ci/need python3-venv
	python3 -m venv $(VENV)

$(VENV)/ready-run: $(VENV)/bin/python pyproject.toml
	$(PYTHON) -m pip install --quiet --disable-pip-version-check -e '.[openssl]'
	@touch $@

$(VENV)/ready-dev: $(VENV)/bin/python pyproject.toml
	$(PYTHON) -m pip install --quiet --disable-pip-version-check -e '.[openssl,dev]'
	@touch $@ $(VENV)/ready-run

$(VENV)/ready-bench: $(VENV)/bin/python pyproject.toml
	$(PYTHON) -m pip install --quiet --disable-pip-version-check -e '.[openssl,dev,bench]'
	@touch $@ $(VENV)/ready-run $(VENV)/ready-dev

.PHONY: bench-packages
bench-packages:
	@sh .ci/need $(BENCH_PACKAGES)

.PHONY: system-packages
system-packages:
	@sh .ci/need $(TEST_PACKAGES)
