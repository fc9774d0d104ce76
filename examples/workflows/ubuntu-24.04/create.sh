#!/bin/sh
# Ubuntu 24.04 Server by autoinstall, with user-data rendered for each node.
# Needs PUREBOOT_URL, PUREBOOT_TOKEN and the live server's ISO as argument; bsdtar (libarchive-tools) takes its kernel out.
set -eu
here=$(dirname "$0")
iso=${1:?usage: create.sh ubuntu-24.04-live-server-amd64.iso}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bsdtar -x -f "$iso" -C "$work" casper/vmlinuz casper/initrd

pureboot content put images/ubuntu-24.04/vmlinuz "$work/casper/vmlinuz"
pureboot content put images/ubuntu-24.04/initrd "$work/casper/initrd"
pureboot content put images/ubuntu-24.04/server.iso "$iso"
pureboot content put templates/ubuntu-24.04/user-data "$here/user-data"
pureboot content put templates/ubuntu-24.04/meta-data "$here/meta-data"
# cloud-init adds user-data and meta-data to the address after s=.
pureboot workflow create ubuntu-24.04 \
    --kernel images/ubuntu-24.04/vmlinuz --initrd images/ubuntu-24.04/initrd \
    --template user-data=templates/ubuntu-24.04/user-data --template meta-data=templates/ubuntu-24.04/meta-data \
    --cmdline "ip=dhcp url={{ agent.files }}/images/ubuntu-24.04/server.iso autoinstall ds=nocloud;s={{ agent.templates }}/"
