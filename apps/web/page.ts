/**
 * The page: from its address or its form to a machine in a worker, and back.
 *
 * choosing -> loading -> running -> ended -> loading (again) or choosing. There is one machine at a time.
 */
import { HypolithError } from "../../src/base/errors.ts";
import type { MachineConfig } from "../../src/control/protocol.ts";
import { formatSize } from "../common/size.ts";
import { BootForm } from "./boot-form.ts";
import { missingFeatures } from "./browser-support.ts";
import { ConsoleView } from "./console-view.ts";
import { acceptDrops } from "./drops.ts";
import { element } from "./elements.ts";
import { Notice } from "./notice.ts";
import { RunningMachine } from "./running-machine.ts";
import { DEFAULT_IMAGE, findImage, type ServedImage } from "./served-image.ts";
import { addressOf, planStart, type StartPlan, type StartWishes, wishesOf } from "./start-plan.ts";
import { type Verdict, verdictOfError } from "./verdict.ts";

type PageState = "choosing" | "loading" | "running" | "ended";

class Page {
  readonly #status = element("status", HTMLParagraphElement);
  readonly #powerOff = element("power-off", HTMLButtonElement);
  readonly #turnOff = element("turn-off", HTMLButtonElement);
  readonly #again = element("again", HTMLButtonElement);
  readonly #other = element("other", HTMLButtonElement);
  readonly #notice = new Notice();
  readonly #form: BootForm;
  readonly #console: ConsoleView;
  #state: PageState = "choosing";
  #image: ServedImage | undefined;
  #plan: StartPlan | undefined;
  #machine: RunningMachine | undefined;
  #abort = new AbortController();

  constructor() {
    this.#form = new BootForm(() => this.#startFrom(this.#form.wishes));
    this.#console = new ConsoleView(element("terminal", HTMLDivElement), {
      typed: (bytes) => this.#machine?.type(bytes),
      resized: (size) => this.#machine?.resize(size),
    });
    this.#powerOff.addEventListener("click", () => {
      this.#machine?.powerOff();
      this.#console.focus();
    });
    this.#turnOff.addEventListener("click", () => this.#turnOffClicked());
    this.#again.addEventListener("click", () => this.#startAgain());
    this.#other.addEventListener("click", () => this.#choose());
    // Ctrl-W is a key of shells and editors, and closes the page.
    addEventListener("beforeunload", (event) => {
      if (this.#state === "running") event.preventDefault();
    });
    acceptDrops(
      () => this.#state !== "running" && this.#state !== "loading",
      (files) => this.#dropped(files),
    );
  }

  async open(): Promise<void> {
    const missing = missingFeatures();
    if (missing.length > 0) {
      const names = missing.join(", ");
      throw new HypolithError(
        "browser-unsupported",
        `this browser lacks what a machine needs: ${names}`,
        {
          hint: "use a current Chrome, Edge, Firefox or Safari, with WebAssembly not turned off",
        },
      );
    }
    const base = new URL(location.href);
    this.#enter("choosing", "looking for an image");
    try {
      const wishes = wishesOf(base.searchParams, base);
      this.#form.fill(wishes);
      this.#image = await this.#findImage(wishes.image, base, wishes.kernel !== undefined);
      this.#form.image = this.#image;
      if (wishes.startsAtOnce) {
        this.#startFrom(wishes);
        return;
      }
    } catch (error) {
      this.#choose();
      this.#notice.show(verdictOfError(error));
      return;
    }
    this.#choose();
  }

  /** One that is named must be there; the usual one may be. */
  async #findImage(
    address: string | undefined,
    base: URL,
    hasKernel: boolean,
  ): Promise<ServedImage | undefined> {
    const url = address ? addressOf(address, base, "image") : new URL(DEFAULT_IMAGE, base);
    if (!address && hasKernel) return undefined;
    const image = await findImage(url, this.#abort.signal);
    if (image || !address) return image;
    throw new HypolithError("image-absent", `there is no image at ${address}`, {
      hint: "check the address",
    });
  }

  #choose(): void {
    this.#console.hide();
    this.#notice.hide();
    this.#form.show();
    this.#enter("choosing", "no machine");
  }

  async #dropped(files: readonly File[]): Promise<void> {
    if (this.#state === "ended") this.#choose();
    await this.#form.take(files);
  }

  #startFrom(wishes: StartWishes): void {
    try {
      this.#plan = planStart(wishes, this.#image);
    } catch (error) {
      this.#choose();
      this.#notice.show(verdictOfError(error));
      return;
    }
    this.#startAgain();
  }

  #startAgain(): void {
    if (this.#plan && (this.#state === "choosing" || this.#state === "ended")) {
      void this.#start(this.#plan);
    }
  }

  async #start(plan: StartPlan): Promise<void> {
    this.#notice.hide();
    this.#form.hide();
    this.#console.open();
    this.#enter("loading", `${plan.title}: loading`);
    this.#abort = new AbortController();
    try {
      const config = await this.#configure(plan, this.#abort.signal);
      this.#run(plan, config);
    } catch (error) {
      if (this.#abort.signal.aborted) this.#choose();
      else this.#ended(verdictOfError(error));
    }
  }

  async #configure(plan: StartPlan, signal: AbortSignal): Promise<MachineConfig> {
    const progress = (text: string): void => this.#say(`${plan.title}: ${text}`);
    const kernel = await plan.kernel.read(progress, signal);
    const initrd = await plan.initrd?.read(progress, signal);
    return {
      kernel,
      ...(initrd && { initrd }),
      cmdline: plan.cmdline,
      memoryBytes: plan.memoryBytes,
      cpuModel: plan.cpuModel,
      clock: "wall",
      engine: plan.engine,
      traceExits: false,
      rtcEpochMs: Date.now(),
    };
  }

  #run(plan: StartPlan, config: MachineConfig): void {
    const about = `${plan.title}, ${formatSize(plan.memoryBytes)}`;
    this.#machine = new RunningMachine(plan.hasSession, {
      started: () => this.#say(`${about}: running`),
      output: (data) => this.#console.write(data),
      log: (level, text) => (level === "error" ? console.error(text) : console.info(text)),
      ended: (verdict) => this.#ended(verdict),
    });
    this.#enter("running", `${about}: starting`);
    this.#machine.resize(this.#console.size);
    this.#machine.start(config);
  }

  #turnOffClicked(): void {
    if (this.#state === "loading") this.#abort.abort();
    else this.#machine?.turnOff();
  }

  #ended(verdict: Verdict): void {
    this.#machine = undefined;
    this.#console.freeze();
    this.#notice.show(verdict);
    this.#enter("ended", `${this.#plan?.title ?? "the machine"}: off`);
    this.#again.focus();
  }

  #enter(state: PageState, text: string): void {
    this.#state = state;
    this.#powerOff.hidden = state !== "running";
    this.#turnOff.hidden = state !== "running" && state !== "loading";
    this.#turnOff.textContent = state === "loading" ? "Cancel" : "Turn off";
    this.#again.hidden = state !== "ended";
    this.#other.hidden = state !== "ended";
    this.#say(text);
  }

  #say(text: string): void {
    this.#status.textContent = text;
    document.title = this.#state === "choosing" ? "Hypolith" : `${text} - Hypolith`;
  }
}

element("without-script", HTMLParagraphElement).hidden = true;
try {
  await new Page().open();
} catch (error) {
  new Notice().show(verdictOfError(error));
}
