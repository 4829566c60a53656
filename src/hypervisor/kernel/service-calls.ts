/**
 * Calls of services as transactions: a message goes out, and the reply's state and effects are committed together, or none of them.
 *
 * A service that throws, is late, or answers what it has no right to is ended and started again from its image. Its new life gets the last
 * checkpoint and the messages since, their effects discarded, and then the message that has no reply yet. Nothing of that message has
 * been committed, so its effects happen once. Too many restarts end the VM.
 *
 * Hot path: open, the caller fills the message, call. Not here: what a reply may change (commit.ts) and cause (effects.ts).
 */

import { RAM_BASE } from "../../processor/state/layout.ts";
import type { Engine } from "../../processor/vmx/engine-port.ts";
import { EventKind, type Message, StateGroup } from "../abi/message.ts";
import { Status } from "../abi/status.ts";
import { checkReply } from "./commit.ts";
import { EffectGate, type EffectPorts, hasWindow } from "./effects.ts";
import { Outcome, type Placement } from "./placement.ts";
import type { Portal } from "./portal.ts";
import type { ServiceDomain } from "./service-domain.ts";
import type { Vcpu } from "./vcpu.ts";
import type { Vm } from "./vm.ts";
import { restoreService, type SavedService } from "./vm-state.ts";

/** The VM has ended instead of a reply. */
export const DEAD = -1;

/** A journal is at most this long: a restart replays it, a checkpoint empties it. */
const MAX_ENTRIES = 1024;
const MAX_JOURNAL_BYTES = 1 << 20;
/** When there is nothing else to do, from here on. */
const IDLE_ENTRIES = 128;
/** A program's first message may find it still being loaded. */
const START_DEADLINE_MS = 20_000;
/** Of guest memory that one message may read. */
const MAX_READ_BYTES = 64 << 20;

export class ServiceCalls {
  readonly #vm: Vm;
  readonly #engine: Engine;
  readonly #ports: EffectPorts;
  readonly #gate: EffectGate;
  #seq = 0;
  /** The service whose journal answers reads, instead of memory. */
  #replaying: ServiceDomain | null = null;
  #readBytes = 0;

  constructor(vm: Vm, engine: Engine, ports: EffectPorts) {
    this.#vm = vm;
    this.#engine = engine;
    this.#ports = ports;
    this.#gate = new EffectGate(vm, engine, ports);
  }

  /** Begins the first life of a service; start() goes on when all have begun. Throws what its image throws. */
  prepare(service: ServiceDomain): void {
    service.placement = this.#startPlacement(service);
  }

  start(service: ServiceDomain): void {
    const message = service.message;
    message.words.fill(0);
    message.kind = EventKind.START;
    if (this.call(service, null, null) !== DEAD) this.checkpoint(service);
  }

  /** Instead of start(): its life goes on from a snapshot. Answers why it cannot, or null. */
  resume(service: ServiceDomain, saved: SavedService): string | null {
    restoreService(service, saved);
    if (service.placement!.restore(saved.state, START_DEADLINE_MS)) return null;
    return service.placement!.failure || "its program refuses its state";
  }

  /** The number of the last message. */
  get seq(): number {
    return this.#seq;
  }

  set seq(seq: number) {
    this.#seq = seq;
  }

