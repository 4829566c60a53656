#!/usr/bin/env bash
# A Debian userland as an initramfs: debootstrap's minbase and the programs of the conformance runs and benchmarks.
#
#   userland.sh ARCHIVE.cpio SUITE MIRROR ARCHITECTURE PACKAGE...
#
# An architecture that this machine may not run is unpacked and not configured: its programs work, what their packages would have set up
# (users, alternatives) is missing.
#
# Same packages, same bytes: no logs, caches or machine identity, one time for all files, names sorted, inodes renumbered.
# What no program reads (manuals, translations) is left out: the guest unpacks every byte before its first process.
set -euo pipefail
archive=$1 suite=$2 mirror=$3 architecture=$4
shift 4
packages=$(IFS=,; echo "$*")
work=$(mktemp -d "$archive.XXXXXX")
trap 'rm -rf "$work"' EXIT
root=$work/root

foreign=
[ "$architecture" = "$(dpkg --print-architecture)" ] || foreign=--foreign
debootstrap $foreign --arch="$architecture" --variant=minbase --include="$packages" "$suite" "$root" "$mirror" >"$work/log" 2>&1 ||
  { tail -n 20 "$work/log" >&2; exit 1; }

cd "$root"
if [ -n "$foreign" ]; then
  for package in var/cache/apt/archives/*.deb; do
    dpkg-deb --fsys-tarfile "$package" | tar --extract --keep-directory-symlink
  done
  rm -rf debootstrap proc
  mkdir proc
fi
rm -rf var/cache/apt/* var/lib/apt/lists/* var/log/* var/cache/debconf/* var/cache/ldconfig/* var/lib/dpkg/*-old run/* tmp/* etc/machine-id \
  etc/resolv.conf etc/hostname usr/share/{doc,man,info,locale,lintian,bug,i18n}
find . -name __pycache__ -prune -exec rm -rf {} +
if [ -z "$foreign" ] && [ -x usr/bin/python3 ]; then
  # By hash, for times are about to change: a guest would compile its whole start anew.
  chroot . python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash /usr/lib/python3 /usr/lib/python3.* >"$work/log" 2>&1 || true
fi
find dev -mindepth 1 -delete
mknod -m 600 dev/console c 5 1
mknod -m 666 dev/null c 1 3
find . -exec touch -h -d "@${SOURCE_DATE_EPOCH:-1700000000}" {} +
find . -mindepth 1 -printf '%P\n' | LC_ALL=C sort | cpio -o -H newc --reproducible --quiet >"$work/cpio"
mv "$work/cpio" "$archive"
