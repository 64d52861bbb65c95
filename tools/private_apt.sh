#!/usr/bin/env bash
# Unpacks Debian packages of another suite or architecture into a folder, without touching the machine's own packages:
#   private_apt.sh SUITE ARCHITECTURE FOLDER PACKAGE...
# The mirror is the one that the machine's own apt uses.
set -euo pipefail
suite=$1 architecture=$2 folder=$3
shift 3

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/state/lists/partial" "$work/cache/archives/partial" "$work/debs"
touch "$work/state/status"

keyring=/usr/share/keyrings/debian-archive-keyring.gpg
options=
[ -f "$keyring" ] && options="[signed-by=$keyring]"
private_apt() {
  (cd "$work/debs" && apt-get -qq \
    -o APT::Architecture="$architecture" -o APT::Architectures::="$architecture" \
    -o Dir::State="$work/state" -o Dir::State::status="$work/state/status" -o Dir::Cache="$work/cache" \
    -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=/dev/null \
    -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false \
    -o Acquire::Check-Valid-Until=false -o APT::Sandbox::User=root -o Acquire::Retries=3 "$@")
}

# Debian's own mirrors come first among the sources of the machine's release; others are tried after them.
codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
mirrors=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Component: main' "Release: $codename" \
  'Origin: Debian' 2>/dev/null || true)
mirrors="$mirrors $(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Component: main')"
for mirror in $(printf '%s\n' $mirrors | awk '!seen[$0]++'); do
  echo "deb $options $mirror $suite main" > "$work/sources.list"
  if private_apt update > "$work/log" 2>&1 && private_apt download "$@" >> "$work/log" 2>&1; then
    mkdir -p "$folder"
    for deb in "$work"/debs/*.deb; do dpkg -x "$deb" "$folder"; done
    exit 0
  fi
done
cat "$work/log" >&2
echo "private_apt.sh: no mirror of this machine gave $* ($suite, $architecture); check 'apt-get update'" >&2
exit 1
