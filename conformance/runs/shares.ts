/**
 * Folders of this computer in a guest, by virtio-fs and by 9P with Debian's own drivers: a table of what a file system does, compared line by line
 * with the same program's run on this side; then real work (git, tar, a compiler: this computer's, through a read-only share of its root) while
 * the services behind the folders are killed, and its results compared from this side; then what either side changes as the other sees it.
 */
import { execFileSync } from "node:child_process";
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { DrillName, ShareProtocol } from "../../src/control/protocol.ts";
import { bootFiles } from "../harness/boot.ts";
import { CHECKOUT } from "../harness/cache.ts";
import { GuestSession } from "../harness/guest-session.ts";
import { modularKernel } from "../harness/kernel-modules.ts";
import type { Report } from "../harness/report.ts";
import { WorkerMachine } from "../harness/worker-machine.ts";

const BOOT_SECONDS = 300;
const WORK_SECONDS = 900;
const DRILLS: readonly DrillName[] = ["kill", "lose-reply", "restart"];
const MANY_RESTARTS = 1_000_000;

interface Kind {
  readonly protocol: ShareProtocol;
  readonly flavor: string;
  readonly modules: readonly string[];
  readonly mount: (tag: string, options: string) => string;
  /** Lines of the table that the guest's driver decides alone, by their calls. */
  readonly own: RegExp;
}

