#!/bin/sh
# The first process of the outer machine. Its userland is the host's: the host's root, read-only over
# 9p, with a file system in memory on top. /job, a folder of the host's, says what to do: `settings`
# sets `share` (a path, writable at the same place) and `modules`, and `command` is the command. Its
# exit status goes to /job/status and, to be sure of it, to QEMU's exit device.
export PATH=/bin

mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
ln -sfn /proc/self/fd /dev/fd
for number in 0:stdin 1:stdout 2:stderr; do
    ln -sfn "/proc/self/fd/${number%:*}" "/dev/${number#*:}"
done
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm

# Ends the machine with the status $1.
finish() {
    echo "$1" >/job/status
    sync
    # QEMU leaves with twice the byte written, plus 1.
    printf "\\x$(printf %x $(($1 & 255)))" | dd of=/dev/port bs=1 count=1 seek=$((0x501)) 2>/dev/null
    poweroff -f
}

# Gives up: a line for the console, and no status.
give_up() {
    echo "test bed: $1" >/dev/console
    poweroff -f
}

modprobe -a virtio_pci virtio_console 9pnet_virtio 9p overlay
shared=trans=virtio,version=9p2000.L,msize=524288
mkdir -p /job /lower /upper /r
mount -t 9p -o $shared,cache=none job /job || give_up "the job is not there"
. /job/settings || give_up "the job has no settings"

mount -t tmpfs -o size=75% upper /upper
mkdir /upper/files /upper/work
mount -t 9p -o $shared,ro,cache=loose root /lower || give_up "the host's files are not there"
mount -t overlay -o lowerdir=/lower,upperdir=/upper/files,workdir=/upper/work root /r || give_up "no overlay"
for folder in proc sys dev; do
    mkdir -p "/r/$folder"
    mount --rbind "/$folder" "/r/$folder"
done
mount -t tmpfs run /r/run
mkdir -p /r/lib/modules /r/run/testbed/bin /r/run/lock
mount --bind /lib/modules /r/lib/modules
mount --bind /bin /r/run/testbed/bin
mkdir -p "/r$share" || give_up "the shared folder has no place"
mount -t 9p -o $shared,cache=none share "/r$share" || give_up "the shared folder is not there"

[ -z "$modules" ] || modprobe -a $modules || give_up "a module does not load: $modules"
ip link set lo up
mount -t configfs configfs /sys/kernel/config 2>/dev/null

# The output goes through a port that changes no byte. A pipe stands before it, since a port is open
# once and programs open their standard output anew. What comes in by it is there to wake the machine.
for name in /sys/class/virtio-ports/*/name; do
    [ "$(cat "$name")" = output ] && port=$(basename "$(dirname "$name")")
done
[ -c "/dev/$port" ] || give_up "no port for the output"
mkfifo /output
exec 7<>"/dev/$port"
cat <&7 >/dev/null &
cat /output >&7 &
writer=$!
exec 7>&-

cp /job/command /r/run/testbed/command
# Not busybox's shell, which would take its own programs before the host's.
# In the background, or this shell would put in a word when a signal ends it.
chroot /r /bin/sh /run/testbed/command </dev/null >/output 2>&1 &
wait $!
status=$?

# What the command left in the background may hold the pipe open: it gets a moment, no more.
tries=0
while kill -0 "$writer" 2>/dev/null && [ "$tries" -lt 20 ]; do
    usleep 100000
    tries=$((tries + 1))
done
finish "$status"
