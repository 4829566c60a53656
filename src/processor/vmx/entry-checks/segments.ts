/** Checks on guest segment registers. SDM Vol. 3C, "Checks on Guest Segment Registers". */
import { EntryControl, Field, SecondaryControl } from "../../isa/vmcs-fields.ts";
import { Cr0 } from "../../state/control-bits.ts";
import {
  type CheckedVmcs,
  type EntryCheck,
  HIGH,
  isLong,
  isUnrestricted,
  isVirtual8086,
  nonCanonical,
  withEntry,
  withSecondary,
} from "./check.ts";

const SEGMENTS = ["ES", "CS", "SS", "DS", "FS", "GS"] as const;
type SegmentName = (typeof SEGMENTS)[number] | "TR" | "LDTR";
const UNUSABLE = 0x1_0000;
const RPL = 3;
const TI = 4;

/** Names of fields are put together once: VM entry asks for them all. */
const fieldsOf = (part: "SELECTOR" | "RIGHTS" | "LIMIT" | "BASE"): Record<SegmentName, number> =>
  Object.fromEntries(
    [...SEGMENTS, "TR" as const, "LDTR" as const].map((name) => [
      name,
      Field[`GUEST_${name}_${part}`],
    ]),
  ) as Record<SegmentName, number>;
const SELECTOR = fieldsOf("SELECTOR");
const RIGHTS = fieldsOf("RIGHTS");
const LIMIT = fieldsOf("LIMIT");
const BASE_OF = fieldsOf("BASE");

const selector = (v: CheckedVmcs, name: SegmentName): number => v.number(SELECTOR[name]);
export const rights = (v: CheckedVmcs, name: SegmentName): number => v.number(RIGHTS[name]);
const limit = (v: CheckedVmcs, name: SegmentName): number => v.number(LIMIT[name]);
const base = (v: CheckedVmcs, name: SegmentName): bigint => v.big(BASE_OF[name]);
const isUsable = (v: CheckedVmcs, name: SegmentName): boolean => (rights(v, name) & UNUSABLE) === 0;
export const dpl = (v: CheckedVmcs, name: SegmentName): number => (rights(v, name) >> 5) & 3;
const type = (v: CheckedVmcs, name: SegmentName): number => rights(v, name) & 15;
/** A segment to which the rules for access rights outside virtual-8086 mode apply. */
const counts = (v: CheckedVmcs, name: SegmentName): boolean =>
  !isVirtual8086(v) && (name === "CS" || isUsable(v, name));

/** Granularity and limit must agree. */
const badLimit = (v: CheckedVmcs, name: SegmentName): boolean =>
  (rights(v, name) & 0x8000) !== 0 ? (limit(v, name) & 0xfff) !== 0xfff : limit(v, name) > 0xf_ffff;

const RIGHTS_RESERVED = 0xfffe_0f00 | 0;
export const CODE64 = 0xa09bn;
export const DATA32 = 0xc093n;
const V86_RIGHTS = 0xf3;
const VM86: readonly (readonly [number, bigint])[] = [
  withEntry(0, EntryControl.IA32E_GUEST),
  [Field.GUEST_RFLAGS, 0x2_0002n],
];

const dataSegments = SEGMENTS.filter((name) => name !== "CS");

function segmentType(v: CheckedVmcs, name: SegmentName): boolean {
  const t = type(v, name);
  if (name === "CS") {
    if (isUnrestricted(v) && t === 3) return false;
    return ![9, 11, 13, 15].includes(t);
  }
  if (name === "SS") return isUsable(v, name) && t !== 3 && t !== 7;
  if (!isUsable(v, name)) return false;
  // Accessed, and readable if it is code.
  return (t & 1) === 0 || ((t & 8) !== 0 && (t & 2) === 0);
}

function codePrivilege(v: CheckedVmcs): boolean {
  const t = type(v, "CS");
  if (t === 3) return dpl(v, "CS") !== 0;
  if (t === 9 || t === 11) return dpl(v, "CS") !== dpl(v, "SS");
  return dpl(v, "CS") > dpl(v, "SS");
}

function stackPrivilege(v: CheckedVmcs): boolean {
  if (!isUnrestricted(v) && dpl(v, "SS") !== (selector(v, "SS") & RPL)) return true;
  const isReal = (v.number(Field.GUEST_CR0) & Cr0.PE) === 0;
  return (type(v, "CS") === 3 || isReal) && dpl(v, "SS") !== 0;
}

function dataPrivilege(v: CheckedVmcs, name: SegmentName): boolean {
  if (isUnrestricted(v) || !isUsable(v, name) || type(v, name) > 11) return false;
  return dpl(v, name) < (selector(v, name) & RPL);
}

