# The first command in a machine (machine.py): what init.c leaves to the host's own programs.
#
# Arguments: folders of the host's to be seen although something is laid over them. NAME, ADDRESS, MTU; KERNEL: the
# folder of the unpacked package; SCRATCH: a folder, or empty; RDMA, WIRE: yes, or empty.

echo "$NAME" >/proc/sys/kernel/hostname

# Modules are found in the package's folder, also by the kernel when something asks for one (tc qdisc add ... netem).
printf '#!/bin/sh\nexec /sbin/modprobe -d "%s" "$@"\n' "/run/host$KERNEL" >/run/modprobe
chmod 755 /run/modprobe
echo /run/modprobe >/proc/sys/kernel/modprobe

for folder; do
    mkdir -p "$folder"
    mount --bind "/run/host$folder" "$folder"
done
if [ "$SCRATCH" ]; then
    mkdir -p "$SCRATCH"
    mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=mmap scratch "$SCRATCH"
fi

# Both ends of a veth pair are in this machine; only one of them has a use, to carry rxe0.
[ "$WIRE" ] && link=eth0 || link=v0
modules=
[ -z "$WIRE" ] || modules=virtio_net
[ -z "$RDMA" ] || modules="$modules crc32_generic rdma_rxe rdma_ucm ib_uverbs"
[ -z "$modules" ] || /run/modprobe -a $modules
{
    echo link set lo up
    if [ "$WIRE" ] || [ "$RDMA" ]; then
        [ "$WIRE" ] || echo link add v0 mtu "$MTU" type veth peer name v1 mtu "$MTU"
        [ "$WIRE" ] || echo link set v1 up
        echo address add "$ADDRESS/24" dev $link
        echo link set $link up
    fi
} | ip -batch -
[ -z "$RDMA" ] || rdma link add rxe0 type rxe netdev $link
