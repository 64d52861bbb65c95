"""The Java interface on this machine's JVM, in TensorFlow Lite's own Java interpreter.

The Java classes are those of the .aar. The delegate's native library is built for this machine. TensorFlow Lite has its
Java interface for Android alone: its library for x86-64 is loaded with Android's system libraries stood in for.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import xml.etree.ElementTree as ElementTree
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from runtime import make_system_libraries, without_versions

import keras_prune

ROOT = Path(__file__).parents[2]
JAVA = ROOT / "bazel-bin" / "tflite_delegate" / "java"
TFLITE = ROOT / "bazel-bin" / "tests" / "android"
AAR = ROOT / "bazel-android-arm64-bin" / "tflite_delegate" / "java" / "block_sparse_delegate.aar"
SOURCE = Path(__file__).parent / "java" / "DelegateTest.java"
TESTS = re.findall(r'tests\.put\("(\w+)"', SOURCE.read_text())


def _write_model(folder: Path) -> None:
    """sparse.tflite, and an input with the output that Keras itself computes."""
    rng = np.random.default_rng(8)
    inputs = keras.Input((11, 9, 3), batch_size=1)
    x = keras.layers.Conv2D(12, 3, activation="relu")(inputs)
    x = keras.layers.Conv2D(28, 1, activation="relu")(x)
    model = keras.Model(inputs, keras.layers.Dense(7)(keras.layers.GlobalAveragePooling2D()(x)))
    weights = model.layers[2].get_weights()
    kept = np.repeat(rng.random(weights[0].size // 4) < 0.25, 4).reshape(weights[0].shape)
    model.layers[2].set_weights([weights[0] * kept, rng.normal(size=28).astype(np.float32)])
    sparse = keras_prune.convert(model, batch_size=1)
    assert b"BlockSparse" in sparse
    (folder / "sparse.tflite").write_bytes(sparse)
    (folder / "broken.tflite").write_bytes(sparse[: len(sparse) // 2])
    image = rng.normal(size=(1, 11, 9, 3)).astype(np.float32)
    image.tofile(folder / "input.f32")
    np.asarray(model(image)).tofile(folder / "expected.f32")


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict[str, str]:
    for needed in (JAVA / "classes.jar", JAVA / "libblock_sparse_delegate_jni.so", TFLITE / "tflite.jar"):
        assert needed.exists(), f"{needed} is missing; 'make test-android' builds it"
    folder = tmp_path_factory.mktemp("java")
    _write_model(folder)
    make_system_libraries(folder / "lib", "cc")
    library = without_versions((TFLITE / "libtensorflowlite_jni.so").read_bytes())
    (folder / "lib" / "libtensorflowlite_jni.so").write_bytes(library)
    jars = ":".join(str(jar) for jar in (JAVA / "classes.jar", TFLITE / "tflite.jar", TFLITE / "tflite_api.jar"))
    subprocess.run(["javac", "-nowarn", "-cp", jars, "-d", str(folder / "classes"), str(SOURCE)], check=True)
    java = ["java", "-Xcheck:jni", f"-Djava.library.path={folder / 'lib'}:{JAVA}"]
    done = subprocess.run(
        [*java, "-cp", f"{folder / 'classes'}:{jars}", "DelegateTest", str(folder)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=folder,
        env={**os.environ, "LD_LIBRARY_PATH": str(folder / "lib")},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    # What -Xcheck:jni complains of names the Java method first; TensorFlow Lite's own library has some to be told.
    assert not re.search(r"in native method.*\n\s*at blocksparse", done.stdout), done.stdout
    assert re.search(r"block_sparse: .* [1-9]\d* of \d+ nodes", done.stderr), done.stderr
    lines = re.findall(r"^(pass|fail) (\w+)(.*)$", done.stdout, re.MULTILINE)
    return {name: outcome + rest for outcome, name, rest in lines}


@pytest.mark.skipif(platform.machine() != "x86_64", reason="TensorFlow Lite's Java library is taken for x86-64")
@pytest.mark.parametrize("name", TESTS)
def test_on_the_jvm(results, name):
    assert results.get(name) == "pass"


def test_aar_holds_what_android_wants():
    assert AAR.exists(), f"{AAR} is missing; 'make test-android' builds it"
    with zipfile.ZipFile(AAR) as aar:
        assert aar.testzip() is None
        assert set(aar.namelist()) == {
            "AndroidManifest.xml",
            "R.txt",
            "classes.jar",
            "jni/arm64-v8a/libblock_sparse_delegate_jni.so",
            "proguard.txt",
        }
        manifest = ElementTree.fromstring(aar.read("AndroidManifest.xml"))
        (uses,) = manifest.findall("uses-sdk")
        assert uses.attrib["{http://schemas.android.com/apk/res/android}minSdkVersion"] == "26"
        assert not manifest.findall("uses-permission")
        rules = aar.read("proguard.txt").decode()
        with zipfile.ZipFile(aar.open("classes.jar")) as jar:
            classes = [name.removesuffix(".class").replace("/", ".") for name in jar.namelist()]
            versions = {jar.read(name)[7] for name in jar.namelist()}
    delegate = "blocksparse.tflite.BlockSparseDelegate"
    assert sorted(classes) == [delegate, f"{delegate}$Options"]
    assert versions == {52}  # Java 8
    assert manifest.attrib["package"] == "blocksparse.tflite"
    assert f"class {delegate} " in rules


def test_pom_is_of_the_delegates_version():
    (version,) = re.findall(r'kVersion\[\] = "(.*)"', (ROOT / "tflite_delegate" / "delegate.h").read_text())
    pom = ElementTree.parse(ROOT / "tflite_delegate" / "java" / "pom.xml").getroot()
    namespace = {"m": "http://maven.apache.org/POM/4.0.0"}
    assert pom.findtext("m:version", namespaces=namespace) == version
    assert pom.findtext("m:packaging", namespaces=namespace) == "aar"
    dependency = pom.find("m:dependencies/m:dependency", namespace)
    assert dependency is not None
    workspace = (ROOT / "WORKSPACE").read_text()
    assert dependency.findtext("m:artifactId", namespaces=namespace) == "tensorflow-lite-api"
    assert f'tensorflow-lite-api:{dependency.findtext("m:version", namespaces=namespace)}"' in workspace
