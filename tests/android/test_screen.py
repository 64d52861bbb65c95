"""The demo app as it is on a phone, but in Robolectric: Android's own classes, and models that really run."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from runtime import make_system_libraries, without_versions

import keras_prune
from android_demo.make_assets import write_assets
from demo.files import Images

ROOT = Path(__file__).parents[2]
ROBOLECTRIC = ROOT / "build" / "robolectric"
BUILT = ROOT / "bazel-bin"
AAR = ROOT / "bazel-android-arm64-bin" / "tflite_delegate" / "java" / "block_sparse_delegate.aar"
# What `make android-demo` gathered; without it the models are small ones of the test's own, and the images noise.
SHIPPED = ROOT / "build" / "android-demo" / "assets"
SOURCES = [Path(__file__).parent / "java" / f"{name}.java" for name in ("ScreenTest", "BrokenModelTest")]

pytestmark = [
    pytest.mark.skipif(not ROBOLECTRIC.exists(), reason="no Robolectric: make test-android-screen"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="TensorFlow Lite's Java library is taken for x86-64"),
]


def _write_models(folder: Path) -> None:
    rng = np.random.default_rng(8)
    inputs = keras.Input((28, 28, 1), batch_size=1)
    x = keras.layers.Conv2D(16, 3, strides=2, activation="relu")(inputs)
    x = keras.layers.Conv2D(32, 1, activation="relu")(x)
    model = keras.Model(inputs, keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(x)))
    weights = model.layers[2].get_weights()
    kept = np.repeat(rng.random(weights[0].size // 4) < 0.25, 4).reshape(weights[0].shape)
    model.layers[2].set_weights([weights[0] * kept, weights[1]])
    (folder / "sparse.tflite").write_bytes(keras_prune.convert(model, batch_size=1))
    (folder / "dense.tflite").write_bytes(keras_prune.convert(model, sparse=False, batch_size=1))


def _config(folder: Path, work: Path, resources: Path) -> Path:
    """What Gradle would tell Robolectric of the app; a folder for the class path."""
    settings = folder / "com" / "android" / "tools" / "test_config.properties"
    settings.parent.mkdir(parents=True)
    settings.write_text(
        f"android_merged_assets={work.parent / 'assets'}\n"
        f"android_merged_manifest={work / 'AndroidManifest.xml'}\n"
        f"android_resource_apk={resources}\n"
        "android_custom_package=blocksparse.demo\n"
    )
    return folder


def _break_model(app: Path, broken: Path) -> None:
    with zipfile.ZipFile(app) as whole, zipfile.ZipFile(broken, "w") as out:
        for entry in whole.infolist():
            data = whole.read(entry)
            out.writestr(entry, data[: len(data) // 2] if entry.filename == "assets/sparse.tflite" else data)


def test_screen(tmp_path):
    assert AAR.exists(), f"{AAR} is missing; 'make test-android' builds it"
    assets = tmp_path / "assets"
    if SHIPPED.exists():
        shutil.copytree(SHIPPED, assets)
    else:
        _write_models(tmp_path)
        pixels = np.random.default_rng(1).random((10, 28, 28, 1), np.float32)
        write_assets(assets, tmp_path, Images(pixels, np.arange(10, dtype=np.int32)))
    script = str(ROOT / "android_demo" / "build_apk.sh")
    subprocess.run([script, str(tmp_path), str(AAR), str(assets), str(tmp_path / "demo.apk")], check=True)
    work = tmp_path / "work"
    app = [work / "classes", *(work / name / "classes.jar" for name in ("delegate", "tflite", "api"))]
    jars = [*app, *sorted(ROBOLECTRIC.glob("*.jar")), ROOT / "build" / "android-jars" / "android-all.jar"]
    path = ":".join(map(str, jars))
    classes = str(tmp_path / "classes")
    subprocess.run(["javac", "-nowarn", "-proc:none", "-cp", path, "-d", classes, *map(str, SOURCES)], check=True)

    make_system_libraries(tmp_path / "lib", "cc")
    library = without_versions((BUILT / "tests" / "android" / "libtensorflowlite_jni.so").read_bytes())
    (tmp_path / "lib" / "libtensorflowlite_jni.so").write_bytes(library)
    picture = ROOT / "build" / "android-demo" / "screen.png"
    picture.parent.mkdir(parents=True, exist_ok=True)
    picture.unlink(missing_ok=True)
    properties = {
        "robolectric.offline": "true",
        "robolectric.dependency.dir": ROBOLECTRIC / "sdk",
        "java.library.path": f"{tmp_path / 'lib'}:{BUILT / 'tflite_delegate' / 'java'}",
        "picture": picture,
    }
    _break_model(work / "app.apk", tmp_path / "broken.apk")
    for name, resources, tests in (
        ("ScreenTest", work / "app.apk", 3),
        ("BrokenModelTest", tmp_path / "broken.apk", 1),
    ):
        config = _config(tmp_path / name, work, resources)
        java = ["java", *(f"-D{key}={value}" for key, value in properties.items())]
        done = subprocess.run(
            [*java, "-cp", f"{classes}:{config}:{path}", "org.junit.runner.JUnitCore", f"blocksparse.demo.{name}"],
            capture_output=True,
            text=True,
            timeout=400,
            cwd=tmp_path,
            env={**os.environ, "LD_LIBRARY_PATH": str(tmp_path / "lib")},
        )
        said = "\n".join(line for line in done.stdout.splitlines() if "Replacing" not in line)
        assert done.returncode == 0 and f"OK ({tests} test" in said, said[:5000]
    assert picture.read_bytes().startswith(b"\x89PNG")
