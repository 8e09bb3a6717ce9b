# In a guest that `paraslot boot` runs: looks at its devices, writes to its disks, reboots once.

coldplug
settle
for function in /sys/bus/pci/devices/*; do
    if [ -e "$function/driver" ]; then
        id="$(cut -c 3- "$function/vendor"):$(cut -c 3- "$function/device")"
        echo "$(basename "$function" | cut -c 6-) $id $(basename "$(readlink "$function/driver")")"
    fi
done
# The root is on the disk in between, and which of the two SCSI disks is whose is a matter of luck.
port=$(basename "$(ls -d /sys/bus/pci/devices/0000:00:1f.0/ata*/host*/target*/*/block/*)")

# Somebody changes the devices meanwhile.
changes() {
    adapter=$(interface 0000:00:03.0)
    ip link set "$adapter" up
    carrier() { [ "$(cat "/sys/class/net/$adapter/carrier")" = "$1" ]; }
    soon carrier 1
    mark plug
    read -r line
    echo 1 > /sys/bus/pci/rescan
    soon block_device 0000:00:05.0
    disk=$(block_device 0000:00:05.0)
    echo "plugged $(cat "/sys/block/$disk/size")"
    echo third was here | dd of="/dev/$disk" bs=512 conv=sync,fsync 2>/dev/null
    mark change
    read -r line
    soon block_device 0000:00:05.0 12288
    soon carrier 0
    echo "changed"
    echo 1 > /sys/bus/pci/devices/0000:00:05.0/remove
    mark unplug
    read -r line
    echo 1 > /sys/bus/pci/rescan
    if [ -e /sys/bus/pci/devices/0000:00:05.0 ]; then fail "it is still there"; fi
    echo "unplugged"
}

mark ready
read -r line
echo "typed $(printf %s "$line" | tr -d '\r')"

if [ "$(head -c 3 /dev/vda)" = vda ]; then
    echo "found $(head -n 1 /dev/vda), $(head -n 1 "/dev/$port")"
    changes
else
    echo "found nothing"
    for disk in "vda vda" "$port sda"; do
        printf '%s was here\n' "${disk#* }" | dd of="/dev/${disk% *}" bs=512 conv=sync,fsync 2>/dev/null
    done
    reboot -f
fi
