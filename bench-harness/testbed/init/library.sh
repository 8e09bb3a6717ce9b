# What a test's script has at hand in an inner guest. It is run with `sh -e`: a command that fails and
# is not asked about ends it.

# mark WORD…: tells the test that watches the console where the script is.
mark() { echo "paraslot: mark $*"; }

# fact KEY VALUE…: tells the test something.
fact() { echo "paraslot: fact $*"; }

# fail WORD…: ends the script, and says why.
fail() {
    echo "paraslot: fail $*"
    exit 1
}

# await WORD: waits until the test has typed this line; other lines are passed over.
await() {
    while IFS= read -r line; do
        line=$(printf %s "$line" | tr -d '\r')
        [ "$line" != "$1" ] || return 0
    done
    fail "nobody typed $1: the console is closed"
}

# load MODULE…: loads drivers; for those of virtio devices, that of their bus as well, which they do not
# name as a dependency.
load() {
    for module in "$@"; do
        case $module in
        virtio_*) modprobe virtio_pci || fail "the module virtio_pci does not load" ;;
        esac
        modprobe "$module" || fail "the module $module does not load"
    done
}

# coldplug: loads the driver of every device that is there, as a distribution does when it starts.
# A controller's driver may bring devices of another kind: until there are no new ones. Disks may come
# later still, so their drivers wait for them.
coldplug() {
    modprobe -a sd_mod sr_mod
    known=
    while :; do
        wanted=$(find /sys/devices -name modalias -exec cat {} + 2>/dev/null | sort -u)
        [ "$wanted" != "$known" ] || return 0
        known=$wanted
        printf '%s\n' "$wanted" | xargs modprobe -a -q 2>/dev/null || :
        settle
    done
}

# settle: waits until the drivers' own background work of looking for disks is done: until the set of
# devices is the same for half a second.
settle() {
    same=0
    seen=
    while [ "$same" -lt 5 ]; do
        now=$(ls /sys/block /sys/class/net /sys/bus/scsi/devices 2>/dev/null)
        if [ "$now" = "$seen" ]; then same=$((same + 1)); else same=0; fi
        seen=$now
        usleep 100000
    done
}

# wait_for TEST…: waits until a command succeeds, for $patience tenths of a second at most, or else 100.
wait_for() {
    tries=0
    until "$@" >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ "$tries" -lt "${patience:-100}" ] || {
            echo "paraslot: gave up waiting for: $*" >&2
            return 1
        }
        usleep 100000
    done
}

# soon TEST…: as wait_for, but in vain it ends the script.
soon() { wait_for "$@" || fail "waited in vain: $*"; }

# wait_device PATH: waits for a device's node.
wait_device() { wait_for test -e "$1"; }

# wait_root NAME: waits for the disk that `root=NAME` means, and prints its device.
wait_root() {
    case $1 in
    LABEL=* | UUID=*)
        wait_for findfs "$1" && findfs "$1"
        ;;
    *)
        wait_for test -b "$1" && echo "$1"
        ;;
    esac
}

# driver ADDRESS: the driver of a PCI function (0000:00:05.0), or "none".
driver() {
    if [ -e "/sys/bus/pci/devices/$1/driver" ]; then
        basename "$(readlink "/sys/bus/pci/devices/$1/driver")"
    else
        echo none
    fi
}

# interface ADDRESS: the name of the network interface of a PCI function.
interface() {
    for path in /sys/class/net/*; do
        case $(readlink -f "$path") in
        */"$1"/*) basename "$path" && return 0 ;;
        esac
    done
    return 1
}

# block_device ADDRESS [SECTORS]: the name of the disk of a PCI function; of several, the one of that size.
block_device() {
    for path in /sys/block/*; do
        case $(readlink -f "$path") in
        */"$1"/*)
            if [ -z "$2" ] || [ "$(cat "$path/size")" = "$2" ]; then
                basename "$path"
                return 0
            fi
            ;;
        esac
    done
    return 1
}

# dmesg_clean [EXPRESSION]: fails, and prints them, if the kernel's log has lines that tell of trouble:
# errors, and whatever its drivers complain about by other names. Lines that match the expression are
# expected.
dmesg_clean() {
    # What every machine of this kind says at its start, and is no fault of a device.
    usual='unchecked MSR access|Spectre|MDS|TAA|MMIO Stale|Retbleed|RETBleed|Speculative|mitigations'
    usual="$usual|platform eisa|EISA|i8042|PCI: System does not support PCI|device-mapper|regulatory"
    usual="$usual|ACPI BIOS Error|No UEFI|hpet|rtc_cmos|FS-Cache|module verification failed|tainting kernel"
    usual="$usual|Malformed early option|PCI: Fatal: No config space|fail to initialize ptp_kvm|Unknown kernel command line"
    usual="$usual|kvm: (already loaded|support for|no hardware)"
    usual="$usual|errors=remount-ro|errors=continue"
    trouble='BUG:|WARNING:|Oops|Call Trace|lockup|stall|hung|tim(ed|e)[ -]?out|I/O error|corrupt|nobody cared'
    trouble="$trouble|tx hang|error|fail(ed|ure)|invalid[^a]|reset(ting)? (adapter|controller)"
    # Behind `<`: the level, 3 of which is an error, of the kernel itself or of what was written to it.
    found=$(
        dmesg -r | grep -iE "^<([0-3]|8|9|10|11)>|$trouble" | sed 's/^<[0-9]*>//' | grep -vE "$usual" |
            { if [ -n "$1" ]; then grep -vE "$1"; else cat; fi; } || :
    )
    [ -n "$found" ] || return 0
    echo "$found" | sed 's/^/paraslot: dmesg /'
    return 1
}

# finish STATUS: the last words.
finish() {
    echo "paraslot: exit $1"
    # Changes nothing, and waits until all is written.
    stty -echo 2>/dev/null
    sync
    # A disk that is written to is left whole.
    mount -o remount,ro / 2>/dev/null
    poweroff -f
    # Without a power button: a reset, at least.
    reboot -f
}
