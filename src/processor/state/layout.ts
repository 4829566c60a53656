/**
 * The VM's WebAssembly memory, from address 0 up: vCPU state, TLBs, physical map, decoded code, guest RAM.
 *
 *   0x0000_0000  never mapped (host address 0 means "fault")
 *   0x0000_0100  vCPU state (STATE below), general registers first
 *   0x0000_0800  state of core procedures (semantics/system/state.ts), scratch of POPA at 0x900, of x87 at
 *                0x1800 and of vectors at 0x1d00
 *   0x0000_2000  bounce buffers for accesses that cross a page or reach a device
 *   0x0001_0000  TLBs: read, write, execute; 16-byte entries {tag u64, addend u32, host page u32}
 *   0x0002_8000  jump cache of regions: {rip i64, table slot u32, context | mode << 12 u32}
 *   0x0003_8000  seen targets of indirect jumps: {from i64, to i64}
 *   0x0004_0000  block hash: buckets of u32 block addresses
 *   0x0040_0000  physical map: u32 per guest-physical page below 4 GiB (frame | PAGE flags), a cache of the EPT
 *   0x0080_0000  code map: u64 per 4 KiB page of this memory, one bit per 64-byte granule that holds decoded code
 *   0x0100_0000  arena of decoded blocks
 *   0x0300_0000  structures of the micro-hypervisor; at 0x03c0_0000 the physical map of a guest's guest
 *   RAM_BASE     guest RAM
 *
 * Committed lazily: a page of this memory that nobody touched costs nothing.
 * "Host address" in this room means an address in this memory.
 */

export type FieldType = "u8" | "u16" | "i32" | "i64";
export interface Field {
  readonly at: number;
  readonly type: FieldType;
}

const f = (at: number, type: FieldType): Field => ({ at, type });

/** General register n (encoding order RAX RCX RDX RBX RSP RBP RSI RDI R8..R15) at GPR + 8 n; then a slot that is always zero. */
export const GPR = 0x100;
export const ZERO_SLOT = 0x180;

/**
 * Segment registers, 32 bytes each, in encoding order ES CS SS DS FS GS, then LDTR, TR:
 * base i64 +0 · limit u32 +8 (in bytes) · access rights u32 +12 (VMCS format: bit 16 unusable) · selector u16 +16.
 */
export const SEGMENTS = 0x200;
export const SEGMENT_BYTES = 32;
export const Seg = { ES: 0, CS: 1, SS: 2, DS: 3, FS: 4, GS: 5, LDTR: 6, TR: 7 } as const;
export const SEG_BASE = 0;
export const SEG_LIMIT = 8;
export const SEG_RIGHTS = 12;
export const SEG_SELECTOR = 16;

/** XMM register n at XMM + 16 n. */
export const XMM = 0x400;
/** Physical x87 register Rn at FPR + 16 n: significand u64 +0, sign and exponent u16 +8. MMn is the significand of Rn. */
export const FPR = 0x500;

