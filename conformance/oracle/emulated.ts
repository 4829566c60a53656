/**
 * The emulated side: runs tests on the interpreter, in the same records as the native side.
 *
 * There is no guest operating system. Ring-3 state is put into the engine's state block, every exception is a VM exit, and the exit
 * information becomes the result. Between tests only what tests can change is set anew.
 */

import { Interpreter } from "../../src/processor/interpreter/interpreter.ts";
import { ALL_FEATURES, type CpuFeatures } from "../../src/processor/isa/features.ts";
import { compileAtOnce } from "../../src/processor/jit/own-thread.ts";
import {
  FPR,
  GPR,
  Page,
  PHYSICAL_MAP,
  RAM_BASE,
  S,
  SEG_SELECTOR,
  Seg,
  segmentAt,
  XMM,
} from "../../src/processor/state/layout.ts";
import { readRflags, writeRflags } from "../../src/processor/vmx/rflags.ts";
import {
  CODE_HOST,
  DATA_HOST,
  makeWorld,
  RAM_BYTES,
  READ_ONLY_HOST,
  UNUSABLE,
  writeSegment,
} from "./emulated-world.ts";
import type { Facts } from "./native.ts";
import {
  CODE_MAX,
  FX_BYTES,
  Fx,
  Kind,
  Option,
  RECORD_BYTES,
  type Records,
  Result,
  Status,
  Test,
} from "./records.ts";
import {
  CODE,
  CODE_BYTES,
  codeBase,
  DATA,
  DATA_BYTES,
  FS_BASE,
  GS_BASE,
  PAGE,
  patternWord,
  segmentOf,
  WINDOW,
  WINDOW_BYTES,
} from "./world.ts";

const FLAG_TF = 0x100;
const RUN_LIMIT = 200_000;
const VM_EXIT = 1;
const VECTOR_DB = 1;
const VECTOR_BP = 3;
const VECTOR_PF = 14;
/** Interruption types whose RIP is after the instruction: INT n, INT1, INT3 and INTO. */
const AFTER_INSTRUCTION = 4;
const ERROR_CODE_VALID = 0x800;
/** Status of a VM exit that no test should cause. */
export const UNEXPECTED_EXIT = 0x200;

/** Features without which the native machine's rows would not be ours: MMX to AES, without what only rings or other makers have. */
const ABSENT = new Set([
  "vmx",
  "monitor",
  "smap",
  "rdpid",
  "rdseed",
  "rdrand",
  "invpcid",
  "xsaves",
]);
export const ORACLE_FEATURES: CpuFeatures = new Set(
  [...ALL_FEATURES].filter((f) => !ABSENT.has(f)),
);

export type OracleEngine = "interpreter" | "jit";

const WINDOW_HOST = DATA_HOST + (WINDOW - DATA);

export class Emulated {
  readonly engine: Interpreter;
  readonly #view: DataView;
  readonly #bytes: Uint8Array;
  readonly #pristine = new Uint8Array(DATA_BYTES);
  /** Code bytes of the last test, to be cleared. */
  #codeAt = 0;
  #codeBytes = 0;

