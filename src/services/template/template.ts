/**
 * A service to start from: copy this folder, and follow "Add a service" in CONTRIBUTING.md.
 *
 * It is a byte counter at one port. OUT adds a byte to the count, IN answers the count, and after ten bytes it says so in the log. It has
 * everything that a service has: an event, an effect, and state that survives a restart.
 */
import type { PortDevice, PortSize } from "../../devices/model.ts";
import { PortBus } from "../../devices/port-bus.ts";
import { answerAccess } from "../../hypervisor/abi/access.ts";
import type { Message } from "../../hypervisor/abi/message.ts";
import type { Hypercalls, ServiceFactory, ServiceProgram } from "../../hypervisor/abi/service.ts";
import type { Status } from "../../hypervisor/abi/status.ts";

export interface TemplateOptions {
  readonly port: number;
}

/** What every service's module exports: images are made of it. */
export const createService: ServiceFactory = (hypercalls, options) =>
  new TemplateService(hypercalls, options as TemplateOptions);

const NOTEWORTHY = 10;

class TemplateService implements ServiceProgram {
  readonly #ports = new PortBus();
  readonly #state = { count: 0 };

  constructor(hypercalls: Hypercalls, { port }: TemplateOptions) {
    const state = this.#state;
    const counter: PortDevice = {
      readPort: (_port: number, size: PortSize) => state.count % 2 ** (8 * size),
      writePort: () => {
        state.count++;
        // An effect: it happens when the reply has been found good, and once, whatever happens to us.
        if (state.count === NOTEWORTHY) hypercalls.log(`${NOTEWORTHY} bytes`);
      },
    };
    this.#ports.map({ base: port, length: 1, sizes: [1, 2, 4] }, counter);
  }

  onEvent(message: Message): Status {
    return answerAccess(message, this.#ports, null);
  }

  /** All there is: what is not in here is lost with a restart. */
  save(): unknown {
    return { ...this.#state };
  }

  restore(state: unknown): void {
    Object.assign(this.#state, state);
  }
}