  /**
   * The message of `service`, to be filled for call(); null if it is dead and its VM with it. What the caller does not fill is not to be
   * looked at by the program, unless it is zero here.
   */
  open(service: ServiceDomain): Message | null {
    const { journal } = service;
    if (service.placement === null && !this.#restart(service, "killed", false)) return null;
    if (journal.entries >= MAX_ENTRIES || journal.byteLength >= MAX_JOURNAL_BYTES) {
      if (!this.checkpoint(service)) return null;
    }
    const message = service.message;
    message.dataBytes = 0;
    message.argument = 0;
    message.stream = 0;
    return message;
  }

  /**
   * Sends the open message until there is a reply that is good; commits its effects. Answers its status, or DEAD with the VM ended. For
   * an exit, `vcpu` and `portal` say what the reply may change: the caller commits that from `service.message`.
   */
  call(service: ServiceDomain, vcpu: Vcpu | null, portal: Portal | null): Status | typeof DEAD {
    let message = service.message;
    const seq = ++this.#seq;
    message.seq = seq;
    message.time = this.#ports.now();
    service.messages++;
    service.journal.begin(message, isShort(message, portal));
    const { ledger } = this.#vm;
    const before = ledger.to(service.account);
    const charged = service.account.ms;
    let failure = this.#attempt(service, vcpu, portal, seq);
    if (failure !== null) {
      failure = this.#retry(service, vcpu, portal, seq, failure);
      message = service.placement ? service.message : message;
    }
    ledger.to(before);
    if (vcpu) service.vcpuMs += service.account.ms - charged;
    if (failure !== null) return DEAD;
    const status = message.status as Status;
    service.journal.commit(status, message.dataBytes);
    if (this.#vm.log.isTraced) this.#trace(service, message, portal);
    this.#gate.commit(service, message);
    return status;
  }

  /** One delivery. Answers why the reply is none, or null. */
  #attempt(
    service: ServiceDomain,
    vcpu: Vcpu | null,
    portal: Portal | null,
    seq: number,
  ): string | null {
    const placement = service.placement!;
    const { message } = placement;
    this.#readBytes = 0;
    const { drill } = service;
    if (drill !== null) {
      service.drill = null;
      if (drill === "kill") return "killed";
      if (drill === "hang") message.kind = EventKind.HANG;
    }
    const failure = this.#deliver(placement, service.policy.deadlineMs);
    if (failure !== null) return failure;
    if (drill === "lose-reply") return "killed before its reply was seen";
    return this.#refusal(service, message, vcpu, portal, seq);
  }

  #deliver(placement: Placement, deadlineMs: number): string | null {
    const outcome = placement.call(deadlineMs);
    if (outcome === Outcome.REPLIED) return null;
    if (outcome === Outcome.LATE) return `no reply within ${deadlineMs} ms`;
    return `it failed: ${placement.failure}`;
  }

