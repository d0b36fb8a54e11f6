# `make demo` segments a whole MRI volume, `make test` passes the tests; both set up all they need in $(VENV).
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check -q
# TensorRT-RTX, which builds engines on a CPU too: 147 MB for tests only, and not there for every platform.
TENSORRT = onnxruntime-ep-nv-tensorrt-rtx-cu13 tensorrt_cu13_bindings
# The tests require the native runner: they fail where it cannot be built, in place of being skipped.
TESTED = UNIVERSEG_RT_NATIVE=1
# As many tests side by side as there are cores, at most four (each worker may take 5 GB); those of one file follow one another.
WORKERS = -n auto --maxprocesses 4 --dist loadfile
PARTS = pyproject.toml setup.py constraints.txt

.PHONY: demo test bench clean

demo: $(VENV)/.demo
	$(BIN)/python -m universeg_rt.cli.demo --output demo_output

test: $(VENV)/.test
	$(BIN)/ruff check
	$(BIN)/mypy
	$(TESTED) $(BIN)/python -m pytest -q $(WORKERS) $(PYTEST_ARGS)

bench: $(VENV)/.test
	$(PIP) install -e '.[bench]' -c constraints.txt
	$(BIN)/universeg-bench

$(VENV)/.demo: $(PARTS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -e '.[demo]' -c constraints.txt
	touch $@

$(VENV)/.test: $(PARTS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install torch -c constraints.txt
	$(TESTED) $(PIP) install -e '.[export,train,kernels,openvino,medical,demo,test]' -c constraints.txt
	$(PIP) install --no-deps $(TENSORRT) -c constraints.txt || echo "without $(TENSORRT): the tests of engine building are skipped"
	touch $@

clean:
	rm -rf $(VENV) build demo_output *.egg-info .mypy_cache .ruff_cache
