/**
 * A machine: the composition root that names the concrete parts and wires them. Configuration in, running VM out.
 *
 * Pure of embedder types: time, entropy, waiting and messages come in through MachinePorts. runUntilBlocked() does guest work until the machine is
 * idle, has ended, or the doorbell rings; the embedder decides how to wait.
 */
import { HypolithError } from "../base/errors.ts";
import { invariant } from "../base/invariant.ts";
import type { FromMachine, JitReport, MachineConfig, StopReason } from "../control/protocol.ts";
import { buildAcpiTables } from "../devices/platform/acpi-tables.ts";
import { MemoryMap } from "../devices/platform/platform-map.ts";
import { StateGroup } from "../hypervisor/abi/message.ts";
import { ExitLog, formatExit } from "../hypervisor/kernel/exit-log.ts";
import { Kernel } from "../hypervisor/kernel/kernel.ts";
import { LocalApic } from "../hypervisor/kernel/local-apic.ts";
import type { Portal } from "../hypervisor/kernel/portal.ts";
import { RouteTable } from "../hypervisor/kernel/routes.ts";
import type { ServiceDomain } from "../hypervisor/kernel/service-domain.ts";
import { createHypercalls, deliverInterrupt } from "../hypervisor/kernel/services.ts";
import { Vcpu } from "../hypervisor/kernel/vcpu.ts";
import type { Vm } from "../hypervisor/kernel/vm.ts";
import type { RegionTier } from "../processor/interpreter/code-cache.ts";
import { Interpreter, type RegionHost } from "../processor/interpreter/interpreter.ts";
import { type CpuidModel, PHYSICAL_BITS, parseCpuModel } from "../processor/isa/cpuid.ts";
import type { CompilerSetup } from "../processor/jit/compile-batch.ts";
import { Jit, type JitStats, type RegionBackend } from "../processor/jit/jit.ts";
import { OwnThread } from "../processor/jit/own-thread.ts";
import { EptEntry, EptTables } from "../processor/memory/ept.ts";
import { HYPERVISOR_BASE, HYPERVISOR_BYTES, RAM_BASE, S } from "../processor/state/layout.ts";
import { Processor } from "../processor/vmx/processor.ts";
import { Vmcs } from "../processor/vmx/vmcs.ts";
import { createMonitor } from "../services/monitor/monitor.ts";
import { loadKernel } from "./boot/load-kernel.ts";
import { e820Map } from "./boot/memory-map.ts";
import type { Decompressors } from "./boot/payload.ts";
import { DeterministicClock, type MachineClock, WallClock } from "./clocks.ts";
import { configureVmcs } from "./guest-state.ts";
import { Profile } from "./profile.ts";
import { hashState } from "./state-hash.ts";

export interface MachinePorts {
  /** Monotonic clock in milliseconds. */
  nowMs(): number;
  /** 64 random bits. */
  entropy(): bigint;
  /** True while something from outside waits to be taken. */
  doorbell(): boolean;
  send(message: FromMachine): void;
  readonly decompressors?: Decompressors;
  /** Compiles regions beside the guest; without it that is done between its instructions. */
  readonly compiler?: (setup: CompilerSetup) => RegionBackend;
}

/** Why runUntilBlocked returned: the doorbell rang, nothing to do for `waitMs`, or the end. */
export type RunState =
  | { kind: "doorbell" }
  | { kind: "idle"; waitMs: number }
  | { kind: "ended"; reason: StopReason };

const WASM_PAGE = 0x1_0000;
const MIN_MEMORY = 16 << 20;
const LOW_RAM_END = 0xa_0000;
const UPPER_LOW_RAM = 0xc_0000;
const FOUR_GIB = 0x1_0000_0000;
const TRACE_LINES = 256;
const IO_EVENT = StateGroup.EXIT | StateGroup.RIP | StateGroup.LOW_REGISTERS;

