#!/bin/sh
# Debian 12 by its network installer, with a preseed rendered for each node.
# Needs PUREBOOT_URL, PUREBOOT_TOKEN and the two files of the netboot installer in the folder named as argument
# (Debian's package debian-installer-12-netboot-amd64 has them).
set -eu
here=$(dirname "$0")
netboot=${1:-/usr/lib/debian-installer/images/12/amd64/text/debian-installer/amd64}

pureboot content put images/debian-12/linux "$netboot/linux"
pureboot content put images/debian-12/initrd.gz "$netboot/initrd.gz"
pureboot content put templates/debian-12/preseed.cfg "$here/preseed.cfg"
pureboot workflow create debian-12 \
    --kernel images/debian-12/linux --initrd images/debian-12/initrd.gz \
    --template preseed.cfg=templates/debian-12/preseed.cfg \
    --cmdline "auto=true priority=critical url={{ agent.templates }}/preseed.cfg interface=auto"