export const S = {
  RIP: f(0x190, "i64"),
  /** Lazy flags, see semantics/flags.ts. */
  FLAG_RESULT: f(0x198, "i64"),
  FLAG_CARRY: f(0x1a0, "i32"),
  /** RFLAGS without CF PF AF ZF SF OF, with bit 1 set. */
  RFLAGS_REST: f(0x1a4, "i32"),
  /** RIP of the first byte of the linear page being executed (a block's RIP = RIP_PAGE + offset in page). */
  RIP_PAGE: f(0x1a8, "i64"),
  /** Instructions left in this run, and the value it started with. */
  BUDGET: f(0x1b0, "i32"),
  BUDGET_START: f(0x1b4, "i32"),
  /** TLB context: low 12 bits of every tag, = address-space number << 2 | access mode (memory/context). */
  CONTEXT: f(0x1b8, "i64"),
  /** Nonzero when block entry must take the careful path: SLOW bits. */
  SLOW: f(0x1c0, "i32"),
  /** Code mode key of decoded blocks: MODE bits. */
  MODE: f(0x1c4, "i32"),
  /** 0..3. Kept in step with SS.DPL. */
  CPL: f(0x1c8, "i32"),
  /** Interruptibility as in the VMCS: bit 0 blocking by STI, bit 1 by MOV SS, bit 3 by NMI. */
  INTERRUPTIBILITY: f(0x1cc, "i32"),
  /** VMCS activity state: 0 active, 1 HLT, 2 shutdown, 3 wait-for-SIPI. */
  ACTIVITY: f(0x1d0, "i32"),
  /** Number of the address space in use (PCID-derived), for CONTEXT. */
  ADDRESS_SPACE: f(0x1d4, "i32"),
  /** Set while an instruction's first record is being executed on behalf of an event's delivery. */
  LAST_BRANCH: f(0x1d8, "i64"),

  CR0: f(0x300, "i64"),
  CR2: f(0x308, "i64"),
  CR3: f(0x310, "i64"),
  CR4: f(0x318, "i64"),
  CR8: f(0x320, "i64"),
  XCR0: f(0x328, "i64"),
  EFER: f(0x330, "i64"),
  DR0: f(0x338, "i64"),
  DR1: f(0x340, "i64"),
  DR2: f(0x348, "i64"),
  DR3: f(0x350, "i64"),
  DR6: f(0x358, "i64"),
  DR7: f(0x360, "i64"),
  GDTR_BASE: f(0x368, "i64"),
  IDTR_BASE: f(0x370, "i64"),
  GDTR_LIMIT: f(0x378, "i32"),
  IDTR_LIMIT: f(0x37c, "i32"),
  STAR: f(0x380, "i64"),
  LSTAR: f(0x388, "i64"),
  CSTAR: f(0x390, "i64"),
  SFMASK: f(0x398, "i64"),
  KERNEL_GS_BASE: f(0x3a0, "i64"),
  SYSENTER_CS: f(0x3a8, "i64"),
  SYSENTER_ESP: f(0x3b0, "i64"),
  SYSENTER_EIP: f(0x3b8, "i64"),
  TSC_AUX: f(0x3c0, "i64"),
  PAT: f(0x3c8, "i64"),
  /** Result slot of the clock import: the time-stamp counter as the guest sees it. */
  TSC: f(0x3d0, "i64"),
  /** PAE page-directory-pointer entries, loaded by MOV CR3 in PAE paging. */
  PDPTE0: f(0x3d8, "i64"),
  PDPTE1: f(0x3e0, "i64"),
  PDPTE2: f(0x3e8, "i64"),
  PDPTE3: f(0x3f0, "i64"),
  XSS: f(0x3f8, "i64"),

  /** x87 control, status (TOP in bits 13:11), tags: bit n set = Rn is empty. */
  FCW: f(0x580, "i32"),
  FSW: f(0x584, "i32"),
  FTAG_EMPTY: f(0x588, "i32"),
  FOP: f(0x58c, "i32"),
  FIP: f(0x590, "i64"),
  FDP: f(0x598, "i64"),
  FCS: f(0x5a0, "i32"),
  FDS: f(0x5a4, "i32"),
  MXCSR: f(0x5a8, "i32"),

  /** The event waiting to be delivered or to leave as a VM exit: PENDING kinds. */
  PENDING: f(0x600, "i32"),
  PENDING_VECTOR: f(0x604, "i32"),
  PENDING_ERROR: f(0x608, "i32"),
  /** CR2 of a page fault, DR6 bits of a debug exception. */
  PENDING_ADDRESS: f(0x610, "i64"),
  /** Interruption type of the pending event as in the VMCS: 3 hardware exception, 4 software interrupt, 6 software exception... */
  PENDING_TYPE: f(0x618, "i32"),
  /** Event being delivered when another fault happened (IDT-vectoring information, VMCS format, 0 = none). */
  VECTORING: f(0x61c, "i32"),
  VECTORING_ERROR: f(0x620, "i32"),

  /** VM exit as it leaves the run loop. */
  EXIT_REASON: f(0x630, "i32"),
  EXIT_LENGTH: f(0x634, "i32"),
  EXIT_QUALIFICATION: f(0x638, "i64"),
  EXIT_LINEAR: f(0x640, "i64"),
  EXIT_PHYSICAL: f(0x648, "i64"),
  EXIT_INTERRUPTION: f(0x650, "i32"),
  EXIT_INTERRUPTION_ERROR: f(0x654, "i32"),
  EXIT_INSTRUCTION_INFO: f(0x658, "i32"),

  /** Device accesses (see memory/device.ts): size and data of this access; replies to earlier reads of this instruction. */
  DEVICE_SIZE: f(0x660, "i32"),
  DEVICE_IS_WRITE: f(0x664, "i32"),
  DEVICE_DATA: f(0x668, "i64"),
  /** Reads of this instruction that have their answer in DEVICE_REPLIES, and how many of them it has consumed so far. */
  DEVICE_REPLY_COUNT: f(0x670, "i32"),
  DEVICE_REPLY_NEXT: f(0x674, "i32"),
  /** Writes that this instruction made, waiting in DEVICE_WRITES. */
  DEVICE_WRITE_COUNT: f(0x678, "i32"),
  /** Bounce write in progress: size, and two pieces {host address, or DEVICE with its physical address}. */
  BOUNCE_SIZE: f(0x680, "i32"),
  BOUNCE_FIRST: f(0x684, "i32"),
  BOUNCE_FIRST_BYTES: f(0x688, "i32"),
  BOUNCE_SECOND: f(0x68c, "i32"),
  /** A translation of the upper half that is not global has been cached since the last flush. */
  HIGH_LOCAL: f(0x6a4, "i32"),
  BOUNCE_FIRST_PHYSICAL: f(0x6a8, "i64"),
  BOUNCE_SECOND_PHYSICAL: f(0x690, "i64"),
  /** Guest-physical address of the last walk, and its rights: PageRights bits. */
  WALK_PHYSICAL: f(0x698, "i64"),
  WALK_RIGHTS: f(0x6a0, "i32"),
  /** Next address-space number to hand out, and whether large-page translations are cached per quarter of the TLB. */
  ADDRESS_SPACE_NEXT: f(0x6b0, "i32"),
  LARGE_BANKS: f(0x6b4, "i32"),
  /** Record that DEVICE_STOP replaces for one dispatch, and its handler. */
  STOP_RECORD: f(0x6b8, "i32"),
  STOP_HANDLER: f(0x6bc, "i32"),
  /** One instruction is being executed on its own (single step, interrupt shadow, breakpoints): what to do after it, Slow bits. */
  STEPPING: f(0x6c0, "i32"),
  /** Interrupt blocking to lift after it. */
  STEP_BLOCKING: f(0x6c4, "i32"),
  /** Host address of the page of the block just looked up. */
  BLOCK_PAGE: f(0x6c8, "i32"),
  /** DR6 bits of the breakpoints that accesses of the current instruction have met. */
  BREAK_HITS: f(0x6d0, "i32"),
  /** RFLAGS.RF counts only while S.BUDGET is this: whoever sets RF says here that no instruction has begun since. */
  RESUME_BUDGET: f(0x6d4, "i32"),
  /** Debug exceptions that wait for an instruction boundary, in the format of the VMCS: PendingDebug bits. */
  PENDING_DEBUG: f(0x6d8, "i64"),
  /** TLB context of implicit supervisor accesses. */
  SYSTEM_CONTEXT: f(0x6e0, "i64"),
  /** DR6 bits of the I/O breakpoints that the port access of the last exit meets: due when it has been carried out. */
  IO_HITS: f(0x6e8, "i32"),
  /** How often the TLB was flushed because of HIGH_LOCAL. */
  HIGH_FLUSHES: f(0x6ec, "i32"),
  /** TLB context of addresses in the upper half: CONTEXT and HIGH_MASK. */
  HIGH_CONTEXT: f(0x6f0, "i64"),
  HIGH_MASK: f(0x6f8, "i64"),
  /** The arena was emptied during the last lookup: records known before it are gone. */
  ARENA_EMPTIED: f(0x6cc, "i32"),

  /** Execution controls of the current VMCS in the form that the hot paths test. */
  CTL_PIN: f(0x700, "i32"),
  CTL_PRIMARY: f(0x704, "i32"),
  CTL_SECONDARY: f(0x708, "i32"),
  CTL_EXCEPTION_BITMAP: f(0x70c, "i32"),
  CTL_PF_MASK: f(0x710, "i32"),
  CTL_PF_MATCH: f(0x714, "i32"),
  /** Host addresses of the bitmap pages, 0 = not in use. */
  CTL_IO_BITMAP_A: f(0x718, "i32"),
  CTL_IO_BITMAP_B: f(0x71c, "i32"),
  CTL_MSR_BITMAP: f(0x720, "i32"),
  CTL_CR3_TARGETS: f(0x724, "i32"),
  CTL_CR0_MASK: f(0x728, "i64"),
  CTL_CR0_SHADOW: f(0x730, "i64"),
  CTL_CR4_MASK: f(0x738, "i64"),
  CTL_CR4_SHADOW: f(0x740, "i64"),
  CTL_CR3_TARGET0: f(0x748, "i64"),
  CTL_CR3_TARGET1: f(0x750, "i64"),
  CTL_CR3_TARGET2: f(0x758, "i64"),
  CTL_CR3_TARGET3: f(0x760, "i64"),
  /** Nonzero in VMX non-root operation; zero when a guest runs on the bare processor. */
  NON_ROOT: f(0x768, "i32"),
  /** CPUID-derived masks of what may be set, from the CPU model. */
  CR4_ALLOWED: f(0x770, "i64"),
  EFER_ALLOWED: f(0x778, "i64"),
  /** Bits of a physical address that must be zero in a paging-structure entry (above MAXPHYADDR). */
  PHYSICAL_RESERVED: f(0x780, "i64"),
  MXCSR_MASK: f(0x788, "i32"),
  /** What regions have done: entries from the interpreter, from other regions, exits to the interpreter, instructions (at run ends). */
  REGION_ENTRIES: f(0x790, "i64"),
  REGION_LINKS: f(0x798, "i64"),
  REGION_BAILS: f(0x7a0, "i64"),
  REGION_INSTRUCTIONS: f(0x7a8, "i64"),
  /** Instructions executed for regions, each of which may have changed what a region looks at when it is entered. */
  REGION_STEPS: f(0x7b8, "i32"),
  /** Blocking by STI holds while S.BUDGET is this: an STI that nothing waited for says so here, and nobody has to look until the run ends. */
  STI_BUDGET: f(0x7b4, "i32"),
  /** Regions that have called the one being executed. */
  REGION_DEPTH: f(0x7b0, "i32"),
  /** Exit on privilege level: the control, the level at the last boundary that was looked at, and what may have changed it since (0 = nothing): cause, vector << 8, bit 31. */
  CTL_CPL_EXIT: f(0x7bc, "i32"),
  CPL_LAST: f(0x7c0, "i32"),
  CPL_CAUSE: f(0x7c4, "i32"),
  /** An interrupt waits that the guest itself takes: the run is left at the first boundary where it can. */
  INTERRUPT_WAITS: f(0x7c8, "i32"),
  /** Nonzero while guest-physical addresses are those of a guest's guest under an EPT of the guest's (vmx/guest). */
  GUEST_EPT: f(0x7d0, "i32"),
  /** What to add to PHYSICAL_MAP and to PCID_MAP: 0, or the way to the second ones. */
  PHYSICAL_BASE: f(0x7d4, "i32"),
  PCID_BASE: f(0x7d8, "i32"),
  /** Bits that MOV to CR0 and CR4 must leave set: not zero in VMX operation. */
  CR0_REQUIRED: f(0x7e0, "i64"),
  CR4_REQUIRED: f(0x7e8, "i64"),
} as const satisfies Record<string, Field>;

