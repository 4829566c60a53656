/** What a stretch of a machine's life cost its process. */
export interface ProcessSample {
  /** CPU seconds of all threads. */
  readonly cpu: number;
  readonly wall: number;
}
