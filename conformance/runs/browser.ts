/**
 * The page of apps/web in Chromium without a window, by what a person sees and does: text on the screen, keys, clicks, files.
 *
 * The page is plain: no cross-origin isolation, so no SharedArrayBuffer. That an isolated one works, too, is a check of its own.
 * Needs a Chromium (HYPO_CHROMIUM, or chromium in PATH).
 */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import type { Browser, Page } from "playwright-core";
import { type PageFiles, pageFiles } from "../../apps/cli/web/page-files.ts";
import { PageServer } from "../../apps/cli/web/page-server.ts";
import { hostedKernel, powerOff } from "../../guests/hosted.ts";
import type { Assembler } from "../../src/processor/isa/assemble.ts";
import { imm } from "../../src/processor/isa/assemble.ts";
import { al, dx } from "../../src/processor/isa/registers.ts";
import { bundleWeb } from "../../tools/bundle-web.ts";
import { browserCpuSeconds, launchChromium, untilScreen } from "../harness/browser.ts";
import { CHECKOUT, outputFolder } from "../harness/cache.ts";
import { chosenEngine } from "../harness/engine.ts";
import { guestKernel } from "../harness/kernels.ts";
import type { Report } from "../harness/report.ts";
import { WebCommand } from "../harness/web-command.ts";

const BOOT_SECONDS = 240;
const ANSWER_SECONDS = 30;
const SETTLE_SECONDS = 15;
const IDLE_SECONDS = 20;
const MOST_IDLE_PERCENT = 5;
const FLOOD_SECONDS = 5;
const AWAY_SECONDS = 10;
/** Guest and browser are asked one after the other. */
const CLOCK_ERROR_SECONDS = 1.5;
/** The real-time clock and the shell's answer are in whole seconds, rounded down. */
const DATE_ERROR_SECONDS = CLOCK_ERROR_SECONDS + 2;
const PROMPT = /root@hypolith:~#/;

export async function browser(report: Report): Promise<void> {
  const { kernelPath } = await guestKernel("cloud");
  await writePage();
  const chromium = await launchChromium();
  report.fact(`Chromium ${chromium.version()}`);
  const command = new WebCommand();
  try {
    await plainPage(report, chromium, await command.address());
    await isolatedPage(report, chromium);
    await ownFiles(report, chromium, kernelPath);
    await failures(report, chromium);
  } finally {
    await chromium.close();
    command.kill();
  }
}

/** What `npm run build -- web` makes. */
async function writePage(): Promise<void> {
  const folder = join(CHECKOUT, "dist/web");
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  for (const { name, content } of (await bundleWeb()).files) {
    writeFileSync(join(folder, name), content);
  }
}

async function openPage(report: Report, chromium: Browser): Promise<Page> {
  const page = await chromium.newPage({ viewport: { width: 1000, height: 640 } });
  page.on("pageerror", (error) => report.check(false, `no error in the page: ${error}`));
  return page;
}

const status = (page: Page) => page.locator("#status").textContent();
const noticeOf = async (page: Page): Promise<string> => {
  await page.locator("#notice").waitFor({ timeout: ANSWER_SECONDS * 1000 });
  return (await page.locator("#notice").innerText()).trim();
};

async function shot(page: Page, name: string): Promise<void> {
  await page.screenshot({ path: join(outputFolder("browser"), `${name}.png`) });
}

// ---- Debian, as `hypo web` serves it ----

async function plainPage(report: Report, chromium: Browser, address: string): Promise<void> {
  const page = await openPage(report, chromium);
  await page.goto(`${address}?engine=${chosenEngine()}`);
  const shared = await page.evaluate("[crossOriginIsolated, typeof SharedArrayBuffer].join()");
  report.equal(
    String(shared),
    "false,undefined",
    "a plain page: neither isolated nor with shared memory",
  );
  await page.getByRole("button", { name: "Boot" }).click();
  await bootTime(report, page);
  await shot(page, "shell");
  await typed(report, page);
  await timeIsRight(report, page, chromium);
  await idleCost(report, page, chromium);
  await turnedOff(report, page);
  await page.close();
}