/** Replies and queued writes of device accesses: 128 entries of 16 bytes, enough for the
 * largest access (BOUNCE_BYTES is never used in full: XSAVE has 576).
 * A reply is its data (i64). A write is data (i64), physical address (low 32 bits, u32), size in bits 7:0 and physical
 * address bits 55:32 above them (u32). */
export const DEVICE_REPLIES = 0x2000;
export const DEVICE_WRITES = 0x2800;
export const DEVICE_ENTRIES = 128;
export const BOUNCE_READ = 0x3000;
export const BOUNCE_WRITE = 0x4000;
export const BOUNCE_BYTES = 0x1000;
/** Address-space number (u16) of each PCID, 0 = none yet. */
export const PCID_MAP = 0x5000;
export const PCIDS = 4096;
/** The same for the guest of a guest that uses VMX. */
export const GUEST_PCID_MAP = 0xa000;
/** Address-space numbers are 1..ADDRESS_SPACES-1; with two mode bits they fill the 12 low bits of a TLB tag. */
export const ADDRESS_SPACES = 1023;
/**
 * Context that no TLB entry has: alignment checking is on or data breakpoints are, every access takes the slow path. Access mode 3 does not exist; all ones would
 * match an empty entry in the last page of the address space.
 */
export const CONTEXT_NONE = 3;
/** The part of a context that is not the address-space number. */
export const ACCESS_MODES = 3;
/** STI_BUDGET where no STI counts: more than any budget. */
export const NO_BUDGET = 0x7fff_ffff;
/** Linear address that stands for a segment violation already recorded in PENDING. Not canonical. */
export const POISON = -0x7fff_ffff_ffff_ff01n;
/** Host "address" of a device access. */
export const DEVICE = 1;

