/**
 * How the holder of a PCI bus tells the holder of a function about a configuration access that it passes on: a number that no other
 * event carries, with the register in its low bits.
 */
const CONFIG_ACCESS = 0x8000_0000;
const REGISTER_MASK = 0xfff;

export const configArgument = (register: number): number =>
  CONFIG_ACCESS + (register & REGISTER_MASK);

/** The register, or -1 if the argument is not of a configuration access. */
export const configRegister = (argument: number): number =>
  argument >= CONFIG_ACCESS ? argument & REGISTER_MASK : -1;
