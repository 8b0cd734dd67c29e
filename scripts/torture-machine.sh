# A machine for QEMU with the service in it, for scripts/torture.sh, which sources this. Debian's
# kernel, busybox, and a disk that the test serves; emulated, as not every box lets QEMU use its
# processor.
# shellcheck shell=bash

can_have_machine() { [[ $(uname -m) == x86_64 ]] && grep -q '^ID=debian' /etc/os-release; }

# make_machine DIR INGESTOR: makes DIR hold `run`, which boots it. The kernel is fetched once.
make_machine() {
    local dir=$1 ingestor=$2 root="$1/root"
    need_commands qemu-system-x86_64=qemu-system-x86 busybox=busybox-static cpio=cpio \
        mke2fs=e2fsprogs strip=binutils eatmydata=eatmydata
    mkdir -p "$dir"
    [[ -e $dir/vmlinuz ]] || fetch_kernel "$dir"
    rm -rf -- "$root"
    mkdir -p "$root"/{bin,lib,dev,proc,disk,modules}
    cp "$dir"/modules/*.ko "$root/modules"
    cp "$(command -v busybox)" "$root/bin/busybox"
    cp -L /usr/lib/x86_64-linux-gnu/libeatmydata.so "$root/lib"
    strip -o "$root/bin/ingestor" "$ingestor"
    local library
    for library in $(ldd "$ingestor" | grep -o '/[^ ]*'); do
        mkdir -p "$root${library%/*}"
        cp -L "$library" "$root$library"
    done
    write_init >"$root/init"
    write_run "$dir" >"$dir/run"
    chmod 755 "$root/init" "$dir/run"
    (cd "$root" && find . | cpio --quiet --create --format=newc) >"$dir/initramfs"
}

# The drivers of the disk and the network, numbered in the order in which they can be loaded.
fetch_kernel() {
    local dir=$1 package name number=10
    package=$(apt-cache depends linux-image-cloud-amd64 | grep -o 'linux-image-[0-9].*') ||
        fail "apt knows no kernel: as root, run apt-get update"
    say "fetching $package for the machine, into $dir (apt-get)…"
    (cd "$WORK_DIR" && apt-get download --quiet "$package") >>"$LOG_DIR/apt-get.log" 2>&1 ||
        fail "apt-get could not download $package"
    dpkg -x "$WORK_DIR/$package"_*.deb "$WORK_DIR/kernel"
    mkdir -p "$dir/modules"
    for name in virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk \
        failover net_failover virtio_net; do
        find "$WORK_DIR/kernel" -name "$name.ko" -exec cp {} "$dir/modules/$((number++))-$name.ko" \;
    done
    cp "$WORK_DIR"/kernel/boot/vmlinuz-* "$dir/vmlinuz"
}

# The settings are in the environment: the kernel hands over what it does not know. When the service
# ends the kernel panics, and QEMU ends.
write_init() {
    cat <<'TEXT'
#!/bin/busybox sh
set -e
export PATH=/bin
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
for module in /modules/*; do insmod "$module"; done
ip link set lo up
ip address add 10.0.2.15/24 dev eth0
ip link set eth0 up
mount -t ext4 /dev/vda /disk
[ -z "$GUEST_PRELOAD" ] || export LD_PRELOAD="$GUEST_PRELOAD"
exec ingestor 2>&1
TEXT
}

# In place of the ingestor, with its settings in the environment, and its log on the standard error.
write_run() {
    cat <<TEXT
#!/bin/sh
# The host is 10.0.2.2 from there.
settings=\$(env | grep -E '^(DATABASE|GUEST|HTTP|LOG|MQTT|WAL)_' | sed 's/127\.0\.0\.1/10.0.2.2/')
port=\${HTTP_ADDR##*:}
exec qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m 512 -nodefaults -no-reboot \\
    -display none -serial stdio -kernel '$1/vmlinuz' -initrd '$1/initramfs' \\
    -append "console=ttyS0 quiet loglevel=1 panic=-1 \$(echo \$settings)" \\
    -netdev "user,id=net,hostfwd=tcp:127.0.0.1:\$port-:\$port" -device virtio-net-pci,netdev=net,romfile= \\
    -blockdev "nbd,node-name=disk,server.type=inet,server.host=127.0.0.1,server.port=\$GUEST_DISK_PORT" \\
    -device virtio-blk-pci,drive=disk >&2
TEXT
}
