/**
 * CPUID: named CPU models and what their leaves answer. SDM Vol. 2A, "CPUID—CPU Identification".
 *
 * A model is a set of flags under the names of Linux's /proc/cpuinfo; flags that gate instructions are those of features.ts. A flag is here
 * only if the processor does what it promises. The identification is that of an in-order core without speculation, which is the
 * truth about this processor: operating systems then leave out their mitigations of speculation.
 */
import { HypolithError } from "../../base/errors.ts";
import { type CpuFeatures, FEATURES, type Feature } from "./features.ts";

type Register = "eax" | "ebx" | "ecx" | "edx";
type Place = readonly [leaf: number, subleaf: number, register: Register, bit: number];

const bits = (
  leaf: number,
  subleaf: number,
  register: Register,
  names: string,
): [string, Place][] =>
  names.split(" ").map((entry) => {
    const [name, bit] = entry.split(":") as [string, string];
    return [name, [leaf, subleaf, register, Number(bit)]];
  });

/** Every flag that a model may have, and where CPUID shows it. */
const FLAGS: ReadonlyMap<string, Place> = new Map([
  ...bits(
    1,
    0,
    "edx",
    "fpu:0 vme:1 de:2 pse:3 tsc:4 msr:5 pae:6 cx8:8 apic:9 sep:11 mtrr:12 pge:13 cmov:15 pat:16 pse36:17 clflush:19 mmx:23 fxsr:24 sse:25 sse2:26",
  ),
  ...bits(
    1,
    0,
    "ecx",
    "pni:0 pclmulqdq:1 vmx:5 ssse3:9 cx16:13 pcid:17 sse4_1:19 sse4_2:20 x2apic:21 movbe:22 popcnt:23 tsc_deadline_timer:24 aes:25 xsave:26 rdrand:30 hypervisor:31",
  ),
  ...bits(6, 0, "eax", "arat:2"),
  ...bits(
    7,
    0,
    "ebx",
    "fsgsbase:0 tsc_adjust:1 smep:7 erms:9 invpcid:10 rdseed:18 smap:20 clflushopt:23",
  ),
  ...bits(7, 0, "ecx", "umip:2 rdpid:22"),
  ...bits(7, 0, "edx", "fsrm:4"),
  ...bits(0xd, 1, "eax", "xsaveopt:0 xsavec:1 xgetbv1:2 xsaves:3"),
  ...bits(0x8000_0001, 0, "ecx", "lahf_lm:0"),
  ...bits(0x8000_0001, 0, "edx", "syscall:11 nx:20 pdpe1gb:26 rdtscp:27 lm:29"),
  ...bits(0x8000_0007, 0, "edx", "nonstop_tsc:8"),
]);

const ALL_FLAGS = [...FLAGS.keys()];

const without = (flags: readonly string[], names: string): string[] =>
  flags.filter((f) => !names.split(" ").includes(f));
/** In no model: a guest gets VMX only where it is asked for by name, and with it the virtual-8086 extensions that hypervisors count on. */
const OPTIONAL = "vme vmx";
const V2 = without(ALL_FLAGS, `${OPTIONAL} rdpid xsaves clflushopt`);

/**
 * "x86-64-v2" is the psABI level of that name with the extensions that processors of that level came with (AES, PCLMULQDQ, MOVBE, RDRAND, XSAVE
 * for x87 and SSE) and today's protection features. "x86-64" is the first level with nothing newer. "max" is all there is but VMX.
 */
const MODELS: Readonly<Record<string, readonly string[]>> = {
  "x86-64-v2": V2,
  "x86-64": without(
    V2,
    "pni pclmulqdq ssse3 cx16 pcid sse4_1 sse4_2 movbe popcnt aes xsave rdrand fsgsbase smep erms invpcid rdseed smap umip fsrm xsaveopt xsavec xgetbv1 lahf_lm pdpe1gb",
  ),
  max: without(ALL_FLAGS, OPTIONAL),
};
export const DEFAULT_CPU_MODEL = "x86-64-v2";

export function cpuModelNames(): string[] {
  return Object.keys(MODELS);
}

/** What a guest may see of CPUID besides the model. */
export interface CpuidContext {
  readonly apicId: number;
  readonly cpuCount: number;
  readonly osxsave: boolean;
}

export type CpuidResult = Record<Register, number>;

export const PHYSICAL_BITS = 40;
const LINEAR_BITS = 48;
const TSC_HERTZ = 1_000_000_000;
const SIGNATURE = 0x0001_06ca;
const XSAVE_BYTES = 0x240;
const BRAND = "Hypolith software processor";
const HYPERVISOR = "HypolithHypo";

function words(text: string): [number, number, number] {
  const bytes = new TextEncoder().encode(text.padEnd(12, "\0"));
  const view = new DataView(bytes.buffer);
  return [view.getUint32(0, true), view.getUint32(4, true), view.getUint32(8, true)];
}

export class CpuidModel {
  readonly name: string;
  readonly flags: ReadonlySet<string>;

  constructor(name: string, flags: ReadonlySet<string>) {
    this.name = name;
    this.flags = flags;
  }

  has(flag: string): boolean {
    return this.flags.has(flag);
  }

  /** The flags that decide which instructions exist. */
  get features(): CpuFeatures {
    const on = FEATURES.filter((f) => f === "base" || this.flags.has(f));
    return new Set<Feature>(on);
  }

