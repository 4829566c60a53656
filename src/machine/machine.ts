/**
 * A machine: the composition root that names the concrete parts and wires them. Configuration in, running VM out.
 *
 * Pure of embedder types: time, entropy, waiting and messages come in through MachinePorts. runUntilBlocked() does guest work until the machine is
 * idle, has ended, or the doorbell rings; the embedder decides how to wait.
 */
import { HypolithError } from "../base/errors.ts";
import { invariant } from "../base/invariant.ts";
import type {
  DrillName,
  FromMachine,
  JitReport,
  MachineConfig,
  SerialPort,
  StopReason,
  ToMachine,
} from "../control/protocol.ts";
import { buildAcpiTables } from "../devices/platform/acpi-tables.ts";
import { MemoryMap } from "../devices/platform/platform-map.ts";
import { SignalNumber } from "../hypervisor/abi/message.ts";
import { deliverInterrupt } from "../hypervisor/kernel/apic-message.ts";
import type { EffectPorts } from "../hypervisor/kernel/effects.ts";
import { ExitLog, formatExit } from "../hypervisor/kernel/exit-log.ts";
import { InterruptControllers } from "../hypervisor/kernel/interrupt-controllers.ts";
import { Kernel } from "../hypervisor/kernel/kernel.ts";
import { Ledger } from "../hypervisor/kernel/ledger.ts";
import { LocalApic } from "../hypervisor/kernel/local-apic.ts";
import { readMsr, writeMsr } from "../hypervisor/kernel/msr.ts";
import { RouteTable } from "../hypervisor/kernel/routes.ts";
import type { ServiceDomain } from "../hypervisor/kernel/service-domain.ts";
import { Vcpu } from "../hypervisor/kernel/vcpu.ts";
import type { Vm } from "../hypervisor/kernel/vm.ts";
import type { RegionTier } from "../processor/interpreter/code-cache.ts";
import type { ArtifactStore } from "../processor/interpreter/core-cache.ts";
import { Interpreter, type RegionHost } from "../processor/interpreter/interpreter.ts";
import { type CpuidModel, parseCpuModel } from "../processor/isa/cpuid.ts";
import type { CompilerSetup } from "../processor/jit/compile-batch.ts";
import { Jit, type JitStats, type RegionBackend } from "../processor/jit/jit.ts";
import { OwnThread } from "../processor/jit/own-thread.ts";
import { EptEntry, EptTables } from "../processor/memory/ept.ts";
import { HYPERVISOR_BASE, HYPERVISOR_BYTES, RAM_BASE, S } from "../processor/state/layout.ts";
import type { GuestVmxState } from "../processor/vmx/guest/guest-vmx.ts";
import { Processor } from "../processor/vmx/processor.ts";
import { Vmcs } from "../processor/vmx/vmcs.ts";
import type { BlockPort } from "../storage/block-port.ts";
import { BalloonStream } from "./balloon-stream.ts";
import { loadKernel } from "./boot/load-kernel.ts";
import { e820Map } from "./boot/memory-map.ts";
import type { Decompressors } from "./boot/payload.ts";
import { DeterministicClock, type MachineClock, WallClock } from "./clocks.ts";
import { adoptVmcs, configureVmcs } from "./guest-state.ts";
import { offerVmx } from "./offer-vmx.ts";
import { Profile } from "./profile.ts";
import { canBeInterrupted, reportServices } from "./service-report.ts";
import { servicesOf } from "./service-table.ts";
import { createServices, type ServiceHost } from "./services.ts";
import { type Checksum, crc32 } from "./snapshot/crc32.ts";
import {
  checkMachine,
  loadBlock,
  loadTranslations,
  type MachineDescription,
  type MachineState,
  readDescription,
  readState,
  writeSnapshot,
} from "./snapshot/machine-snapshot.ts";
import type { SnapshotFile } from "./snapshot/snapshot-file.ts";
import { StoredMemory } from "./snapshot/stored-memory.ts";
import { SocketBridge } from "./socket-bridge.ts";
import { hashState } from "./state-hash.ts";
import type { StreamServer } from "./stream-server.ts";
import { Tracer } from "./trace/tracer.ts";
import {
  createVirtioDevices,
  GUEST_CID,
  type MachineDisk,
  type MachineNetwork,
  type MachineShare,
} from "./virtio-devices.ts";