/** PENDING: what the run loop has to do before the next instruction. */
export const Pending = { NONE: 0, EVENT: 1, VM_EXIT: 2 } as const;

/** What an instruction or procedure says when it ends. */
export const Status = {
  /** Done: go on with the next instruction. */
  NEXT: 0,
  /** Nothing changed; an event is in PENDING. */
  FAULT: 1,
  /** Done; S.RIP has been set, or the mode changed: look up the next block. */
  JUMP: 2,
  /** A VM exit instead of the instruction (EXIT_* is set): RIP stays at it. */
  EXIT: 3,
  /** Done, S.RIP is the next instruction, then leave the run loop with a VM exit (EXIT_* is set). */
  EXIT_AFTER: 4,
  /** A part of a repeated instruction is done; RIP stays at it, count one instruction. */
  REPEAT: 5,
} as const;

/**
 * SLOW: why block entry is careful. STEPPING: SINGLE_STEP = one iteration only (TF or monitor trap), SHADOW = nothing but the boundary after
 * it, TRAP = TF was set before the instruction, so that its trap is due after it.
 */
export const Slow = {
  SINGLE_STEP: 1,
  SHADOW: 2,
  INTERRUPT_WINDOW: 4,
  NMI_WINDOW: 8,
  BREAKPOINTS: 16,
  STOP: 32,
  PENDING_DEBUG: 64,
  TRAP: 128,
  CPL: 256,
  INTERRUPT: 512,
} as const;

