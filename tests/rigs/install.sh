#!/usr/bin/env bash
# Installs, on Debian 12 and as root, what the tests need beyond Python: the real parts that stand in for boards and
# phones (OpenSSH's server, Android's adb and adbd, an emulator of aarch64), a database and a browser. Run again, it
# does nothing.
set -euo pipefail

if [[ $(id -u) != 0 ]]; then
  echo "tests/rigs/install.sh: needs root; without it the tests that need these parts are skipped" >&2
  exit 1
fi

main=(openssh-server openssh-client iproute2 util-linux mmdebstrap arch-test)
# The shells of boards and phones: the first of small images, the second of Android.
main+=(busybox mksh toybox)
# What the tests of the results store and of the report's page need.
main+=(postgresql chromium)
# A GPU in software: Chromium carries SwiftShader, this is the loader that finds it.
main+=(libvulkan1)
# A compiler for the delegate of our own.
main+=(gcc libc6-dev)
# From backports: bookworm has no adbd, and with its qemu 7.2 ai-edge-litert and onnxruntime end in SIGSEGV.
backports=(adb adbd qemu-user-static)

installed() { dpkg-query -W -f '${db:Status-Abbrev}' "$1" 2>/dev/null | grep -q '^ii'; }
missing=()
for package in "${main[@]}" "${backports[@]}"; do installed "$package" || missing+=("$package"); done
if [[ ${#missing[@]} == 0 ]]; then echo "the rigs' parts are installed"; exit 0; fi

# No service of the machine starts because of a test: each rig starts what it needs itself.
if [[ ! -e /usr/sbin/policy-rc.d ]]; then
  printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
  chmod 755 /usr/sbin/policy-rc.d
  trap 'rm -f /usr/sbin/policy-rc.d' EXIT
fi

# The mirror that this machine already uses has the suite as well.
sources=/etc/apt/sources.list.d
uris=$(awk '/^URIs:/ { print; exit }' "$sources/debian.sources")
signed=$(awk '/^Signed-By:/ { print; exit }' "$sources/debian.sources")
printf 'Types: deb\n%s\nSuites: bookworm-backports\nComponents: main\n%s\n' "$uris" "$signed" > "$sources/edgekit-rigs.sources"

export DEBIAN_FRONTEND=noninteractive
apt() { apt-get -qq -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$@" > /dev/null; }  # another apt may be at work
apt update
apt install -y --no-install-recommends "${main[@]}"
apt install -y --no-install-recommends -t bookworm-backports "${backports[@]}"
