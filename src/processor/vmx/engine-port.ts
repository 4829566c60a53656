/**
 * What VMX needs of an execution engine (interpreter, later JIT): the VM's memory, a run of at most so many instructions, and the core
 * procedures that change what follows from control state.
 */
export interface Engine {
  readonly view: DataView;
  /** Runs at most `budget` instructions: 0 = budget used up, 1 = VM exit (S.EXIT_*). S.BUDGET holds what is left. */
  run(budget: number): number;
  /** Recomputes what follows from control registers, segments and RFLAGS (core/mode.ts). */
  updateMode(): void;
  /** Forgets all linear translations. */
  flushTlb(): void;
  /** Makes the translations of the current PCID (of the map at S.PCID_BASE) current, or begins them anew. Calls updateMode. */
  enterAddressSpace(forget: boolean): void;
  /** A fault of the instruction at RIP, as if the engine had met it; S.PENDING_ADDRESS holds the address of a page fault. Answers a Status. */
  raise(vector: number, error: number): number;
  /** Delivers an event as VM entry does: interruption information, error code, instruction length. Answers a Status. */
  injectEvent(info: number, error: number, length: number): number;
  /**
   * Host address of guest memory at a linear address, for reading or for writing, as the current vCPU may access it; 0 if it may not, with
   * the exception in S.PENDING_*. After a write call commitWrite with the address.
   */
  hostRead(linear: bigint, bytes: number): number;
  hostWrite(linear: bigint, bytes: number): number;
  commitWrite(host: number): void;
  /** Tells the engine that guest memory [host, host + bytes) is about to be written from outside. */
  noticeWrite(host: number, bytes: number): void;
}

/** Imports of the engine that VMX serves. */
export interface EngineServices {
  /** Physical-map entry (state/layout.ts, Page) of a guest-physical page that is not in the map; `need` (Page rights) is what it is for. */
  physicalFill(page: number, need: number): number;
  /** Stores in S.TSC the guest's time-stamp counter after `retired` instructions of the current run. */
  readTsc(retired: number): void;
  random(): bigint;
}

/** The processor's time. TSC ticks are nanoseconds. */
export interface TscClock {
  /** TSC when `retired` instructions have been executed in all. */
  tsc(retired: number): number;
  /** Instructions that may run before the TSC can reach `deadline`; at least 1 if it is in the future. */
  budgetUntil(deadline: number, retired: number): number;
  /** Nothing happens before `until`: a virtual clock jumps there. Answers how many ns to really wait. */
  idle(until: number, retired: number): number;
}
