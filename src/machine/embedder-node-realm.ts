/**
 * A realm for inline services in Node: its own set of intrinsics, in the machine's thread, locked down by SES. No object of the machine's
 * realm goes in, so what SES should leave open leads to another empty realm; and the machine's own intrinsics stay as they are.
 */
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { createContext, runInContext, Script } from "node:vm";
import {
  type CompartmentSetup,
  LOCKDOWN_OPTIONS,
  type OpenCompartment,
  openCompartment,
} from "./placements/compartment.ts";

/** A realm's own openCompartment. */
export type Realm = (setup: CompartmentSetup) => OpenCompartment;

type InnerOpen = (
  image: string,
  setup: string,
  name: string,
  read: CompartmentSetup["read"],
) => OpenCompartment;

let realm: Realm | undefined;

/** One realm a thread, made when it is first needed: some 60 ms. */
export function lockedRealm(): Realm {
  realm ??= createRealm();
  return realm;
}

/** The text of SES as a script that defines its globals. */
export function sesSource(): string {
  const home = dirname(createRequire(import.meta.url).resolve("ses/package.json"));
  return readFileSync(join(home, "dist/ses.umd.min.js"), "utf8");
}

function createRealm(): Realm {
  const context = createContext({}, { codeGeneration: { strings: true, wasm: false } });
  new Script(sesSource(), { filename: "ses" }).runInContext(context);
  const open = runInContext(
    `"use strict";
    lockdown(${JSON.stringify(LOCKDOWN_OPTIONS)});
    const openCompartment = ${openCompartment.toString()};
    (image, setup, name, read) => openCompartment({ Compartment, harden }, { image, setup, name, read });`,
    context,
    { filename: "service-realm" },
  ) as InnerOpen;
  return ({ image, setup, name, read }) => open(image, setup, name, read);
}