  #refusal(
    service: ServiceDomain,
    message: Message,
    vcpu: Vcpu | null,
    portal: Portal | null,
    seq: number,
  ): string | null {
    if (message.seq !== seq) return "reply to another message";
    const { status } = message;
    if (!vcpu || !portal) {
      if (status !== Status.OK) return `status ${status}`;
    } else if (status === Status.OK) {
      const refusal = checkReply(message, vcpu.vmcs, portal);
      if (refusal !== null) return `reply to ${portal.name} refused: ${refusal}`;
    } else if (status === Status.FORWARD) {
      if (message.stream >= portal.forwards.length) return "forwarded to no portal of its own";
    } else if (status !== Status.UNHANDLED) return `status ${status}`;
    return this.#gate.check(service, message);
  }

  /** Restarts and sends again, as long as the policy allows. Answers null, or why there will be no reply. */
  #retry(
    service: ServiceDomain,
    vcpu: Vcpu | null,
    portal: Portal | null,
    seq: number,
    firstFailure: string,
  ): string | null {
    const { ledger } = this.#vm;
    const since = ledger.now();
    let failure: string | null = firstFailure;
    for (let times = 1; failure !== null; times++) {
      if (times > service.policy.maxForOneMessage) {
        this.#endVm(service, `failed ${times} times on one message: ${failure}`);
        return failure;
      }
      if (!this.#restart(service, failure, true)) return failure;
      service.journal.resend(service.message);
      failure = this.#attempt(service, vcpu, portal, seq);
    }
    service.longestStallMs = Math.max(service.longestStallMs, ledger.now() - since);
    return null;
  }

  /**
   * A new life, brought to where the last one was. `isOpen`: the journal's last message has not been committed. Answers false with the VM
   * ended.
   */
  #restart(service: ServiceDomain, reason: string, isOpen: boolean): boolean {
    let why: string | null = reason;
    while (why !== null) {
      if (!this.#mayRestart(service, why)) return false;
      service.placement?.kill();
      service.placement = null;
      service.restarts++;
      service.lastFailure = why;
      this.#ports.log(`service ${service.name} restarted: ${why}`);
      this.#vm.log.note(`- service ${service.name} restarted: ${why}`);
      why = this.#revive(service, isOpen);
    }
    return true;
  }

  /** Answers why it did not work, or null. */
  #revive(service: ServiceDomain, isOpen: boolean): string | null {
    const { journal, checkpoint } = service;
    try {
      service.placement = this.#startPlacement(service);
    } catch (error) {
      return `its image cannot be started: ${describe(error)}`;
    }
    const { placement } = service;
    if (checkpoint && !placement.restore(checkpoint.state, START_DEADLINE_MS))
      return `its state cannot be restored: ${placement.failure}`;
    this.#replaying = service;
    try {
      journal.rewind();
      const { message } = placement;
      while (journal.next(message, !isOpen)) {
        const { seq } = message;
        const failure = this.#deliver(placement, START_DEADLINE_MS);
        if (failure !== null) return `in replay, ${failure}`;
        if (message.seq !== seq || !journal.agrees(message.status, message.dataBytes))
          return "it is no function of its messages: a replay went another way";
      }
    } finally {
      this.#replaying = null;
    }
    return null;
  }

  /** A new life with the present state: an orderly restart. Answers false with the VM ended. */
  renew(service: ServiceDomain): boolean {
    return this.checkpoint(service) && this.#restart(service, "restarted on request", false);
  }

  #startPlacement(service: ServiceDomain): Placement {
    return service.image({
      read: (address, length) => this.#read(service, address, length),
      transitions: this.#vm.log.transitions,
    });
  }

  #mayRestart(service: ServiceDomain, reason: string): boolean {
    const { policy, recentRestarts } = service;
    const now = this.#ports.now();
    while (recentRestarts.length > 0 && recentRestarts[0]! <= now - policy.windowNs)
      recentRestarts.shift();
    if (recentRestarts.length >= policy.maxRestarts) {
      const seconds = policy.windowNs / 1e9;
      this.#endVm(service, `${policy.maxRestarts} restarts in ${seconds} s, and now ${reason}`);
      return false;
    }
    recentRestarts.push(now);
    return true;
  }

  #endVm(service: ServiceDomain, why: string): void {
    service.placement?.kill();
    service.placement = null;
    service.lastFailure = why;
    const message = `service ${service.name} given up: ${why}`;
    this.#ports.log(message);
    this.#vm.end ??= { kind: "error", message };
  }

  // ---- checkpoints ----

  /** Takes the service's state, so that its journal can be forgotten. Answers false with the VM ended. */
  checkpoint(service: ServiceDomain): boolean {
    const { ledger } = this.#vm;
    const before = ledger.to(service.account);
    let ok = service.placement !== null || this.#restart(service, "killed", false);
    for (let times = 1; ok; times++) {
      const state = service.placement!.save(service.policy.deadlineMs);
      if (state !== null) {
        service.checkpoint = { state };
        service.journal.clear();
        service.checkpoints++;
        break;
      }
      const why = `its state cannot be saved: ${service.placement!.failure}`;
      if (times > service.policy.maxForOneMessage) {
        this.#endVm(service, why);
        ok = false;
      } else ok = this.#restart(service, why, false);
    }
    ledger.to(before);
    return ok;
  }

  /** There is time now: what would be done on the hot path later is done here. */
  checkpointIdle(): void {
    for (const service of this.#vm.services)
      if (service.journal.entries >= IDLE_ENTRIES && service.placement) this.checkpoint(service);
  }

  // ---- what a program may have within a message ----

  #read(service: ServiceDomain, address: number, length: number): Status {
    const { message } = service;
    const isSane =
      Number.isSafeInteger(address) &&
      Number.isInteger(length) &&
      address >= 0 &&
      length > 0 &&
      length <= message.capacity;
    if (!isSane) return Status.INVALID;
    if (!hasWindow(service.capabilities, address, length, false)) return Status.DENIED;
    this.#readBytes += length;
    if (this.#readBytes > MAX_READ_BYTES) return Status.LIMIT;
    const target = message.bytes.length - length;
    if (this.#replaying === service) {
      const bytes = service.journal.replayRead(address, length);
      if (!bytes) return Status.GONE;
      message.bytes.set(bytes, target);
      return Status.OK;
    }
    this.#vm.pager?.ensure(address, length);
    const bytes = new Uint8Array(this.#engine.view.buffer, RAM_BASE + address, length);
    message.bytes.set(bytes, target);
    service.journal.addRead(address, bytes);
    return Status.OK;
  }

  #trace(service: ServiceDomain, message: Message, portal: Portal | null): void {
    const what = portal ? portal.name : KIND_NAMES[message.kind];
    this.#vm.log.note(
      `- service ${service.name} ${what} seq=${message.seq} status=${message.status} groups=${message.groups.toString(16)} effects=${message.dataBytes}`,
    );
  }
}

const KIND_NAMES = ["exit", "timer", "input", "signal", "start"];

/** Whether the first 128 bytes of the message say all that the program may look at. */
function isShort(message: Message, portal: Portal | null): boolean {
  if (!portal) return false;
  return (portal.stateIn & StateGroup.HIGH_REGISTERS) === 0 && message.argument === 0;
}

/** A kernel that reports a failure must not fail by it. */
function describe(error: unknown): string {
  return error instanceof Error ? error.message : "something was thrown";
}