async function bootTime(report: Report, page: Page): Promise<void> {
  const [wall, cpu] = [performance.now(), await browserCpuSeconds(page.context().browser()!)];
  await untilScreen(page, PROMPT, BOOT_SECONDS);
  const seconds = (performance.now() - wall) / 1000;
  const used = (await browserCpuSeconds(page.context().browser()!)) - cpu;
  report.check(
    true,
    `Debian boots to a shell: ${seconds.toFixed(1)} s, ${used.toFixed(1)} s of CPU time`,
  );
}

/** Types a command; its answer begins on a line of its own. */
async function ask(page: Page, command: string, answer: RegExp): Promise<RegExpExecArray> {
  await page.keyboard.type(`${command}\n`);
  return untilScreen(page, answer, ANSWER_SECONDS);
}

async function typed(report: Report, page: Page): Promise<void> {
  const [said = ""] = await ask(page, "uname -sm", /^Linux x86.64$/m);
  report.check(true, `a command that is typed is answered: ${said}`);
  const rows = await page.locator(".xterm-rows > div").count();
  const [, lines] = await ask(page, "stty size", /^(\d+) \d+$/m);
  report.equal(lines ?? "", String(rows), "the guest knows how large the terminal is");
  await page.setViewportSize({ width: 700, height: 400 });
  await ask(page, "clear; echo resi''zed; stty size", /^resized\n(\d+) \d+$/m);
  const fewer = await page.locator(".xterm-rows > div").count();
  const [, less] = await ask(page, "stty size | tr ' ' x", /^(\d+)x\d+$/m);
  report.equal(less ?? "", String(fewer), "and learns of a change");
  await page.setViewportSize({ width: 1000, height: 640 });
  await ask(page, "echo sle''eping; sleep 1000", /^sleeping$/m);
  await page.keyboard.press("Control+c");
  await ask(page, "echo $? aft''er", /^130 after$/m);
  report.check(true, "Ctrl-C reaches the guest");
  await page.keyboard.type("yes\n");
  await untilScreen(page, /^y\ny\ny$/m, ANSWER_SECONDS);
  await page.waitForTimeout(FLOOD_SECONDS * 1000);
  await page.keyboard.press("Control+c");
  await untilScreen(page, PROMPT, ANSWER_SECONDS);
  await ask(page, "echo $? flo''od", /^130 flood$/m);
  report.check(true, "and it does so while the guest floods its console");
}

// ---- time ----

let samples = 0;

async function guestSeconds(page: Page): Promise<number> {
  const mark = `t${++samples}`;
  const answer = new RegExp(`^${mark} (\\d+\\.\\d+) `, "m");
  const [, text] = await ask(page, `echo ${mark} $(cat /proc/uptime)`, answer);
  return Number(text);
}

async function elapsed(page: Page, body: () => Promise<void>): Promise<number> {
  const [guest, own] = [await guestSeconds(page), performance.now()];
  await body();
  return (await guestSeconds(page)) - guest - (performance.now() - own) / 1000;
}

async function timeIsRight(report: Report, page: Page, chromium: Browser): Promise<void> {
  const close = (difference: number, what: string, most = CLOCK_ERROR_SECONDS): void =>
    report.check(
      Math.abs(difference) < most,
      `guest time is right ${what}: ${difference.toFixed(2)} s apart`,
    );
  close(await elapsed(page, () => page.waitForTimeout(AWAY_SECONDS * 1000)), "after idling");
  const work = "dd if=/dev/zero of=/dev/null bs=1M count=10000 2>/dev/null; echo do''ne";
  close(await elapsed(page, async () => void (await ask(page, work, /^done$/m))), "after work");
  const session = await page.context().newCDPSession(page);
  const away = await elapsed(page, async () => {
    const other = await chromium.newPage();
    await other.bringToFront();
    await session.send("Page.setWebLifecycleState", { state: "frozen" });
    await other.waitForTimeout(AWAY_SECONDS * 1000);
    await session.send("Page.setWebLifecycleState", { state: "active" });
    await other.close();
    await page.bringToFront();
  });
  close(away, "after the page was frozen in the background");
  const [, date] = await ask(page, "echo now $(date +%s)", /^now (\d+)$/m);
  close(Number(date) - Date.now() / 1000, "of day", DATE_ERROR_SECONDS);
}

