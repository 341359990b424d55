#!/bin/sh
# Downloads Debian's kernel package and unpacks what the guest tests need of it (see kernel.ts). It is
# not installed, so no initramfs is made and no boot loader is touched. Skipped when it is there.
set -eu
folder="${REPLAYBD_GUEST_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/replaybd/guest}"
package=$(apt-cache depends linux-image-amd64 |
  sed -n 's/^ *Depends: \(linux-image-.*\)$/\1/p' | head -n 1)
if [ -z "$package" ]; then
  echo 'fetch-kernel: apt knows no linux-image-amd64; run apt-get update first' >&2
  exit 1
fi
if [ "$(cat "$folder/package" 2>/dev/null)" = "$package" ]; then
  exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
(cd "$work" && apt-get download -qq "$package" 2>/dev/null)
rm -rf "$folder"
mkdir -p "$folder"
dpkg-deb --fsys-tarfile "$work"/*.deb | tar -x -C "$folder" \
  --exclude=./usr --exclude=./boot/System.map* --exclude=*/drivers/gpu --exclude=*/drivers/media \
  --exclude=*/drivers/net --exclude=*/sound
depmod -b "$folder" "${package#linux-image-}"
# Last, so that a run that was cut short is begun again.
echo "$package" >"$folder/package"
