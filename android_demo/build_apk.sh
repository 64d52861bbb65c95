#!/usr/bin/env bash
# Builds the demo app's .apk from the packages that tools/setup.sh apk brings, without Gradle and Android's SDK:
#   build_apk.sh FOLDER DELEGATE_AAR ASSETS APK
# FOLDER is for what is made on the way and keeps the key that signs; ASSETS holds dense.tflite, sparse.tflite,
# classes.txt and samples/NUMBER_CLASS.png.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=$1 delegate=$2 assets=$3 apk=$4
jars=$here/../build/android-jars
framework=/usr/share/android-framework-res/framework-res.apk
main=$here/app/src/main
work=$folder/work
rm -rf "$work"
mkdir -p "$work"/{generated,classes,delegate,tflite,api}
python3 -m zipfile -e "$delegate" "$work/delegate"
python3 -m zipfile -e "$jars/tensorflow-lite.aar" "$work/tflite"
python3 -m zipfile -e "$jars/tensorflow-lite-api.aar" "$work/api"
libraries=("$work/delegate/classes.jar" "$work/tflite/classes.jar" "$work/api/classes.jar")

# The libraries are packed, and Android unpacks them as it installs: zipalign here aligns to 4 bytes, not to pages.
sed -e 's/<manifest /<manifest package="blocksparse.demo" android:versionCode="1" android:versionName="0.1.0" /' \
  -e 's/<application$/<application android:extractNativeLibs="true"/' "$main/AndroidManifest.xml" > "$work/AndroidManifest.xml"
aapt package -f -m -J "$work/generated" -F "$work/app.apk" -M "$work/AndroidManifest.xml" -S "$main/res" -A "$assets" \
  -I "$framework" -0 tflite --min-sdk-version 26 --target-sdk-version 29

classpath=$(IFS=:; echo "${libraries[*]}"):$jars/android-all.jar
find "$main/java" "$work/generated" -name '*.java' -print0 |
  xargs -0 javac --release 8 -Xlint:all,-options,-classfile,-processing,-serial,-deprecation -Werror -proc:none \
    -encoding UTF-8 -d "$work/classes" -classpath "$classpath"
java -cp "$jars/dalvik-dx.jar" com.android.dx.command.Main --dex --min-sdk-version=26 \
  --output="$work/classes.dex" "$work/classes" "${libraries[@]}"

mkdir -p "$work/lib/arm64-v8a"
cp "$work"/{delegate,tflite}/jni/arm64-v8a/*.so "$work/lib/arm64-v8a/"
(cd "$work" && aapt add app.apk classes.dex lib/arm64-v8a/*.so > /dev/null)
zipalign -f 4 "$work/app.apk" "$work/aligned.apk"

key=$folder/debug.keystore
[ -f "$key" ] || keytool -genkeypair -keystore "$key" -storepass android -keypass android -alias debug -keyalg RSA \
  -keysize 2048 -validity 10000 -dname 'CN=Debug' 2> /dev/null
apksigner sign --v4-signing-enabled false --ks "$key" --ks-pass pass:android --min-sdk-version 26 \
  --out "$apk" "$work/aligned.apk"
