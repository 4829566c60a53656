/**
 * The state of the first virtual processor when a kernel is entered, as plain data.
 * Spec: SDM Vol. 3C, "Guest Register State" (segment access rights are in the VMCS layout drawn below).
 *
 * CR0 is what the guest should see: bits that VMX operation fixes (NE) are the VMCS owner's to add under the read shadow.
 * General registers that are not named are zero. Interrupts are off (RFLAGS = 2) and no vector can be taken (IDT limit 0)
 * until the kernel has loaded its own tables.
 *
 * Access rights: type 3:0 | S 4 | DPL 6:5 | P 7 | AVL 12 | L 13 | D/B 14 | G 15 | unusable 16
 *
 * Not here: who needs which state (linux-boot.ts, pvh.ts, multiboot.ts, flat.ts).
 */
import { GDT, IDENTITY_MAP, STACK } from "./low-memory.ts";

export type CpuMode = "real16" | "protected32" | "long64";

/** How the kernel is entered: which contract its first instruction relies on. */
export type BootProtocol = "linux64" | "linux32" | "pvh" | "direct" | "multiboot" | "flat";

export type SegmentName = "cs" | "ds" | "es" | "ss" | "fs" | "gs" | "tr" | "ldtr";

export interface SegmentState {
  readonly selector: number;
  readonly base: number;
  readonly limit: number;
  /** VMCS format. */
  readonly accessRights: number;
}

export interface DescriptorTableState {
  readonly base: number;
  readonly limit: number;
}

/** A part of guest memory that the loader filled or that the kernel needs free. */
export interface BootRegion {
  readonly name: string;
  readonly start: number;
  readonly size: number;
}

/** Registers of a BootState; every value is exact as a number. */
export interface ProcessorState {
  readonly mode: CpuMode;
  readonly rip: number;
  readonly rax: number;
  readonly rbx: number;
  readonly rsi: number;
  readonly rsp: number;
  readonly rflags: number;
  readonly cr0: number;
  readonly cr3: number;
  readonly cr4: number;
  readonly efer: number;
  readonly segments: Readonly<Record<SegmentName, SegmentState>>;
  readonly gdtr: DescriptorTableState;
  readonly idtr: DescriptorTableState;
}

export interface BootState extends ProcessorState {
  readonly protocol: BootProtocol;
  /** What lies where, for logs and dumps. */
  readonly regions: readonly BootRegion[];
  /** Decisions worth a log line, such as why a fast path was not taken. */
  readonly notes: readonly string[];
}

/** The registers a boot protocol chooses; the rest follows from the mode. */
export interface EntryRegisters {
  readonly rip: number;
  readonly rax?: number;
  readonly rbx?: number;
  readonly rsi?: number;
}

const RFLAGS_FIXED = 2;
const Cr0 = { PE: 0x1, ET: 0x10, PG: 0x8000_0000 } as const;
const Cr4 = { PAE: 0x20 } as const;
const Efer = { LME: 0x100, LMA: 0x400 } as const;

const AccessRights = {
  CODE16: 0x9b,
  DATA16: 0x93,
  CODE32: 0xc09b,
  CODE64: 0xa09b,
  DATA32: 0xc093,
  TSS_BUSY: 0x8b,
  UNUSABLE: 0x1_0000,
} as const;

/** Selectors __BOOT_CS and __BOOT_DS of the Linux boot protocol; other protocols do not care. */
export const BootSelector = { CODE: 0x10, DATA: 0x18, TASK: 0x20 } as const;

/** null, unused, code, data, and a task segment of two slots (its 64-bit form is 16 bytes). */
const GDT_BYTES = 6 * 8;

function gdtImage(codeDescriptor: bigint): Uint8Array {
  const image = new Uint8Array(GDT_BYTES);
  const view = new DataView(image.buffer);
  view.setBigUint64(BootSelector.CODE, codeDescriptor, true);
  view.setBigUint64(BootSelector.DATA, 0x00cf_9300_0000_ffffn, true);
  view.setBigUint64(BootSelector.TASK, 0x0000_8b00_0000_0067n, true);
  return image;
}

