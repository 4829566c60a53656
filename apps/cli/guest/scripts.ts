/**
 * The programs of our initramfs, in busybox sh: what runs in the guest between the kernel and the user's command.
 *
 * init     PID 1: mounts, host name, the network's addresses as its DHCP would give them; starts the session; turns signals of poweroff, halt and reboot into the system call.
 * session  runs one job and reports how it ended on the control line. On the console the job has ttyS0 or hvc0 as its terminal. By pipes its
 *          standard output leaves on ttyS1, its standard error on ttyS2, and its standard input comes in on ttyS1.
 * launch   becomes the job: process id noted, environment set, command looked up like execvp does.
 *
 * Control line (ttyS3), lines of text. To the host: "ready" (before the job starts, from when on it can get a signal), "in" (send the next block of standard input),
 * "exit N", "off" (somebody turned the machine off). From the host: "size ROWS COLS", "signal NAME", "poweroff".
 * A block of standard input is "LENGTH\n" and that many raw bytes on ttyS1; LENGTH 0 ends it. The guest asks for each block, so no
 * more is under way than the kernel's receive buffer holds, and no flow control by characters disturbs the bytes.
 *
 * Debian's busybox prefers its own applets to files in PATH. That makes these scripts independent of the userland around them, so
 * they also run a job in somebody else's initramfs; launch resolves the command itself because of it.
 * The session is started by start-stop-daemon, not "&": a shell lets its background jobs ignore SIGINT, for ever.
 */

/** Where everything of ours is in the guest. */
export const GUEST_HOME = "hypo";

export const INIT_SCRIPT = `#!/hypo/busybox sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
/hypo/busybox mkdir -p /proc /sys /dev /run /tmp /root
/hypo/busybox mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t tmpfs -o mode=755 tmpfs /run
echo hypolith >/proc/sys/kernel/hostname
ip link set lo up
. /hypo/config
[ "$userland" = busybox ] && /hypo/busybox --install -s
for module in $modules; do insmod "/hypo/modules/$module"; done
if [ "$network" = user ]; then
  echo 1 >/proc/sys/net/ipv6/conf/eth0/disable_ipv6
  ip link set eth0 up
  ip addr add 10.0.2.15/24 broadcast 10.0.2.255 dev eth0
  ip route add default via 10.0.2.2
  [ -s /etc/resolv.conf ] || echo nameserver 10.0.2.3 >/etc/resolv.conf
fi

root=
[ -f /hypo/root-setup ] && . /hypo/root-setup
# Inside an image's root, where its links lead.
inside=
[ -n "$root" ] && inside="chroot $root"
[ -f /hypo/mounts ] && while read -r type options tag place; do
  said=$({ $inside mkdir -p "$place" && $inside mount -t "$type" -o "$options" "$tag" "$place"; } 2>&1) ||
    echo "hypo: the folder at $place cannot be mounted in the guest: $said" >>/hypo/mounts-failed
done </hypo/mounts
[ -x /hypo/agent ] && start-stop-daemon -S -b -x /hypo/agent -- $root

off() {
  echo off >/dev/ttyS3
  stty -F /dev/ttyS3 raw -echo
  sync
  "$1" -f
}
trap 'off poweroff' USR1 USR2
trap 'off reboot' TERM
start-stop-daemon -S -b -x /hypo/session
while :; do
  sleep 2000000 &
  wait
done
`;

export const SESSION_SCRIPT = `#!/hypo/busybox sh
. /hypo/config
run=/hypo/run
mkdir -p $run
stty -F /dev/ttyS3 raw -echo 115200
exec 3<>/dev/ttyS3

control() {
  while read -r verb a b <&3; do
    case $verb in
      size) stty -F "$console" rows "$a" cols "$b" ;;
      signal) [ -s $run/job ] && kill -s "$a" -- "-$(cat $run/job)" ;;
      poweroff) kill -s USR2 1 ;;
    esac
  done
}

pump() {
  while echo in >&3 && read -r length && [ "$length" -gt 0 ]; do
    dd bs="$length" count=1 iflag=fullblock status=none || break
  done
}

# What the job left running holds our pipes open; a container would end with its first process too.
end_strays() {
  for process in /proc/[0-9]*; do
    process=\${process#/proc/}
    case " 1 $$ $control $out $err " in
      *" $process "*) ;;
      *) kill -s KILL "$process" ;;
    esac
  done 2>/dev/null
}

control &
control=$!
if [ "$mode" = console ]; then
  stty -F "$console" sane rows "$rows" cols "$columns"
  setsid -c /hypo/launch <"$console" >"$console" 2>&1 3>&-
  code=$?
  # Setting a line waits until what was written to it has left.
  stty -F "$console" sane
else
  stty -F /dev/ttyS1 raw -echo 115200
  stty -F /dev/ttyS2 raw -echo 115200
  mkfifo $run/in $run/out $run/err
  cat <$run/out >/dev/ttyS1 3>&- &
  out=$!
  cat <$run/err >/dev/ttyS2 3>&- &
  err=$!
  input=/dev/null
  [ "$stdin" = file ] && input=/hypo/stdin
  if [ "$stdin" = stream ]; then
    input=$run/in
    pump <>/dev/ttyS1 >$run/in &
  fi
  setsid /hypo/launch <$input >$run/out 2>$run/err 3>&-
  code=$?
  end_strays
  wait $out $err
  stty -F /dev/ttyS1 raw -echo
  stty -F /dev/ttyS2 raw -echo
fi
echo "exit $code" >&3
stty -F /dev/ttyS3 raw -echo
sync
poweroff -f
`;

