/** Ports of the embedder that lead into the guest: `[HOSTADDRESS:]HOSTPORT:GUESTPORT[/udp]`. */
import { HypolithError } from "../../base/errors.ts";
import { parseIpv4Address } from "../packet/address.ts";
import { parsePort } from "./egress.ts";

export interface PortForward {
  readonly kind: "tcp" | "udp";
  readonly hostAddress: string;
  /** 0: any that is free. */
  readonly hostPort: number;
  readonly guestPort: number;
}

/** This machine alone, unless an address is named. */
const DEFAULT_ADDRESS = "127.0.0.1";

/** The argument of `-p`. Throws HypolithError "port-forward". */
export function parsePortForward(text: string): PortForward {
  const match =
    /^(?:(?<address>\d+(?:\.\d+){3}|\[[0-9a-f:.]+\]|localhost):)?(?<host>\d*):(?<guest>\d+)(?:\/(?<kind>tcp|udp))?$/i.exec(
      text,
    );
  const { address = DEFAULT_ADDRESS, host = "", guest = "", kind = "tcp" } = match?.groups ?? {};
  const hostPort = host === "" || host === "0" ? 0 : parsePort(host);
  const guestPort = parsePort(guest);
  const isAddress = !/^\d/.test(address) || parseIpv4Address(address) !== null;
  if (!match || hostPort === null || guestPort === null || !isAddress) {
    throw new HypolithError("port-forward", `"${text}" is no port to forward`, {
      hint: "write [HOSTADDRESS:]HOSTPORT:GUESTPORT[/udp], as in 8080:80 or 0.0.0.0:5353:53/udp",
    });
  }
  return {
    kind: kind.toLowerCase() as "tcp" | "udp",
    hostAddress: address.replace(/^\[|\]$/g, ""),
    hostPort,
    guestPort,
  };
}

export const formatPortForward = (f: PortForward): string =>
  `${f.hostAddress.includes(":") ? `[${f.hostAddress}]` : f.hostAddress}:${f.hostPort}:${f.guestPort}/${f.kind}`;