async function idleCost(report: Report, page: Page, chromium: Browser): Promise<void> {
  await page.waitForTimeout(SETTLE_SECONDS * 1000);
  const before = await browserCpuSeconds(chromium);
  await page.waitForTimeout(IDLE_SECONDS * 1000);
  const percent = (((await browserCpuSeconds(chromium)) - before) / IDLE_SECONDS) * 100;
  report.check(
    percent <= MOST_IDLE_PERCENT,
    `an idle shell: ${percent.toFixed(1)} % of a core for all of Chromium (at most ${MOST_IDLE_PERCENT} %)`,
  );
}

async function turnedOff(report: Report, page: Page): Promise<void> {
  await page.keyboard.type("poweroff\n");
  report.equal(await noticeOf(page), "The guest has turned itself off.", "poweroff shows the end");
  report.check(/: off$/.test((await status(page)) ?? ""), "and the status says so");
  await shot(page, "off");
  await page.getByRole("button", { name: "Start again" }).click();
  await untilScreen(page, /Linux version 6/, BOOT_SECONDS);
  await page.getByRole("button", { name: "Turn off" }).click();
  report.equal(
    await noticeOf(page),
    "The machine was turned off.",
    "it starts again, and is turned off",
  );
}

// ---- other pages and other machines ----

async function servedPage(
  report: Report,
  chromium: Browser,
  extra: PageFiles,
  headers: Record<string, string> = {},
): Promise<{ page: Page; address: string; close(): Promise<void> }> {
  const server = new PageServer(new Map([...pageFiles(), ...extra]), headers);
  const address = await server.listen(0, "127.0.0.1");
  const page = await openPage(report, chromium);
  return {
    page,
    address,
    close: async () => {
      await page.close();
      await server.close();
    },
  };
}

const COM1 = 0x3f8;

function put(a: Assembler, text: string): void {
  a.emit("mov", dx, imm(COM1));
  for (const c of text) {
    a.emit("mov", al, imm(c.charCodeAt(0)));
    a.emit("out", dx, al);
  }
}

/** Says hello and turns itself off. */
const HELLO = hostedKernel((a) => {
  put(a, "hello from a guest\r\n");
  powerOff(a);
});

async function isolatedPage(report: Report, chromium: Browser): Promise<void> {
  const headers = {
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-embedder-policy": "require-corp",
  };
  const { page, address, close } = await servedPage(
    report,
    chromium,
    new Map([["k", HELLO]]),
    headers,
  );
  await page.goto(`${address}?kernel=k`);
  await untilScreen(page, /^hello from a guest$/m, ANSWER_SECONDS);
  const isIsolated = await page.evaluate("crossOriginIsolated");
  report.check(isIsolated === true, "an isolated page runs machines as well");
  await close();
}

async function ownFiles(report: Report, chromium: Browser, kernelPath: string): Promise<void> {
  const { page, address, close } = await servedPage(report, chromium, new Map());
  await page.goto(address);
  const boot = page.getByRole("button", { name: "Boot" });
  report.check(await boot.isDisabled(), "without an image and a kernel there is nothing to boot");
  const payload = { name: "hello.bin", mimeType: "", buffer: Buffer.from(HELLO) };
  await page.getByLabel("Kernel").setInputFiles(payload);
  await boot.click();
  await untilScreen(page, /^hello from a guest$/m, ANSWER_SECONDS);
  report.equal(
    await noticeOf(page),
    "The guest has turned itself off.",
    "a kernel that is picked boots",
  );
  await page.getByRole("button", { name: "Another machine" }).click();
  await page.getByRole("button", { name: "Clear" }).click();
  await drop(page, {
    "root.img": "no kernel",
    vmlinuz: readFileSync(kernelPath).toString("latin1"),
  });
  const from = async (role: string) => page.locator(`#${role}-from`).textContent();
  report.equal(
    `${await from("kernel")} ${await from("initrd")}`,
    "vmlinuz root.img",
    "files that are dropped find their place",
  );
  await boot.click();
  const notice = await noticeOfLinux(page);
  report.check(
    /kernel panicked: VFS: Unable to mount root fs/.test(notice),
    `a panic is shown: ${notice.split("\n")[0]}`,
  );
  await shot(page, "panic");
  await close();
}

