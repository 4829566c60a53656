/** The form that describes a machine: what is served beside the page, or the user's own files. */
import { BootFile, type FileRole } from "./boot-file.ts";
import { element } from "./elements.ts";
import { HEAD_BYTES, roleOf } from "./file-role.ts";
import type { ServedImage } from "./served-image.ts";
import { NO_WISHES, type StartWishes } from "./start-plan.ts";

interface FileField {
  readonly input: HTMLInputElement;
  readonly from: HTMLElement;
}

function fileField(role: FileRole): FileField {
  return {
    input: element(role, HTMLInputElement),
    from: element(`${role}-from`, HTMLSpanElement),
  };
}

export class BootForm {
  readonly #form = element("start", HTMLFormElement);
  readonly #title = element("image-title", HTMLParagraphElement);
  readonly #boot = element("boot", HTMLButtonElement);
  readonly #fields = { kernel: fileField("kernel"), initrd: fileField("initrd") };
  readonly #append = element("append", HTMLInputElement);
  readonly #memory = element("memory", HTMLInputElement);
  readonly #cpu = element("cpu", HTMLInputElement);
  /** Files that came otherwise than by the pickers. */
  readonly #files: { kernel: BootFile | undefined; initrd: BootFile | undefined } = {
    kernel: undefined,
    initrd: undefined,
  };
  #engine = NO_WISHES.engine;
  #image: ServedImage | undefined;

  constructor(submitted: () => void) {
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      submitted();
    });
    this.#form.addEventListener("reset", (event) => {
      // Its own idea of the beginning is empty fields.
      event.preventDefault();
      for (const { input } of Object.values(this.#fields)) input.value = "";
      this.fill(NO_WISHES);
    });
    for (const role of ["kernel", "initrd"] as const) {
      this.#fields[role].input.addEventListener("change", () => {
        this.#files[role] = undefined;
        this.#refresh();
      });
    }
    this.fill(NO_WISHES);
  }

  set image(image: ServedImage | undefined) {
    this.#image = image;
    this.#refresh();
  }

  fill(wishes: StartWishes): void {
    this.#files.kernel = wishes.kernel;
    this.#files.initrd = wishes.initrd;
    this.#append.value = wishes.append;
    this.#memory.value = wishes.memory;
    this.#cpu.value = wishes.cpuModel;
    this.#engine = wishes.engine;
    this.#refresh();
  }

  show(): void {
    this.#form.hidden = false;
    this.#boot.focus();
  }

  hide(): void {
    this.#form.hidden = true;
  }

  get wishes(): StartWishes {
    return {
      kernel: this.#file("kernel"),
      initrd: this.#file("initrd"),
      append: this.#append.value,
      memory: this.#memory.value,
      cpuModel: this.#cpu.value.trim(),
      engine: this.#engine,
    };
  }

  /** Files that were dropped on the page: each goes where it belongs by its content. */
  async take(files: readonly File[]): Promise<void> {
    for (const file of files) {
      const head = new Uint8Array(await file.slice(0, HEAD_BYTES).arrayBuffer());
      const role = roleOf(head);
      this.#fields[role].input.value = "";
      this.#files[role] = new BootFile(role, file, file.name);
    }
    this.#refresh();
  }

  #file(role: FileRole): BootFile | undefined {
    const [picked] = this.#fields[role].input.files ?? [];
    return picked ? new BootFile(role, picked, picked.name) : this.#files[role];
  }

  /** Where each file comes from, if its picker does not say so itself. */
  #refresh(): void {
    const image = this.#image;
    const { kernel, initrd } = this.wishes;
    this.#title.textContent = kernel?.name ?? image?.title ?? "Choose a kernel to boot";
    this.#boot.disabled = kernel === undefined && image === undefined;
    const ofImage = kernel ? undefined : image;
    for (const [role, own, served] of [
      ["kernel", kernel, ofImage?.kernel],
      ["initrd", initrd, ofImage?.initrd],
    ] as const) {
      const { input, from } = this.#fields[role];
      const isPicked = input.value !== "";
      const text = own?.name ?? (served && `${served.name}, served with this page`) ?? "";
      from.textContent = isPicked ? "" : text;
    }
  }
}
