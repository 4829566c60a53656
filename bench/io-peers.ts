/** What is outside of the guests of `npm run bench -- io`: servers for their streams, and a client for their HTTP server. */
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { BODY_BYTES, type IoPeers } from "./io-table.ts";

const CHUNK = Buffer.alloc(1 << 18);

async function listen(serve: (socket: Socket) => void): Promise<number> {
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    socket.on("error", () => {});
    serve(socket);
  });
  server.unref().listen(0, "127.0.0.1");
  await once(server, "listening");
  return (server.address() as AddressInfo).port;
}

/** They live as long as the process. */
export async function startPeers(): Promise<IoPeers> {
  const source = await listen((socket) => {
    const more = (): void => {
      while (!socket.destroyed && socket.write(CHUNK));
    };
    socket.on("drain", more);
    more();
  });
  const sink = await listen((socket) => {
    socket.on("data", () => {}).on("end", () => socket.end());
  });
  const echo = await listen((socket) => void socket.pipe(socket));
  return { source, sink, echo };
}

const request = (keeps: boolean): string =>
  `GET / HTTP/1.1\r\nHost: guest\r\nConnection: ${keeps ? "keep-alive" : "close"}\r\n\r\n`;

/** `count` requests over `connections` at once. Throws if an answer is not what it should be. */
export async function getAll(
  port: number,
  { count, connections, keeps }: { count: number; connections: number; keeps: boolean },
): Promise<void> {
  let left = count;
  const one = async (): Promise<void> => {
    while (left > 0) {
      if (!keeps) {
        left--;
        await onConnection(port, false, () => false);
      } else {
        left--;
        await onConnection(port, true, () => left-- > 0);
      }
    }
  };
  await Promise.all(Array.from({ length: connections }, one));
}

/** One request after the other as long as `again` says so. */
function onConnection(port: number, keeps: boolean, again: () => boolean): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect({ port, host: "127.0.0.1", noDelay: true });
    let received = "";
    const fail = (why: string): void => {
      socket.destroy();
      reject(new Error(`HTTP: ${why}`));
    };
    socket.setTimeout(60_000, () => fail("no answer in a minute"));
    socket.on("error", (error) => fail(error.message));
    socket.on("end", () => fail("the connection ended early"));
    socket.on("connect", () => socket.write(request(keeps)));
    socket.setEncoding("latin1").on("data", (text: string) => {
      received += text;
      const head = received.indexOf("\r\n\r\n");
      if (head < 0 || received.length < head + 4 + BODY_BYTES) return;
      if (!received.startsWith("HTTP/1.1 200 ")) return fail(received.slice(0, 100));
      received = "";
      if (again()) socket.write(request(keeps));
      else {
        socket.destroy();
        resolve();
      }
    });
  });
}