export interface MachinePorts {
  /** Monotonic clock in milliseconds. */
  nowMs(): number;
  /** 64 random bits. */
  entropy(): bigint;
  /** True while something from outside waits to be taken. */
  doorbell(): boolean;
  send(message: FromMachine): void;
  readonly decompressors?: Decompressors;
  /** Where services run. Without it: in the machine's own realm, as trusted code. */
  readonly services?: ServiceHost;
  /** In the order in which the guest finds them: vda, vdb, ... */
  readonly disks?: readonly MachineDisk[];
  readonly network?: MachineNetwork | undefined;
  /** Milliseconds since 1970 UTC; without it snapshots do not know how old they are. */
  realTimeMs?(): number;
  /** What the machine goes on from, instead of booting; it stays open as long as the machine lives. */
  readonly snapshot?: SnapshotFile | undefined;
  /** Keeps what the engine makes of its own code; without it that is made again each time. */
  readonly artifacts?: ArtifactStore;
  /** For snapshots; default: our own. */
  readonly checksum?: Checksum;
  readonly shares?: readonly MachineShare[];
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

export class Machine {
  readonly processor: Processor;
  readonly vm: Vm;
  readonly #engine: Interpreter;
  readonly #kernel: Kernel;
  readonly #clock: MachineClock;
  readonly #ports: MachinePorts;
  readonly #config: MachineConfig;
  readonly #devices: ReadonlyMap<string, unknown>;
  /** Of a deterministic machine: the processor's, the entropy device's. */
  readonly #randoms: readonly PseudoRandom[];
  /** Guest memory, some of which may still be in a snapshot. */
  readonly #memory: StoredMemory;
  readonly #resumed: readonly ServiceDomain[];
  readonly #input: readonly InputQueue[];
  readonly #powerButton: ServiceDomain | undefined;
  readonly #sockets: SocketBridge | undefined;
  readonly #balloon: BalloonStream | undefined;
  #jit: Jit | null = null;
  #trace: string[] = [];
  readonly #tracer: Tracer;
  readonly #profile: Profile | null;
  readonly #reportsJit: boolean;

