/**
 * The message between micro-hypervisor and service: one trapped event of a guest vCPU, and the answer to it.
 *
 * A message is 256 bytes in a buffer of its own, the same in every placement of a service. It carries only the state groups that the portal
 * asked for; a reply names the groups it wants committed. Nothing of the kernel's or the guest's memory is reachable through it.
 *
 *   0 seq u32 · 4 portal u32 · 8 groups u32 · 12 status u32 · 16 reason u32 · 20 instruction length u32 · 24 qualification u64 ·
 *   32 guest-physical address u64 · 40 device access u32 · 44 device size u32 · 48 device data u64 · 56 RIP u64 · 64 RFLAGS u64 ·
 *   72 activity u32 · 76 interruptibility u32 · 80 injection information u32 · 84 injection error u32 · 88 TSC u64 · 96 general registers 16 x u64
 */
export const MESSAGE_BYTES = 256;

/** State groups, one bit each. Groups that are only ever sent to a service are marked "in". */
export const StateGroup = {
  /** RAX RCX RDX RBX. */
  LOW_REGISTERS: 1 << 0,
  /** RSP RBP RSI RDI R8..R15. */
  HIGH_REGISTERS: 1 << 1,
  RFLAGS: 1 << 2,
  /** RIP and the length of the instruction. */
  RIP: 1 << 3,
  /** Activity and interruptibility. */
  ACTIVITY: 1 << 4,
  /** in: exit reason and qualification, guest-physical address. */
  EXIT: 1 << 5,
  /** Access to a device page: direction, size, data. */
  DEVICE: 1 << 6,
  /** Event injection. */
  INJECTION: 1 << 7,
} as const;

export const IN_ONLY_GROUPS = StateGroup.EXIT;

const AT = {
  SEQ: 0,
  PORTAL: 4,
  GROUPS: 8,
  STATUS: 12,
  REASON: 16,
  LENGTH: 20,
  QUALIFICATION: 24,
  PHYSICAL: 32,
  ACCESS: 40,
  SIZE: 44,
  DATA: 48,
  RIP: 56,
  RFLAGS: 64,
  ACTIVITY: 72,
  INTERRUPTIBILITY: 76,
  INJECTION: 80,
  INJECTION_ERROR: 84,
  TSC: 88,
  REGISTERS: 96,
} as const;

/** Reader and writer of one message buffer. 64-bit values go as numbers where they are exact, else as low and high words. */
export class Message {
  readonly view: DataView;

  constructor(buffer: ArrayBuffer = new ArrayBuffer(MESSAGE_BYTES)) {
    this.view = new DataView(buffer, 0, MESSAGE_BYTES);
  }

  #get(at: number): number {
    return this.view.getUint32(at, true);
  }

  #set(at: number, value: number): void {
    this.view.setUint32(at, value, true);
  }

  #getWide(at: number): number {
    return this.view.getUint32(at, true) + this.view.getUint32(at + 4, true) * 0x1_0000_0000;
  }

  #setWide(at: number, value: number): void {
    this.view.setUint32(at, value, true);
    this.view.setUint32(at + 4, Math.floor(value / 0x1_0000_0000), true);
  }

  get seq(): number {
    return this.#get(AT.SEQ);
  }
  set seq(v: number) {
    this.#set(AT.SEQ, v);
  }
  get portal(): number {
    return this.#get(AT.PORTAL);
  }
  set portal(v: number) {
    this.#set(AT.PORTAL, v);
  }
  /** Groups that are in the message, or (in a reply) that are to be committed. */
  get groups(): number {
    return this.#get(AT.GROUPS);
  }
  set groups(v: number) {
    this.#set(AT.GROUPS, v);
  }
  get status(): number {
    return this.#get(AT.STATUS);
  }
  set status(v: number) {
    this.#set(AT.STATUS, v);
  }
  get reason(): number {
    return this.#get(AT.REASON);
  }
  set reason(v: number) {
    this.#set(AT.REASON, v);
  }
  get instructionLength(): number {
    return this.#get(AT.LENGTH);
  }
  set instructionLength(v: number) {
    this.#set(AT.LENGTH, v);
  }
  /** Low 32 bits, which is all that I/O, CR and DR qualifications have. */
  get qualification(): number {
    return this.#get(AT.QUALIFICATION);
  }
  set qualification(v: number) {
    this.#setWide(AT.QUALIFICATION, v);
  }
  get physical(): number {
    return this.#getWide(AT.PHYSICAL);
  }
  set physical(v: number) {
    this.#setWide(AT.PHYSICAL, v);
  }
  /** DeviceAccess: READ or WRITE. */
  get deviceAccess(): number {
    return this.#get(AT.ACCESS);
  }
  set deviceAccess(v: number) {
    this.#set(AT.ACCESS, v);
  }
  get deviceSize(): number {
    return this.#get(AT.SIZE);
  }
  set deviceSize(v: number) {
    this.#set(AT.SIZE, v);
  }
  get deviceData(): bigint {
    return this.view.getBigUint64(AT.DATA, true);
  }
  set deviceData(v: bigint) {
    this.view.setBigUint64(AT.DATA, v, true);
  }
  /** Exact below 2^53 only: services that compute with 64-bit instruction pointers use skip() or ripWide. */
  get ripWide(): bigint {
    return this.view.getBigUint64(AT.RIP, true);
  }
  set ripWide(v: bigint) {
    this.view.setBigUint64(AT.RIP, v, true);
  }
  get rflags(): number {
    return this.#get(AT.RFLAGS);
  }
  set rflags(v: number) {
    this.#setWide(AT.RFLAGS, v);
  }
  get activity(): number {
    return this.#get(AT.ACTIVITY);
  }
  set activity(v: number) {
    this.#set(AT.ACTIVITY, v);
  }
  get interruptibility(): number {
    return this.#get(AT.INTERRUPTIBILITY);
  }
  set interruptibility(v: number) {
    this.#set(AT.INTERRUPTIBILITY, v);
  }
  get injection(): number {
    return this.#get(AT.INJECTION);
  }
  set injection(v: number) {
    this.#set(AT.INJECTION, v);
  }
  get injectionError(): number {
    return this.#get(AT.INJECTION_ERROR);
  }
  set injectionError(v: number) {
    this.#set(AT.INJECTION_ERROR, v);
  }

  /** Low and high word of general register n (encoding order). */
  registerLow(n: number): number {
    return this.#get(AT.REGISTERS + 8 * n);
  }
  registerHigh(n: number): number {
    return this.#get(AT.REGISTERS + 8 * n + 4);
  }
  setRegister(n: number, low: number, high: number): void {
    this.#set(AT.REGISTERS + 8 * n, low);
    this.#set(AT.REGISTERS + 8 * n + 4, high);
  }

  /** Writes the low `bytes` of a register as an instruction would: four bytes clear the upper half. */
  writeRegister(n: number, bytes: 1 | 2 | 4, value: number): void {
    const at = AT.REGISTERS + 8 * n;
    if (bytes === 1) this.view.setUint8(at, value);
    else if (bytes === 2) this.view.setUint16(at, value, true);
    else this.setRegister(n, value, 0);
  }

  /** RIP past the instruction. */
  skip(): void {
    const low = this.#get(AT.RIP) + this.instructionLength;
    this.#set(AT.RIP, low);
    if (low > 0xffff_ffff) this.#set(AT.RIP + 4, this.#get(AT.RIP + 4) + 1);
  }
}

export const DeviceAccess = { NONE: 0, READ: 1, WRITE: 3 } as const;
