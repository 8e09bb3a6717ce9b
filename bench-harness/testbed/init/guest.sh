#!/bin/sh
# The first process of an inner guest: runs the test's script, and says on the console how it ended.
# It does so in the initial RAM file system or, with `root=` on the kernel's command line, on a disk:
# LABEL=…, UUID=… or a device's name; `ro` (over which memory is laid, so that the system may write) or
# `rw`. The script and its library are the same in both.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb

mounted() { grep -q " $1 " /proc/mounts 2>/dev/null; }

[ -e /proc/mounts ] || mount -t proc proc /proc
mounted /sys || mount -t sysfs sys /sys
mounted /dev || mount -t devtmpfs dev /dev
mounted /run || mount -t tmpfs run /run
mounted /tmp || mount -t tmpfs tmp /tmp
mkdir -p /dev/pts /dev/shm
ln -sfn /proc/self/fd /dev/fd
for number in 0:stdin 1:stdout 2:stderr; do
    ln -sfn "/proc/self/fd/${number%:*}" "/dev/${number#*:}"
done
mounted /dev/pts || mount -t devpts devpts /dev/pts
mounted /dev/shm || mount -t tmpfs shm /dev/shm

# The kernel's own messages would break into the protocol's lines: they stay in its log, but for those
# of its death.
grep -qw debug /proc/cmdline || dmesg -n 1
# What is typed is not shown, and a line ends as it was written.
stty -echo -onlcr 2>/dev/null

# On the initial RAM file system the script is in /paraslot; it moves on to a disk with /run.
[ -d /run/paraslot ] || cp -r /paraslot /run
. /run/paraslot/library

if [ ! -e /run/paraslot/rooted ]; then
    root=
    access=ro
    for word in $(cat /proc/cmdline); do
        case $word in
        root=*) root=${word#root=} ;;
        ro | rw) access=$word ;;
        esac
    done
    if [ -n "$root" ]; then
        coldplug
        root=$(wait_root "$root") || finish 125
        modprobe ext4
        mkdir -p /disk /new
        if [ "$access" = rw ]; then
            mount -t ext4 -o rw "$root" /new || finish 125
        else
            modprobe overlay
            mkdir -p /memory
            mount -t ext4 -o ro "$root" /disk && mount -t tmpfs memory /memory || finish 125
            mkdir /memory/files /memory/work
            mount -t overlay -o lowerdir=/disk,upperdir=/memory/files,workdir=/memory/work root /new || finish 125
        fi
        for folder in proc sys dev run tmp; do
            mount --move "/$folder" "/new/$folder" || finish 125
        done
        echo "$root" >/new/run/paraslot/rooted
        exec switch_root /new /run/paraslot/init
        finish 125
    fi
fi

cd /root 2>/dev/null || cd /
# A shell of its own, so that a script that ends itself, or fails, ends nothing else.
sh -e -c '. /run/paraslot/library; . /run/paraslot/script'
finish $?