export const SEGMENT_CHECKS: readonly EntryCheck[] = [
  {
    text: "TR selector has TI",
    isBroken: (v) => (selector(v, "TR") & TI) !== 0,
    breaks: [[Field.GUEST_TR_SELECTOR, 0x1cn]],
  },
  {
    text: "LDTR selector has TI",
    isBroken: (v) => isUsable(v, "LDTR") && (selector(v, "LDTR") & TI) !== 0,
    breaks: [
      [Field.GUEST_LDTR_SELECTOR, 0x1cn],
      [Field.GUEST_LDTR_RIGHTS, 0x82n],
    ],
  },
  {
    text: "SS.RPL is not CS.RPL",
    isBroken: (v) =>
      !isVirtual8086(v) &&
      !isUnrestricted(v) &&
      (selector(v, "SS") & RPL) !== (selector(v, "CS") & RPL),
    breaks: [
      withSecondary(0, SecondaryControl.UNRESTRICTED_GUEST),
      [Field.GUEST_SS_SELECTOR, 0x13n],
    ],
  },
  ...SEGMENTS.map(
    (name): EntryCheck => ({
      text: `${name} base in virtual-8086 mode`,
      isBroken: (v) => isVirtual8086(v) && base(v, name) !== BigInt(selector(v, name)) << 4n,
      breaks: [...VM86, [Field[`GUEST_${name}_BASE`], 0x1234_5678n]],
    }),
  ),
  ...(["TR", "FS", "GS"] as const).map(
    (name): EntryCheck => ({
      text: `${name} base is not canonical`,
      isBroken: (v) => nonCanonical(base(v, name)),
      breaks: [[Field[`GUEST_${name}_BASE`], HIGH]],
    }),
  ),
  {
    text: "LDTR base is not canonical",
    isBroken: (v) => isUsable(v, "LDTR") && nonCanonical(base(v, "LDTR")),
    breaks: [
      [Field.GUEST_LDTR_BASE, HIGH],
      [Field.GUEST_LDTR_RIGHTS, 0x82n],
    ],
  },
  {
    text: "CS base is wide",
    isBroken: (v) => base(v, "CS") >> 32n !== 0n,
    breaks: [[Field.GUEST_CS_BASE, 1n << 32n]],
  },
  ...(["SS", "DS", "ES"] as const).map(
    (name): EntryCheck => ({
      text: `${name} base is wide`,
      isBroken: (v) => isUsable(v, name) && base(v, name) >> 32n !== 0n,
      breaks: [
        [Field[`GUEST_${name}_BASE`], 1n << 32n],
        [Field[`GUEST_${name}_RIGHTS`], DATA32],
      ],
    }),
  ),
  ...SEGMENTS.flatMap((name): EntryCheck[] => [
    {
      text: `${name} limit in virtual-8086 mode`,
      isBroken: (v) => isVirtual8086(v) && limit(v, name) !== 0xffff,
      breaks: [...VM86, [Field[`GUEST_${name}_LIMIT`], 0xfffn]],
    },
    {
      text: `${name} access rights in virtual-8086 mode`,
      isBroken: (v) => isVirtual8086(v) && rights(v, name) !== V86_RIGHTS,
      breaks: [...VM86, [Field[`GUEST_${name}_RIGHTS`], 0x93n]],
    },
  ]),
  ...SEGMENTS.map(
    (name): EntryCheck => ({
      text: `${name} type`,
      isBroken: (v) => !isVirtual8086(v) && segmentType(v, name),
      breaks: [[Field[`GUEST_${name}_RIGHTS`], name === "CS" ? 0xa09an : 0xc092n]],
    }),
  ),
  ...SEGMENTS.flatMap((name): EntryCheck[] => {
    const good = name === "CS" ? CODE64 : DATA32;
    return [
      {
        text: `${name} is no code or data segment`,
        isBroken: (v) => counts(v, name) && (rights(v, name) & 0x10) === 0,
        breaks: [[Field[`GUEST_${name}_RIGHTS`], good & ~0x10n]],
      },
      {
        text: `${name} is not present`,
        isBroken: (v) => counts(v, name) && (rights(v, name) & 0x80) === 0,
        breaks: [[Field[`GUEST_${name}_RIGHTS`], good & ~0x80n]],
      },
      {
        text: `${name} rights have reserved bits`,
        isBroken: (v) => counts(v, name) && (rights(v, name) & RIGHTS_RESERVED) !== 0,
        breaks: [[Field[`GUEST_${name}_RIGHTS`], good | 0x100n]],
      },
      {
        text: `${name} limit and granularity`,
        isBroken: (v) => counts(v, name) && badLimit(v, name),
        breaks: [
          [Field[`GUEST_${name}_RIGHTS`], good | 0x8000n],
          [Field[`GUEST_${name}_LIMIT`], 0xfffn - 1n],
        ],
      },
    ];
  }),
  {
    text: "CS is unusable",
    isBroken: (v) => !isVirtual8086(v) && !isUsable(v, "CS"),
    breaks: [[Field.GUEST_CS_RIGHTS, CODE64 | BigInt(UNUSABLE)]],
  },
  {
    text: "CS.DPL",
    isBroken: (v) => !isVirtual8086(v) && codePrivilege(v),
    breaks: [[Field.GUEST_CS_RIGHTS, CODE64 | 0x60n]],
  },
  {
    text: "SS.DPL",
    isBroken: (v) => !isVirtual8086(v) && stackPrivilege(v),
    breaks: [
      withSecondary(0, SecondaryControl.UNRESTRICTED_GUEST),
      [Field.GUEST_SS_RIGHTS, DATA32 | 0x60n],
    ],
  },
  ...dataSegments
    .filter((name) => name !== "SS")
    .map(
      (name): EntryCheck => ({
        text: `${name}.DPL is below its RPL`,
        isBroken: (v) => !isVirtual8086(v) && dataPrivilege(v, name),
        breaks: [
          withSecondary(0, SecondaryControl.UNRESTRICTED_GUEST),
          [Field[`GUEST_${name}_SELECTOR`], 0x13n],
          [Field[`GUEST_${name}_RIGHTS`], DATA32],
        ],
      }),
    ),
  {
    text: "CS.L and CS.D",
    isBroken: (v) => !isVirtual8086(v) && isLong(v) && (rights(v, "CS") & 0x6000) === 0x6000,
    breaks: [[Field.GUEST_CS_RIGHTS, CODE64 | 0x4000n]],
  },
  {
    text: "TR type",
    isBroken: (v) => type(v, "TR") !== 11 && (isLong(v) || type(v, "TR") !== 3),
    breaks: [[Field.GUEST_TR_RIGHTS, 0x83n]],
  },
  {
    text: "TR is no system segment",
    isBroken: (v) => (rights(v, "TR") & 0x10) !== 0,
    breaks: [[Field.GUEST_TR_RIGHTS, 0x9bn]],
  },
  {
    text: "TR is not present",
    isBroken: (v) => (rights(v, "TR") & 0x80) === 0,
    breaks: [[Field.GUEST_TR_RIGHTS, 0x0bn]],
  },
  {
    text: "TR rights have reserved bits",
    isBroken: (v) => (rights(v, "TR") & RIGHTS_RESERVED) !== 0,
    breaks: [[Field.GUEST_TR_RIGHTS, 0x18bn]],
  },
  {
    text: "TR limit and granularity",
    isBroken: (v) => badLimit(v, "TR"),
    breaks: [
      [Field.GUEST_TR_RIGHTS, 0x808bn],
      [Field.GUEST_TR_LIMIT, 0x67n],
    ],
  },
  {
    text: "TR is unusable",
    isBroken: (v) => !isUsable(v, "TR"),
    breaks: [[Field.GUEST_TR_RIGHTS, 0x8bn | BigInt(UNUSABLE)]],
  },
  ...[
    ["type", 0x83n, 0xfn, (v: CheckedVmcs) => type(v, "LDTR") !== 2],
    ["is no system segment", 0x92n, 0x10n, (v: CheckedVmcs) => (rights(v, "LDTR") & 0x10) !== 0],
    ["is not present", 0x02n, 0x80n, (v: CheckedVmcs) => (rights(v, "LDTR") & 0x80) === 0],
    [
      "rights have reserved bits",
      0x182n,
      0x100n,
      (v: CheckedVmcs) => (rights(v, "LDTR") & RIGHTS_RESERVED) !== 0,
    ],
    ["limit and granularity", 0x8082n, 0x8000n, (v: CheckedVmcs) => badLimit(v, "LDTR")],
  ].map(
    ([text, bad, , broken]): EntryCheck => ({
      text: `LDTR ${text}`,
      isBroken: (v) => isUsable(v, "LDTR") && (broken as (v: CheckedVmcs) => boolean)(v),
      breaks: [
        [Field.GUEST_LDTR_RIGHTS, bad as bigint],
        [Field.GUEST_LDTR_LIMIT, 0n],
      ],
    }),
  ),
];
