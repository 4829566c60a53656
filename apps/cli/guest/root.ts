/**
 * The root file system of an image in the guest: how it is mounted beside our own, and how the image's process is started in it.
 *
 *   /hypo/image      the image, read-only: a disk with EROFS
 *   /hypo/changes    what the guest writes: a tmpfs
 *   /hypo/root       both as one, with /proc, /sys and /dev: the root of the image's processes. Without a disk the image's files themselves,
 *                    unpacked with the initramfs
 *
 * Our session stays outside. The process is started by busybox inside the new root without a file of its own there: busybox starts its
 * applets by /proc/self/exe, which is open wherever the root is. The script comes through a descriptor for the same reason.
 */
import type { ImageProcess } from "../oci/process.ts";
import { quote } from "./job.ts";
import { GUEST_HOME } from "./scripts.ts";

/** Where images' files lie in an initramfs that brings them. */
export const ROOT_FOLDER = `${GUEST_HOME}/root`;

export interface GuestRoot {
  /** "/dev/vda"; undefined: the files are in the initramfs. */
  readonly device: string | undefined;
  /** Undefined: the job runs outside, beside it. */
  readonly process: ImageProcess | undefined;
}

/** Read by init. */
export function rootSetup({ device }: GuestRoot): string {
  return `root=/${ROOT_FOLDER}
mkdir -p $root
${device === undefined ? "mounted=yes" : mountDisk(device)}
for folder in proc sys dev; do
  [ -d "$root/$folder" ] && [ ! -L "$root/$folder" ] || { rm -f "$root/$folder"; mkdir -p "$root/$folder"; }
done
for name in fd:fd stdin:fd/0 stdout:fd/1 stderr:fd/2; do
  [ -e "/dev/\${name%%:*}" ] || ln -s "/proc/self/\${name#*:}" "/dev/\${name%%:*}"
done
[ "$mounted" = yes ] && mount -t proc proc $root/proc && touch /hypo/root-ready
mount -t sysfs sysfs $root/sys
mount -o rbind /dev $root/dev
[ -L $root/etc ] || {
  mkdir -p $root/etc
  for name in hosts hostname resolv.conf; do
    [ -e /etc/$name ] || continue
    rm -rf $root/etc/$name
    cp /etc/$name $root/etc/$name
  done
}
`;
}

function mountDisk(device: string): string {
  return `mkdir -p /hypo/image /hypo/changes
mount -t erofs -o ro ${device} /hypo/image &&
  mount -t tmpfs -o mode=755 tmpfs /hypo/changes &&
  mkdir /hypo/changes/upper /hypo/changes/work &&
  mount -t overlay -o lowerdir=/hypo/image,upperdir=/hypo/changes/upper,workdir=/hypo/changes/work overlay $root &&
  mounted=yes`;
}

/** Run by busybox's sh inside the new root; becomes the process. */
export function rootJob({ argv, environment, user, workdir }: ImageProcess): string {
  const [name = "", ...rest] = argv;
  const path = environment.find(([variable]) => variable === "PATH")?.[1] ?? "";
  const variables = environment.map(([variable, value]) =>
    quote(`${variable}=${value}`, `the environment variable ${variable}`),
  );
  const words = rest.map((word) => quote(word, "the command"));
  const start = ["-i", ...variables, '"$1"', ...words].join(" ");
  const { uid, gid, groupsOf } = user;
  // Only start-stop-daemon looks up supplementary groups. It wants a file of process ids; one that is not there matches nobody.
  const become =
    groupsOf === undefined
      ? `nsenter -S ${uid} -G ${gid} -- env ${start}`
      : `start-stop-daemon -S -q -p /proc/self/no-such-file -c ${quote(`${groupsOf}:${gid}`, "the user")} -x /proc/self/exe -a env -- ${start}`;
  return `exec 9<&-
set -f
refuse() {
  echo "hypo: $2: $3" >&2
  exit "$1"
}
begin() {
  [ -d "$1" ] && refuse 126 "$1" "is a directory"
  [ -x "$1" ] || refuse 126 "$1" "permission denied"
  exec ${become}
}
workdir=${quote(workdir, "the working folder")}
[ -d "$workdir" ] || mkdir -p "$workdir" 2>&-
cd "$workdir" || refuse 126 "$workdir" "cannot be the working folder"
${uid === 0 ? "" : ownStreams(uid)}name=${quote(name, "the command")}
case $name in
  "") refuse 127 "''" "no such command in the image" ;;
  */*)
    [ -e "$name" ] || refuse 127 "$name" "no such file in the image"
    begin "$name"
    ;;
esac
path=${quote(path, "PATH")}
IFS=:
for folder in $path; do
  [ -x "\${folder:-.}/$name" ] && [ ! -d "\${folder:-.}/$name" ] && begin "\${folder:-.}/$name"
done
refuse 127 "$name" "no such command in the image"
`;
}

/** A program may open its streams by name: /dev/stdout. */
function ownStreams(uid: number): string {
  return `for stream in 0 1 2; do
  if [ -p /proc/self/fd/$stream ] || [ -t $stream ]; then chown ${uid} /proc/self/fd/$stream; fi
done
`;
}