  /** With "jit" every block is compiled when it is first entered. */
  constructor(facts: Facts, engine: OracleEngine = "interpreter") {
    const services = {
      physicalFill: (page: number) => this.#fill(page),
      readTsc: () => 0,
      random: () => 0n,
    };
    this.engine = new Interpreter({
      ramBytes: RAM_BYTES,
      features: ORACLE_FEATURES,
      services,
      ...(engine === "jit" ? { regions: compileAtOnce } : {}),
    });
    this.#view = this.engine.view;
    this.#bytes = new Uint8Array(this.#view.buffer);
    makeWorld(this.#view, facts);
    this.#bytes.fill(0xcc, CODE_HOST, CODE_HOST + CODE_BYTES);
    const words = new DataView(this.#pristine.buffer);
    for (let i = 0; i < DATA_BYTES / 4; i++) words.setInt32(4 * i, patternWord(i), true);
    this.#bytes.set(this.#pristine, DATA_HOST);
    for (let i = 0; i < PAGE / 4; i++)
      this.#view.setInt32(READ_ONLY_HOST + 4 * i, patternWord(i + DATA_BYTES / 4), true);
  }

  #fill(page: number): number {
    const inRam = page * PAGE < RAM_BYTES;
    const entry = inRam
      ? (RAM_BASE + page * PAGE) | Page.READ | Page.WRITE | Page.EXECUTE | Page.KNOWN
      : Page.KNOWN;
    this.#view.setUint32(PHYSICAL_MAP + page * 4, entry, true);
    return entry | 0;
  }

  run(tests: Records, results: Records, count: number): void {
    for (let i = 0; i < count; i++) this.runOne(tests, results, i);
  }

  runOne(tests: Records, results: Records, i: number): void {
    const at = i * RECORD_BYTES;
    this.#load(tests, at);
    results.view.setUint32(at + Result.ERROR, 0, true);
    results.view.setBigUint64(at + Result.CR2, 0n, true);
    let status: number;
    try {
      status = this.#execute(tests.view, at, results.view);
    } catch (error) {
      if (!(error instanceof Error) || error.name !== "RuntimeError") throw error;
      status = Status.CRASH;
    }
    this.#store(results.view, at, results, status);
  }

  #execute(t: DataView, at: number, out: DataView): number {
    const steps = t.getUint8(at + Test.STEPS);
    if (t.getUint8(at + Test.KIND) === Kind.STEP) {
      const traps = t.getUint16(at + Test.OPTIONS, true) & Option.TRAPS;
      return traps ? this.#runTraps(out, at, steps) : this.#runCounted(out, at, steps);
    }
    const base = CODE - codeBase(t.getUint16(at + Test.SELECTORS + 2 * Seg.CS, true));
    return this.#runFree(
      out,
      at,
      base + t.getUint16(at + Test.OFFSET, true) + t.getUint8(at + Test.LENGTH),
    );
  }

  #load(tests: Records, at: number): void {
    const view = this.#view;
    const t = tests.view;
    const { bytes } = tests;
    this.#placeCode(
      t.getUint16(at + Test.OFFSET, true),
      bytes,
      at + Test.CODE,
      t.getUint8(at + Test.LENGTH),
    );
    this.#bytes.set(bytes.subarray(at + Test.WINDOW, at + Test.WINDOW + WINDOW_BYTES), WINDOW_HOST);
    this.#bytes.set(bytes.subarray(at + Test.GPR, at + Test.GPR + 128), GPR);
    for (let s = 0; s < 6; s++)
      this.#loadSegment(s, t.getUint16(at + Test.SELECTORS + 2 * s, true));
    const codeSelector = t.getUint16(at + Test.SELECTORS + 2 * Seg.CS, true);
    view.setBigUint64(
      S.RIP.at,
      BigInt(CODE - codeBase(codeSelector) + t.getUint16(at + Test.OFFSET, true)),
      true,
    );
    this.#loadFx(t, bytes, at + Test.FX);
    const traps = t.getUint16(at + Test.OPTIONS, true) & Option.TRAPS ? FLAG_TF : 0;
    writeRflags(view, t.getUint32(at + Test.RFLAGS, true) | 0x202 | traps);
    view.setUint32(S.CPL.at, 3, true);
    for (const field of [S.PENDING, S.INTERRUPTIBILITY, S.ACTIVITY, S.VECTORING, S.STEPPING])
      view.setUint32(field.at, 0, true);
    this.engine.updateMode();
  }

  #placeCode(offset: number, from: Uint8Array, at: number, length: number): void {
    this.#clearCode();
    this.#codeAt = CODE_HOST + offset;
    this.#codeBytes = Math.min(CODE_MAX, CODE_BYTES - offset);
    this.#notice(this.#codeAt, this.#codeBytes);
    const count = Math.min(length, CODE_BYTES - offset);
    this.#bytes.set(from.subarray(at, at + count), this.#codeAt);
  }

  #clearCode(): void {
    if (this.#codeBytes === 0) return;
    this.#notice(this.#codeAt, this.#codeBytes);
    this.#bytes.fill(0xcc, this.#codeAt, this.#codeAt + this.#codeBytes);
  }

  /** Tells the engine of a write, one page at a time. */
  #notice(host: number, count: number): void {
    const room = PAGE - (host & (PAGE - 1));
    this.engine.noticeWrite(host, Math.min(count, room));
    if (count > room) this.engine.noticeWrite(host + room, count - room);
  }

  #loadSegment(number: number, selector: number): void {
    const s = segmentOf(selector);
    const nullBase = number === Seg.FS ? FS_BASE : number === Seg.GS ? GS_BASE : 0;
    if (!s)
      writeSegment(this.#view, number, {
        selector,
        base: BigInt(nullBase),
        limit: 0,
        rights: UNUSABLE,
      });
    else
      writeSegment(this.#view, number, {
        selector,
        base: BigInt(s.base),
        limit: s.limit,
        rights: s.rights,
      });
  }

  #loadFx(t: DataView, bytes: Uint8Array, at: number): void {
    const view = this.#view;
    const status = t.getUint16(at + Fx.FSW, true);
    view.setUint32(S.FCW.at, t.getUint16(at + Fx.FCW, true), true);
    view.setUint32(S.FSW.at, status, true);
    view.setUint32(S.FTAG_EMPTY.at, ~t.getUint8(at + Fx.FTW) & 0xff, true);
    view.setUint32(S.FOP.at, t.getUint16(at + Fx.FOP, true), true);
    view.setBigUint64(S.FIP.at, t.getBigUint64(at + Fx.FIP, true), true);
    view.setBigUint64(S.FDP.at, t.getBigUint64(at + Fx.FDP, true), true);
    view.setUint32(S.FCS.at, 0, true);
    view.setUint32(S.FDS.at, 0, true);
    view.setUint32(S.MXCSR.at, t.getUint32(at + Fx.MXCSR, true), true);
    const top = (status >> 11) & 7;
    for (let i = 0; i < 8; i++) {
      const to = FPR + 16 * ((top + i) & 7);
      for (let k = 0; k < 16; k++) this.#bytes[to + k] = bytes[at + Fx.ST + 16 * i + k]!;
    }
    this.#bytes.set(bytes.subarray(at + Fx.XMM, at + FX_BYTES), XMM);
  }

  /** Vector of the VM exit that ended the run, with error code, CR2 and an advanced RIP where it is due. */
  #exit(out: DataView, at: number): number {
    const view = this.#view;
    const reason = view.getUint32(S.EXIT_REASON.at, true);
    if (reason !== 0) return UNEXPECTED_EXIT + reason;
    const info = view.getUint32(S.EXIT_INTERRUPTION.at, true);
    const vector = info & 0xff;
    if (info & ERROR_CODE_VALID)
      out.setUint32(at + Result.ERROR, view.getUint32(S.EXIT_INTERRUPTION_ERROR.at, true), true);
    if (vector === VECTOR_PF)
      out.setBigUint64(at + Result.CR2, view.getBigUint64(S.EXIT_QUALIFICATION.at, true), true);
    if (((info >> 8) & 7) >= AFTER_INSTRUCTION) {
      const rip =
        view.getBigUint64(S.RIP.at, true) + BigInt(view.getUint32(S.EXIT_LENGTH.at, true));
      view.setBigUint64(S.RIP.at, rip, true);
    }
    return vector;
  }

  #runCounted(out: DataView, at: number, steps: number): number {
    if (this.engine.run(steps) !== VM_EXIT) return Status.DONE;
    // All are done if the budget is used up: what comes up then is about the fetch of the next one.
    if (this.#view.getUint32(S.BUDGET.at, true) === 0) return Status.DONE;
    const vector = this.#exit(out, at);
    return vector === VECTOR_DB ? Status.DONE : vector;
  }

  #runTraps(out: DataView, at: number, steps: number): number {
    for (let done = 0; done < steps; done++) {
      if (this.engine.run(RUN_LIMIT) !== VM_EXIT) return Status.TIMEOUT;
      const vector = this.#exit(out, at);
      if (vector !== VECTOR_DB) return vector;
      const view = this.#view;
      view.setUint32(S.RFLAGS_REST.at, view.getUint32(S.RFLAGS_REST.at, true) | FLAG_TF, true);
      this.engine.updateMode();
    }
    return Status.DONE;
  }

  #runFree(out: DataView, at: number, end: number): number {
    if (this.engine.run(RUN_LIMIT) !== VM_EXIT) return Status.TIMEOUT;
    const vector = this.#exit(out, at);
    const view = this.#view;
    const rip = view.getBigUint64(S.RIP.at, true);
    if (vector !== VECTOR_BP || rip !== BigInt(end + 1)) return vector;
    view.setBigUint64(S.RIP.at, BigInt(end), true);
    return Status.DONE;
  }

  #store(out: DataView, at: number, results: Records, status: number): void {
    const view = this.#view;
    const { bytes } = results;
    out.setUint32(at + Result.STATUS, status, true);
    out.setBigUint64(at + Result.RIP, view.getBigUint64(S.RIP.at, true), true);
    out.setBigUint64(at + Result.RFLAGS, BigInt(readRflags(view)), true);
    bytes.set(this.#bytes.subarray(GPR, GPR + 128), at + Result.GPR);
    for (let s = 0; s < 6; s++)
      out.setUint16(
        at + Result.SELECTORS + 2 * s,
        view.getUint16(segmentAt(s) + SEG_SELECTOR, true),
        true,
      );
    this.#storeFx(out, bytes, at + Result.FX);
    bytes.set(this.#bytes.subarray(WINDOW_HOST, WINDOW_HOST + WINDOW_BYTES), at + Result.WINDOW);
    out.setUint32(at + Result.OUTSIDE, this.#restoreOutside(), true);
  }

  #storeFx(out: DataView, bytes: Uint8Array, at: number): void {
    const view = this.#view;
    const status = view.getUint32(S.FSW.at, true);
    out.setUint16(at + Fx.FCW, view.getUint32(S.FCW.at, true), true);
    out.setUint16(at + Fx.FSW, status, true);
    out.setUint16(at + Fx.FTW, ~view.getUint32(S.FTAG_EMPTY.at, true) & 0xff, true);
    out.setUint16(at + Fx.FOP, view.getUint32(S.FOP.at, true), true);
    out.setBigUint64(at + Fx.FIP, view.getBigUint64(S.FIP.at, true), true);
    out.setBigUint64(at + Fx.FDP, view.getBigUint64(S.FDP.at, true), true);
    out.setUint32(at + Fx.MXCSR, view.getUint32(S.MXCSR.at, true), true);
    const top = (status >> 11) & 7;
    for (let i = 0; i < 8; i++) {
      const from = FPR + 16 * ((top + i) & 7);
      for (let k = 0; k < 10; k++) bytes[at + Fx.ST + 16 * i + k] = this.#bytes[from + k]!;
    }
    bytes.set(this.#bytes.subarray(XMM, XMM + 256), at + Fx.XMM);
  }

  /** Digest of what the test changed outside the window, as native-oracle.c makes it; puts it back. */
  #restoreOutside(): number {
    const after = WINDOW - DATA + WINDOW_BYTES;
    const same = (from: number, to: number): boolean =>
      Buffer.compare(
        this.#bytes.subarray(DATA_HOST + from, DATA_HOST + to),
        this.#pristine.subarray(from, to),
      ) === 0;
    if (same(0, WINDOW - DATA) && same(after, DATA_BYTES)) return 0;
    let hash = 0;
    const mix = (v: number): void => {
      hash = Math.imul(hash ^ v, 0x0100_0193);
    };
    for (let i = 0; i < DATA_BYTES / 8; i++) {
      if (i === (WINDOW - DATA) / 8) i = after / 8;
      const low = this.#view.getInt32(DATA_HOST + 8 * i, true);
      const high = this.#view.getInt32(DATA_HOST + 8 * i + 4, true);
      if (low === patternWord(2 * i) && high === patternWord(2 * i + 1)) continue;
      if (hash === 0) hash = 0x811c_9dc5;
      mix(i);
      mix(low);
      mix(high);
    }
    this.#bytes.set(this.#pristine.subarray(0, WINDOW - DATA), DATA_HOST);
    this.#bytes.set(this.#pristine.subarray(after), DATA_HOST + after);
    return hash >>> 0;
  }
}
