/**
 * Chromium for conformance runs: the machine's own, found by name or by HYPO_CHROMIUM, without a window.
 */
import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";
import { type Browser, chromium, type Page } from "playwright-core";
import { HypolithError } from "../../src/base/errors.ts";
import { cpuSeconds } from "./cpu-time.ts";

const NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

export function findChromium(env: NodeJS.ProcessEnv = process.env): string {
  if (env.HYPO_CHROMIUM) return env.HYPO_CHROMIUM;
  for (const name of NAMES) {
    for (const folder of (env.PATH ?? "").split(delimiter)) {
      const path = join(folder, name);
      if (isExecutable(path)) return path;
    }
  }
  throw new HypolithError("browser-absent", `there is no Chromium: none of ${NAMES.join(", ")}`, {
    hint: "apt-get install chromium, or name one with HYPO_CHROMIUM",
  });
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

export function launchChromium(): Promise<Browser> {
  // Root, as in containers, has no sandbox of Chromium's.
  const isRoot = process.getuid?.() === 0;
  return chromium.launch({
    executablePath: findChromium(),
    headless: true,
    args: isRoot ? ["--no-sandbox"] : [],
  });
}

/** The lines that the terminal shows now, from the page itself: what a person would read. */
export async function screenOf(page: Page): Promise<string> {
  const rows = await page.locator(".xterm-rows > div").allTextContents();
  // xterm.js writes blanks as no-break spaces.
  return rows.map((row) => row.replaceAll("\u00a0", " ").trimEnd()).join("\n");
}

/** Waits until the screen shows `pattern`. */
export async function untilScreen(
  page: Page,
  pattern: RegExp,
  seconds: number,
): Promise<RegExpExecArray> {
  const deadline = performance.now() + seconds * 1000;
  for (;;) {
    const screen = await screenOf(page);
    const found = pattern.exec(screen);
    if (found) return found;
    if (performance.now() > deadline) {
      const shown = JSON.stringify(screen.trimEnd().slice(-2000));
      throw new HypolithError("screen-silent", `no ${pattern} in ${seconds} s but ${shown}`);
    }
    await page.waitForTimeout(50);
  }
}

/** CPU time so far of all of the browser's processes, in seconds. */
export async function browserCpuSeconds(browser: Browser): Promise<number> {
  const session = await browser.newBrowserCDPSession();
  const { processInfo } = await session.send("SystemInfo.getProcessInfo");
  await session.detach();
  return processInfo.reduce((sum, { id }) => sum + cpuSeconds(id), 0);
}