export const LAUNCH_SCRIPT = `#!/hypo/busybox sh
echo $$ >/hypo/run/job
echo ready >/dev/ttyS3
if [ -f /hypo/mounts-failed ]; then
  cat /hypo/mounts-failed >&2
  exit 125
fi
if [ -f /hypo/root-job ]; then
  [ -f /hypo/root-ready ] && exec env -i chroot /hypo/root sh /proc/self/fd/9 9</hypo/root-job
  echo "hypo: the image's root file system cannot be mounted in the guest" >&2
  exit 125
fi
. /hypo/job

refuse() {
  echo "hypo: $2: $3" >&2
  exit "$1"
}

# Of the guest's own files, as docker does it: a number need not be there.
resolve_user() {
  name=\${hypo_user%%:*}
  group=
  case $hypo_user in *:*) group=\${hypo_user#*:} ;; esac
  uid= gid=
  while IFS=: read -r a b c d e f g; do
    if [ "$a" = "$name" ] || [ "$c" = "$name" ]; then
      uid=$c gid=$d
      export HOME="\${f:-/}" USER="$a" LOGNAME="$a"
      break
    fi
  done </etc/passwd
  if [ -z "$uid" ]; then
    case $name in *[!0-9]*) refuse 126 "$name" "no such user in the guest" ;; esac
    uid=$name gid=0
    export HOME=/
  fi
  more=
  wanted=$group
  [ -z "$wanted" ] || gid=
  [ ! -r /etc/group ] || while IFS=: read -r a b c d; do
    if [ -n "$wanted" ]; then
      [ "$a" = "$wanted" ] || [ "$c" = "$wanted" ] && gid=$c
    else
      case ,$d, in *,"$USER",*) more=$more,$c ;; esac
    fi
  done </etc/group
  if [ -z "$gid" ]; then
    case $wanted in *[!0-9]*) refuse 126 "$wanted" "no such group in the guest" ;; esac
    gid=$wanted
  fi
  as="$uid:$gid$more"
}

as=
if [ -n "$hypo_user" ]; then
  [ -x /hypo/agent ] || refuse 126 "$hypo_user" "this machine cannot change the user"
  resolve_user
fi
if [ -n "$hypo_workdir" ]; then
  [ -d "$hypo_workdir" ] || mkdir -p "$hypo_workdir" 2>/dev/null
  cd "$hypo_workdir" || refuse 126 "$hypo_workdir" "cannot be the working folder"
else
  cd "$HOME" 2>/dev/null || cd /
fi
unset hypo_workdir hypo_user

begin() {
  [ -d "$1" ] && refuse 126 "$1" "is a directory"
  [ -x "$1" ] || refuse 126 "$1" "permission denied"
  [ -z "$as" ] || exec /hypo/agent "=$as" "$@"
  exec "$@"
}

case $1 in
  "") refuse 127 "''" "no such command in the guest" ;;
  */*)
    [ -e "$1" ] || refuse 127 "$1" "no such file in the guest"
    begin "$@"
    ;;
esac
name=$1
shift
IFS=:
for directory in $PATH; do
  [ -x "$directory/$name" ] && [ ! -d "$directory/$name" ] && begin "$directory/$name" "$@"
done
refuse 127 "$name" "no such command in the guest"
`;

/** Of the busybox userland. A name in front of a prompt tells a guest's window from one's own. */
export const PROFILE_SCRIPT = `export PS1='root@hypolith:\\w# '
alias ll='ls -l'
`;
