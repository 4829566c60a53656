/**
 * What a flow's connection is joined to: a stream of the embedder, or our own DNS over TCP (RFC 7766).
 */
import { get16, joinBytes, put16 } from "../packet/bytes.ts";
import type { TcpEvents } from "../tcp/connection.ts";
import type { DnsForwarder } from "./dns-forwarder.ts";
import type { Flow } from "./flow.ts";
import type { HostNetwork } from "./host-network.ts";

/** Joins a connection and the embedder's stream. */
export function streamEnd(flow: Flow, host: HostNetwork): TcpEvents {
  const { state, stream } = flow;
  return {
    onEstablished: () => host.grant(stream, flow.connection!.tcb.receive.capacity),
    onData: (bytes) => host.send(stream, bytes.slice()),
    onEnd: () => host.shutdown(stream),
    onAcked: (bytes) => {
      const { queue, tcb } = flow.connection!;
      state.ungranted += bytes;
      // In large pieces, unless the guest waits for more.
      if (queue.length > 0 && state.ungranted * 4 < tcb.receive.capacity) return;
      host.grant(stream, state.ungranted);
      state.ungranted = 0;
    },
    onClosed: (end) => {
      if (end !== "closed" && !state.streamGone) host.reset(stream);
      state.streamGone = true;
    },
  };
}

/** Answers that a guest may leave unread. */
const MAX_UNREAD = 256 * 1024;

export function dnsEnd(flow: Flow, dns: DnsForwarder, now: () => number): TcpEvents {
  const { state } = flow;
  const ignore = (): void => {};
  return {
    onEstablished: ignore,
    onData: (bytes) => {
      const { connection } = flow;
      connection?.consumed(bytes.length);
      state.message = joinBytes([state.message, bytes]);
      while (state.message.length >= 2) {
        const end = 2 + get16(state.message, 0);
        if (state.message.length < end) break;
        const query = state.message.slice(2, end);
        state.message = state.message.slice(end);
        dns.ask(query, { kind: "tcp", ...flow.address }, now());
      }
    },
    onEnd: () => flow.connection?.shutdown(),
    onAcked: ignore,
    onClosed: ignore,
  };
}

/** Sends an answer of the DNS. */
export function writeDnsAnswer(flow: Flow, answer: Uint8Array): void {
  const { connection } = flow;
  if (!connection) return;
  if (connection.queue.length > MAX_UNREAD) {
    connection.abort();
    return;
  }
  const framed = new Uint8Array(2 + answer.length);
  put16(framed, 0, answer.length);
  framed.set(answer, 2);
  connection.write(framed);
}
