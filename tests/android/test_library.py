"""The delegate as it is built for Android: what it needs of a device, and that it runs; see tools/android."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import keras
import numpy as np
import pytest
from runtime import SYSTEM_LIBRARIES, make_system_libraries

import keras_prune

ROOT = Path(__file__).parents[2]
BUILT = ROOT / "bazel-android-arm64-bin" / "tflite_delegate"
EXPORTS = {
    "libblock_sparse_delegate.so": {"tflite_plugin_create_delegate", "tflite_plugin_destroy_delegate"},
    "java/libblock_sparse_delegate_jni.so": {
        f"Java_blocksparse_tflite_BlockSparseDelegate_{method}" for method in ("cpuLevel", "create", "destroy")
    },
}
LARGEST_FILE = 600_000
PAGE = 16 * 1024

needs_bazel = pytest.mark.skipif(not shutil.which("bazel") and not Path("/usr/bin/bazel-4").exists(), reason="no Bazel")


def android_functions() -> set[str]:
    lines = (ROOT / "tools" / "android" / "bionic_api26.txt").read_text().splitlines()
    return {name for line in lines if not line.startswith(("#", "[")) for name in line.split()}


def readelf(*arguments: str) -> str:
    done = subprocess.run(["readelf", "--wide", *arguments], capture_output=True, text=True, check=True)
    return done.stdout


def symbols(library: Path) -> list[tuple[str, str]]:
    """Name and section, "UND" where the library asks for it, of each dynamic symbol."""
    rows = (line.split() for line in readelf("--dyn-syms", str(library)).splitlines())
    return [(row[7].split("@")[0], row[6]) for row in rows if len(row) >= 8 and row[0].rstrip(":").isdigit()]


def built(name: str) -> Path:
    assert (BUILT / name).exists(), f"{BUILT / name} is missing; 'make test-android' builds it"
    return (BUILT / name).resolve()


@pytest.fixture(params=EXPORTS)
def library(request) -> Path:
    return built(request.param)


def test_it_is_for_arm64_and_small_enough(library):
    header = readelf("--file-header", str(library))
    assert re.search(r"Machine: +AArch64", header)
    assert re.search(r"Type: +DYN", header)
    assert ".symtab" not in readelf("--sections", str(library)), "not stripped"
    assert library.stat().st_size <= LARGEST_FILE


def test_relocations_are_packed(library):
    # DT_ANDROID_RELA, which Android reads from version 6 on, instead of DT_RELA.
    dynamic = readelf("--dynamic", str(library))
    assert "60000011" in dynamic and not re.search(r"\(RELA\)", dynamic)


def test_packing_keeps_all_relocations():
    ndk = Path(os.environ.get("ANDROID_NDK_HOME") or ROOT / "build" / "android-ndk")
    (reader,) = ndk.glob("toolchains/llvm/prebuilt/*/bin/llvm-readelf")

    def kinds(name: str) -> Counter[str]:
        command = [str(reader), "--relocations", str(built(name))]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return Counter(re.findall(r"R_AARCH64_\w+", done.stdout))

    packed, plain = kinds("libblock_sparse_delegate.so"), kinds("libblock_sparse_delegate_to_emulate.so")
    assert packed == plain and packed["R_AARCH64_RELATIVE"] > 100


def test_it_needs_only_the_systems_libraries(library):
    needed = re.findall(r"\(NEEDED\).*\[(.*)\]", readelf("--dynamic", str(library)))
    assert "libc.so" in needed and set(needed) <= set(SYSTEM_LIBRARIES)


def test_what_it_calls_is_in_android_8(library):
    asked = {name for name, section in symbols(library) if section == "UND" and name}
    assert {"malloc", "__android_log_write"} <= asked
    assert asked <= android_functions()


def test_it_exports_its_interface_alone(library):
    exported = {name for name, section in symbols(library) if section != "UND" and name}
    assert exported == next(names for name, names in EXPORTS.items() if name.endswith(library.name))


def test_pages_of_16_kb(library):
    rows = [line.split() for line in readelf("--segments", str(library)).splitlines()]
    loads = [row for row in rows if row and row[0] == "LOAD"]
    assert len(loads) >= 2
    for row in loads:
        offset, address, alignment = int(row[1], 16), int(row[2], 16), int(row[-1], 16)
        assert alignment >= PAGE and alignment % PAGE == 0
        assert offset % PAGE == address % PAGE


def test_nothing_written_is_executable_and_no_text_is_relocated(library):
    dynamic = readelf("--dynamic", str(library))
    assert "TEXTREL" not in dynamic
    segments = readelf("--segments", str(library))
    assert "RWE" not in segments and "GNU_RELRO" in segments
    assert re.search(r"GNU_STACK.* RW +0", segments)


def test_it_runs_a_model_as_the_reference_kernels_do(tmp_path):
    rng = np.random.default_rng(5)
    inputs = keras.Input((14, 13, 3), batch_size=1)
    x = keras.layers.Conv2D(20, 3, strides=2, padding="same", activation="relu")(inputs)
    x = keras.layers.DepthwiseConv2D(3, padding="same")(x)
    x = keras.layers.Conv2D(36, 1, activation="relu")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(10, activation="softmax")(x))
    weights = model.layers[3].get_weights()
    kept = np.repeat(rng.random((weights[0].size // 4,)) < 0.25, 4).reshape(weights[0].shape)
    model.layers[3].set_weights([weights[0] * kept, rng.normal(size=36).astype(np.float32)])
    sparse = keras_prune.convert(model, batch_size=1)
    assert b"BlockSparse" in sparse
    (tmp_path / "net.sparse.tflite").write_bytes(sparse)
    (tmp_path / "net.dense.tflite").write_bytes(keras_prune.convert(model, sparse=False, batch_size=1))
    np.savez(tmp_path / "net.npz", rng.normal(size=(1, 14, 13, 3)).astype(np.float32))

    make_system_libraries(tmp_path / "lib", "aarch64-linux-gnu-gcc")
    command = [str(ROOT / "tools" / "aarch64_python.sh"), str(ROOT / "tests" / "aarch64" / "run_models.py")]
    done = subprocess.run(
        [*command, str(tmp_path), str(built("libblock_sparse_delegate_to_emulate.so"))],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "LD_LIBRARY_PATH": str(tmp_path / "lib")},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^log 4 block_sparse: version .* cpu neon, .* [1-9]\d* of \d+ nodes", done.stderr, re.MULTILINE)
    with np.load(tmp_path / "net.results.npz") as results:
        for setting in ("neon-1", "neon-2", "scalar-1", "auto-1"):
            np.testing.assert_allclose(results[setting], results["dense"], rtol=1e-4, atol=1e-6)


def bazel(ndk: str | None, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "ANDROID_NDK_HOME"}
    if ndk is not None:
        environment["ANDROID_NDK_HOME"] = ndk
    return subprocess.run(
        [str(ROOT / "tools" / "bazel"), *words], cwd=ROOT, env=environment, capture_output=True, text=True
    )


def refusal(ndk: str | None) -> str:
    done = bazel(ndk, "query", "@android_toolchains//:all")
    assert done.returncode != 0
    return done.stderr


@needs_bazel
def test_the_emulators_build_finds_its_toolchain():
    ndk = os.environ.get("ANDROID_NDK_HOME") or str(ROOT / "build" / "android-ndk")
    done = bazel(
        ndk, "build", "--nobuild", "--config=android_x86_64", "--symlink_prefix=/", "//tflite_delegate/java:aar"
    )
    assert done.returncode == 0, done.stderr


@needs_bazel
def test_a_missing_or_old_ndk_is_named(tmp_path):
    assert "ANDROID_NDK_HOME is not set: a build for Android needs the NDK, r26 or later" in refusal(None)
    nowhere = str(tmp_path / "nowhere")
    assert f'ANDROID_NDK_HOME is "{nowhere}", which is no NDK: it holds no source.properties' in refusal(nowhere)
    (tmp_path / "source.properties").write_text("Pkg.Desc = Android NDK\nPkg.Revision = 25.2.9519653\n")
    assert f'ANDROID_NDK_HOME is "{tmp_path}", NDK r25: r26 or later is needed' in refusal(str(tmp_path))
    (tmp_path / "source.properties").write_text("Pkg.Desc = Android NDK\nPkg.Revision = 27.0.12077973\n")
    assert "which holds no compiler for this system" in refusal(str(tmp_path))
    prebuilt = tmp_path / "toolchains" / "llvm" / "prebuilt" / "linux-x86_64"
    (prebuilt / "bin").mkdir(parents=True)
    (prebuilt / "bin" / "clang").touch()
    libraries = prebuilt / "sysroot" / "usr" / "lib" / "aarch64-linux-android"
    (libraries / "35").mkdir(parents=True)
    assert f"which has no libraries of API 26 (Android 8.0) in {libraries}" in refusal(str(tmp_path))
