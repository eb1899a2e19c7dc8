# Two commands matter: `make demo` and `make test`. Both set up .venv when it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test check bench linux-guest clean

$(VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

demo: $(VENV)/ready
	$(BIN)/ukernel demo

# A worker for each processor: the tests wait for events, so they bear company. A file is for one
# of them, so what its tests share is made once.
test: $(VENV)/ready
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile

check: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Brokers to measure beside, as Debian calls them. What cannot be installed is told as absent.
PEERS := dbus-daemon redis-server nats-server

bench: $(VENV)/ready
	@for peer in $(PEERS); do command -v $$peer >/dev/null || missing="$$missing $$peer"; done; \
	if [ -n "$$missing" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends $$missing || true; fi
	mkdir -p build/bench
	$(BIN)/ukernel bench ipc --json build/bench/ipc.json --plot build/bench
	$(BIN)/ukernel bench net --json build/bench/net.json --plot build/bench
	$(BIN)/ukernel bench vm --json build/bench/vm.json --plot build/bench

# Debian's kernel and busybox for `engine: qemu`, see configs/linux.yaml. Nothing is installed.
linux-guest:
	@$(MAKE) --no-print-directory -C servers/vmm/linux OUT=$(CURDIR)/build/linux-guest

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
