# In the test bed: boots a guest, and types a line whenever it is ready. $2 is the kernel, $3 the initial
# RAM disk, $4 the image of the root disk.

# An attempt before may have left them.
rm -f keyboard first.img second.img third.img control
truncate -s 8M first.img second.img
truncate -s 4M third.img
mkfifo keyboard
exec 3<>keyboard
{
    status=0
    "$1" boot --kernel "$2" --initrd "$3" --memory 300M --cpus 1 \
        --append "console=ttyS0 quiet loglevel=1 panic=-1 $QUICK root=LABEL=paraslot" \
        --device virtio-blk,path=first.img --device ahci,path=second.img,addr=1f \
        --device virtio-scsi,readonly=on,path="$4" --device e1000 --control control <keyboard || status=$?
    echo "status $status"
} | while read -r line; do
    echo "$line"
    case $line in
    "paraslot: mark ready"*) echo "one two" >&3 ;;
    "paraslot: mark plug"*)
        "$1" control control list
        "$1" control control plug virtio-blk,path=third.img,addr=5,iops=1K
        "$1" control control plug e1000,addr=5 2>&1 || :
        echo >&3
        ;;
    "paraslot: mark change"*)
        truncate -s 6M third.img
        "$1" control control resize 5
        "$1" control control limit 5 iops=off bps=1G
        "$1" control control link 3 down
        echo >&3
        ;;
    "paraslot: mark unplug"*)
        "$1" control control unplug 5
        "$1" control control unplug 5 2>&1 || :
        echo >&3
        ;;
    esac
done
