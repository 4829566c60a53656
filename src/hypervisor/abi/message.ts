/**
 * The message between micro-hypervisor and service: one event, and the answer to it.
 *
 * A message is a header of 256 bytes and a data area behind it, in a buffer of the service's own, the same in every placement. Of a guest
 * it carries only the state groups that the portal asked for; a reply names the groups it wants committed. Nothing of the kernel's or the
 * guest's memory is reachable through it.
 *
 *   0 seq u32 · 4 kind u16 (EventKind) · 6 portal u16 · 8 groups u32 · 12 status u32 · 16 reason u32 · 20 instruction length u32 ·
 *   24 qualification u64 · 32 guest-physical address u64 · 40 device access u32 · 44 device size u32 · 48 device data u64 · 56 RIP u64 ·
 *   64 RFLAGS u64 · 72 activity u32 · 76 interruptibility u32 · 80 injection information u32 · 84 injection error u32 ·
 *   88 virtual time in ns u64 · 96 general registers 16 x u64 · 224 data bytes u32 · 228 stream u32 · 232 argument u64 · 240 reserved ·
 *   256 data: of a request its payload, of a reply its effects (effects.ts)
 *
 * A portal without high registers and without argument needs the first 128 bytes and the data length only.
 */
export const HEADER_BYTES = 256;
/** Header and data area of a service that asks for no more. A WebAssembly page: see machine/placements. */
export const MESSAGE_BYTES = 0x1_0000;

/** What a message tells. Everything but EXIT comes without guest state. */
export const EventKind = {
  /** A VM exit of a guest: reason and state groups. Reply: status, groups, effects. */
  EXIT: 0,
  /** The service's timer is due. */
  TIMER: 1,
  /** Bytes from a stream of the embedder, in the data area. Reply: `argument` = how many were taken. */
  INPUT: 2,
  /** A signal of the embedder: `argument` is a SignalNumber. */
  SIGNAL: 3,
  /** The first message of a service's life. */
  START: 4,
  /** Asks for the service's whole state, into the data area. Must have no effects. */
  SAVE: 5,
  /** The state to go on from, in the data area. Must have no effects. */
  RESTORE: 6,
  /** For drills: never to be answered. */
  HANG: 7,
} as const;

export const SignalNumber = {
  POWER_BUTTON: 1,
  /** The VM has ended: the last message, for what has been gathered and not been put yet. */
  STOPPING: 2,
  /** The VM goes on from a snapshot, and is not the one it was taken of. Data: milliseconds of real time that have gone by, f64. */
  RESUMED: 3,
} as const;

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

/** Where the fields are, for programs that know no class. */
export const MessageOffset = {
  SEQ: 0,
  KIND: 4,
  PORTAL: 6,
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
  TIME: 88,
  REGISTERS: 96,
  DATA_BYTES: 224,
  STREAM: 228,
  ARGUMENT: 232,
} as const;
const AT = MessageOffset;

/** Reader and writer of one message buffer. 64-bit values go as numbers where they are exact, else as low and high words. */
export class Message {
  readonly view: DataView;
  /** The header, for copies. */
  readonly words: Uint32Array;
  readonly bytes: Uint8Array;

  constructor(buffer: ArrayBufferLike = new ArrayBuffer(MESSAGE_BYTES)) {
    this.view = new DataView(buffer);
    this.words = new Uint32Array(buffer, 0, HEADER_BYTES / 4);
    this.bytes = new Uint8Array(buffer);
  }

  /** Room for data. */
  get capacity(): number {
    return this.view.byteLength - HEADER_BYTES;
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
  get kind(): number {
    return this.view.getUint16(AT.KIND, true);
  }
  set kind(v: number) {
    this.view.setUint16(AT.KIND, v, true);
  }
  get portal(): number {
    return this.view.getUint16(AT.PORTAL, true);
  }
  set portal(v: number) {
    this.view.setUint16(AT.PORTAL, v, true);
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

  /** Virtual time of the event: nanoseconds since machine start. */
  get time(): number {
    return this.#getWide(AT.TIME);
  }
  set time(v: number) {
    this.#setWide(AT.TIME, v);
  }
  /** Of a request: bytes of payload. Of a reply: bytes of effects. */
  get dataBytes(): number {
    return this.#get(AT.DATA_BYTES);
  }
  set dataBytes(v: number) {
    this.#set(AT.DATA_BYTES, v);
  }
  get stream(): number {
    return this.#get(AT.STREAM);
  }
  set stream(v: number) {
    this.#set(AT.STREAM, v);
  }
  /** Exact below 2^53. */
  get argument(): number {
    return this.#getWide(AT.ARGUMENT);
  }
  set argument(v: number) {
    this.#setWide(AT.ARGUMENT, v);
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
