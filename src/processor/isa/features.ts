/**
 * CPUID features an instruction row can depend on, under the names Linux gives them in /proc/cpuinfo.
 * A row without the feature in the CPU model is #UD (or whatever older row its bytes mean then).
 */
export const FEATURES = [
  "base", // 80386 and everything that every long mode processor has without a flag of its own
  "fpu",
  "tsc",
  "msr",
  "cx8",
  "sep",
  "cmov",
  "clflush",
  "mmx",
  "fxsr",
  "sse",
  "sse2",
  "pni",
  "ssse3",
  "sse4_1",
  "sse4_2",
  "popcnt",
  "cx16",
  "lahf_lm",
  "movbe",
  "aes",
  "pclmulqdq",
  "rdrand",
  "rdseed",
  "clflushopt",
  "xsave",
  "xsaveopt",
  "xsavec",
  "xsaves",
  "fsgsbase",
  "invpcid",
  "rdtscp",
  "rdpid",
  "smap",
  "monitor",
  "syscall",
  "vmx",
] as const;

export type Feature = (typeof FEATURES)[number];

export type CpuFeatures = ReadonlySet<Feature>;

/** Every feature that has rows: the widest processor this instruction set description knows. */
export const ALL_FEATURES: CpuFeatures = new Set(FEATURES);
