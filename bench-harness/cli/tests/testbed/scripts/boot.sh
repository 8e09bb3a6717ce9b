# In the test bed: boots a guest, and types a line whenever it is ready. $2 is the kernel, $3 the initial
# RAM disk, $4 the image of the root disk.

# An attempt before may have left them.
rm -f keyboard first.img second.img
truncate -s 8M first.img second.img
mkfifo keyboard
exec 3<>keyboard
{
    status=0
    "$1" boot --kernel "$2" --initrd "$3" --memory 300M --cpus 1 \
        --append "console=ttyS0 quiet loglevel=1 panic=-1 $QUICK root=LABEL=paraslot" \
        --device virtio-blk,path=first.img --device ahci,path=second.img,addr=1f \
        --device virtio-scsi,readonly=on,path="$4" --device e1000 <keyboard || status=$?
    echo "status $status"
} | while read -r line; do
    echo "$line"
    case $line in
    "paraslot: mark ready"*) echo "one two" >&3 ;;
    esac
done
