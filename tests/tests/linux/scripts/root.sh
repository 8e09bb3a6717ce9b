# The system runs from the disk in slot 04.

root=$(cat /run/paraslot/rooted)
case $(readlink -f "/sys/class/block/${root#/dev/}") in
*/0000:00:04.0/*) ;;
*) fail "the root is on $root" ;;
esac
step "running from $root"
# Programs that are on the disk alone, and all that is on it.
/usr/bin/fio --version
find / -xdev -type f | xargs cat > /dev/null
fact driver "$(driver_of 04)"
