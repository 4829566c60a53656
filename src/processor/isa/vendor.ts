/**
 * All encodings of what this processor has beyond the SDM, in one place: VMCS fields, control bits, exit reasons.
 *
 * Field indices are ones that the SDM leaves unused, exit reasons are far above its own. None of it shows unless it is asked for: no
 * capability MSR of the architecture mentions it, and with all of it zero the processor behaves as without it.
 */

/**
 * Access assist of EPT violations on pages marked as devices. DEVICE_ACCESS: bit 0 = the exit has access assist, bit 1 = write. For a read,
 * put the answer into DEVICE_READ_REPLY and enter again.
 * CONTROLS: VendorControl bits. VMM_DEADLINE: TSC (without offset) at which the guest is left. CPL_EXIT_CONTROLS: CplExit bits.
 * DELIVERY_BITMAP, DELIVERY_TABLE: addresses of 256 bits and 256 bytes.
 */
export const VendorField = {
  DEVICE_ACCESS: 0x4480,
  DEVICE_SIZE: 0x4482,
  DEVICE_WRITE_DATA: 0x2480,
  DEVICE_READ_REPLY: 0x2080,
  VMM_DEADLINE: 0x2082,
  DELIVERY_BITMAP: 0x2084,
  DELIVERY_TABLE: 0x2086,
  CONTROLS: 0x4080,
  CPL_EXIT_CONTROLS: 0x4082,
} as const;

export const VendorControl = {
  /** VMM_DEADLINE counts. */
  DEADLINE: 1 << 0,
  /** External interrupts go to the guest by DELIVERY_BITMAP and DELIVERY_TABLE. */
  DIRECT_DELIVERY: 1 << 1,
} as const;

/** Basic exit reasons. */
export const VendorExit = {
  CPL_TRANSITION: 0xc000,
  VMM_DEADLINE: 0xc001,
} as const;

/**
 * Exit on privilege level. Criteria in bits 5:0, of the last three against the level TARGET; DECLINE + n: no exit when the new level is n;
 * MATRIX + 4 old + new: that transition.
 */
export const CplExit = {
  CHANGE: 1 << 0,
  INCREASE: 1 << 1,
  DECREASE: 1 << 2,
  MATCH: 1 << 3,
  GREATER: 1 << 4,
  LESS: 1 << 5,
  TARGET_SHIFT: 8,
  AT_ENTRY: 1 << 10,
  DECLINE_SHIFT: 12,
  MATRIX_SHIFT: 16,
  RESERVED: 0x8c0,
} as const;

/** Qualification: new level 1:0, old level 3:2, TransitionCause 8:4, criteria met 15:9 (bit 15: the matrix), vector of an event 23:16. */
export const CplQualification = {
  OLD_SHIFT: 2,
  CAUSE_SHIFT: 4,
  CRITERIA_SHIFT: 9,
  VECTOR_SHIFT: 16,
} as const;

/** What led to another level (or to the same). EVENT + interruption type: delivery of an event. */
export const TransitionCause = {
  VM_ENTRY: 0,
  FAR_CALL: 1,
  FAR_JUMP: 2,
  FAR_RETURN: 3,
  IRET: 4,
  SYSCALL: 5,
  SYSRET: 6,
  SYSENTER: 7,
  SYSEXIT: 8,
  MOV_CR0: 9,
  EVENT: 16,
} as const;
