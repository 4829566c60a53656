/** Semantic keys of the instructions that always send execution elsewhere. */

/** Within the code segment. */
export const NEAR_TRANSFERS: readonly string[] = ["jmp", "jmp_ind", "call", "call_ind", "ret"];

/** To another segment, privilege level or mode, or to nowhere. */
export const FAR_TRANSFERS: readonly string[] =
  "retf jmpf callf iret int int3 int1 syscall sysret sysenter sysexit hlt ud".split(" ");
