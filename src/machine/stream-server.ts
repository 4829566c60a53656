/** The other end of a virtio service's stream: takes bytes from the service, and answers on the same stream, at once or later. */
export interface StreamServer {
  take(bytes: Uint8Array): void;
  /** Bytes between guest memory and here, as `header` says. `memory` is the guest's own, to be used during the call only. */
  move?(toMemory: boolean, header: Uint8Array, memory: readonly Uint8Array[]): void;
  /** For a server that keeps what it has until it is asked: bytes for the service, or null. */
  give?(): Uint8Array | null;
  readonly hasMore?: boolean;
  /** Work is under way whose answer a snapshot could not keep: it is not the moment for one. */
  readonly isBusy?: boolean;
  /** What is on its way to the device is lost in a snapshot, and its guest lives with that. */
  readonly isForgetful?: boolean;
  /** What a snapshot keeps of this end beyond that: plain data (abi/state-codec.ts). Given to `restore` of a new one before anything else. */
  save?(): unknown;
  restore?(state: unknown): void;
}