  constructor(config: MachineConfig, ports: MachinePorts) {
    this.#ports = ports;
    this.#config = config;
    const { snapshot } = ports;
    const then = snapshot && { description: readDescription(snapshot), ...readState(snapshot) };
    const memoryBytes = checkMemory(config.memoryBytes);
    const cpuid = parseCpuModel(config.cpuModel);
    const isDeterministic = config.clock === "deterministic";
    this.#clock = isDeterministic
      ? new DeterministicClock(then?.skippedNs)
      : new WallClock(() => ports.nowMs(), then?.nowNs);
    this.#randoms = isDeterministic
      ? [new PseudoRandom(then?.entropy[0]), new PseudoRandom(then?.entropy[1])]
      : [];
    const [ofProcessor, ofDevice] = this.#randoms;
    this.processor = new Processor({
      clock: this.#clock,
      entropy: ofProcessor ? () => ofProcessor.next() : () => ports.entropy(),
      doorbell: () => ports.doorbell(),
    });
    this.#engine = createEngine(memoryBytes, cpuid, this.processor, {
      regions: this.#regionTier(config.engine),
      artifacts: ports.artifacts,
    });
    this.processor.attach(this.#engine);
    const memory = new StoredMemory(new Uint8Array(this.#engine.view.buffer, RAM_BASE), snapshot);
    this.#memory = memory;
    this.processor.pager = (frame) => {
      if (frame >= RAM_BASE) memory.ensure(frame - RAM_BASE, 1);
    };
    this.vm = this.#createVm(memoryBytes, cpuid);
    const vmcs = new Vmcs();
    this.processor.load(vmcs);
    const apic = new LocalApic(
      0,
      {
        eoi: (vector) => this.vm.controllers.ioapic.eoi(vector),
        ipi: (command) => this.#ipi(command),
      },
      true,
    );
    this.vm.vcpus.push(new Vcpu(0, vmcs, apic));
    const log = (text: string): void => ports.send({ type: "log", level: "info", text });
    const entropy = ofDevice ? () => ofDevice.next() : () => ports.entropy();
    this.#balloon = config.balloon ? new BalloonStream() : undefined;
    this.#sockets = config.sockets
      ? new SocketBridge(GUEST_CID, (message) => ports.send(message))
      : undefined;
    const { plans, servers } = createVirtioDevices(
      {
        disks: ports.disks ?? [],
        shares: ports.shares ?? [],
        entropy: config.entropyDevice ? entropy : undefined,
        network: ports.network,
        sockets: this.#sockets?.host,
        balloon: this.#balloon,
        hasConsole: config.virtioConsole === true,
        ...{ memoryBytes, log },
      },
      (stream, bytes) => this.#queueOf(stream)?.chunks.push(bytes),
    );
    this.#devices = new Map(plans.map(({ name, device }) => [name, device]));
    const specs = servicesOf(plans);
    const domains = createServices(config, specs, this.vm.routes, { host: ports.services, log });
    this.vm.services.push(...domains);
    this.#input = specs.flatMap(({ input }, i) =>
      input.map((stream) => ({
        ...{ service: domains[i]!, stream, chunks: [], offeredAt: -1 },
        server: servers.get(stream),
      })),
    );
    this.#powerButton = domains.find((_, i) => specs[i]!.powerButton);
    this.#resumed = domains.filter((_, i) => specs[i]!.hearsOfResuming);
    if (snapshot) loadBlock(snapshot, this.#engine.view);
    const kernelPorts: EffectPorts = {
      now: () => this.#clock.tsc(this.processor.retired),
      put: (stream, data) => {
        const server = servers.get(stream);
        if (server) server.take(data);
        else ports.send({ type: "output", port: stream as SerialPort, data });
      },
      move: (stream, toMemory, header, memory) =>
        servers.get(stream)?.move?.(toMemory, header, memory),
      log,
    };
    if (then) this.#checkDescription(then.description);
    this.#kernel = new Kernel(this.processor, this.vm, kernelPorts, then?.vm);
    if (then) this.#resume(then, vmcs, cpuid);
    else this.#load(config, vmcs, cpuid, memoryBytes);
    this.#offerVmx(cpuid, then?.vm.guestVmx ?? null);
    this.#tracer = this.#createTracer();
    this.vm.levels = (vcpu) => this.#tracer.level(vcpu);
    if (config.traceExits) this.vm.log.trace((line) => this.#traceLine(line));
    this.#reportsJit = config.reportJit === true;
    this.#profile = config.profile ? new Profile(config.profile) : null;
    this.processor.sampler = this.#profile;
  }

  #offerVmx(cpuid: CpuidModel, saved: GuestVmxState | null): void {
    const vcpu = this.vm.vcpus[0]!;
    const at = (): { now: number } => ({ now: this.processor.tsc() });
    const msrs = offerVmx(this.processor, cpuid, {
      read: (index) => readMsr(vcpu, index, at()),
      write: (index, value) => writeMsr(vcpu, index, value, at()),
    });
    for (const [index, value] of msrs ?? []) vcpu.msrs.set(index, value);
    if (saved) this.processor.guestVmx?.restore(saved);
  }

  #createTracer(): Tracer {
    const { vcpus, log, memoryBytes, pager } = this.vm;
    const { view } = this.#engine;
    const ensure = (address: number, length: number): void => pager?.ensure(address, length);
    return new Tracer({
      vcpus,
      log,
      ram: { view, base: RAM_BASE, bytes: memoryBytes, ensure },
      now: () => this.#clock.tsc(this.processor.retired),
      nowMs: () => this.#ports.nowMs(),
      send: (id, lines) => this.#ports.send({ type: "traced", id, lines }),
    });
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
    const vcpus: Vcpu[] = [];
    return {
      ept,
      memoryBytes,
      routes: new RouteTable(),
      services: [],
      vcpus,
      controllers: new InterruptControllers((message) => deliverInterrupt(vcpus, message)),
      cpuid,
      log: new ExitLog(),
      pager: this.#memory,
      ledger: new Ledger(() => this.#ports.nowMs()),
      levels: null,
      end: null,
    };
  }

  #ipi(command: { shorthand: number } & Parameters<typeof deliverInterrupt>[1]): void {
    const SELF = 1;
    const ALL = 2;
    if (command.shorthand === 0) deliverInterrupt(this.vm.vcpus, command);
    else if (command.shorthand === SELF || command.shorthand === ALL)
      this.vm.vcpus[0]!.apic.deliver(command.deliveryMode, command.vector, 0);
  }

  #load(config: MachineConfig, vmcs: Vmcs, cpuid: CpuidModel, memoryBytes: number): void {
    const ram = {
      size: memoryBytes,
      write: (gpa: number, bytes: Uint8Array): void => {
        invariant(gpa >= 0 && gpa + bytes.length <= memoryBytes, "boot write inside RAM");
        this.#memory.ensure(gpa, bytes.length);
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
    if (this.#randoms.length === 0) ram.write(MemoryMap.GENERATION_ID, this.#newGeneration());
    for (const text of boot.notes) this.#ports.send({ type: "log", level: "info", text });
    configureVmcs(vmcs, this.#engine.view, boot, cpuid, this.vm.ept.eptp);
  }

  // ---- snapshots ----

  /** Of this machine as it is made; `kinds`: where its services run. */
  #describe(): MachineDescription {
    const { kernel, initrd, profile, traceExits, reportJit, snapshot, ...config } = this.#config;
    return {
      config,
      cpu: [...this.vm.cpuid.features].sort(),
      services: this.vm.services.map((service) => ({
        name: service.name,
        placement: placementOf(config, service.name),
        device: this.#devices.get(service.name) ?? null,
      })),
      takenMs: this.#ports.realTimeMs?.() ?? 0,
    };
  }

  #checkDescription(then: MachineDescription): void {
    checkMachine(then, this.#describe());
  }

  /** Everything but memory is where it was; now the processor finds it. */
  #resume(
    then: MachineState & { description: MachineDescription },
    vmcs: Vmcs,
    cpuid: CpuidModel,
  ): void {
    const { view } = this.#engine;
    adoptVmcs(vmcs, view, cpuid, this.vm.ept.eptp);
    this.processor.resume(vmcs, then.retired);
    for (const { stream, chunks, server } of then.streams) {
      const queue = this.#queueOf(stream);
      queue?.chunks.push(...chunks);
      queue?.server?.restore?.(server);
    }
    if (this.#randoms.length > 0) {
      // Translations name pages without asking: all of them have to be there.
      this.#memory.loadAll();
      loadTranslations(this.#ports.snapshot!, view);
      return;
    }
    const now = this.#ports.realTimeMs?.() ?? 0;
    const { takenMs } = then.description;
    const data = new Uint8Array(8);
    const { GENERATION_ID } = MemoryMap;
    this.#memory.ensure(GENERATION_ID, GENERATION_BYTES);
    this.#engine.noticeWrite(RAM_BASE + GENERATION_ID, GENERATION_BYTES);
    new Uint8Array(view.buffer).set(this.#newGeneration(), RAM_BASE + GENERATION_ID);
    const elapsedMs = takenMs > 0 ? Math.max(0, now - takenMs) : 0;
    new DataView(data.buffer).setFloat64(0, elapsedMs, true);
    for (const service of this.#resumed) this.#kernel.signal(service, SignalNumber.RESUMED, data);
  }

  /** A virtual machine generation ID that no other life has. */
  #newGeneration(): Uint8Array {
    const bytes = new Uint8Array(GENERATION_BYTES);
    const view = new DataView(bytes.buffer);
    for (let at = 0; at < GENERATION_BYTES; at += 8)
      view.setBigUint64(at, this.#ports.entropy(), true);
    return bytes;
  }

  /**
   * Writes all that the machine is, but its disks, to an empty port; `about` is the application's. The machine goes on as if nothing had been.
   * To be called between runs. Throws HypolithError "snapshot-busy", "snapshot-ended", and what the port throws.
   */
  snapshot(port: BlockPort, about: Uint8Array): void {
    const busy = this.#input.find(({ server }) => server?.isBusy);
    if (busy)
      throw new HypolithError(
        "snapshot-busy",
        `${busy.service.name} is in the middle of something`,
        {
          hint: "try again in a moment",
        },
      );
    const vm = this.#kernel.save();
    if (!vm) throw new HypolithError("snapshot-ended", "the machine has ended");
    this.#memory.loadAll();
    const { retired } = this.processor;
    const isDeterministic = this.#randoms.length > 0;
    const nowNs = this.#clock.tsc(retired);
    writeSnapshot(port, this.#ports.checksum ?? crc32, {
      about,
      description: this.#describe(),
      state: {
        ...{ vm, retired, nowNs },
        skippedNs: isDeterministic ? nowNs - retired : 0,
        entropy: this.#randoms.map(({ state }) => state),
        streams: this.#input.map(({ stream, chunks, server }) => ({
          stream,
          chunks: server?.isForgetful ? [] : chunks,
          server: server?.save?.() ?? null,
        })),
      },
      view: this.#engine.view,
      memory: this.#memory,
      keepsTranslations: isDeterministic,
    });
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
    this.#queueOf(port)?.chunks.push(bytes);
    this.#offerInput();
  }

  #queueOf(stream: number): InputQueue | undefined {
    return this.#input.find((queue) => queue.stream === stream);
  }