  /** CPUID with EAX = leaf, ECX = subleaf. */
  query(leaf: number, subleaf: number, context: CpuidContext): CpuidResult {
    const r: CpuidResult = { eax: 0, ebx: 0, ecx: 0, edx: 0 };
    for (const flag of this.flags) {
      const place = FLAGS.get(flag);
      if (!place || place[0] !== leaf || (place[1] !== subleaf && leaf !== 1 && leaf < 0x8000_0000))
        continue;
      r[place[2]] |= 1 << place[3];
    }
    fixedLeaf(leaf, subleaf, r, this, context);
    return r;
  }
}

function fixedLeaf(
  leaf: number,
  subleaf: number,
  r: CpuidResult,
  model: CpuidModel,
  context: CpuidContext,
): void {
  switch (leaf) {
    case 0:
      [r.ebx, r.edx, r.ecx] = words("GenuineIntel");
      r.eax = 0x16;
      break;
    case 1:
      r.eax = SIGNATURE;
      r.ebx |= (context.apicId << 24) | (Math.max(1, context.cpuCount) << 16) | (8 << 8);
      if (context.osxsave) r.ecx |= 1 << 27;
      if (context.cpuCount > 1) r.edx |= 1 << 28;
      break;
    case 2:
      r.eax = 0xff_01; // descriptors are in leaf 4
      break;
    case 4:
      cacheLeaf(subleaf, r);
      break;
    case 0xb:
      r.ecx = subleaf;
      r.edx = context.apicId;
      if (subleaf === 0) Object.assign(r, { eax: 0, ebx: 1, ecx: 0x100 });
      else if (subleaf === 1)
        Object.assign(r, {
          eax: 32 - Math.clz32(context.cpuCount - 1),
          ebx: context.cpuCount,
          ecx: 0x201,
        });
      break;
    case 0xd:
      if (!model.has("xsave")) break;
      if (subleaf === 0) Object.assign(r, { eax: 3, ebx: XSAVE_BYTES, ecx: XSAVE_BYTES, edx: 0 });
      else if (subleaf === 1) r.ebx = XSAVE_BYTES;
      break;
    case 0x15:
      Object.assign(r, { eax: 1, ebx: 1, ecx: TSC_HERTZ });
      break;
    case 0x16:
      Object.assign(r, { eax: TSC_HERTZ / 1e6, ebx: TSC_HERTZ / 1e6, ecx: 100 });
      break;
    case 0x4000_0000:
      r.eax = 0x4000_0010;
      [r.ebx, r.ecx, r.edx] = words(HYPERVISOR);
      break;
    case 0x4000_0010:
      Object.assign(r, { eax: TSC_HERTZ / 1000, ebx: TSC_HERTZ / 1000 });
      break;
    case 0x8000_0000:
      r.eax = 0x8000_0008;
      break;
    case 0x8000_0002:
    case 0x8000_0003:
    case 0x8000_0004:
      brandLeaf(leaf - 0x8000_0002, r);
      break;
    case 0x8000_0006:
      r.ecx = 0x0400_8040; // 1 MiB, 16-way, 64-byte lines
      break;
    case 0x8000_0008:
      r.eax = PHYSICAL_BITS | (LINEAR_BITS << 8);
      break;
  }
}

function brandLeaf(index: number, r: CpuidResult): void {
  const bytes = new TextEncoder().encode(BRAND.padEnd(48, "\0"));
  const view = new DataView(bytes.buffer);
  (["eax", "ebx", "ecx", "edx"] as const).forEach((name, i) => {
    r[name] = view.getUint32(index * 16 + i * 4, true);
  });
}

/** Type 1 data, 2 instruction, 3 unified; level; ways; sets with 64-byte lines. */
const CACHES = [
  [1, 1, 8, 64],
  [2, 1, 8, 64],
  [3, 2, 16, 1024],
] as const;

function cacheLeaf(subleaf: number, r: CpuidResult): void {
  const cache = CACHES[subleaf];
  if (!cache) return;
  const [type, level, ways, sets] = cache;
  Object.assign(r, {
    eax: type | (level << 5) | (1 << 8),
    ebx: 63 | ((ways - 1) << 22),
    ecx: sets - 1,
    edx: 0,
  });
}

/** "x86-64-v2,-sse4_2,+rdrand": a model and changes to it. Throws HypolithError cpu-model-unknown, cpu-flag-unknown. */
export function parseCpuModel(text: string): CpuidModel {
  const [name = "", ...changes] = text.split(",");
  const base = MODELS[name];
  if (!base) {
    throw new HypolithError("cpu-model-unknown", `there is no CPU model "${name}"`, {
      hint: `known models: ${cpuModelNames().join(", ")}`,
    });
  }
  const flags = new Set(base);
  for (const change of changes) {
    const flag = change.slice(1);
    const known = FLAGS.has(flag);
    if (!known || !/^[+-]/.test(change)) {
      throw new HypolithError(
        "cpu-flag-unknown",
        known || !/^[+-]/.test(change)
          ? `"${change}" is no +flag or -flag`
          : `there is no CPU flag "${flag}"`,
        {
          hint: `known flags: ${ALL_FLAGS.join(" ")}`,
        },
      );
    }
    if (change[0] === "+") flags.add(flag);
    else flags.delete(flag);
  }
  if (flags.has("vmx")) flags.add("vme");
  return new CpuidModel(text, flags);
}
