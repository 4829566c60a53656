/**
 * An acceptance criterion: one automated test with an id, of which a line is printed. Passed or failed; what could not be tried has failed.
 */
export interface CriterionContext {
  readonly seed: number;
  /** For a person, while it runs. */
  progress(text: string): void;
}

export interface CriterionResult {
  readonly passed: boolean;
  /** In the words of the bar. */
  readonly measured: string;
  /** More lines for who looks closer. */
  readonly details?: readonly string[];
}

export interface Criterion {
  /** "P1-A3". */
  readonly id: string;
  readonly title: string;
  /** What has to be reached. */
  readonly bar: string;
  /** "virtual": derived from the processor's TSC; "wall": the embedder's clock; "none": nothing is timed. */
  readonly timeBase: "virtual" | "wall" | "none";
  /**
   * "bare": an operating system directly on the processor. "mh": micro-hypervisor, services, guest, EPT on; "mh-noept": the same with EPT
   * off. "raw": a ring-deprivileged guest. "kvm": KVM as the only hypervisor. "nested": KVM below ours.
   */
  readonly runMode: "bare" | "mh" | "mh-noept" | "raw" | "kvm" | "nested";
  /** Whether the seed decides what is tried. */
  readonly isSeeded: boolean;
  run(context: CriterionContext): Promise<CriterionResult>;
}