  powerButton(): void {
    if (this.#powerButton) this.#kernel.signal(this.#powerButton, SignalNumber.POWER_BUTTON);
  }

  /** Answers a question about services, does a drill, or follows a connection. */
  serve(message: ToMachine): void {
    if (this.#sockets) this.#sockets.serve(message);
    else if (message.type === "connect") this.#ports.send({ type: "socketClosed", id: message.id });
    if (message.type === "balloon") this.#balloon?.setTarget(message.bytes);
    if (message.type === "services") {
      const report = reportServices(this.vm);
      this.#ports.send({ type: "services", id: message.id, report });
    } else if (message.type === "drill") {
      const problem = this.drill(message.service, message.drill);
      this.#ports.send({ type: "drilled", id: message.id, problem });
    } else if (message.type === "trace") this.#tracer.begin(message.id, message.request);
    else if (message.type === "untrace") {
      this.#tracer.end(message.id);
      this.#ports.send({ type: "traced", id: message.id, lines: "" });
    }
  }

  /** Does it, or answers why not. */
  drill(name: string, drill: DrillName): string | null {
    const service = this.vm.services.find((candidate) => candidate.name === name);
    if (!service) return `there is no service ${name}`;
    if (this.vm.end) return "the VM has ended";
    if (drill === "restart") {
      this.#kernel.restartService(service);
      return null;
    }
    if (drill === "hang" && service.placement && !canBeInterrupted(service.placement))
      return `${name} runs in the machine's own thread, where nothing could end a hang: place it with --service ${name}=worker`;
    service.drill = drill;
    return null;
  }

  /** Whether somebody traces it. */
  get isTraced(): boolean {
    return this.#tracer.isOn;
  }

  stop(): void {
    this.vm.end ??= { kind: "killed", message: "stopped from outside" };
  }

  /** What a service has not taken is offered again when it has handled something else meanwhile. */
  #offerInput(): void {
    for (const queue of this.#input) {
      const { service, stream, chunks, server } = queue;
      while (queue.offeredAt !== service.messages) {
        const more = chunks.length === 0 ? server?.give?.() : null;
        if (more) chunks.push(more);
        if (chunks.length === 0) break;
        const head = chunks[0]!;
        const taken = this.#kernel.input(service, stream, head);
        if (taken === head.length) {
          chunks.shift();
          continue;
        }
        chunks[0] = head.subarray(taken);
        queue.offeredAt = service.messages;
      }
    }
  }

  #hasInput(): boolean {
    return this.#input.some(
      ({ chunks, offeredAt, service, server }) =>
        (chunks.length > 0 || server?.hasMore === true) && offeredAt !== service.messages,
    );
  }

  /** Runs the guest until it is idle, it has ended, or the doorbell rings. */
  runUntilBlocked(): RunState {
    const { ledger } = this.vm;
    ledger.resume();
    const state = this.#run();
    ledger.pause();
    return state;
  }

  #run(): RunState {
    const vcpu = this.vm.vcpus[0]!;
    for (;;) {
      if (this.#ports.doorbell()) return { kind: "doorbell" };
      if (this.#hasInput()) this.#offerInput();
      const result = this.#kernel.step(vcpu);
      if (this.#tracer.isOn) this.#tracer.pulse();
      if (result.kind === "ran") continue;
      if (result.kind === "ended") this.#kernel.finish();
      this.#flushTrace();
      this.#tracer.flush();
      if (result.kind === "ended") {
        this.#sendReports();
        return { kind: "ended", reason: this.#stopReason() };
      }
      this.#kernel.rest();
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

/** Bytes that wait for a service to take them. */
interface InputQueue {
  readonly service: ServiceDomain;
  readonly stream: number;
  readonly chunks: Uint8Array[];
  /** Where they come from, if it is a device of ours. */
  readonly server: StreamServer | undefined;
  /** The service's count of messages when it last did not take all. */
  offeredAt: number;
}

const BITMAP_BYTES = 0x1_0000;
const GENERATION_BYTES = 16;

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

interface EngineParts {
  readonly regions: ((host: RegionHost) => RegionTier) | undefined;
  readonly artifacts: ArtifactStore | undefined;
}

function createEngine(
  ramBytes: number,
  cpuid: CpuidModel,
  processor: Processor,
  { regions, artifacts }: EngineParts,
): Interpreter {
  try {
    return new Interpreter({
      ramBytes,
      features: cpuid.features,
      services: processor,
      ...(regions && { regions }),
      ...(artifacts && { artifacts }),
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
class PseudoRandom {
  state: bigint;

  constructor(state = 0x9e37_79b9_7f4a_7c15n) {
    this.state = state;
  }

  next(): bigint {
    let x = this.state;
    x ^= x >> 12n;
    x = BigInt.asUintN(64, x ^ (x << 25n));
    x ^= x >> 27n;
    this.state = x;
    return BigInt.asUintN(64, x * 0x2545_f491_4f6c_dd1dn);
  }
}

function placementOf({ services = {} }: Pick<MachineConfig, "services">, name: string): string {
  return services[name] ?? services.all ?? "inline";
}
