/**
 * The same code for everyone. Libraries and kernels choose among code paths by the processor they find; then a benchmark compares code
 * rather than machines. So all contestants have the processor of the one that offers least.
 */

export interface EvenTerms {
  /** Ours. */
  readonly cpuModel: string;
  readonly qemuCpu: string;
  /** A shell command that goes before every command of the suite. */
  readonly environment: string;
}

/** A stock kernel guards a speculating processor and not ours; that is a difference of choice, not of speed. */
export const KERNEL_WORDS = "quiet mitigations=off";

const without = (flags: string): string =>
  ["max", ...flags.split(" ").map((flag) => `-${flag}`)].join(",");

/** QEMU's best model has besides: vectors beyond SSE, newer integer instructions, page tables of five levels. */
const BEYOND_V2 =
  "avx avx2 f16c fma vaes sse4a abm bmi1 bmi2 adx clflushopt clwb mpx pku la57 svm 3dnow 3dnowext mmxext";
const BEYOND_SSE2 =
  "pni ssse3 sse4.1 sse4.2 popcnt movbe aes pclmulqdq xsave rdrand rdseed erms fsgsbase smap smep umip";

/** For OpenSSL (its manual, "OPENSSL_ia32cap"): CPUID leaf 1 as EDX | ECX << 32, and nothing of leaf 7. */
const openssl = (edx: number, ecx: number): string =>
  `OPENSSL_ia32cap=0x${((BigInt(ecx) << 32n) | BigInt(edx)).toString(16)}:0`;
/** TSC, CX8, CMOV, MMX, FXSR, SSE, SSE2. */
const EDX_SSE2 = 0x0780_8110;
/** SSE3, PCLMULQDQ, SSSE3, CX16, SSE4.1, SSE4.2, MOVBE, POPCNT, AES. */
const ECX_V2 = 0x02d8_2203;

/** For the GNU C library's string functions: no such code, and as numbers the thresholds that it derives from the caches it finds. */
const glibc = (...excluded: readonly string[]): string => {
  const hwcaps = excluded.map((name) => `-${name}`).join(",");
  const thresholds = "x86_non_temporal_threshold=0xc0000 x86_rep_movsb_threshold=2048".split(" ");
  const tunables = [`hwcaps=${hwcaps}`, ...thresholds].map((tunable) => `glibc.cpu.${tunable}`);
  return `GLIBC_TUNABLES=${tunables.join(":")}`;
};
const GLIBC_BEYOND_V2 =
  "AVX AVX2 AVX512F AVX512VL AVX512BW BMI1 BMI2 LZCNT AVX_Fast_Unaligned_Load".split(" ");
const GLIBC_BEYOND_SSE2 = "SSE3 SSSE3 SSE4_1 SSE4_2 POPCNT MOVBE ERMS".split(" ");

/** What our x86-64-v2 has: SSE4.2, AES and PCLMULQDQ, but neither AVX nor SHA. */
export const V2_TERMS: EvenTerms = {
  cpuModel: "x86-64-v2",
  qemuCpu: without(BEYOND_V2),
  environment: `export ${openssl(EDX_SSE2, ECX_V2)} ${glibc(...GLIBC_BEYOND_V2)};`,
};

/** SSE2 and nothing newer: a processor of 2003, as v86 is one but for SSE3. */
export const SSE2_TERMS: EvenTerms = {
  cpuModel: "x86-64",
  qemuCpu: without(`${BEYOND_V2} ${BEYOND_SSE2}`),
  environment: `export ${openssl(EDX_SSE2, 0)} ${glibc(...GLIBC_BEYOND_V2, ...GLIBC_BEYOND_SSE2)};`,
};