/** S.EXIT_REASON of what is no VM exit: the run is left because the guest can take the interrupt that waits (S.INTERRUPT_WAITS). */
export const INTERRUPT_TAKEN = 0x1_0000;

/** Pending debug exceptions. SDM Vol. 3C, "Format of Pending-Debug-Exceptions": bits 3:0 as in DR6; ENABLED = an enabled breakpoint was met. */
export const PendingDebug = { HITS: 0xf, ENABLED: 0x1000, BS: 0x4000 } as const;

/**
 * MODE key: bits 1:0 code size (0 = 16, 1 = 32, 2 = 64) · bit 2 stack is 32-bit (SS.B) · bit 3 all of CS DS ES SS are flat ·
 * bit 4 real or virtual-8086.
 */
export const Mode = {
  CODE16: 0,
  CODE32: 1,
  CODE64: 2,
  CODE_MASK: 3,
  STACK32: 4,
  FLAT: 8,
  REAL: 16,
} as const;

export const TLB_ENTRIES = 2048;
export const TLB_ENTRY_BYTES = 16;
export const TLB_READ = 0x1_0000;
export const TLB_WRITE = 0x1_8000;
export const TLB_EXECUTE = 0x2_0000;
export const TLB_TAG = 0;
export const TLB_ADDEND = 8;
export const TLB_PAGE = 12;

/**
 * Jump cache: which region begins at an instruction pointer in a TLB context. 64 entries for each page number modulo 64, so that
 * forgetting a page clears one run of them.
 */
export const JUMP_CACHE = 0x2_8000;
export const JUMP_CACHE_PAGE_BYTES = 64 * 16;
export const JUMP_CACHE_BYTES = 64 * JUMP_CACHE_PAGE_BYTES;
export const JUMP_SLOT = 8;
export const JUMP_CONTEXT = 12;
export const JUMP_MODE_SHIFT = 12;
export const INDIRECT_TARGETS = 0x3_8000;
export const INDIRECT_TARGETS_BYTES = 0x8000;

export const BLOCK_HASH = 0x4_0000;
export const BLOCK_BUCKETS = 1 << 16;

export const PHYSICAL_MAP = 0x40_0000;
export const PHYSICAL_MAP_PAGES = 1 << 20;
/** Flags of a physical-map entry; the frame is a host page address. A zero entry is "not looked up yet". */
export const Page = { READ: 1, WRITE: 2, EXECUTE: 4, DEVICE: 8, KNOWN: 16 } as const;

