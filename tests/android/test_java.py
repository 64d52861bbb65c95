"""The Java interface, and the demo app without its screen, on this machine's JVM in TensorFlow Lite's Java interpreter.

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
SOURCES = Path(__file__).parent / "java"
DEMO = ROOT / "android_demo" / "app" / "src" / "main" / "java" / "blocksparse" / "demo"
# Main class of the tests, and the classes of the app that they need.
PROGRAMS = {
    "DelegateTest": [],
    "blocksparse.demo.DemoTest": [DEMO / f"{name}.java" for name in ("Classifier", "Latency", "Measurement", "Report")],
}


def source(program: str) -> Path:
    return SOURCES / f"{program.rpartition('.')[2]}.java"


TESTS = [
    (program, name) for program in PROGRAMS for name in re.findall(r'tests\.put\("(\w+)"', source(program).read_text())
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Models, an input with the output and class that Keras itself computes, and native libraries in lib."""
    folder = tmp_path_factory.mktemp("java")
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
    (folder / "dense.tflite").write_bytes(keras_prune.convert(model, sparse=False, batch_size=1))
    (folder / "broken.tflite").write_bytes(sparse[: len(sparse) // 2])
    image = rng.normal(size=(1, 11, 9, 3)).astype(np.float32)
    image.tofile(folder / "input.f32")
    scores = np.asarray(model(image))
    scores.tofile(folder / "expected.f32")
    (folder / "class.txt").write_text(str(scores.argmax()))
    make_system_libraries(folder / "lib", "cc")
    library = without_versions((TFLITE / "libtensorflowlite_jni.so").read_bytes())
    (folder / "lib" / "libtensorflowlite_jni.so").write_bytes(library)
    return folder


@pytest.fixture(scope="module")
def results(folder) -> dict[tuple[str, str], str]:
    """What each test came to."""
    for needed in (JAVA / "classes.jar", JAVA / "libblock_sparse_delegate_jni.so", TFLITE / "tflite.jar"):
        assert needed.exists(), f"{needed} is missing; 'make test-android' builds it"
    jars = ":".join(str(jar) for jar in (JAVA / "classes.jar", TFLITE / "tflite.jar", TFLITE / "tflite_api.jar"))
    results = {}
    for program, classes in PROGRAMS.items():
        sources = map(str, [source(program), *classes])
        subprocess.run(["javac", "-nowarn", "-cp", jars, "-d", str(folder / program), *sources], check=True)
        java = ["java", "-Xcheck:jni", f"-Djava.library.path={folder / 'lib'}:{JAVA}"]
        done = subprocess.run(
            [*java, "-cp", f"{folder / program}:{jars}", program, str(folder)],
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
        for outcome, name, rest in re.findall(r"^(pass|fail) (\w+)(.*)$", done.stdout, re.MULTILINE):
            results[program, name] = outcome + rest
    return results


@pytest.mark.skipif(platform.machine() != "x86_64", reason="TensorFlow Lite's Java library is taken for x86-64")
@pytest.mark.parametrize(("program", "name"), TESTS)
def test_on_the_jvm(results, program, name):
    assert results.get((program, name)) == "pass"


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
    (version,) = re.findall(r'kVersion\[\] = "(.*)"', (ROOT / "tflite_delegate" / "version.h").read_text())
    pom = ElementTree.parse(ROOT / "tflite_delegate" / "java" / "pom.xml").getroot()
    namespace = {"m": "http://maven.apache.org/POM/4.0.0"}
    assert pom.findtext("m:version", namespaces=namespace) == version
    assert pom.findtext("m:packaging", namespaces=namespace) == "aar"
    dependency = pom.find("m:dependencies/m:dependency", namespace)
    assert dependency is not None
    workspace = (ROOT / "WORKSPACE").read_text()
    assert dependency.findtext("m:artifactId", namespaces=namespace) == "tensorflow-lite-api"
    assert f'tensorflow-lite-api:{dependency.findtext("m:version", namespaces=namespace)}"' in workspace
