/** Signals as people write them: KILL, SIGKILL, 9. The numbers are those of Linux on amd64, which guests have, too. */
import { constants } from "node:os";

const NUMBERS = constants.signals as Readonly<Record<string, number>>;
const MAX_SIGNAL = 64;

/** Undefined if there is none. */
export function signalNumber(word: string): number | undefined {
  if (/^\d{1,2}$/.test(word)) {
    const number = Number(word);
    return number >= 1 && number <= MAX_SIGNAL ? number : undefined;
  }
  const name = word.toUpperCase().replace(/^(?:SIG)?/, "SIG");
  return Object.hasOwn(NUMBERS, name) ? NUMBERS[name] : undefined;
}

/** "TERM"; a number for what has no name. */
export function signalName(number: number): string {
  const found = Object.entries(NUMBERS).find(([, value]) => value === number);
  return found ? found[0].replace(/^SIG/, "") : String(number);
}
