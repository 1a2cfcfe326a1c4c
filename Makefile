# Four targets. Stamps in .venv and build/ make a second run quick; `rm -rf .venv build` starts afresh.
PYTHON ?= python3
JOBS ?= $(shell nproc)
TORCH ?= torch==2.14.1 torchvision==0.29.1

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input install --quiet
BUILD := cmake -S . -G Ninja -DIMKD_BUILD_TESTS=ON -DPython_EXECUTABLE=$(CURDIR)/$(BIN)/python
TESTS := not slow# make test TESTS=: every test
SKIPS := report# make test SKIPS=ledger: fails where a test is skipped for a reason that tests/skips.toml does not list
CTEST := --output-on-failure --output-junit ctest.xml -j $(JOBS)
export PYTHON PYTHONUNBUFFERED := 1
export CXX  # g++ if nobody says otherwise: ccache takes g++ and c++ for two compilers
export CMAKE_C_COMPILER_LAUNCHER := $(CURDIR)/.ci/compile
export CMAKE_CXX_COMPILER_LAUNCHER := $(CMAKE_C_COMPILER_LAUNCHER)
export CMAKE_BUILD_PARALLEL_LEVEL := $(JOBS)
CORE := pyproject.toml CMakeLists.txt $(shell find cpp cmake -type f -not -path '*/.*')
CPP_CODE := $(shell find cpp tests/cpp tests/fuzz tests/ros2 -name "*.cpp" -o -name "*.hpp" -o -name "*.cu" -o -name "*.h" -o -name "*.c")

.PHONY: demo test lint format
.DELETE_ON_ERROR:
MAKEFLAGS += -j2  # packages come and are unpacked while the C++ tests are compiled

demo: $(VENV)/.installed
	$(BIN)/imkd-edge demo

# The sanitizers and ROS 2 come with every test, that is with TESTS=.
SANITIZED := $(if $(TESTS),,build/tests-sanitized)
test: $(VENV)/.test-extras build/.tests $(if $(TESTS),,build/.tests-sanitized build/ros2)
	.ci/stage ctest ctest --test-dir build/tests $(CTEST)
	$(if $(SANITIZED),.ci/stage ctest-sanitized ctest --test-dir $(SANITIZED) $(CTEST))
	$(BIN)/python tests/ledger.py $(SKIPS) $(addsuffix /ctest.xml,build/tests $(SANITIZED))
	.ci/stage pytest $(BIN)/python -m pytest -q -n $(JOBS) --durations=25 -m "$(TESTS)" --skips $(SKIPS)

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

# Without build isolation pybind11 stays in one folder, so a second build compiles only what has changed. After `make
# demo` the first `make test` builds once more: with ONNX Runtime's headers, and after the packages of the tests.
$(VENV)/.installed: $(CORE) $(if $(filter test,$(MAKECMDGOALS)),build/onnxruntime) | $(BIN)/python
	.ci/packages $(if $(filter test,$(MAKECMDGOALS)),test,build)
	@echo "building and installing imkd-edge into $(VENV)"
	$(PIP) 'scikit-build-core>=0.11' 'pybind11>=3.0,<4'
	.ci/stage wheel $(PIP) --no-build-isolation --editable .
	touch $@

# torch and torchvision (timm does not import without it) are pinned, so that every run has the same numbers. From PyPI,
# torch for x86_64 is the CUDA build: with NVIDIA's libraries the environment has 5.5 GB. The tests need no GPU. Where
# an index has the CPU wheels, of 200 MB: make test TORCH='--index-url URL torch==2.14.1 torchvision==0.29.1'
# nuscenes-devkit asks for numpy < 2 and an old OpenCV, vod-tudelft for a notebook's 3D viewer; neither needs them, and
# the extra has what they import. vod-tudelft also brings a package named tests; pytest finds ours by their path.
$(VENV)/.test-extras: pyproject.toml | $(VENV)/.installed
	@echo "installing what the tests need (torch among it)"
	.ci/stage torch $(PIP) $(TORCH)
	.ci/stage packages $(PIP) 'imkd-edge[train,test]'
	$(PIP) --no-deps nuscenes-devkit==1.2.0 vod-tudelft==1.0.3
	touch $@

build/onnxruntime:
	.ci/onnxruntime-headers $@
	mkdir -p $@

# Where it cannot be made, the tests of the ROS 2 node are skipped.
build/ros2:
	tests/ros2/environment.sh $@ >build/ros2.log 2>&1 || echo "no ROS 2: see build/ros2.log"

$(VENV)/.lint-tools: | $(BIN)/python
	$(PIP) ruff==0.17.6 mypy==2.4.1 clang-format==23.1.5 'numpy>=1.24'
	touch $@

build/.tests: $(CORE) $(shell find tests/cpp tests/fuzz -type f) | $(VENV)/.installed
	$(BUILD) -B build/tests -DCMAKE_BUILD_TYPE=Release -DIMKD_BUILD_EXAMPLES=ON
	.ci/stage build cmake --build build/tests
	touch $@

build/.tests-sanitized: $(CORE) $(shell find tests/cpp tests/fuzz -type f) | build/.tests
	$(BUILD) -B build/tests-sanitized -DIMKD_SANITIZE=address,undefined,float-cast-overflow
	.ci/stage build-sanitized cmake --build build/tests-sanitized
	touch $@
