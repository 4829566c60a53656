/**
 * The service's side of a mailbox: the loop of a service's thread. The program itself sees neither mailbox nor thread: it is in a
 * compartment with a message buffer of its own, and messages are copied.
 */
import { Message } from "../../hypervisor/abi/message.ts";
import { Status } from "../../hypervisor/abi/status.ts";
import { type CompartmentSetup, openCompartment, type SesGlobals } from "./compartment.ts";
import { Mailbox, Turn } from "./mailbox.ts";
import { reasonOf } from "./reason.ts";

/** What the thread is started with. */
export interface ServiceThreadData extends Omit<CompartmentSetup, "read"> {
  readonly mailbox: SharedArrayBuffer;
}

/** Never returns: the thread is terminated from outside. */
export function serveService(ses: SesGlobals, data: ServiceThreadData): never {
  const mailbox = new Mailbox(data.mailbox);
  let open: { message: Message; handle: () => void } | null = null;
  try {
    open = start(ses, data, mailbox);
  } catch {
    // Once more when somebody wants to know.
  }
  for (;;) {
    if (mailbox.wait(Turn.KERNEL, mailbox.spins, Number.POSITIVE_INFINITY) !== Turn.SERVICE) {
      // After a failure nothing more is expected of us.
      mailbox.wait(mailbox.turn, 0, Number.POSITIVE_INFINITY);
      continue;
    }
    try {
      open ??= start(ses, data, mailbox);
      mailbox.take(open.message);
      open.handle();
      mailbox.put(open.message);
      mailbox.pass(Turn.KERNEL);
    } catch (error) {
      mailbox.putText(reasonOf(error));
      mailbox.pass(Turn.FAILED);
    }
  }
}

function start(
  ses: SesGlobals,
  { image, setup, name }: ServiceThreadData,
  mailbox: Mailbox,
): { message: Message; handle: () => void } {
  const read = (low: unknown, high: unknown, length: unknown): number => {
    if (typeof low !== "number" || typeof high !== "number" || typeof length !== "number")
      return Status.INVALID;
    mailbox.ask(low, high, length);
    mailbox.pass(Turn.READ);
    while (mailbox.wait(Turn.READ, mailbox.spins, Number.POSITIVE_INFINITY) !== Turn.ANSWER);
    const { status } = mailbox;
    if (status === Status.OK) mailbox.takeEnd(message, length);
    return status;
  };
  const { buffer, handle } = openCompartment(ses, { image, setup, name, read });
  const message = new Message(buffer);
  return { message, handle };
}