export class Machine {
  readonly processor: Processor;
  readonly vm: Vm;
  readonly #engine: Interpreter;
  readonly #kernel: Kernel;
  readonly #clock: MachineClock;
  readonly #ports: MachinePorts;
  readonly #monitor: ServiceDomain;
  #jit: Jit | null = null;
  readonly #input: Uint8Array[][] = [[], [], [], []];
  #trace: string[] = [];
  readonly #profile: Profile | null;
  readonly #reportsJit: boolean;

  constructor(config: MachineConfig, ports: MachinePorts) {
    this.#ports = ports;
    const memoryBytes = checkMemory(config.memoryBytes);
    const cpuid = parseCpuModel(config.cpuModel);
    const isDeterministic = config.clock === "deterministic";
    this.#clock = isDeterministic ? new DeterministicClock() : new WallClock(() => ports.nowMs());
    this.processor = new Processor({
      clock: this.#clock,
      entropy: isDeterministic ? pseudoRandom() : () => ports.entropy(),
      doorbell: () => ports.doorbell(),
    });
    this.#engine = createEngine(
      memoryBytes,
      cpuid,
      this.processor,
      this.#regionTier(config.engine),
    );
    this.processor.attach(this.#engine);
    this.vm = this.#createVm(memoryBytes, cpuid);
    const vmcs = new Vmcs();
    this.processor.load(vmcs);
    const apic = new LocalApic(
      0,
      {
        eoi: (vector) => this.#monitor.program?.onEndOfInterrupt(vector),
        ipi: (command) => this.#ipi(command),
      },
      true,
    );
    this.vm.vcpus.push(new Vcpu(0, vmcs, apic));
    this.#monitor = this.#startMonitor(config.rtcEpochMs);
    this.#kernel = new Kernel(this.processor, this.vm);
    this.#load(config, vmcs, cpuid, memoryBytes);
    if (config.traceExits) this.vm.log.trace((line) => this.#traceLine(line));
    this.#reportsJit = config.reportJit === true;
    this.#profile = config.profile ? new Profile(config.profile) : null;
    this.processor.sampler = this.#profile;
  }

  #regionTier(engine: MachineConfig["engine"]): ((host: RegionHost) => RegionTier) | undefined {
    if (engine !== "jit" && engine !== "auto") return undefined;
    return (host) => {
      this.#jit = new Jit(host, {
        backend: (engine === "auto" && this.#ports.compiler) || ((setup) => new OwnThread(setup)),
        threshold: engine === "jit" ? 0 : AUTO_THRESHOLD,
        nowMs: () => this.#ports.nowMs(),
      });
      return this.#jit;
    };
  }

  /** The embedder is about to wait for long: helpers that cost memory may go. Answers whether some did. */
  rest(): boolean {
    return this.#jit?.rest() ?? false;
  }

  /** What the region tier has done so far; undefined without one. */
  get jitStats(): JitStats | undefined {
    return this.#jit?.stats;
  }

  #createVm(memoryBytes: number, cpuid: CpuidModel): Vm {
    const ept = new EptTables(
      this.#engine.view,
      HYPERVISOR_BASE + BITMAP_BYTES,
      HYPERVISOR_BASE + HYPERVISOR_BYTES,
    );
    const rights = EptEntry.READ | EptEntry.WRITE | EptEntry.EXECUTE;
    ept.markDevice(0, FOUR_GIB);
    ept.map(0, RAM_BASE, memoryBytes, rights);
    // The VGA hole: RAM is behind it, but nothing decodes there.
    ept.markDevice(LOW_RAM_END, UPPER_LOW_RAM - LOW_RAM_END);
    return {
      ept,
      routes: new RouteTable(),
      services: [],
      vcpus: [],
      cpuid,
      log: new ExitLog(),
      extint: false,
      extintService: null,
      end: null,
    };
  }

  #startMonitor(rtcEpochMs: number): ServiceDomain {
    const domain: ServiceDomain = {
      name: "monitor",
      capabilities: { interrupts: true, streams: [0, 1, 2, 3], power: true },
      program: null,
      hypercalls: null,
      deadline: Infinity,
      messages: 0,
    };
    const { vm } = this;
    domain.hypercalls = createHypercalls(vm, domain, {
      now: () => this.#clock.tsc(this.processor.retired),
      put: (stream, data) =>
        this.#ports.send({ type: "output", port: stream as 0 | 1 | 2 | 3, data }),
      log: (text) => this.#ports.send({ type: "log", level: "info", text }),
    });
    vm.services.push(domain);
    domain.program = createMonitor({ rtcEpochMs })(domain.hypercalls);
    const io: Portal = {
      name: "io",
      service: domain,
      stateIn: IO_EVENT,
      stateOut: StateGroup.RIP | StateGroup.LOW_REGISTERS,
    };
    const memory: Portal = {
      name: "memory",
      service: domain,
      stateIn: StateGroup.EXIT | StateGroup.DEVICE,
      stateOut: StateGroup.DEVICE,
    };
    vm.routes.routePorts(0, 0xffff, io);
    // Everything that is not RAM: what no device decodes floats high.
    vm.routes.routeMemory(0, 2 ** PHYSICAL_BITS - 1, memory);
    return domain;
  }

  #ipi(command: { shorthand: number } & Parameters<typeof deliverInterrupt>[1]): void {
    const SELF = 1;
    const ALL = 2;
    if (command.shorthand === 0) deliverInterrupt(this.vm, command);
    else if (command.shorthand === SELF || command.shorthand === ALL)
      this.vm.vcpus[0]!.apic.deliver(command.deliveryMode, command.vector, 0);
  }

  #load(config: MachineConfig, vmcs: Vmcs, cpuid: CpuidModel, memoryBytes: number): void {
    const ram = {
      size: memoryBytes,
      write: (gpa: number, bytes: Uint8Array): void => {
        invariant(gpa >= 0 && gpa + bytes.length <= memoryBytes, "boot write inside RAM");
        new Uint8Array(this.#engine.view.buffer, RAM_BASE + gpa, bytes.length).set(bytes);
      },
    };
    const acpi = buildAcpiTables({ cpuCount: 1 });
    const boot = loadKernel({
      ram,
      kernel: config.kernel,
      initrd: config.initrd,
      cmdline: config.cmdline,
      memoryBytes,
      rsdpAddress: acpi.base,
      e820: e820Map(memoryBytes),
      decompressors: this.#ports.decompressors,
    });
    ram.write(acpi.base, acpi.image);
    for (const text of boot.notes) this.#ports.send({ type: "log", level: "info", text });
    configureVmcs(vmcs, this.#engine.view, boot, cpuid, this.vm.ept.eptp);
  }

  #traceLine(line: string): void {
    this.#trace.push(line);
    if (this.#trace.length >= TRACE_LINES) this.#flushTrace();
  }

  #flushTrace(): void {
    if (this.#trace.length === 0) return;
    this.#ports.send({ type: "trace", data: `${this.#trace.join("\n")}\n` });
    this.#trace = [];
  }

  /** Bytes for a serial port's receiver. */
  input(port: number, bytes: Uint8Array): void {
    this.#input[port]?.push(bytes);
    this.#offerInput();
  }

  powerButton(): void {
    this.#monitor.program?.onSignal("powerButton");
  }

  stop(): void {
    this.vm.end ??= { kind: "killed", message: "stopped from outside" };
  }

  #offerInput(): void {
    this.#input.forEach((queue, port) => {
      while (queue.length > 0) {
        const head = queue[0]!;
        const taken = this.#monitor.program?.onInput(port, head) ?? head.length;
        if (taken < head.length) {
          queue[0] = head.subarray(taken);
          return;
        }
        queue.shift();
      }
    });
  }

  #hasInput(): boolean {
    return this.#input.some((queue) => queue.length > 0);
  }

  /** Runs the guest until it is idle, it has ended, or the doorbell rings. */
  runUntilBlocked(): RunState {
    const vcpu = this.vm.vcpus[0]!;
    for (;;) {
      if (this.#ports.doorbell()) return { kind: "doorbell" };
      if (this.#hasInput()) this.#offerInput();
      const result = this.#kernel.step(vcpu);
      if (result.kind === "ran") continue;
      this.#flushTrace();
      if (result.kind === "ended") {
        this.#sendReports();
        return { kind: "ended", reason: this.#stopReason() };
      }
      const wait = this.#clock.idle(result.until, this.processor.retired);
      if (wait > 0) return { kind: "idle", waitMs: wait / 1e6 };
    }
  }

  #sendReports(): void {
    const { retired } = this.processor;
    if (this.#reportsJit) {
      this.#ports.send({ type: "jitStats", report: this.#jitReport(), retired });
    }
    if (this.#profile) this.#ports.send({ type: "profile", data: this.#profile.toJson() });
  }

  #jitReport(): JitReport | null {
    if (!this.#jit) return null;
    const { regions, instructions, modules, refused, dropped, stale, flushes, ownMs } =
      this.#jit.stats;
    const counter = ({ at }: { at: number }): number =>
      Number(this.#engine.view.getBigUint64(at, true));
    return {
      ...{ regions, instructions, modules, refused, dropped, stale, flushes, ownMs },
      entries: counter(S.REGION_ENTRIES),
      links: counter(S.REGION_LINKS),
      bails: counter(S.REGION_BAILS),
      retired: counter(S.REGION_INSTRUCTIONS),
    };
  }

  #stopReason(): StopReason {
    const end = this.vm.end;
    invariant(end, "an ended VM has a reason");
    const isFailure = end.kind === "triple-fault" || end.kind === "error";
    return {
      kind: end.kind,
      message: end.message,
      ...(isFailure ? { dump: this.#kernel.describe(this.vm.vcpus[0]!) } : {}),
    };
  }

  /** SHA-256-free digest of registers and RAM, for comparing runs. */
  stateHash(): string {
    return hashState(this.#engine.view, RAM_BASE);
  }

  describe(): string {
    return this.#kernel.describe(this.vm.vcpus[0]!);
  }

  get engine(): Interpreter {
    return this.#engine;
  }

  lastExits(): string[] {
    return this.vm.log.last(32).map(formatExit);
  }
}

const BITMAP_BYTES = 0x1_0000;

function checkMemory(bytes: number): number {
  if (bytes < MIN_MEMORY || bytes > MemoryMap.RAM_LIMIT) {
    throw new HypolithError(
      "memory-size",
      `${bytes} bytes of memory are not between 16 MiB and 3 GiB`,
      { hint: "choose --memory in that range" },
    );
  }
  return bytes - (bytes % WASM_PAGE);
}

/** Instructions executed from a block's entry after which "auto" compiles it. */
const AUTO_THRESHOLD = 1_000_000;

function createEngine(
  ramBytes: number,
  cpuid: CpuidModel,
  processor: Processor,
  regions?: (host: RegionHost) => RegionTier,
): Interpreter {
  try {
    return new Interpreter({
      ramBytes,
      features: cpuid.features,
      services: processor,
      ...(regions ? { regions } : {}),
    });
  } catch (cause) {
    if (cause instanceof RangeError) {
      throw new HypolithError(
        "memory-unavailable",
        `${ramBytes >> 20} MiB of guest memory cannot be had`,
        {
          cause,
          hint: "choose less with --memory, or raise the limit of virtual memory (ulimit -v)",
        },
      );
    }
    throw cause;
  }
}

/** xorshift64*: the entropy of a deterministic machine. */
function pseudoRandom(): () => bigint {
  let x = 0x9e37_79b9_7f4a_7c15n;
  return () => {
    x ^= x >> 12n;
    x = BigInt.asUintN(64, x ^ (x << 25n));
    x ^= x >> 27n;
    return BigInt.asUintN(64, x * 0x2545_f491_4f6c_dd1dn);
  };
}