/** Global descriptor table of a protected32 state, to be written at GDT. */
export function gdt32(): Uint8Array {
  return gdtImage(0x00cf_9b00_0000_ffffn);
}

/** Global descriptor table of a long64 state, to be written at GDT. */
export function gdt64(): Uint8Array {
  return gdtImage(0x00af_9b00_0000_ffffn);
}

function flatSegments(codeRights: number): Record<SegmentName, SegmentState> {
  const limit = 0xffff_ffff;
  const data = {
    selector: BootSelector.DATA,
    base: 0,
    limit,
    accessRights: AccessRights.DATA32,
  } as const;
  return {
    cs: { selector: BootSelector.CODE, base: 0, limit, accessRights: codeRights },
    ds: data,
    es: data,
    ss: data,
    fs: data,
    gs: data,
    tr: { selector: BootSelector.TASK, base: 0, limit: 0x67, accessRights: AccessRights.TSS_BUSY },
    ldtr: { selector: 0, base: 0, limit: 0, accessRights: AccessRights.UNUSABLE },
  };
}

function withMode(
  entry: EntryRegisters,
  rest: Omit<ProcessorState, "rip" | "rax" | "rbx" | "rsi" | "rflags">,
): ProcessorState {
  const { rip, rax = 0, rbx = 0, rsi = 0 } = entry;
  return { rip, rax, rbx, rsi, rflags: RFLAGS_FIXED, ...rest };
}

/** Flat 32-bit protected mode, paging off. The caller writes gdt32() at GDT. */
export function protected32(entry: EntryRegisters): ProcessorState {
  return withMode(entry, {
    mode: "protected32",
    rsp: STACK.end,
    cr0: Cr0.PE | Cr0.ET,
    cr3: 0,
    cr4: 0,
    efer: 0,
    segments: flatSegments(AccessRights.CODE32),
    gdtr: { base: GDT.start, limit: GDT_BYTES - 1 },
    idtr: { base: 0, limit: 0 },
  });
}

/** 64-bit mode, the first 4 GiB mapped to themselves. The caller writes gdt64() and the identity map. */
export function long64(entry: EntryRegisters): ProcessorState {
  return withMode(entry, {
    mode: "long64",
    rsp: STACK.end,
    cr0: Cr0.PG + (Cr0.PE | Cr0.ET),
    cr3: IDENTITY_MAP.start,
    cr4: Cr4.PAE,
    efer: Efer.LME | Efer.LMA,
    segments: flatSegments(AccessRights.CODE64),
    gdtr: { base: GDT.start, limit: GDT_BYTES - 1 },
    idtr: { base: 0, limit: 0 },
  });
}

/** Real-address mode at segment:offset, other segments 0, stack below 0x7C00 as a boot sector expects. */
export function real16(segment: number, offset: number): ProcessorState {
  const data = { selector: 0, base: 0, limit: 0xffff, accessRights: AccessRights.DATA16 };
  const code = { selector: segment, base: segment * 16, limit: 0xffff };
  return withMode(
    { rip: offset },
    {
      mode: "real16",
      rsp: 0x7c00,
      cr0: Cr0.ET,
      cr3: 0,
      cr4: 0,
      efer: 0,
      segments: {
        cs: { ...code, accessRights: AccessRights.CODE16 },
        ds: data,
        es: data,
        ss: data,
        fs: data,
        gs: data,
        tr: { selector: 0, base: 0, limit: 0xffff, accessRights: AccessRights.TSS_BUSY },
        ldtr: { selector: 0, base: 0, limit: 0, accessRights: AccessRights.UNUSABLE },
      },
      gdtr: { base: 0, limit: 0xffff },
      idtr: { base: 0, limit: 0x3ff },
    },
  );
}
