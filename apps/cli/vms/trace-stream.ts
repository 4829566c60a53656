/** The machine's side of hypo trace: its events on a socket, until whoever reads them has enough, or the machine ends. */
import type { Socket } from "node:net";

/** What a reader that does not keep up may owe us; the rest is lost, and said to be. */
const MAX_OWED = 64 << 20;

/** `begin` starts the trace, and answers what ends it. */
export function streamTrace(
  begin: (lines: (text: string) => void) => () => void,
  socket: Socket,
): void {
  let dropped = 0;
  const stop = begin((lines) => {
    if (lines === "") {
      socket.end();
      return;
    }
    if (!socket.writable) return;
    if (socket.writableLength > MAX_OWED) {
      dropped += lines.split("\n").length - 1;
      return;
    }
    if (dropped > 0) socket.write(`${JSON.stringify({ dropped })}\n`);
    dropped = 0;
    socket.write(lines);
  });
  socket.once("end", stop);
  socket.once("close", stop);
  socket.resume();
}
