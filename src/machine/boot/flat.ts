/**
 * Flat images: raw bytes at an address, entered at their first byte. For test guests that want a processor and nothing else.
 *
 * real16: segments 0 and stack below 0x7C00, as the BIOS leaves a boot sector; above 64 KiB, CS = address / 16.
 * protected32, long64: the tables of boot-state.ts in low memory; the image must stay clear of them (low-memory.ts).
 */
import { HypolithError } from "../../base/errors.ts";
import { BootMemory, E820Type, formatAddress, type GuestRam } from "./boot-memory.ts";
import {
  type BootState,
  type CpuMode,
  gdt32,
  gdt64,
  long64,
  type ProcessorState,
  protected32,
  real16,
} from "./boot-state.ts";
import { identityMap } from "./identity-map.ts";
import { GDT, IDENTITY_MAP, STACK } from "./low-memory.ts";

const REAL_MODE_LIMIT = 0x10_0000;

/** Loads `image` at guest-physical `address` (all of RAM is usable) and enters it there in `mode`. */
export function loadFlat(
  ram: GuestRam,
  image: Uint8Array,
  address: number,
  mode: CpuMode,
): BootState {
  if (image.length === 0) throw new HypolithError("kernel-empty", "the flat image is empty");
  if (!Number.isSafeInteger(address) || address < 0) {
    throw new HypolithError("kernel-address", `${address} is no load address`);
  }
  const memory = new BootMemory(ram, ram.size, [{ base: 0, length: ram.size, type: E820Type.RAM }]);
  memory.claim("image", address, image.length);
  const state = enterAt(memory, address, mode);
  memory.write(address, image);
  return { ...state, protocol: "flat", regions: memory.regions, notes: [] };
}

function enterAt(memory: BootMemory, address: number, mode: CpuMode): ProcessorState {
  if (mode === "real16") return realModeAt(address);
  const long = mode === "long64";
  for (const area of [GDT, STACK]) memory.claimArea(area);
  if (long) memory.claimArea(IDENTITY_MAP);
  memory.fillArea(GDT, long ? gdt64() : gdt32());
  memory.fillArea(STACK, new Uint8Array(0));
  if (long) memory.fillArea(IDENTITY_MAP, identityMap());
  return long ? long64({ rip: address }) : protected32({ rip: address });
}

function realModeAt(address: number): ProcessorState {
  if (address >= REAL_MODE_LIMIT) {
    throw new HypolithError(
      "kernel-address",
      `a real-mode image cannot start at ${formatAddress(address)}, above 1 MiB`,
    );
  }
  return address <= 0xffff ? real16(0, address) : real16(address >>> 4, address & 0xf);
}
