/**
 * The console service alone, in any placement: port accesses, time and bytes go in as messages; what comes out is kept to be looked at.
 */
import { EffectKind, EffectReader, NO_DEADLINE } from "../../hypervisor/abi/effects.ts";
import { ExitReasons } from "../../hypervisor/abi/exit-reasons.ts";
import { EventKind, HEADER_BYTES, type Message, StateGroup } from "../../hypervisor/abi/message.ts";
import { Status } from "../../hypervisor/abi/status.ts";
import { Outcome, type Placement, type ServiceImage } from "../../hypervisor/kernel/placement.ts";
import { TransitionLog } from "../../hypervisor/kernel/transition-log.ts";

const DEADLINE_MS = 1000;
const INSTRUCTION_BYTES = 2;
const IN = 8;
/** In RAX before an access: what it leaves alone must still be there. */
const RAX_BEFORE = 0x1122_3344_5566_7788n;
const RAX = HEADER_BYTES - 160;

export type PortSize = 1 | 2 | 4;

export class ConsoleRig {
  time = 0;
  rip = 0xffff_ffff_8100_0000n;
  /** Due time of the service's timer. */
  deadline = Number.POSITIVE_INFINITY;
  readonly levels = new Map<number, boolean>();
  /** How often each line has risen. */
  readonly rises = new Map<number, number>();
  readonly output: [stream: number, text: string][] = [];
  /** All effects of the last message, as text. */
  effects: string[] = [];
  readonly transitions = new TransitionLog();
  readonly #image: ServiceImage;
  #placement: Placement;
  #seq = 0;

  constructor(image: ServiceImage) {
    this.#image = image;
    this.#placement = this.#life();
    this.#send(EventKind.START);
  }

  #life(): Placement {
    return this.#image({ read: () => Status.DENIED, transitions: this.transitions });
  }

  get message(): Message {
    return this.#placement.message;
  }

  end(): void {
    this.#placement.kill();
  }

  /** Another life with the state of this one. */
  restart(): void {
    const state = this.#placement.save(DEADLINE_MS);
    if (state === null) throw new Error("the state cannot be saved");
    this.#placement.kill();
    this.#placement = this.#life();
    if (!this.#placement.restore(state, DEADLINE_MS)) throw new Error(this.#placement.failure);
  }

  /** Calls with a message that `fill` has completed; its reply must be `expected`. */
  #send(
    kind: number,
    fill: (message: Message) => void = () => {},
    expected: Status = Status.OK,
  ): void {
    const { message } = this;
    message.words.fill(0);
    message.seq = ++this.#seq;
    message.kind = kind;
    message.time = this.time;
    fill(message);
    const outcome = this.#placement.call(DEADLINE_MS);
    if (outcome !== Outcome.REPLIED)
      throw new Error(`outcome ${outcome}: ${this.#placement.failure}`);
    if (message.seq !== this.#seq) throw new Error("reply to another message");
    if (message.status !== expected) throw new Error(`status ${message.status}`);
    this.#takeEffects();
  }

  read(port: number, size: PortSize = 1): number {
    this.#access(port * 0x1_0000 + IN + size - 1);
    const { message } = this;
    if (message.groups !== (StateGroup.RIP | StateGroup.LOW_REGISTERS))
      throw new Error(`groups ${message.groups}`);
    const kept = size === 4 ? 0n : (RAX_BEFORE >> BigInt(8 * size)) << BigInt(8 * size);
    const rax = message.view.getBigUint64(RAX, true);
    if (rax >> BigInt(8 * size) !== kept >> BigInt(8 * size))
      throw new Error(`RAX ${rax.toString(16)} after an IN of ${size} bytes`);
    return Number(BigInt.asUintN(8 * size, rax));
  }

  write(port: number, value: number, size: PortSize = 1): void {
    this.#access(port * 0x1_0000 + size - 1, value);
    if (this.message.groups !== StateGroup.RIP) throw new Error(`groups ${this.message.groups}`);
  }

  #access(qualification: number, value?: number): void {
    this.#send(EventKind.EXIT, (message) => {
      message.groups = StateGroup.EXIT | StateGroup.RIP | StateGroup.LOW_REGISTERS;
      message.reason = ExitReasons.IO;
      message.qualification = qualification;
      message.ripWide = this.rip;
      message.instructionLength = INSTRUCTION_BYTES;
      message.view.setBigUint64(RAX, RAX_BEFORE, true);
      if (value !== undefined) message.setRegister(0, value, 0xdead_beef);
    });
    this.rip += BigInt(INSTRUCTION_BYTES);
    if (this.message.ripWide !== this.rip) throw new Error("RIP is not behind the instruction");
  }

  /** An exit that is none of its business. */
  unhandled(reason: number, qualification: number): void {
    const fill = (message: Message): void => {
      message.reason = reason;
      message.qualification = qualification;
    };
    this.#send(EventKind.EXIT, fill, Status.UNHANDLED);
  }

  /** Answers how many were taken. */
  input(stream: number, bytes: Uint8Array | readonly number[]): number {
    this.#send(EventKind.INPUT, (message) => {
      message.stream = stream;
      message.dataBytes = bytes.length;
      message.bytes.set(bytes, HEADER_BYTES);
    });
    return this.message.argument;
  }

  signal(signal: number): void {
    this.#send(EventKind.SIGNAL, (message) => {
      message.argument = signal;
    });
  }

  /** Lets time pass, the timer at its time. */
  run(until: number): void {
    while (this.deadline <= until) this.jump(Math.max(this.time, this.deadline));
    this.time = until;
  }

  /** As after a late wake-up. */
  jump(time: number): void {
    this.time = time;
    if (this.deadline > time) return;
    this.deadline = Number.POSITIVE_INFINITY;
    this.#send(EventKind.TIMER);
  }

  level(line: number): boolean {
    return this.levels.get(line) ?? false;
  }

  #takeEffects(): void {
    this.effects = [];
    if (this.message.dataBytes === 0) return;
    const reader = new EffectReader(this.message);
    if (!reader.open()) throw new Error("effects of an impossible length");
    for (let more = reader.next(); more !== 0; more = reader.next()) {
      if (more < 0) throw new Error("malformed effects");
      this.effects.push(this.#takeEffect(reader));
    }
  }

  #takeEffect(reader: EffectReader): string {
    switch (reader.kind) {
      case EffectKind.TIMER:
        this.deadline = reader.word(1) === NO_DEADLINE ? Number.POSITIVE_INFINITY : reader.wide(0);
        return `timer ${this.deadline}`;
      case EffectKind.LINE: {
        const [line, level] = [reader.word(0), reader.word(1) === 1];
        if (level && !this.level(line)) this.rises.set(line, (this.rises.get(line) ?? 0) + 1);
        this.levels.set(line, level);
        return `line ${line} ${level}`;
      }
      case EffectKind.PUT: {
        const text = String.fromCharCode(...reader.bytes(8));
        this.output.push([reader.word(0), text]);
        return `put ${reader.word(0)} ${reader.word(1)} ${JSON.stringify(text)}`;
      }
      default:
        throw new Error(`effect ${reader.kind} of a console`);
    }
  }
}
