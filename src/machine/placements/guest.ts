/**
 * Services as x86 programs in VMs of their own: the processor, the memory and the image of each.
 *
 * A service's VM has a pCPU of its own: a WebAssembly memory with RAM, vCPU state, EPT and decoded code, in which nothing of the guest or of
 * another service lies. The pCPU outlives the program's lives, as processors do; each life has a new VMCS and the image's memory.
 */
import { invariant } from "../../base/invariant.ts";
import type { PlacementPort, ServiceImage } from "../../hypervisor/kernel/placement.ts";
import { ServiceMemory } from "../../hypervisor/kernel/service-memory.ts";
import { ServiceVm } from "../../hypervisor/kernel/service-vm.ts";
import { Interpreter } from "../../processor/interpreter/interpreter.ts";
import { PHYSICAL_BITS, parseCpuModel } from "../../processor/isa/cpuid.ts";
import { EptEntry, EptTables } from "../../processor/memory/ept.ts";
import { Cr4, Efer } from "../../processor/state/control-bits.ts";
import { HYPERVISOR_BASE, HYPERVISOR_BYTES, RAM_BASE, S } from "../../processor/state/layout.ts";
import { Processor } from "../../processor/vmx/processor.ts";
import { Vmcs } from "../../processor/vmx/vmcs.ts";
import { consoleProgram } from "../../services/guest/console-program.ts";
import { type MemoryImage, memoryImage } from "../../services/guest/memory-image.ts";
import type { GuestProgram } from "../../services/guest/service-program.ts";
import { DeterministicClock } from "../clocks.ts";
import { configureServiceVmcs, EPT_START, MSR_BITMAP, type Ring } from "./guest-vmcs.ts";

/** No RDRAND, no SSE: what a device model needs. */
const CPU_MODEL = "x86-64";
/** The CPU model has no instruction that asks for it. */
const NO_ENTROPY = 0n;
const PAGE = 4096;

/** Services that there is an x86 program of. */
const PROGRAMS: ReadonlyMap<string, GuestProgram> = new Map([["console", consoleProgram]]);

const RINGS = { guest: 0, "guest:ring3": 3 } as const satisfies Record<string, Ring>;
export type GuestPlacement = keyof typeof RINGS;

export function isGuest(placement: string): placement is GuestPlacement {
  return Object.hasOwn(RINGS, placement);
}

/** The image of a service as an x86 program; null if there is none of this service. */
export function guestImage(name: string, placement: GuestPlacement): ServiceImage | null {
  const program = PROGRAMS.get(name);
  return program ? imageOf(name, program, RINGS[placement]) : null;
}

/** `program` as the service `name`. */
export function imageOf(name: string, program: GuestProgram, ring: Ring): ServiceImage {
  let block: ServiceBlock | null = null;
  return (port) => {
    block ??= new ServiceBlock(name, memoryImage(program), ring);
    return block.start(port);
  };
}

/** A pCPU with the memory of one service's VM. */
export class ServiceBlock {
  readonly #name: string;
  readonly #image: MemoryImage;
  readonly #ring: Ring;
  readonly #processor: Processor;
  readonly #memory: ServiceMemory;
  /** The memory at the start of a life. */
  readonly #content: Uint8Array;
  readonly #eptp: bigint;

  constructor(name: string, image: MemoryImage, ring: Ring) {
    this.#name = name;
    this.#image = image;
    this.#ring = ring;
    this.#processor = new Processor({
      clock: new DeterministicClock(),
      entropy: () => NO_ENTROPY,
      doorbell: () => false,
    });
    // The extension itself is no part of a model: VMX instructions exit here, as on every processor that has it.
    const features = new Set([...parseCpuModel(CPU_MODEL).features, "vmx" as const]);
    const ramBytes = image.memoryBytes;
    const engine = new Interpreter({ ramBytes, features, services: this.#processor });
    this.#processor.attach(engine);
    this.#memory = new ServiceMemory(engine, ramBytes);
    this.#content = contentOf(image);
    this.#eptp = mapSections(engine.view, image);
    prepareBlock(engine.view);
  }

  /** All of the pCPU's memory (state/layout.ts), for tests. */
  get view(): DataView {
    return this.#processor.view;
  }

  start(port: PlacementPort): ServiceVm {
    const vmcs = new Vmcs();
    const processor = this.#processor;
    processor.load(vmcs);
    this.#memory.set(this.#content);
    configureServiceVmcs(vmcs, this.#image, this.#ring, this.#eptp);
    // Translations of the last life.
    processor.invalidateEpt();
    const { window } = this.#image;
    const kind = this.#ring === 0 ? "guest" : "guest:ring3";
    const parts = {
      name: this.#name,
      kind,
      processor,
      vmcs,
      memory: this.#memory,
      window,
    } as const;
    return new ServiceVm(parts, port);
  }
}

function contentOf({ memoryBytes, sections }: MemoryImage): Uint8Array {
  const content = new Uint8Array(memoryBytes);
  for (const { at, bytes, content: part, name } of sections) {
    invariant(part.length <= bytes, `room for section ${name}`);
    content.set(part, at);
  }
  return content;
}

/** EPT of the VM's sections with the rights of each; the rest of the guest-physical space is nothing. Answers the EPTP. */
function mapSections(view: DataView, { sections }: MemoryImage): bigint {
  const ept = new EptTables(view, EPT_START, HYPERVISOR_BASE + HYPERVISOR_BYTES);
  for (const { at, bytes, isWritable, isExecutable } of sections) {
    const write = isWritable ? EptEntry.WRITE : 0n;
    const execute = isExecutable ? EptEntry.EXECUTE : 0n;
    ept.map(at, RAM_BASE + at, bytes, EptEntry.READ | write | execute);
  }
  return ept.eptp;
}

/** What software in the VM may set, and that every MSR exits. */
function prepareBlock(view: DataView): void {
  view.setBigUint64(S.CR4_ALLOWED.at, BigInt(Cr4.PAE | Cr4.PGE | Cr4.PSE), true);
  view.setBigUint64(S.EFER_ALLOWED.at, BigInt(Efer.LME | Efer.LMA | Efer.NXE), true);
  const PHYSICAL = (1n << BigInt(PHYSICAL_BITS)) - 1n;
  view.setBigUint64(S.PHYSICAL_RESERVED.at, 0x000f_ffff_ffff_ffffn & ~PHYSICAL, true);
  view.setUint32(S.MXCSR_MASK.at, 0xffff, true);
  new Uint8Array(view.buffer, MSR_BITMAP, PAGE).fill(0xff);
}
