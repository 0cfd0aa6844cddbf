#!/bin/sh
# Finds what this machine lacks for building, the lab and the tests. Root gets it installed, others
# are told the command. None of these packages starts a server: those are unpacked into build/packages.
set -eu

packages="gcc libc6-dev musl-tools cmake make
  qemu-system-x86 ipxe-qemu seabios mmdebstrap dnsmasq-base pxelinux syslinux-common
  ovmf ipxe grub-efi-amd64-signed syslinux-efi
  iproute2 openssh-client openssl curl busybox-static python3-pip
  tar gzip xz-utils zstd squashfs-tools squashfs-tools-ng erofs-utils cpio file time pigz libarchive-tools minisign kmod
  skopeo umoci bubblewrap libwrap0 libpq5 libmariadb3 liblog4cplus-2.0.5"

for program in cargo rustc; do
    command -v $program >/dev/null || { echo "deps: $program is missing; install Rust from https://rustup.rs" >&2; exit 1; }
done
if ! [ -d "$(rustc --print sysroot)/lib/rustlib/x86_64-unknown-linux-musl" ]; then
    echo "deps: adding the Rust target x86_64-unknown-linux-musl"
    rustup target add x86_64-unknown-linux-musl
fi
for tool in rustfmt clippy-driver; do
    [ -x "$(rustc --print sysroot)/bin/$tool" ] || rustup component add rustfmt clippy
done

command -v dpkg-query >/dev/null || { echo "deps: not a Debian machine; it must have what these packages hold:" $packages >&2; exit 0; }
present=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' $packages 2>/dev/null | sed -n 's/^installed //p' || true)
missing=
for package in $packages; do
    echo "$present" | grep -qx "$package" || missing="$missing $package"
done
# The servers that tests unpack come through apt-get too.
ls /var/lib/apt/lists/*_Packages* >/dev/null 2>&1 || stale=yes
[ -n "$missing${stale:-}" ] || exit 0

install="apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends$missing"
[ -n "$missing" ] || install="apt-get update -qq"
if [ "$(id -u)" -ne 0 ]; then
    echo "deps: this machine lacks:${missing:- package lists}. As root, run:" >&2
    echo "  sudo sh -c '$install'" >&2
    exit 1
fi
echo "deps: installing:${missing:- package lists}"
sh -c "$install"
