/** The timers service: PIT, real-time clock, HPET and ACPI power management of one VM; the power button and soft off come with the latter. */

import { MmioBus } from "../../devices/mmio-bus.ts";
import type { IrqLine, Snapshottable, TimedDevice } from "../../devices/model.ts";
import { AcpiPm, Gpe } from "../../devices/platform/acpi-pm.ts";
import { HPET_FIRST_PIN, HPET_PINS, Hpet } from "../../devices/platform/hpet.ts";
import { Pit8254 } from "../../devices/platform/pit-8254.ts";
import { Irq, MemoryMap, Port } from "../../devices/platform/platform-map.ts";
import { RtcMc146818 } from "../../devices/platform/rtc-mc146818.ts";
import { PortBus } from "../../devices/port-bus.ts";
import { answerAccess } from "../../hypervisor/abi/access.ts";
import type { Message } from "../../hypervisor/abi/message.ts";
import type { Hypercalls, ServiceFactory, ServiceProgram } from "../../hypervisor/abi/service.ts";
import type { Status } from "../../hypervisor/abi/status.ts";

export interface TimersOptions {
  /** UTC at machine start, milliseconds since 1970. */
  readonly rtcEpochMs: number;
}

export const createService: ServiceFactory = (hypercalls, options) =>
  new TimersService(hypercalls, options as TimersOptions);

interface SavedState {
  readonly parts: Readonly<Record<string, unknown>>;
  readonly timer: number;
}

class TimersService implements ServiceProgram {
  readonly #hypercalls: Hypercalls;
  readonly #ports = new PortBus();
  readonly #memory = new MmioBus();
  readonly #pm: AcpiPm;
  readonly #rtc: RtcMc146818;
  readonly #timed: readonly TimedDevice[];
  readonly #parts: Readonly<Record<string, Snapshottable>>;
  #timer = Number.POSITIVE_INFINITY;

  constructor(hypercalls: Hypercalls, options: TimersOptions) {
    this.#hypercalls = hypercalls;
    const clock = hypercalls;
    const line = (n: number): IrqLine => ({ set: (level) => hypercalls.setLine(n, level) });
    const hpet = new Hpet({
      clock,
      irq0: line(Irq.PIT),
      irq8: line(Irq.RTC),
      pins: Array.from({ length: HPET_PINS }, (_, i) => line(HPET_FIRST_PIN + i)),
    });
    const pit = new Pit8254({ irq: hpet.pitInput, clock });
    this.#rtc = new RtcMc146818(
      { irq: hpet.rtcInput, clock },
      { epochMs: options.rtcEpochMs, cmos: {} },
    );
    const powerOff = (): void => void hypercalls.stop("poweroff");
    this.#pm = new AcpiPm({ sci: line(Irq.SCI), clock, powerOff });
    const rtc = this.#rtc;
    this.#timed = [hpet, pit, rtc, this.#pm];
    this.#parts = { hpet, pit, rtc, pm: this.#pm };
    this.#ports.map({ base: Port.PIT, length: 4 }, pit);
    this.#ports.map({ base: Port.SYSTEM_CONTROL_B, length: 1 }, pit);
    this.#ports.map({ base: Port.RTC_INDEX, length: 2 }, rtc);
    const pmLength = Port.PM_END - Port.PM1_EVENT;
    this.#ports.map({ base: Port.PM1_EVENT, length: pmLength, sizes: [1, 2, 4] }, this.#pm);
    this.#memory.map(MemoryMap.HPET_BASE, MemoryMap.HPET_SIZE, hpet);
  }

  onStart(): void {
    this.#armTimer();
  }

  onEvent(message: Message): Status {
    const status = answerAccess(message, this.#ports, this.#memory);
    this.#armTimer();
    return status;
  }

  onTimer(now: number): void {
    this.#timer = Number.POSITIVE_INFINITY;
    for (const device of this.#timed) device.advance(now);
    this.#armTimer();
  }

  onSignal(signal: "powerButton" | "stopping"): void {
    if (signal !== "powerButton") return;
    this.#pm.pressPowerButton();
    this.#armTimer();
  }

  onResumed(elapsedMs: number): void {
    this.#rtc.skip(elapsedMs);
    this.#pm.raiseEvent(Gpe.GENERATION);
    this.#armTimer();
  }

  save(): SavedState {
    const parts = Object.entries(this.#parts).map(([name, part]) => [name, part.save()]);
    return { parts: Object.fromEntries(parts), timer: this.#timer };
  }

  restore(state: unknown): void {
    const { parts, timer } = state as SavedState;
    for (const [name, part] of Object.entries(this.#parts)) part.restore(parts[name]);
    this.#timer = timer;
  }

  #armTimer(): void {
    let wanted = Number.POSITIVE_INFINITY;
    for (let i = 0; i < this.#timed.length; i++)
      wanted = Math.min(wanted, this.#timed[i]!.deadline());
    if (wanted === this.#timer) return;
    this.#timer = wanted;
    this.#hypercalls.setTimer(wanted);
  }
}
