/**
 * The initramfs of conformance runs and benchmarks: an init that runs commands and tells their results.
 *
 * With a list of commands it runs them, their output on the console, and powers off. Without, it serves the second serial port
 * (guest-session.ts): for each line "TOKEN COMMAND" it answers "@begin TOKEN", the command's output, "@end TOKEN STATUS".
 * Our busybox works beside whatever userland there is; /bin/sh runs the commands.
 */
import { CpioArchive, joinArchives } from "../../apps/cli/image/cpio.ts";

export interface AgentFile {
  /** Without the leading slash. */
  readonly path: string;
  readonly content: Uint8Array | string;
  readonly executable?: boolean;
}

export interface AgentOptions {
  readonly busybox: Uint8Array;
  readonly files?: readonly AgentFile[];
  /** Run these instead of serving the serial port. */
  readonly commands?: readonly string[];
  /** Another userland than busybox: an uncompressed cpio archive. */
  readonly userland?: Uint8Array;
}

export const AGENT_INIT = "rdinit=/lab/init";

const INIT_SCRIPT = `#!/lab/busybox sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
/lab/busybox mkdir -p /proc /sys /dev /run /tmp /root /bin /sbin /usr/bin /usr/sbin
/lab/busybox mount -t proc proc /proc
/lab/busybox mount -t sysfs sysfs /sys
/lab/busybox mount -t devtmpfs devtmpfs /dev
/lab/busybox mkdir -p /dev/shm /dev/pts
/lab/busybox mount -t devpts devpts /dev/pts
/lab/busybox mount -t tmpfs tmpfs /dev/shm
[ -e /bin/sh ] || /lab/busybox --install -s
cd /root
if [ -e /lab/commands ]; then
  /bin/sh /lab/commands </dev/null >/dev/console 2>&1
else
  /lab/busybox stty -F /dev/ttyS1 raw -echo
  exec </dev/ttyS1 >/dev/ttyS1 2>&1
  echo @ready
  while read -r token command && [ "$token" != @off ]; do
    echo "@begin $token"
    /bin/sh -c "$command" </dev/null
    echo "@end $token $?"
  done
fi
/lab/busybox poweroff -f
`;

export function agentInitramfs(options: AgentOptions): Uint8Array {
  const archive = new CpioArchive().directory("lab");
  if (!options.userland) {
    for (const path of ["dev", "proc", "sys", "tmp", "root", "bin"]) archive.directory(path);
    archive.characterDevice("dev/console", 5, 1, 0o600);
  }
  archive.file("lab/busybox", options.busybox, 0o755).file("lab/init", INIT_SCRIPT, 0o755);
  if (options.commands) archive.file("lab/commands", `${options.commands.join("\n")}\n`);
  for (const { path, content, executable } of options.files ?? [])
    archive.file(path, content, executable ? 0o755 : 0o644);
  const own = archive.toBytes();
  return options.userland ? joinArchives(own, options.userland) : own;
}
