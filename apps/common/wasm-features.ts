/**
 * What the runtime's WebAssembly can do, asked with the smallest module that needs each feature.
 * Spec: WebAssembly Core Specification, "Binary Format"; the proposals for threads and tail calls.
 */
interface Feature {
  readonly name: string;
  readonly module: readonly number[];
  /** The machine's own code uses it, so that nothing runs without. */
  readonly isRequired: boolean;
}

const HEADER = [0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00];
/** One type, [] -> [], and one function of it. */
const TYPE_AND_FUNCTION = [0x01, 0x04, 0x01, 0x60, 0x00, 0x00, 0x03, 0x02, 0x01, 0x00];
const END = 0x0b;
const DROP = 0x1a;
const I32_CONST_0 = [0x41, 0x00];

function moduleWith(code: readonly number[], memory: readonly number[] = []): readonly number[] {
  const body = [0x00, ...code, END];
  const section = [0x01, body.length, ...body];
  return [...HEADER, ...TYPE_AND_FUNCTION, ...memory, 0x0a, section.length, ...section];
}

/** One page, shared. */
const SHARED_MEMORY = [0x05, 0x04, 0x01, 0x03, 0x01, 0x01];
const MEMORY = [0x05, 0x03, 0x01, 0x00, 0x01];

const FEATURES: readonly Feature[] = [
  // i32.const 0; i8x16.splat; drop
  { name: "SIMD", module: moduleWith([...I32_CONST_0, 0xfd, 0x0f, DROP]), isRequired: true },
  // i32.const 0; i32.atomic.load; drop
  {
    name: "threads",
    module: moduleWith([...I32_CONST_0, 0xfe, 0x10, 0x02, 0x00, DROP], SHARED_MEMORY),
    isRequired: false,
  },
  // return_call 0
  { name: "tail calls", module: moduleWith([0x12, 0x00]), isRequired: false },
  // memory.fill 0 with three zeros
  {
    name: "bulk memory",
    module: moduleWith([...I32_CONST_0, ...I32_CONST_0, ...I32_CONST_0, 0xfc, 0x0b, 0x00], MEMORY),
    isRequired: true,
  },
  // i32.const 0; i32.extend8_s; drop
  {
    name: "sign extension",
    module: moduleWith([...I32_CONST_0, 0xc0, DROP]),
    isRequired: true,
  },
  // f32.const 0; i32.trunc_sat_f32_s; drop
  {
    name: "saturating conversion",
    module: moduleWith([0x43, 0x00, 0x00, 0x00, 0x00, 0xfc, 0x00, DROP]),
    isRequired: true,
  },
];

export interface WasmSupport {
  readonly supported: readonly string[];
  readonly missing: readonly string[];
  /** Those of `missing` that no machine can do without. */
  readonly missingRequired: readonly string[];
}

export function wasmSupport(): WasmSupport {
  const has = ({ module }: Feature): boolean => WebAssembly.validate(Uint8Array.from(module));
  const missing = FEATURES.filter((feature) => !has(feature));
  return {
    supported: FEATURES.filter(has).map(({ name }) => name),
    missing: missing.map(({ name }) => name),
    missingRequired: missing.filter(({ isRequired }) => isRequired).map(({ name }) => name),
  };
}
