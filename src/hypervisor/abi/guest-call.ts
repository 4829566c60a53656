/**
 * The calls of a service that is an x86 program in a VM of its own: VMCALL, from any ring.
 *
 * RAX says which; arguments are in RBX RCX RDX RSI; the answer is in RAX, all other registers are kept. Addresses are guest-physical
 * addresses of the service's own VM. The message lies in its message window, in the layout of message.ts.
 *
 *   REPLY      RBX seq, RCX state groups to commit; the rest of the reply is in the window. It returns when the next message is there.
 *   1..8       an effect (effects.ts) by its kind, joined to the reply; answers LIMIT without room, INVALID for an impossible address
 *     TIMER      RBX deadline ns, all ones disarms        LINE       RBX line, RCX level
 *     INTERRUPT  RBX address, RCX data                    PUT        RBX stream, RCX address, RDX bytes
 *     STOP       RBX StopNumber                           LOG        RCX address, RDX bytes
 *     WRITE      RBX guest's address, RCX address, RDX bytes
 *     DECODE     RBX slot, RCX AddressSpace, RDX base, RSI size
 *   READ       RBX guest's address, RDX bytes: copies them to the END of the window. Answers a Status.
 *   NOW        answers the time of the message, ns
 *   ROOM       answers the bytes of effects, records' headers and all, that the reply still takes
 *   FAIL       RCX address, RDX bytes of a text: the program gives up
 *
 * A program may write the records of its effects into the window's data area itself, and reply with one exit; those of calls come first.
 */
export const GuestCall = {
  REPLY: 0,
  READ: 16,
  NOW: 17,
  ROOM: 18,
  FAIL: 19,
} as const;
