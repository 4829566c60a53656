import { VendorExit } from "./vendor.ts";

/** Basic exit reasons. SDM Vol. 3D, appendix "VMX Basic Exit Reasons". */
export const ExitReason = {
  EXCEPTION_OR_NMI: 0,
  EXTERNAL_INTERRUPT: 1,
  TRIPLE_FAULT: 2,
  INIT: 3,
  SIPI: 4,
  INTERRUPT_WINDOW: 7,
  NMI_WINDOW: 8,
  TASK_SWITCH: 9,
  CPUID: 10,
  GETSEC: 11,
  HLT: 12,
  INVD: 13,
  INVLPG: 14,
  RDPMC: 15,
  RDTSC: 16,
  VMCALL: 18,
  VMCLEAR: 19,
  VMLAUNCH: 20,
  VMPTRLD: 21,
  VMPTRST: 22,
  VMREAD: 23,
  VMRESUME: 24,
  VMWRITE: 25,
  VMXOFF: 26,
  VMXON: 27,
  CR_ACCESS: 28,
  DR_ACCESS: 29,
  IO: 30,
  RDMSR: 31,
  WRMSR: 32,
  ENTRY_GUEST_STATE: 33,
  ENTRY_MSR_LOAD: 34,
  MWAIT: 36,
  MTF: 37,
  MONITOR: 39,
  PAUSE: 40,
  ENTRY_MACHINE_CHECK: 41,
  TPR_BELOW_THRESHOLD: 43,
  APIC_ACCESS: 44,
  VIRTUALIZED_EOI: 45,
  GDTR_IDTR: 46,
  LDTR_TR: 47,
  EPT_VIOLATION: 48,
  EPT_MISCONFIGURATION: 49,
  INVEPT: 50,
  RDTSCP: 51,
  PREEMPTION_TIMER: 52,
  INVVPID: 53,
  WBINVD: 54,
  XSETBV: 55,
  APIC_WRITE: 56,
  RDRAND: 57,
  INVPCID: 58,
  VMFUNC: 59,
  RDSEED: 61,
  PML_FULL: 62,
} as const;

/** Bit 31 of the exit reason: the VM entry failed. */
export const ENTRY_FAILURE = 0x8000_0000;

const names = new Map<number, string>(
  Object.entries({ ...ExitReason, ...VendorExit }).map(([name, code]) => [code, name]),
);

/** Name of a basic exit reason for logs and dumps. */
export function exitReasonName(reason: number): string {
  return names.get(reason & 0xffff) ?? `reason ${reason & 0xffff}`;
}