export const CODE_MAP = 0x80_0000;
/** Scratch for one short block (a header and at most 65 records). */
export const SHORT_BLOCK = 0x8000;
export const MAX_BLOCK = 48;
export const ARENA = 0x100_0000;
export const ARENA_BYTES = 0x200_0000;
/** Control structures that belong to no guest (EPT, bitmaps) when a micro-hypervisor keeps them in this memory. */
export const HYPERVISOR_BASE = 0x300_0000;
export const HYPERVISOR_BYTES = 0xc0_0000;
/** A second physical map, for the guest of a guest: a cache of the guest's EPT over ours. */
export const GUEST_PHYSICAL_MAP = 0x3c0_0000;
/** A page for the MSR bitmap of a guest hypervisor joined to ours. */
export const JOINED_MSR_BITMAP = 0xc000;
/** A page for the MSR bitmap of our own hypervisor, with all x2APIC registers intercepted. */
export const OWN_MSR_BITMAP = 0xe000;
/** A page that stands for the VMCS of a guest hypervisor whose memory has been taken away. */
export const LOST_VMCS = 0xd000;
export const RAM_BASE = 0x400_0000;

/**
 * A decoded block: a 32-byte header, then 32-byte records. A block's address is that of its first record.
 *   header: physical u32 -32 · mode u32 -28 · next in bucket u32 -24 · instruction count u16 -20 · bytes u16 -18 ·
 *           second page (page-crossing instruction) u32 -16 · instructions until it is hot i32 -12 · table slot of its region u32 -8 ·
 *           first record's handler while that is JIT u16 -4
 *   record: handler u16 +0 · length u8 +2 · ea flags u8 +3 · op0 u16 +4 · op1 u16 +6 · base u16 +8 · index u16 +10 · segment u16 +12 ·
 *           scale u8 +14 · instructions after this one u8 +15 · displacement i32 +16 · offset in page u16 +20 · op2 / prefixes u16 +22 ·
 *           immediate i32 +24 (or 64 bits) · chain / second immediate u32 +28
 * op0..op2, base and index are addresses of register slots; segment is the address of a base.
 */
export const RECORD_BYTES = 32;
export const Head = {
  PHYSICAL: -32,
  MODE: -28,
  NEXT: -24,
  COUNT: -20,
  BYTES: -18,
  SECOND: -16,
  HEAT: -12,
  REGION: -8,
  HANDLER: -4,
} as const;
/** HEAT of a block that is as good as never hot. */
export const COLD = 0x7fff_ffff;
export const Rec = {
  HANDLER: 0,
  LENGTH: 2,
  EA: 3,
  OP0: 4,
  OP1: 6,
  BASE: 8,
  INDEX: 10,
  SEGMENT: 12,
  SCALE: 14,
  REMAINING: 15,
  DISPLACEMENT: 16,
  OFFSET: 20,
  OP2: 22,
  IMMEDIATE: 24,
  CHAIN: 28,
} as const;
/**
 * EA flags of a record: bit 0 = not the plain 64-bit form (call the slow address function) · bit 1 = 32-bit, bit 2 = 16-bit address size ·
 * bit 3 = segment must be checked (index in bits 6:4) · bit 7 = through the stack segment.
 */
/**
 * SLOW without CHECKED has no use for the segment bits. ABSOLUTE: the offset is the record's 64-bit immediate. UNSIGNED: the displacement is
 * zero-extended (RIP-relative, carried beyond 2 GiB by the instruction's place in its page). `BRANCH` alone marks a record whose second
 * immediate is a chain.
 */
export const Ea = {
  BRANCH: 64,
  SLOW: 1,
  ADDRESS32: 2,
  ADDRESS16: 4,
  CHECKED: 8,
  SEGMENT_SHIFT: 4,
  SEGMENT: 0x70,
  UNSIGNED: 0x60,
  ABSOLUTE: 0x70,
  STACK: 128,
} as const;

/** Page of a host address. Unsigned: there is memory beyond 2 GiB. */
export const hostPageOf = (host: number): number => (host & -4096) >>> 0;

export const gprAt = (n: number): number => GPR + 8 * n;
export const xmmAt = (n: number): number => XMM + 16 * n;
export const fprAt = (n: number): number => FPR + 16 * n;
export const segmentAt = (n: number): number => SEGMENTS + SEGMENT_BYTES * n;
