/** Files dropped anywhere on the page. Where none are wanted the browser's own answer, leaving the page for the file, is prevented too. */
import { element } from "./elements.ts";

export function acceptDrops(
  isWanted: () => boolean,
  dropped: (files: readonly File[]) => void,
): void {
  const sign = element("drop", HTMLDivElement);
  const hasFiles = (event: DragEvent): boolean =>
    event.dataTransfer?.types.includes("Files") ?? false;
  addEventListener("dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    sign.hidden = !isWanted();
    event.dataTransfer!.dropEffect = isWanted() ? "copy" : "none";
  });
  addEventListener("dragleave", (event) => {
    // Null: it has left the window, not only one element for another.
    if (event.relatedTarget === null) sign.hidden = true;
  });
  addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    sign.hidden = true;
    if (isWanted()) dropped([...event.dataTransfer!.files]);
  });
}
