# Everything is installed from package registries, under build/ and .venv, by tools/setup.sh, which every target runs
# first and which does nothing the second time.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON := .venv/bin/python
BAZEL ?= tools/bazel
ANDROID_NDK := $(or $(ANDROID_NDK_HOME),$(CURDIR)/build/android-ndk)
DELEGATE := //tflite_delegate:libblock_sparse_delegate.so
LATENCY_TABLE := //tflite_delegate/tools:latency_table
CPP_SOURCES = $$(find tflite_delegate tests benchmarks -name '*.cc' -o -name '*.h')

# TensorFlow's start-up messages would bury what a target prints.
export TF_CPP_MIN_LOG_LEVEL ?= 2
export TF_ENABLE_ONEDNN_OPTS ?= 0
export PYTHONUNBUFFERED = 1

.PHONY: help setup build format lint test-cpp test-sanitizers test-cpp-aarch64 test-python test-android \
  test-android-screen test demo android-demo bench-selection bench-latency bench-dense bench-payoff bench-mapping bench-metadata bench-retained \
  bench-overhead bench-startup bench-kernels bench-instructions bench-neon bench-recurrent bench-search bench demo-recurrent accuracy \
  clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "%-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install all that the other targets need
	@tools/setup.sh

build: ## the delegate, bazel-bin/tflite_delegate/libblock_sparse_delegate.so
	@tools/setup.sh build
	$(BAZEL) build $(DELEGATE)

format: ## rewrite the sources in the project's style
	@tools/setup.sh python
	$(PYTHON) -m ruff check --fix-only --quiet .
	$(PYTHON) -m ruff format --quiet .
	.venv/bin/clang-format -i $(CPP_SOURCES)

lint: ## ruff, mypy, clang-format
	@tools/setup.sh python
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	.venv/bin/clang-format --dry-run -Werror $(CPP_SOURCES)

test-cpp: ## C++ tests on this machine
	@tools/setup.sh build
	$(BAZEL) test //tests/cpp/...

test-sanitizers: ## C++ tests with address, undefined-behaviour and thread sanitizers
	@tools/setup.sh build
	$(BAZEL) test --config=asan --config=ubsan //tests/cpp/...
	$(BAZEL) test --config=tsan --build_tests_only --test_tag_filters=threads //tests/cpp/...

test-cpp-aarch64: ## C++ tests on AArch64 under qemu
	@tools/setup.sh build aarch64
	$(BAZEL) test --config=aarch64 //tests/cpp/...

test-python: ## Python tests here, and the delegate in an AArch64 Python under qemu
	@tools/setup.sh python build aarch64
	$(BAZEL) build --config=aarch64 $(DELEGATE)
	$(BAZEL) build $(DELEGATE)
	$(PYTHON) -m pytest --numprocesses 2 tests/python tests/aarch64

test-android: ## the library as Android needs it, built with the NDK in ANDROID_NDK_HOME or, without, a stand-in
	@tools/setup.sh python build aarch64 android apk
	ANDROID_NDK_HOME=$(ANDROID_NDK) $(BAZEL) build --config=android_arm64 $(DELEGATE) $(DELEGATE:.so=_to_emulate.so) \
	  //tflite_delegate/java:aar $(LATENCY_TABLE)
	$(BAZEL) build //tflite_delegate/java:all //tests/android:tflite_java $(LATENCY_TABLE)
	$(PYTHON) -m pytest tests/android --ignore tests/android/test_screen.py

# One at a time and in this order, whatever -j says: two builds would only wait for one another.
test: ## everything above; what continuous integration runs
	@tools/setup.sh python build aarch64 android apk
	@for part in lint test-cpp test-sanitizers test-cpp-aarch64 test-python test-android; do \
	  echo "== $$part"; started=$$SECONDS; \
	  $(MAKE) --no-print-directory $$part; \
	  echo "== $$part passed in $$((SECONDS - started)) s"; \
	done

demo: ## train, prune, convert and run a network on Fashion-MNIST; figures and pictures in build/demo
	@tools/setup.sh python build data
	$(BAZEL) build $(DELEGATE)
	$(PYTHON) -m demo

demo-recurrent: ## train, prune, convert and run a GRU on Fashion-MNIST's rows; figures in build/demo-recurrent
	@tools/setup.sh python build data
	$(BAZEL) build $(DELEGATE)
	$(PYTHON) -m demo.recurrent

test-android-screen: test-android ## the demo app's screen in Robolectric, which is 400 MB; build/android-demo/screen.png
	@tools/setup.sh screen
	$(PYTHON) -m pytest tests/android/test_screen.py