async function noticeOfLinux(page: Page): Promise<string> {
  await page.locator("#notice").waitFor({ timeout: BOOT_SECONDS * 1000 });
  return noticeOf(page);
}

/** The part of the DOM's that is used inside the page. */
interface DataTransfer {
  readonly items: { add(file: File): void };
}

/** Drops files, given by name and content (Latin-1), on the page. */
async function drop(page: Page, files: Readonly<Record<string, string>>): Promise<void> {
  const transfer = await page.evaluateHandle<DataTransfer>("new DataTransfer()");
  await transfer.evaluate((into, given) => {
    for (const [name, text] of Object.entries(given)) {
      into.items.add(new File([Uint8Array.from(text, (c) => c.charCodeAt(0))], name));
    }
  }, files);
  await page.dispatchEvent("body", "dragover", { dataTransfer: transfer });
  await page.dispatchEvent("body", "drop", { dataTransfer: transfer });
  await page.locator("#kernel-from", { hasText: "vmlinuz" }).waitFor();
}

// ---- what goes wrong ----

async function failures(report: Report, chromium: Browser): Promise<void> {
  const crash = hostedKernel((a) => a.emit("ud2"));
  const script = Buffer.from("#!/bin/sh\n");
  const files = new Map<string, Uint8Array>([
    ["k", HELLO],
    ["crash", crash],
    ["script", script],
  ]);
  const { page, address, close } = await servedPage(report, chromium, files);
  const cases: readonly (readonly [query: string, notice: RegExp])[] = [
    ["?kernel=absent", /kernel absent cannot be downloaded: the server says 404/],
    [
      "?kernel=http://127.0.0.1:9/k",
      /cannot be downloaded: no answer that a page may read[\s\S]*CORS/,
    ],
    ["?kernel=k&initrd=absent", /initrd absent cannot be downloaded/],
    [
      "?kernel=k&memory=5g",
      /5 GiB of memory are more than a machine can have: 3 GiB[\s\S]*3g or less/,
    ],
    ["?kernel=k&memory=lots", /'lots' is no memory size/],
    ["?kernel=k&cpu=pentium", /pentium/i],
    ["?kernel=script", /looks like a script/],
    ["?kernel=crash", /triple fault[\s\S]*Details/i],
    ["?image=absent.json", /no image at absent\.json/],
  ];
  for (const [query, wanted] of cases) {
    await page.goto(`${address}${query}`);
    const notice = await noticeOf(page);
    report.check(wanted.test(notice), `${query} says: ${notice.replaceAll(/\s*\n\s*/g, " / ")}`);
    if (query === "?kernel=crash") await shot(page, "triple-fault");
  }
  await page.route("**/machine-worker.js", (route) => route.fulfill({ status: 404 }));
  await page.goto(`${address}?kernel=k`);
  const unloaded = await noticeOf(page);
  report.check(
    /machine-worker\.js\) cannot be loaded/.test(unloaded),
    `half a page is told: ${unloaded.split("\n")[0]}`,
  );
  await page.goto(pathToFileURL(join(CHECKOUT, "dist/web/index.html")).href);
  const text = await page.locator("main").innerText();
  report.check(
    /has to come from a web server/.test(text),
    "the page opened as a file says what it needs",
  );
  await page.addInitScript("WebAssembly.validate = () => false; delete globalThis.Worker;");
  await page.goto(address);
  const notice = await noticeOf(page);
  report.check(
    /lacks what a machine needs: Worker, WebAssembly SIMD/.test(notice),
    `an old browser is told: ${notice.split("\n")[0]}`,
  );
  await shot(page, "unsupported");
  await close();
}
