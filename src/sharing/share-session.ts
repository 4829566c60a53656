/** A file protocol between one guest and a folder: requests in, one reply each. */
export interface ShareSession {
  /**
   * Answers at most `room` bytes, good until the next call; none for a request that has no reply. Nothing that is in `request` is trusted, and nothing
   * is thrown.
   */
  handle(request: Uint8Array, room: number): Uint8Array;
  /** Gives everything back to the embedder. */
  close(): void;
  /** What the guest knows of the folder, for a snapshot: plain data. */
  save(): unknown;
  /** Throws HypolithError "snapshot-shape". */
  restore(state: unknown): void;
}
