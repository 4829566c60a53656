/** Effects that a service's VM asks for by VMCALL: arguments from registers, bytes from its memory, into the reply's records. */
import { GPR } from "../../processor/state/layout.ts";
import type { Vmcs } from "../../processor/vmx/vmcs.ts";
import { EffectKind, type EffectWriter } from "../abi/effects.ts";
import { Status } from "../abi/status.ts";
import type { ServiceMemory } from "./service-memory.ts";

/** By encoding: RAX RCX RDX RBX RSP RBP RSI. */
const Register = { CX: 1, DX: 2, BX: 3, SI: 6 } as const;

/** Answers a Status: OK says that the record is there, not that it will be found good. */
export function collectEffect(
  kind: number,
  { state }: Vmcs,
  memory: ServiceMemory,
  effects: EffectWriter,
): Status {
  const low = (n: number): number => state.getUint32(GPR + 8 * n, true);
  const words = (n: number): [number, number] => [low(n), state.getUint32(GPR + 8 * n + 4, true)];
  const { BX, CX, DX, SI } = Register;
  const add = (fixed: readonly number[]): Status =>
    effects.add(kind, fixed) ? Status.OK : Status.LIMIT;
  const addBytes = (fixed: readonly number[]): Status => {
    const bytes = memory.window(
      Number(state.getBigUint64(GPR + 8 * CX, true)),
      Number(state.getBigUint64(GPR + 8 * DX, true)),
    );
    if (!bytes) return Status.INVALID;
    return effects.add(kind, fixed, bytes) ? Status.OK : Status.LIMIT;
  };
  switch (kind) {
    case EffectKind.TIMER:
      return add(words(BX));
    case EffectKind.LINE:
    case EffectKind.INTERRUPT:
      return add([low(BX), low(CX)]);
    case EffectKind.PUT:
      return addBytes([low(BX), 0]);
    case EffectKind.STOP:
      return add([low(BX), 0]);
    case EffectKind.LOG:
      return addBytes([]);
    case EffectKind.WRITE:
      return addBytes(words(BX));
    case EffectKind.DECODE:
      return add([low(BX), low(CX), ...words(DX), ...words(SI)]);
    default:
      return Status.INVALID;
  }
}
