#!/bin/sh
# build-fio.sh DIR: makes DIR/fio, fio 3.33 with the libiscsi engine, which Debian's own binary
# lacks, from Debian's source package. Needs build-essential, libiscsi-dev and zlib1g-dev, which it
# installs when run as root. About a minute.
set -eu
mkdir -p "$1"
dir=$(readlink -f "$1")
[ ! -x "$dir/fio" ] || exit 0

needed="build-essential libiscsi-dev zlib1g-dev"
for package in $needed; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' && continue
  if [ "$(id -u)" != 0 ]; then
    echo "$package is missing: apt-get install $needed" >&2
    exit 1
  fi
  apt-get update -q >/dev/null
  DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $needed >/dev/null
  break
done

# This machine's Debian archives, as sources, in lists of our own: the system's stay as they are.
mkdir -p "$dir/apt/sources" "$dir/apt/lists/partial"
for file in /etc/apt/sources.list.d/*.sources; do
  [ -e "$file" ] || continue
  grep -q 'debian-archive-keyring' "$file" || continue
  sed 's/^Types:.*/Types: deb-src/' "$file" >"$dir/apt/sources/$(basename "$file")"
done
if [ -e /etc/apt/sources.list ]; then
  sed -n 's/^deb \(.*debian.*\)/deb-src \1/p' /etc/apt/sources.list >"$dir/apt/sources/main.list"
fi
apt_with_sources() {
  apt-get -q -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$dir/apt/sources" \
    -o Dir::State::Lists="$dir/apt/lists" -o APT::Sandbox::User=root "$@"
}
apt_with_sources update >/dev/null

rm -rf "$dir/source"
mkdir -p "$dir/source"
cd "$dir/source"
apt_with_sources source --download-only fio >/dev/null
tar -xf fio_*.orig.tar.gz
cd fio-*/
./configure --enable-libiscsi --disable-native >"$dir/configure.log" 2>&1
grep -qi 'iscsi engine *yes' "$dir/configure.log" || {
  echo "fio does not find libiscsi; see $dir/configure.log" >&2
  exit 1
}
make -j "$(nproc)" >"$dir/make.log" 2>&1
cp fio "$dir/fio"
rm -rf "$dir/source"
