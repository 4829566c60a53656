/** A shared folder as the kernel runs it: its service by messages and effects, through restarts, with a folder of this computer at the other end. */
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, type TestContext, test } from "node:test";
import { BusDriver } from "../devices/virtio/test-driver.ts";
import { NodeFolder } from "../machine/embedder-node-folder.ts";
import { ShareStream } from "../machine/share-stream.ts";
import { FuseSession } from "../sharing/fuse/fuse-session.ts";
import { FuseOp, OUT_HEADER_BYTES } from "../sharing/fuse/fuse-wire.ts";
import type { ShareSession } from "../sharing/share-session.ts";
import { FuseClient } from "../sharing/testing/fuse-client.ts";
import { VirtioBoard } from "./testing/virtio-board.ts";

const REQUESTS = 1;

/** A session whose requests go through a driver, the service and the stream. */
class FarSession implements ShareSession {
  readonly board: VirtioBoard;
  readonly driver: BusDriver;
  readonly #stream: ShareStream;

  constructor(session: ShareSession) {
    this.board = new VirtioBoard({ kind: "files", stream: 16, protocol: "fs", tag: "work" });
    this.driver = new BusDriver(this.board).start({ indirect: true });
    this.#stream = new ShareStream(session);
  }

  handle(request: Uint8Array, room: number): Uint8Array {
    this.driver.resetHeap();
    const head = { bytes: request.subarray(0, 40) };
    const rest = pages(request.subarray(40));
    this.driver.add(REQUESTS, [head, ...rest, { room: OUT_HEADER_BYTES }, ...roomPages(room)]);
    this.work();
    const [done] = this.driver.collect(REQUESTS);
    return done!.data;
  }

  work(): void {
    const { board } = this;
    for (;;) {
      const next = board.moves.shift();
      if (next) this.#stream.move(next.toMemory, next.header, next.memory);
      const answers = this.#stream.give();
      if (answers) assert.equal(board.input(answers), answers.length);
      else if (board.deadline < Number.POSITIVE_INFINITY) board.timer();
      else if (!next) return;
    }
  }

  close(): void {}

  save(): unknown {
    return null;
  }

  restore(): void {}
}

const PAGE = 4096;

function pages(bytes: Uint8Array) {
  const count = Math.ceil(bytes.length / PAGE);
  return Array.from({ length: count }, (_, i) => ({
    bytes: bytes.subarray(i * PAGE, (i + 1) * PAGE),
  }));
}

function roomPages(room: number) {
  const rest = Math.min(room, 600_000) - OUT_HEADER_BYTES;
  return Array.from({ length: Math.ceil(rest / PAGE) }, () => ({ room: PAGE }));
}

const pattern = (length: number) =>
  Uint8Array.from({ length }, (_, i) => (i * 7 + (i >> 9)) & 0xff);

for (const restarts of [false, true]) {
  describe(restarts ? "a share whose service is restarted at every message" : "a share", () => {
    const start = (t: TestContext) => {
      const folder = mkdtempSync(join(tmpdir(), "hypolith-share-"));
      t.after(() => rmSync(folder, { recursive: true, force: true }));
      const session = new FuseSession(new NodeFolder(folder), {
        ...{ readOnly: false, owner: { uid: 0, gid: 0 } },
        now: () => Date.now(),
      });
      const far = new FarSession(session);
      far.board.restarts = restarts;
      return { folder, far, client: new FuseClient(far) };
    };

    test("large writes and reads go beside the messages", (t) => {
      const { folder, far, client } = start(t);
      const data = pattern(500_000);
      const { open } = client.create(1, "a");
      assert.equal(client.write(open, data), data.length);
      assert.deepEqual(new Uint8Array(readFileSync(join(folder, "a"))), data);
      assert.deepEqual(client.read(open, 1000, 500_000), data.subarray(1000));
      assert.ok(far.board.largest < 20_000);
      client.release(open);
    });

    test("many requests at once", (t) => {
      const { far, client } = start(t);
      for (let i = 0; i < 40; i++) client.release(client.create(1, `f${i}`).open);
      far.driver.resetHeap();
      const requests = new Map<number, number>();
      for (let i = 0; i < 40; i++) {
        const bytes = client.request(FuseOp.LOOKUP, 1, [`f${i}`]);
        const segments = [{ bytes }, { room: OUT_HEADER_BYTES }, { room: 128 }];
        requests.set(far.driver.add(REQUESTS, segments, { kick: false }), i);
      }
      far.driver.kick(REQUESTS);
      far.work();
      const done = far.driver.collect(REQUESTS);
      assert.equal(done.length, 40);
      for (const { head, length } of done) {
        assert.equal(length, 144);
        requests.delete(head);
      }
      assert.equal(requests.size, 0);
    });
  });
}
