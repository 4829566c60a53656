/**
 * Debian's kernel and busybox with a network card whose other end is our user-mode network: under QEMU, where a real kernel judges the network
 * alone, and on our own machine.
 */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { compile } from "../../bench/build-programs.ts";
import type { NetworkConfig } from "../../src/control/protocol.ts";
import { parsePortForward } from "../../src/network/user/port-forward.ts";
import type { UserNetworkOptions } from "../../src/network/user/user-network.ts";
import { bootFiles } from "./boot.ts";
import { CHECKOUT } from "./cache.ts";
import { chosenEngine } from "./engine.ts";
import type { BootFiles } from "./guest-machine.ts";
import { GuestSession } from "./guest-session.ts";
import type { ModularKernel } from "./kernel-modules.ts";
import { QemuLink } from "./qemu-link.ts";
import { QemuMachine } from "./qemu-machine.ts";
import { WorkerMachine } from "./worker-machine.ts";

const BOOT_SECONDS = 180;

/** Modules of the cards that QEMU can have. */
export const CARD_MODULES = ["virtio_pci", "virtio_net", "e1000"];

/** For udhcpc: sets the card up, and prints what DHCP gave. */
export const DHCP_SCRIPT = `#!/bin/sh
[ "$1" = bound ] || [ "$1" = renew ] || exit 0
ip addr flush dev $interface
ip addr add $ip/$mask broadcast + dev $interface
[ -n "$mtu" ] && ip link set $interface mtu $mtu
ip route add default via $router dev $interface
mkdir -p /etc
for server in $dns; do echo nameserver $server; done >/etc/resolv.conf
echo "$ip/$mask $router $dns $mtu $lease $serverid"
`;

export abstract class NetworkGuest {
  abstract readonly session: GuestSession;
  /** Lines like "forwarding 127.0.0.1:32768:80/tcp". */
  protected abstract reports(): string;
  abstract end(): Promise<void>;

  /** Boots up to a shell with the card's driver loaded and the card up. */
  protected async prepare(kernel: ModularKernel): Promise<void> {
    try {
      await this.session.ready(BOOT_SECONDS);
      for (const { path } of kernel.modules) await this.session.run(`insmod /${path}`);
      await this.session.run("ip link set lo up; ip link set eth0 up");
    } catch (error) {
      await this.end();
      throw error;
    }
  }

  /** Output of a command. */
  async run(command: string, timeoutSeconds?: number): Promise<string> {
    return (await this.session.run(command, timeoutSeconds)).output.trim();
  }

  /** The port outside that leads to this one inside. */
  hostPort(guestPort: number): number {
    // A network that has started again has another one.
    const pattern = new RegExp(`forwarding [^ ]*:(\\d+):${guestPort}/`, "g");
    const found = [...this.reports().matchAll(pattern)].at(-1);
    if (found) return Number(found[1]);
    throw new Error(`port ${guestPort} is not forwarded`);
  }
}

/** Programs of the guest: udp-echo.c, and the script of its DHCP client. */
async function guestFiles(kernel: ModularKernel): Promise<BootFiles> {
  const source = join(CHECKOUT, "conformance/harness/udp-echo.c");
  const echo = await compile(source, ["-O2", "-static", "-march=x86-64"]);
  const program = { path: "lab/udp-echo", content: readFileSync(echo), executable: true };
  const script = { path: "lab/udhcpc.sh", content: DHCP_SCRIPT, executable: true };
  return bootFiles(kernel, { files: [...kernel.modules, script, program] });
}

export interface NetworkGuestOptions {
  /** As QEMU's -device names it. */
  readonly card: string;
  readonly mtu: number;
  /** Guest ports, TCP, or UDP with "/udp". */
  readonly ports: readonly string[];
}

export class QemuNetworkGuest extends NetworkGuest {
  readonly link: QemuLink;
  readonly session: GuestSession;
  readonly #options: NetworkGuestOptions;
  readonly #reports: string[] = [];

  private constructor(files: BootFiles, options: NetworkGuestOptions) {
    super();
    this.#options = options;
    this.link = new QemuLink(this.networkOptions());
    const devices = this.link.devices(options.card);
    this.session = new GuestSession(new QemuMachine(files, "max", devices));
  }

  networkOptions(): Omit<UserNetworkOptions, "clock" | "link" | "host"> {
    const { mtu, ports } = this.#options;
    return {
      mtu,
      forwards: ports.map((port) => parsePortForward(`:${port}`)),
      report: (_, text) => this.#reports.push(text),
    };
  }

  static async boot(
    kernel: ModularKernel,
    options: NetworkGuestOptions,
  ): Promise<QemuNetworkGuest> {
    const guest = new QemuNetworkGuest(await guestFiles(kernel), options);
    await guest.prepare(kernel);
    return guest;
  }

  protected reports(): string {
    return this.#reports.join("\n");
  }

  async end(): Promise<void> {
    this.session.machine.kill();
    await this.session.machine.stopped;
    this.link.close();
  }
}

export class OwnNetworkGuest extends NetworkGuest {
  readonly machine: WorkerMachine;
  readonly session: GuestSession;

  private constructor(files: BootFiles, config: NetworkConfig) {
    super();
    const changes = { network: config, engine: chosenEngine() };
    this.machine = new WorkerMachine(files, undefined, changes);
    this.session = new GuestSession(this.machine);
  }

  static async boot(kernel: ModularKernel, config: NetworkConfig): Promise<OwnNetworkGuest> {
    const guest = new OwnNetworkGuest(await guestFiles(kernel), config);
    await guest.prepare(kernel);
    return guest;
  }

  protected reports(): string {
    return this.session.machine.consoleText();
  }

  async end(): Promise<void> {
    this.session.machine.kill();
    await this.session.machine.stopped;
  }
}
