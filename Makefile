# Four targets. Stamps in .venv and build/ make a second run quick; `rm -rf .venv build` starts afresh.
PYTHON ?= python3
JOBS ?= $(shell nproc)

VENV := .venv
BIN := $(VENV)/bin
PYTHON_OF_VENV := -DPython_EXECUTABLE=$(CURDIR)/$(VENV)/bin/python
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input install --quiet
TESTS := not slow# make test TESTS=: every test
export PYTHON PYTHONUNBUFFERED := 1
CORE := pyproject.toml CMakeLists.txt $(shell find cpp cmake -type f -not -path '*/.*')
CPP_CODE := $(shell find cpp tests/cpp -name "*.cpp" -o -name "*.hpp" -o -name "*.cu" -o -name "*.h" -o -name "*.c")

.PHONY: demo test lint format
.DELETE_ON_ERROR:

demo: $(VENV)/.installed
	$(BIN)/imkd-edge demo

test: $(VENV)/.test-extras build/.tests build/.tests-sanitized
	ctest --test-dir build/tests --output-on-failure -j $(JOBS)
	ctest --test-dir build/tests-sanitized --output-on-failure -j $(JOBS)
	$(BIN)/python -m pytest -q -m "$(TESTS)"

lint: $(VENV)/.lint-tools
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $(CPP_CODE)
	rm -rf build/typed && mkdir -p build/typed && cp -r imkd_edge build/typed/  # laid out as the wheel
	cp -r training quantization calibration build/typed/imkd_edge/
	$(BIN)/mypy build/typed/imkd_edge

format: $(VENV)/.lint-tools
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CPP_CODE)

$(BIN)/python:
	.ci/packages build
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(CORE) | $(BIN)/python
	.ci/packages build
	@echo "building and installing imkd-edge into $(VENV)"
	$(PIP) --editable .
	touch $@

# The torch pair is pinned: a request without a version can fetch another build of several gigabytes.
# nuscenes-devkit asks for numpy < 2 and an old OpenCV, vod-tudelft for a notebook's 3D viewer, without needing them; what they
# import is in the extra. vod-tudelft also brings a package named tests: pytest finds ours by their path, so it is in nobody's way.
$(VENV)/.test-extras: $(CORE) | $(VENV)/.installed build/onnxruntime
	.ci/packages test
	@echo "installing what the tests need (torch among it)"
	$(PIP) --editable '.[train,test]' torch==2.14.1 torchvision==0.29.1
	$(PIP) --no-deps nuscenes-devkit==1.2.0 vod-tudelft==1.0.3
	touch $(VENV)/.installed $@

build/onnxruntime:
	.ci/onnxruntime-headers $@
	mkdir -p $@

$(VENV)/.lint-tools: | $(BIN)/python
	$(PIP) ruff==0.17.6 mypy==2.4.1 clang-format==23.1.5 'numpy>=1.24'
	touch $@

build/.tests: $(CORE) $(shell find tests/cpp -type f) | $(VENV)/.test-extras
	cmake -S . -B build/tests -G Ninja -DCMAKE_BUILD_TYPE=Release -DIMKD_BUILD_TESTS=ON $(PYTHON_OF_VENV) -DIMKD_BUILD_EXAMPLES=ON
	cmake --build build/tests -j $(JOBS)
	touch $@

build/.tests-sanitized: $(CORE) $(shell find tests/cpp -type f) | build/.tests
	cmake -S . -B build/tests-sanitized -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DIMKD_BUILD_TESTS=ON $(PYTHON_OF_VENV) -DIMKD_SANITIZE=address,undefined
	cmake --build build/tests-sanitized -j $(JOBS)
	touch $@
