# In the test bed: measures the disk at 00:10.0 beside models, and uses it before and after.

function=/sys/bus/pci/devices/0000:00:10.0
disk=/dev/nvme0n1

# is_the_hosts: waits until the host's driver has the disk.
is_the_hosts() {
    tries=0
    until [ -b "$disk" ] && dd if="$disk" of=/dev/null bs=4096 count=1 iflag=direct 2>/dev/null; do
        tries=$((tries + 1))
        if [ "$tries" = 100 ]; then
            echo "the host has no $disk"
            exit 1
        fi
        sleep 0.1
    done
    driver=$(basename "$(readlink "$function/driver")")
    override=$(cat "$function/driver_override")
    echo "driver $driver, override $override"
    [ "$driver" = nvme ] && [ "$override" = "(null)" ]
}

is_the_hosts
"$1" doctor | grep -A 2 '^  0000:00:10.0 .*NVM'
"$1" run --quick --out out --filter 'randread/4k/qd1/' --device ahci --device virtio-blk \
    --device vfio,host=00:10.0,bind=on,overwrite=on
is_the_hosts

dd if="$disk" of=found bs=1M iflag=direct 2>/dev/null
head -c 1M /dev/urandom >written
dd if=written of="$disk" bs=64K oflag=direct conv=fsync 2>/dev/null
dd if="$disk" bs=64K count=16 iflag=direct 2>/dev/null | cmp - written
