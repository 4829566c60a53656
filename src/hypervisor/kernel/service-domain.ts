/**
 * The protection domain of one service: its program's present life, its image, its capabilities, its account.
 */
import type { Message } from "../abi/message.ts";
import type { Grants } from "../abi/service.ts";
import { Journal } from "./journal.ts";
import type { Account } from "./ledger.ts";
import type { Placement, ServiceImage } from "./placement.ts";
import type { Portal } from "./portal.ts";

/** Part of the device space that a service may have decoded to a portal of its own. */
export interface DecodeRight {
  readonly space: "memory" | "ports";
  readonly from: number;
  /** exclusive */
  readonly to: number;
}

export interface Capabilities extends Grants {
  readonly decodeRights: readonly DecodeRight[];
}

export const NO_CAPABILITIES: Capabilities = {
  lines: [],
  messages: false,
  streams: [],
  stops: [],
  windows: [],
  decodes: null,
  decodeRights: [],
  forwards: 0,
};

export interface ServicePolicy {
  /** Wall time for one message, in ms; a placement that cannot be interrupted ignores it. */
  readonly deadlineMs: number;
  /** Restarts that are too many in `windowNs` of virtual time, or for one message. */
  readonly maxRestarts: number;
  readonly windowNs: number;
  readonly maxForOneMessage: number;
}

export const DEFAULT_POLICY: ServicePolicy = {
  deadlineMs: 2000,
  maxRestarts: 10,
  windowNs: 10e9,
  maxForOneMessage: 3,
};

/** What `hypo service` does to a service at its next message. */
export type Drill =
  /** Its program is gone. */
  | "kill"
  /** It never answers. */
  | "hang"
  /** It has handled the message and is gone before anybody has seen the reply. */
  | "lose-reply";

export class ServiceDomain {
  readonly name: string;
  /** Its bit in what several services share. */
  readonly number: number;
  readonly capabilities: Capabilities;
  readonly policy: ServicePolicy;
  readonly image: ServiceImage;
  readonly account: Account;
  readonly journal = new Journal();
  placement: Placement | null = null;
  /** What `placement.save` answered last; null before that. */
  checkpoint: { readonly state: unknown } | null = null;
  /** Due time of its timer in ns, Infinity if none. */
  deadline = Number.POSITIVE_INFINITY;
  /** Not before this: see effects.ts. */
  timerFloor = 0;
  drill: Drill | null = null;
  /** For ranges that it has decoded. */
  decodePortals: { memory: Portal | null; ports: Portal | null } = { memory: null, ports: null };

  // ---- accounts ----
  messages = 0;
  /** Milliseconds on the time of vCPUs; the rest of the account is the VM's. */
  vcpuMs = 0;
  restarts = 0;
  checkpoints = 0;
  lastFailure: string | null = null;
  longestStallMs = 0;
  /** Virtual times of the last restarts. */
  readonly recentRestarts: number[] = [];
  logLines = 0;
  logSecond = 0;

  constructor(fields: {
    readonly name: string;
    readonly number: number;
    readonly capabilities: Capabilities;
    readonly policy?: ServicePolicy;
    readonly image: ServiceImage;
  }) {
    this.name = fields.name;
    this.number = fields.number;
    this.capabilities = fields.capabilities;
    this.policy = fields.policy ?? DEFAULT_POLICY;
    this.image = fields.image;
    this.account = { name: fields.name, ms: 0 };
  }

  /** The message of the present life: another one after a restart. */
  get message(): Message {
    return this.placement!.message;
  }
}
