/**
 * A reference model of virtual-interrupt delivery and posting, by SDM Vol. 3C, "APIC Virtualization and Virtual Interrupts": sets of vectors in
 * place of registers, every quantity computed from them anew.
 */
export class VirtualApicModel {
  readonly irr = new Set<number>();
  readonly isr = new Set<number>();
  tpr = 0;
  ppr = 0;
  rvi = 0;
  svi = 0;
  isRecognized = false;
  readonly eoiExits: ReadonlySet<number>;

  constructor(eoiExits: ReadonlySet<number>) {
    this.eoiExits = eoiExits;
  }

  #virtualizePpr(): void {
    const ofTpr = this.tpr & 0xf0;
    const ofSvi = this.svi & 0xf0;
    this.ppr = ofTpr >= ofSvi ? this.tpr : ofSvi;
  }

  #evaluate(): void {
    this.isRecognized = (this.rvi & 0xf0) > (this.ppr & 0xf0);
  }

  enter(): void {
    this.#virtualizePpr();
    this.#evaluate();
  }

  writeTpr(value: number): void {
    this.tpr = value;
    this.#virtualizePpr();
    this.#evaluate();
  }

  /** Answers the vector of the exit that follows, or null. */
  end(): number | null {
    const vector = this.svi;
    this.isr.delete(vector);
    this.svi = Math.max(0, ...this.isr);
    this.#virtualizePpr();
    if (this.eoiExits.has(vector)) return vector;
    this.#evaluate();
    return null;
  }

  selfIpi(vector: number): void {
    this.irr.add(vector);
    this.rvi = Math.max(this.rvi, vector);
    this.#evaluate();
  }

  post(vectors: readonly number[]): void {
    for (const vector of vectors) this.irr.add(vector);
    if (vectors.length > 0) this.rvi = Math.max(this.rvi, ...vectors);
    this.#evaluate();
  }

  deliver(): number {
    const vector = this.rvi;
    this.isr.add(vector);
    this.svi = vector;
    this.ppr = vector & 0xf0;
    this.irr.delete(vector);
    this.rvi = Math.max(0, ...this.irr);
    this.isRecognized = false;
    return vector;
  }
}
