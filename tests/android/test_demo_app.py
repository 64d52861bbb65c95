"""The demo app's package, built from packages alone: what is in it, and what Android's tools say of it."""

from __future__ import annotations

import re
import subprocess
import zipfile
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from android_demo.make_assets import png, write_assets
from demo.files import CLASSES, Images

ROOT = Path(__file__).parents[2]
AAR = ROOT / "bazel-android-arm64-bin" / "tflite_delegate" / "java" / "block_sparse_delegate.aar"


@pytest.mark.parametrize("shape", [(28, 28), (1, 1), (3, 5)])
def test_png_is_read_back(tmp_path, shape):
    image = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    (tmp_path / "image.png").write_bytes(png(image))
    read = matplotlib.image.imread(tmp_path / "image.png")
    np.testing.assert_array_equal(np.rint(read * 255).astype(np.uint8), image)


@pytest.fixture(scope="module")
def assets(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("assets")
    for name in ("dense", "sparse"):
        (folder / f"{name}.tflite").write_bytes(name.encode() * 1000)
    rng = np.random.default_rng(2)
    labels = np.concatenate([np.arange(10), np.arange(10)])[::-1].astype(np.int32)
    pixels = (rng.integers(0, 256, (20, 28, 28, 1)) / 255).astype(np.float32)
    write_assets(folder / "assets", folder, Images(pixels, labels))
    # The first image of a class, of two.
    read = matplotlib.image.imread(folder / "assets" / "samples" / "9_boot.png")
    np.testing.assert_allclose(read, pixels[0, :, :, 0], atol=1e-6)
    return folder / "assets"


@pytest.fixture(scope="module")
def apk(assets, tmp_path_factory) -> Path:
    assert AAR.exists(), f"{AAR} is missing; 'make test-android' builds it"
    folder = tmp_path_factory.mktemp("apk")
    script = ROOT / "android_demo" / "build_apk.sh"
    command = [str(script), str(folder), str(AAR), str(assets), str(folder / "demo.apk")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "demo.apk"


def say(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_it_is_signed_and_aligned(apk):
    said = say("apksigner", "verify", "--verbose", "--min-sdk-version", "26", str(apk))
    assert "Verified using v2 scheme (APK Signature Scheme v2): true" in said
    say("zipalign", "-c", "4", str(apk))


def test_what_android_reads_of_it(apk):
    said = say("aapt", "dump", "badging", str(apk))
    assert "package: name='blocksparse.demo' versionCode='1'" in said
    assert "sdkVersion:'26'" in said
    assert "native-code: 'arm64-v8a'" in said
    assert "launchable-activity: name='blocksparse.demo.MainActivity'" in said
    assert "uses-permission" not in say("aapt", "dump", "permissions", str(apk))


def test_what_it_holds(apk, assets):
    with zipfile.ZipFile(apk) as package:
        names = package.namelist()
        assert {name for name in names if name.startswith("lib/")} == {
            "lib/arm64-v8a/libblock_sparse_delegate_jni.so",
            "lib/arm64-v8a/libtensorflowlite_jni.so",
        }
        assert {f"assets/samples/{i}_{name}.png" for i, name in enumerate(CLASSES)} <= set(names)
        for name in ("dense.tflite", "sparse.tflite", "classes.txt"):
            assert package.read(f"assets/{name}") == (assets / name).read_bytes()
        assert package.getinfo("assets/sparse.tflite").compress_type == zipfile.ZIP_STORED
        code = package.read("classes.dex")
    assert code[:4] == b"dex\n"
    for name in (b"Lblocksparse/demo/MainActivity;", b"Lblocksparse/tflite/BlockSparseDelegate;"):
        assert name in code
    # What a file of the app's own needs must be in it, or in Android from API 26 on.
    assert b"Lorg/tensorflow/lite/Interpreter;" in code
    assert b"Ljava/lang/invoke/LambdaMetafactory;" not in code


def test_gradles_project_is_of_the_same_versions():
    """Gradle's plugin for Android is in no registry that tests may use; what its files say can be held to the rest."""
    demo = ROOT / "android_demo"
    app = (demo / "app" / "build.gradle").read_text()
    workspace = (ROOT / "WORKSPACE").read_text()
    for version in re.findall(r"'org\.tensorflow:tensorflow-lite:(.+)'", app):
        assert f'"org.tensorflow:tensorflow-lite:{version}"' in workspace
    assert "include ':app'" in (demo / "settings.gradle").read_text()
    script = (demo / "build_apk.sh").read_text()
    for gradle, aapt in (
        ("applicationId 'blocksparse.demo'", 'package="blocksparse.demo"'),
        ("versionName '0.1.0'", 'android:versionName="0.1.0"'),
        ("minSdk 26", "--min-sdk-version 26"),
    ):
        assert gradle in app and aapt in script
    # https://developer.android.com/build/releases/past-releases/agp-8-5-0-release-notes
    assert "'com.android.application' version '8.5." in (demo / "build.gradle").read_text()
    assert "/gradle-8.7-bin.zip" in (demo / "gradle" / "wrapper" / "gradle-wrapper.properties").read_text()


def test_missing_models_are_named(tmp_path):
    images = Images(np.zeros((10, 28, 28, 1), np.float32), np.arange(10, dtype=np.int32))
    with pytest.raises(FileNotFoundError, match=r"dense.tflite is missing: make demo"):
        write_assets(tmp_path / "assets", tmp_path, images)