android-demo: ## the demo app with the demo's models, build/android-demo/demo.apk, with the NDK in ANDROID_NDK_HOME or, without, a stand-in
	@tools/setup.sh python build android apk data
	ANDROID_NDK_HOME=$(ANDROID_NDK) $(BAZEL) build --config=android_arm64 //tflite_delegate/java:aar
	$(PYTHON) -m android_demo.make_assets build/android-demo/assets
	cp -f bazel-android-arm64-bin/tflite_delegate/java/block_sparse_delegate.aar build/android-demo/
	android_demo/build_apk.sh build/android-demo build/android-demo/block_sparse_delegate.aar \
	  build/android-demo/assets build/android-demo/demo.apk
	apksigner verify --verbose --min-sdk-version 26 build/android-demo/demo.apk | grep -E '^Verif.*(v2|es$$)'
	aapt dump badging build/android-demo/demo.apk | grep -E "^(package|sdkVersion|launchable|native-code|uses-perm)"
	@[ -n "$(ANDROID_NDK_HOME)" ] || \
	  echo "ANDROID_NDK_HOME is not set: built with a stand-in for the NDK, to be looked into, not for a phone" >&2

bench-selection: ## block selection algorithms, to build/bench/selection.jsonl
	@tools/setup.sh python
	$(PYTHON) -m benchmarks.selection

bench-latency: ## whole networks, dense against sparse, to build/bench/latency.jsonl
	@tools/setup.sh python build
	$(BAZEL) build $(DELEGATE)
	$(PYTHON) -m benchmarks.latency

bench-dense: ## layers that stay dense against XNNPACK's, to build/bench/dense.jsonl
	@tools/setup.sh python build
	$(BAZEL) build $(DELEGATE)
	$(PYTHON) -m benchmarks.dense

bench-payoff: ## from which share of zeros on a layer is the faster for them, to build/bench/payoff.jsonl
	@tools/setup.sh python build
	$(BAZEL) build $(DELEGATE)
	$(PYTHON) -m benchmarks.payoff

bench-mapping: ## predicted against measured latency of planned networks, to build/bench/mapping.jsonl
	@tools/setup.sh python build
	$(BAZEL) build $(DELEGATE)
	$(PYTHON) -m benchmarks.mapping

bench-metadata: ## bytes of metadata of each structure, to build/bench/metadata.jsonl
	@tools/setup.sh python
	$(PYTHON) -m benchmarks.metadata

bench-retained: ## what blocks retain of trained weights, to build/bench/retained.jsonl and docs/accuracy.md
	@tools/setup.sh python
	$(PYTHON) -m benchmarks.retained
	$(PYTHON) -m benchmarks.retained --table

bench-overhead: ## what the callback costs a training step, to build/bench/overhead.jsonl
	@tools/setup.sh python
	$(PYTHON) -m benchmarks.overhead

bench-startup: ## time until ready and peak memory, to build/bench/startup.jsonl
	@tools/setup.sh python build
	$(BAZEL) build $(DELEGATE)
	$(PYTHON) -m benchmarks.startup

bench-recurrent: ## recurrent and dense layers, dense against sparse, to build/bench/recurrent.jsonl
	@tools/setup.sh python build
	$(BAZEL) build $(DELEGATE)
	$(PYTHON) -m benchmarks.recurrent

bench-instructions: ## instructions of an inference on AArch64 under qemu, to build/bench/instructions.jsonl
	@tools/setup.sh python build aarch64
	$(BAZEL) build --config=aarch64 $(DELEGATE)
	$(PYTHON) -m benchmarks.instructions

bench-kernels: ## share of the multiply-add peak of each kernel and tile, to build/bench/kernels.jsonl
	@tools/setup.sh python build
	$(BAZEL) build //benchmarks/cpp:kernels
	$(PYTHON) -m benchmarks.kernels

bench-neon: ## the NEON kernels' inner loops in llvm-mca, to build/bench/neon.jsonl
	@tools/setup.sh python build aarch64 android
	$(BAZEL) build --config=aarch64 $(DELEGATE)
	$(PYTHON) -m benchmarks.neon

bench: bench-selection bench-latency bench-dense bench-payoff bench-recurrent bench-mapping bench-metadata bench-retained bench-overhead bench-startup bench-kernels bench-instructions bench-neon ## all benchmarks but search and accuracy

# oneDNN, which is off elsewhere for results that are equal everywhere, doubles the speed of training.
accuracy: ## train and prune to each structure, an hour, stopped and resumed at will; to build/accuracy and docs/accuracy.md
	@tools/setup.sh python build data
	$(BAZEL) build $(DELEGATE)
	TF_ENABLE_ONEDNN_OPTS=1 $(PYTHON) -m benchmarks.accuracy
	$(PYTHON) -m benchmarks.accuracy --table

bench-search: ## plans by search against the rules and one structure everywhere, an hour, resumed at will; to docs/mapping.md
	@tools/setup.sh python build data
	$(BAZEL) build $(DELEGATE)
	TF_ENABLE_ONEDNN_OPTS=1 $(PYTHON) -m benchmarks.search
	$(PYTHON) -m benchmarks.search --table

clean: ## remove what was built; installed packages stay
	rm -rf build/demo build/demo-recurrent build/bench build/accuracy
	[ ! -x /usr/bin/bazel-4 ] || $(BAZEL) clean