const KINDS: readonly Kind[] = [
  {
    protocol: "fs",
    flavor: "cloud",
    modules: ["virtio_pci", "virtiofs"],
    mount: (tag, options) => `mount -t virtiofs -o ${options} ${tag}`,
    own: /^$/,
  },
  {
    protocol: "9p",
    flavor: "generic",
    modules: ["virtio_pci", "9pnet_virtio", "9p"],
    mount: (tag, options) =>
      `mount -t 9p -o ${options},trans=virtio,version=9p2000.L,msize=262144,cache=mmap ${tag}`,
    // Renames by names alone and what follows from that, times in seconds since 1970, flock by record locks.
    own: /renameat2|shape dd\/in|rename\("(?:m|dd)"|^times|before 1970|flock\(other/,
  },
];

export async function shares(report: Report): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "hypolith-shares-"));
  try {
    const program = join(folder, "share-cases");
    const source = join(CHECKOUT, "conformance/harness/share-cases.c");
    execFileSync("gcc", ["-static", "-O1", "-w", "-o", program, source]);
    const only = process.env.HYPO_SHARE_PROTOCOL;
    for (const kind of KINDS.filter(({ protocol }) => !only || protocol === only))
      await oneKind(report, folder, program, kind);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

class ShareGuest {
  readonly machine: WorkerMachine;
  readonly #session: GuestSession;

  constructor(machine: WorkerMachine) {
    this.machine = machine;
    this.#session = new GuestSession(machine);
  }

  static async boot({ protocol, flavor, modules, mount }: Kind, work: string): Promise<ShareGuest> {
    const kernel = await modularKernel(flavor, modules);
    const files = bootFiles(kernel, { files: kernel.modules });
    const machine = new WorkerMachine(files, undefined, {
      shares: [
        { path: work, tag: "work", protocol, readOnly: false },
        { path: "/", tag: "root", protocol, readOnly: true },
      ],
      servicePolicy: { maxRestarts: MANY_RESTARTS },
    });
    const guest = new ShareGuest(machine);
    await guest.#session.ready(BOOT_SECONDS);
    for (const { path } of kernel.modules) await guest.output(`insmod /${path}`);
    await guest.output(
      `mkdir -p /w /r && ${mount("root", "ro")} /r && ${mount("work", "rw")} /w && mount -o bind /w /r/mnt && mount -t devtmpfs dev /r/dev && mount -t tmpfs tmp /r/tmp && mount -t proc proc /r/proc`,
    );
    return guest;
  }

  async output(command: string, seconds = 120): Promise<string> {
    const { output, status } = await this.#session.run(command, seconds);
    return status === 0 ? output.trim() : `status ${status}: ${output.trim()}`;
  }

  /** With the programs of this computer, and the shared folder at /mnt. */
  inRoot(script: string, seconds = WORK_SECONDS): Promise<string> {
    writeFileSync(
      join(this.work, "script"),
      `export HOME=/tmp PATH=/usr/bin:/bin\nset -e\n${script}\n`,
    );
    return this.output("chroot /r /bin/sh /mnt/script 2>&1", seconds);
  }

  work = "";
}

async function oneKind(report: Report, base: string, program: string, kind: Kind): Promise<void> {
  const work = join(base, kind.protocol);
  mkdirSync(join(work, "cases"), { recursive: true });
  mkdirSync(join(base, `native-${kind.protocol}`));
  copyFileSync(program, join(work, "share-cases"));
  const guest = await ShareGuest.boot(kind, work);
  guest.work = work;
  try {
    const before = await guest.output("dmesg | wc -l");
    await table(report, guest, { kind, program, native: join(base, `native-${kind.protocol}`) });
    await bothSides(report, guest, kind);
    await underDrills(report, guest, kind);
    const said = await guest.output(`dmesg | tail -n +$((${before} + 1))`);
    report.equal(said, "", `${kind.protocol}: the guest's kernel had nothing to say`);
  } finally {
    guest.machine.kill();
  }
}

async function table(
  report: Report,
  guest: ShareGuest,
  { kind, program, native }: { kind: Kind; program: string; native: string },
): Promise<void> {
  const here = execFileSync(program, [native], { encoding: "utf8" }).trim().split("\n");
  await guest.output("/w/share-cases /w/cases >/w/table 2>&1", WORK_SECONDS);
  const there = readFileSync(join(guest.work, "table"), "utf8").trim().split("\n");
  report.fact(`${kind.protocol}: ${here.length} lines`);
  const different = here.flatMap((line, i) => (line === there[i] ? [] : [`${line} | ${there[i]}`]));
  const ours = different.filter((line) => !kind.own.test(line.replace(/^\d+ /, "")));
  report.check(
    here.length === there.length && ours.length === 0,
    `${kind.protocol}: files behave as on this side ${ours.slice(0, 5).join("; ")}`,
  );
  report.fact(`${kind.protocol}: ${different.length - ours.length} lines are its driver's own`);
}

/** What each side does, seen by the other. */
async function bothSides(report: Report, guest: ShareGuest, { protocol }: Kind): Promise<void> {
  const file = join(guest.work, "seen");
  writeFileSync(file, "one\n");
  report.equal(await guest.output("cat /w/seen"), "one", `${protocol}: a new file is seen`);
  writeFileSync(file, "two and more\n");
  await sleep(1500);
  report.equal(await guest.output("cat /w/seen"), "two and more", `${protocol}: a change is seen`);
  await guest.output("echo three >/w/seen; chmod 600 /w/seen; sync /w/seen");
  const { mode } = statSync(file);
  report.equal(
    `${readFileSync(file, "utf8").trim()} ${(mode & 0o777).toString(8)}`,
    "three 600",
    `${protocol}: the guest's change is seen`,
  );
  rmSync(file);
  await sleep(1500);
  report.check(
    (await guest.output("cat /w/seen 2>&1")).includes("No such file"),
    `${protocol}: what is removed is gone`,
  );
  const refused = await guest.output("echo x >/r/etc/hypolith-share 2>&1; true");
  report.check(/Read-only file system/.test(refused), `${protocol}: read-only is read-only`);
}

/** Work of programs that people have, while the services die. */
async function underDrills(report: Report, guest: ShareGuest, { protocol }: Kind): Promise<void> {
  const { work } = guest;
  // One pack: a guest need not copy each object of this checkout's history.
  const clone = ["clone", "-q", "--bare", "--depth", "1"];
  execFileSync("git", [...clone, `file://${CHECKOUT}`, join(work, "repo.git")]);
  writeFileSync(
    join(work, "hello.c"),
    '#include <stdio.h>\nint main(void) { puts("compiled in the guest"); return 0; }\n',
  );
  let isDone = false;
  let rounds = 0;
  const drills = (async () => {
    for (; !isDone; rounds++) {
      for (const service of ["share0", "share1"])
        await guest.machine.client.drill(service, DRILLS[rounds % DRILLS.length]!);
      await sleep(100);
    }
  })();
  try {
    const git = await guest.inRoot(
      "cd /mnt; git config --global safe.directory '*'; git clone -q repo.git tree; cd tree; git status --porcelain | wc -l; git fsck 2>&1 | grep -vc dangling || true; git rev-parse HEAD",
    );
    const head = execFileSync("git", ["rev-parse", "HEAD"], { cwd: CHECKOUT, encoding: "utf8" });
    report.equal(git, `0\n0\n${head.trim()}`, `${protocol}: git clone, status, fsck`);
    const seen = execFileSync("git", ["-c", "safe.directory=*", "status", "--porcelain"], {
      cwd: join(work, "tree"),
      encoding: "utf8",
    });
    report.equal(seen, "", `${protocol}: git on this side finds the clone in order`);
    const tar = await guest.inRoot(
      "cd /mnt; tar cf tree.tar tree; mkdir out; tar xf tree.tar -C out; tar df tree.tar -C out && diff -r tree out/tree && find tree -type f | wc -l",
    );
    const count = execFileSync("sh", ["-c", "find tree -type f | wc -l"], {
      cwd: work,
      encoding: "utf8",
    });
    report.equal(tar, count.trim(), `${protocol}: tar there and back, compared`);
    execFileSync("diff", ["-r", join(work, "tree"), join(work, "out/tree")]);
    const dd = await guest.inRoot(
      "cd /mnt; dd if=/dev/urandom of=big bs=64k count=320 conv=fsync 2>/dev/null; sha256sum <big",
    );
    const sum = execFileSync("sh", ["-c", "sha256sum <big"], { cwd: work, encoding: "utf8" });
    report.equal(
      dd,
      sum.trim(),
      `${protocol}: 20 MiB written, made safe, and the same on this side`,
    );
    const cc = await guest.inRoot("cd /mnt; gcc -o hello hello.c && ./hello");
    report.equal(cc, "compiled in the guest", `${protocol}: a compiler, and what it made`);
  } finally {
    isDone = true;
    await drills;
  }
  const services = (await guest.machine.client.services())?.services ?? [];
  const restarts = services.reduce((sum, service) => sum + service.restarts, 0);
  report.fact(`${protocol}: ${rounds} rounds of drills, ${restarts} restarts`);
  report.check(restarts >= 10, `${protocol}: the services were restarted meanwhile`);
}
