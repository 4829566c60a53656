/**
 * The agent in the guest: starts programs for the host and carries their streams. A program of our own for Linux on amd64 and i386, so that it
 * needs nothing of the guest's file system.
 *
 * /hypo/agent [ROOT]  listens on vsock; with ROOT, programs see that folder as the root file system. One process a session: it is forked
 * when the host connects, reads the request, starts the program and moves bytes until it has ended (agent-protocol.ts). When the host
 * goes away first, the program's group gets SIGHUP.
 * /hypo/agent =UID:GID[,GROUP]... PROGRAM [ARGUMENT]...  becomes the program as that user, for the launch script.
 * /hypo/agent -       one session on descriptor 3, for tests.
 */
import {
  AGENT_PORT,
  AgentFrame,
  FailedStep,
  FRAME_HEADER,
  HostFrame,
  MAX_GROUPS,
  MAX_PAYLOAD,
  MAX_REQUEST,
  MAX_STRINGS,
  RESUME_ENTROPY,
  RequestAt,
  RequestFlag,
  STDIN_WINDOW,
} from "./agent-protocol.ts";
import { type Bits, LinuxProgram, type Value, type Word } from "./linux-program.ts";

/** Values of Linux's headers that are the same on amd64 and i386. */
const O_RDWR = 2;
const O_NOCTTY = 0o400;
const O_NONBLOCK = 0o4000;
const O_CLOEXEC = 0o2000000;
const AF_VSOCK = 40;
const SOCK_STREAM = 1;
const F_SETFD = 2;
const F_SETFL = 4;
const FD_CLOEXEC = 1;
const SIGHUP = 1;
const SIGINT = 2;
const SIGQUIT = 3;
const SIGPIPE = 13;
const SIGCHLD = 17;
const SIG_DFL = 0;
const SIG_IGN = 1;
const SIGNAL_SET_BYTES = 8;
const TIOCSCTTY = 0x540e;
const TIOCSWINSZ = 0x5414;
const TIOCGPTPEER = 0x5441;
const TIOCSPTLCK = 0x40045431;
const CLOCK_REALTIME = 0;
const RNDADDENTROPY = 0x40085203;
const RNDRESEEDCRNG = 0x5207;
const POLLIN = 1;
const POLLOUT = 4;
const WNOHANG = 1;
const AT_EMPTY_PATH = 0x1000;
const Errno = { ENOENT: 2, EAGAIN: 11, EACCES: 13, ENOTDIR: 20, EINVAL: 22 } as const;
const SESSION_DESCRIPTOR = 3;
const NONE = -1;
const POLL_ENTRY = 8;
/** What a shell says of a program that is there and cannot be run. */
const CANNOT_RUN = 126;
/** Turns in which what the program left in its pipes is carried on after its end: what it has left running may write for ever. */
const LAST_TURNS = 64;

export function agentElf(bits: Bits): Uint8Array {
  const p = new LinuxProgram(bits);
  new Agent(p).write();
  return p.toElf();
}

class Agent {
  readonly #p: LinuxProgram;
  readonly #vars = new Map<string, Word>();
  readonly #request: number;
  readonly #pointers: number;
  readonly #input: number;
  readonly #output: number;
  readonly #frame: number;
  readonly #payload: number;
  readonly #polled: number;
  readonly #scratch: number;

  constructor(p: LinuxProgram) {
    this.#p = p;
    this.#request = p.buffer(MAX_REQUEST + 16);
    this.#pointers = p.buffer((MAX_STRINGS + 8) * p.wordBytes);
    this.#input = p.buffer(2 * STDIN_WINDOW);
    this.#output = p.buffer(FRAME_HEADER + MAX_PAYLOAD);
    this.#frame = p.buffer(FRAME_HEADER);
    this.#payload = p.buffer(MAX_PAYLOAD);
    this.#polled = p.buffer(5 * POLL_ENTRY);
    this.#scratch = p.buffer(64);
  }

  /** A word variable by name, made when first named. */
  #var(name: string): Word {
    let word = this.#vars.get(name);
    if (!word) {
      word = this.#p.word();
      this.#vars.set(name, word);
    }
    return word;
  }

  #get(name: string): Value {
    return this.#var(name).get;
  }

  #set(name: string, value: Value): void {
    this.#p.set(this.#var(name), value);
  }

  #exit(): void {
    this.#p.do(this.#p.call("exit_group", 0));
  }

  #field(offset: number): Value {
    return this.#p.intAt(this.#request + offset);
  }

  #ifFlag(flag: number, then: () => void, otherwise?: () => void): void {
    const p = this.#p;
    p.when([p.and(this.#field(RequestAt.FLAGS), flag), "!=", 0], then, otherwise);
  }

  #signalAction(signal: number, action: number): void {
    const p = this.#p;
    // sigaction: handler, flags, restorer, mask; all that follows the handler is zero.
    p.setWordAt(this.#scratch + 16, action);
    p.do(p.call("rt_sigaction", signal, this.#scratch + 16, 0, SIGNAL_SET_BYTES));
  }

  write(): void {
    const p = this.#p;
    p.start(this.#var("stack"));
    this.#set("argument", this.#wordAt(p.add(this.#get("stack"), 2 * p.wordBytes)));
    // Descriptors 0 to 2 are taken, so that none of ours is one of them.
    p.loop(() => {
      this.#set("fd", p.call("open", p.text("/dev/null"), O_RDWR));
      p.when([this.#get("fd"), "<", 0], () => p.leave());
      p.when([this.#get("fd"), ">", 2], () => {
        p.do(p.call("close", this.#get("fd")));
        p.leave();
      });
    });
    this.#set("busybox", p.call("open", p.text("/hypo/busybox"), O_CLOEXEC));
    p.when([this.#get("argument"), "!=", 0], () => {
      p.when([p.byteAt(this.#get("argument")), "=", "-".charCodeAt(0)], () => {
        this.#set("connection", SESSION_DESCRIPTOR);
        p.do(p.call("fcntl", SESSION_DESCRIPTOR, F_SETFD, FD_CLOEXEC));
        p.run("session");
      });
      p.when([p.byteAt(this.#get("argument")), "=", "=".charCodeAt(0)], () => p.run("become"));
      p.do(p.call("chroot", this.#get("argument")));
      p.do(p.call("chdir", p.text("/")));
    });
    this.#listen();
    p.procedure("become", () => this.#become());
    p.procedure("number", () => this.#number());
    p.procedure("session", () => this.#session());
    p.procedure("resume", () => this.#resume());
    p.procedure("read", () => this.#readAll());
    p.procedure("send", () => this.#sendAll());
    p.procedure("report", () => this.#report());
    p.procedure("hangUp", () => {
      p.do(p.call("kill", p.negated(this.#get("pid")), SIGHUP));
      this.#exit();
    });
    p.procedure("child", () => this.#child());
    p.procedure("forward", () => this.#forward());
    p.procedure("obey", () => this.#obey());
    p.procedure("feed", () => this.#feed());
  }

  /** =UID:GID[,GROUP]... PROGRAM [ARGUMENT]...: becomes the program, as that user. */
  #become(): void {
    const p = this.#p;
    const groups = this.#request;
    this.#set("string", p.add(this.#get("argument"), 1));
    p.run("number");
    this.#set("uid", this.#get("number"));
    p.run("number");
    this.#set("gid", this.#get("number"));
    this.#set("groups", 0);
    this.#set("at", groups);
    p.while([this.#get("more"), "!=", 0], () => {
      p.run("number");
      p.when([this.#get("groups"), "<", MAX_GROUPS], () => {
        p.setInt(this.#get("at"), this.#get("number"));
        this.#set("at", p.add(this.#get("at"), 4));
        this.#set("groups", p.add(this.#get("groups"), 1));
      });
    });
    const refuse = (): void => p.do(p.call("exit_group", CANNOT_RUN));
    p.when([p.call("setgroups", this.#get("groups"), groups), "<", 0], refuse);
    p.when([p.call("setgid", this.#get("gid")), "<", 0], refuse);
    p.when([p.call("setuid", this.#get("uid")), "<", 0], refuse);
    // The stack: count, arguments, a zero, environment. Ours begin two behind.
    const count = this.#wordAt(this.#get("stack"));
    const environment = p.add(this.#get("stack"), p.words(p.add(count, 2)));
    const program = p.add(this.#get("stack"), 3 * p.wordBytes);
    p.do(p.call("execve", this.#wordAt(program), program, environment));
    refuse();
  }

  /** Reads `number` at `string`, and what ends it; `more`: it was not the end of the text. */
  #number(): void {
    const p = this.#p;
    this.#set("number", 0);
    p.loop(() => {
      this.#set("digit", p.sub(p.byteAt(this.#get("string")), "0".charCodeAt(0)));
      p.when([this.#get("digit"), "<", 0], () => p.leave());
      p.when([this.#get("digit"), ">", 9], () => p.leave());
      this.#set("twice", p.add(this.#get("number"), this.#get("number")));
      this.#set("number", this.#get("digit"));
      for (let i = 0; i < 5; i++)
        this.#set("number", p.add(this.#get("number"), this.#get("twice")));
      this.#set("string", p.add(this.#get("string"), 1));
    });
    this.#set("more", p.byteAt(this.#get("string")));
    p.when([this.#get("more"), "!=", 0], () => this.#set("string", p.add(this.#get("string"), 1)));
  }

  #listen(): void {
    const p = this.#p;
    this.#signalAction(SIGCHLD, SIG_IGN);
    this.#signalAction(SIGPIPE, SIG_IGN);
    this.#set("listener", p.call("socket", AF_VSOCK, SOCK_STREAM | O_CLOEXEC, 0));
    // sockaddr_vm: family u16, reserved u16, port u32, context u32 (any), zeros.
    p.setInt(this.#scratch, AF_VSOCK);
    p.setInt(this.#scratch + 4, AGENT_PORT);
    p.setInt(this.#scratch + 8, -1);
    p.when([p.call("bind", this.#get("listener"), this.#scratch, 16), "<", 0], () => this.#exit());
    p.when([p.call("listen", this.#get("listener"), 64), "<", 0], () => this.#exit());
    p.loop(() => {
      this.#set("connection", p.call("accept4", this.#get("listener"), 0, 0, O_CLOEXEC));
      p.when([this.#get("connection"), ">=", 0], () => {
        p.when([p.call("fork"), "=", 0], () => {
          p.do(p.call("close", this.#get("listener")));
          p.run("session");
        });
        p.do(p.call("close", this.#get("connection")));
      });
    });
  }

  /** Reads `count` bytes of the connection to `at`; `ok`: whether they came. */
  #readAll(): void {
    const p = this.#p;
    this.#set("ok", 1);
    p.while([this.#get("count"), ">", 0], () => {
      this.#set("n", p.call("read", this.#get("connection"), this.#get("at"), this.#get("count")));
      p.when([this.#get("n"), "<=", 0], () => {
        this.#set("ok", 0);
        p.return();
      });
      this.#set("at", p.add(this.#get("at"), this.#get("n")));
      this.#set("count", p.sub(this.#get("count"), this.#get("n")));
    });
  }

  #read(address: Value, count: Value): void {
    this.#set("at", address);
    this.#set("count", count);
    this.#p.run("read");
  }

  /** Sends the frame in `output`, of `type` and `length`. */
  #sendAll(): void {
    const p = this.#p;
    p.setInt(this.#output, this.#get("type"));
    p.setInt(this.#output + 4, this.#get("length"));
    this.#set("at", this.#output);
    this.#set("count", p.add(this.#get("length"), FRAME_HEADER));
    p.while([this.#get("count"), ">", 0], () => {
      this.#set("n", p.call("write", this.#get("connection"), this.#get("at"), this.#get("count")));
      p.when([this.#get("n"), "<=", 0], () => p.run("hangUp"));
      this.#set("at", p.add(this.#get("at"), this.#get("n")));
      this.#set("count", p.sub(this.#get("count"), this.#get("n")));
    });
  }

  #send(type: number, ...values: Value[]): void {
    const p = this.#p;
    for (const [i, value] of values.entries()) p.setInt(this.#output + FRAME_HEADER + 4 * i, value);
    this.#set("type", type);
    this.#set("length", 4 * values.length);
    p.run("send");
  }

  /** Of the child: `step` and `errno` to the session, and the end. */
  #report(): void {
    const p = this.#p;
    p.setInt(this.#scratch, this.#get("step"));
    p.setInt(this.#scratch + 4, this.#get("errno"));
    p.do(p.call("write", this.#get("statusWrite"), this.#scratch, 8));
    this.#exit();
  }

  #parse(): void {
    const p = this.#p;
    this.#read(this.#scratch, 4);
    this.#set("size", p.intAt(this.#scratch));
    for (const wrong of [
      [this.#get("ok"), "=", 0],
      [this.#get("size"), "<", RequestAt.LIST],
      [this.#get("size"), ">", MAX_REQUEST],
    ] as const)
      p.when(wrong, () => this.#exit());
    this.#read(this.#request, this.#get("size"));
    p.when([this.#get("ok"), "=", 0], () => this.#exit());
    this.#set("groups", this.#field(RequestAt.GROUPS));
    p.when([this.#get("groups"), ">", MAX_GROUPS], () => this.#exit());
    // Pointers to the strings, each list ended by a zero: folder, places, arguments, environment.
    this.#set("string", this.#request + RequestAt.LIST);
    this.#set("i", 0);
    p.while([this.#get("i"), "<", this.#get("groups")], () => {
      this.#set("string", p.add(this.#get("string"), 4));
      this.#set("i", p.add(this.#get("i"), 1));
    });
    this.#set("pointer", this.#pointers);
    this.#set("end", p.add(this.#get("size"), this.#request));
    const lists: readonly (readonly [string, Value])[] = [
      ["folder", 1],
      ["places", this.#field(RequestAt.PLACES)],
      ["argv", this.#field(RequestAt.ARGUMENTS)],
      ["environment", this.#field(RequestAt.ENVIRONMENT)],
    ];
    for (const [name, count] of lists) {
      this.#set(name, this.#get("pointer"));
      this.#set("left", count);
      p.while([this.#get("left"), ">", 0], () => {
        const isFull = this.#pointers + MAX_STRINGS * p.wordBytes;
        p.when([this.#get("pointer"), ">=", isFull], () => this.#exit());
        p.when([this.#get("string"), ">=", this.#get("end")], () => this.#exit());
        p.setWordAt(this.#get("pointer"), this.#get("string"));
        this.#set("pointer", p.add(this.#get("pointer"), p.wordBytes));
        // The buffer ends with zeros, so the last string has an end.
        p.while([p.byteAt(this.#get("string")), "!=", 0], () =>
          this.#set("string", p.add(this.#get("string"), 1)),
        );
        this.#set("string", p.add(this.#get("string"), 1));
        this.#set("left", p.sub(this.#get("left"), 1));
      });
      p.setWordAt(this.#get("pointer"), 0);
      this.#set("pointer", p.add(this.#get("pointer"), p.wordBytes));
    }
  }

  #pipe(read: string, write: string): void {
    const p = this.#p;
    p.when([p.call("pipe2", this.#scratch, O_CLOEXEC), "<", 0], () =>
      this.#fail(FailedStep.PROCESS, Errno.EAGAIN),
    );
    this.#set(read, p.intAt(this.#scratch));
    this.#set(write, p.intAt(this.#scratch + 4));
  }

  #fail(step: number, errno: Value): void {
    this.#send(AgentFrame.FAILED, step, errno);
    this.#exit();
  }

  #terminal(): void {
    const p = this.#p;
    const fail = (): void => this.#fail(FailedStep.TERMINAL, p.negated(this.#get("master")));
    this.#set("master", p.call("open", p.text("/dev/ptmx"), O_RDWR | O_NOCTTY | O_CLOEXEC));
    p.when([this.#get("master"), "<", 0], fail);
    p.setInt(this.#scratch, 0);
    p.do(p.call("ioctl", this.#get("master"), TIOCSPTLCK, this.#scratch));
    const flags = O_RDWR | O_NOCTTY | O_CLOEXEC;
    this.#set("slave", p.call("ioctl", this.#get("master"), TIOCGPTPEER, flags));
    p.when([this.#get("slave"), "<", 0], () => {
      this.#set("master", this.#get("slave"));
      fail();
    });
    this.#resize(this.#field(RequestAt.ROWS), this.#field(RequestAt.COLUMNS));
    for (const name of ["childIn", "childOut", "childErr"]) this.#set(name, this.#get("slave"));
    this.#set("inWrite", this.#get("master"));
    this.#set("outRead", this.#get("master"));
    this.#set("errRead", NONE);
  }

  #resize(rows: Value, columns: Value): void {
    const p = this.#p;
    // winsize: rows, columns, two sizes in pixels, u16 each. Two stores that overlap: the second one puts the columns in place.
    p.setInt(this.#scratch, rows);
    p.setInt(this.#scratch + 4, 0);
    p.setInt(this.#scratch + 2, columns);
    p.do(p.call("ioctl", this.#get("master"), TIOCSWINSZ, this.#scratch));
  }

  #pipes(): void {
    const p = this.#p;
    const nothing = p.call("open", p.text("/dev/null"), O_RDWR | O_CLOEXEC);
    this.#ifFlag(
      RequestFlag.STDIN,
      () => this.#pipe("childIn", "inWrite"),
      () => {
        this.#set("childIn", nothing);
        this.#set("inWrite", NONE);
      },
    );
    this.#ifFlag(
      RequestFlag.DETACH,
      () => {
        for (const name of ["childOut", "childErr"]) this.#set(name, nothing);
        for (const name of ["outRead", "errRead"]) this.#set(name, NONE);
      },
      () => {
        this.#pipe("outRead", "childOut");
        this.#pipe("errRead", "childErr");
      },
    );
  }

  #session(): void {
    const p = this.#p;
    this.#signalAction(SIGCHLD, SIG_DFL);
    this.#signalAction(SIGPIPE, SIG_IGN);
    this.#parse();
    this.#ifFlag(RequestFlag.RESUME, () => p.run("resume"));
    this.#set("master", NONE);
    this.#ifFlag(
      RequestFlag.TTY,
      () => this.#terminal(),
      () => this.#pipes(),
    );
    this.#pipe("statusRead", "statusWrite");
    this.#set("pid", p.call("fork"));
    p.when([this.#get("pid"), "=", 0], () => p.run("child"));
    p.when([this.#get("pid"), "<", 0], () =>
      this.#fail(FailedStep.PROCESS, p.negated(this.#get("pid"))),
    );
    for (const name of ["childIn", "childOut", "childErr", "statusWrite"])
      p.do(p.call("close", this.#get(name)));
    // The end of the pipe is the beginning of the program; before it there is only a failure to tell of.
    this.#set("n", p.call("read", this.#get("statusRead"), this.#scratch, 8));
    p.when([this.#get("n"), "=", 8], () => {
      this.#send(AgentFrame.FAILED, p.intAt(this.#scratch), p.intAt(this.#scratch + 4));
      this.#exit();
    });
    p.do(p.call("close", this.#get("statusRead")));
    this.#send(AgentFrame.STARTED, this.#get("pid"));
    this.#ifFlag(RequestFlag.DETACH, () => this.#exit());
    this.#set("process", p.call("pidfd_open", this.#get("pid"), 0));
    p.when([this.#get("inWrite"), ">=", 0], () =>
      p.do(p.call("fcntl", this.#get("inWrite"), F_SETFL, O_RDWR | O_NONBLOCK)),
    );
    for (const name of ["head", "pending", "isEnd", "hasExited", "turns"]) this.#set(name, 0);
    this.#carry();
  }

  /** The guest goes on from a snapshot: sets the clock and stirs new randomness in. */
  #resume(): void {
    const p = this.#p;
    const words = 3 + RESUME_ENTROPY;
    p.when([this.#get("groups"), "!=", words], () => this.#fail(FailedStep.CLOCK, Errno.EINVAL));
    // The randomness first: it is of use even if the time is not.
    const bytes = 4 * RESUME_ENTROPY;
    p.setInt(this.#scratch, 8 * bytes);
    p.setInt(this.#scratch + 4, bytes);
    const numbers = this.#request + RequestAt.LIST;
    for (let i = 0; i < RESUME_ENTROPY; i++)
      p.setInt(this.#scratch + 8 + 4 * i, p.intAt(numbers + 4 * (3 + i)));
    this.#set("random", p.call("open", p.text("/dev/urandom"), O_RDWR | O_CLOEXEC));
    p.when([this.#get("random"), ">=", 0], () => {
      p.do(p.call("ioctl", this.#get("random"), RNDADDENTROPY, this.#scratch));
      p.do(p.call("ioctl", this.#get("random"), RNDRESEEDCRNG, 0));
    });
    // timespec: two words.
    p.setInt(this.#scratch, p.intAt(numbers));
    if (p.wordBytes === 8) p.setInt(this.#scratch + 4, p.intAt(numbers + 4));
    p.setWordAt(this.#scratch + p.wordBytes, p.intAt(numbers + 8));
    this.#set("n", p.call("clock_settime", CLOCK_REALTIME, this.#scratch));
    p.when([this.#get("n"), "<", 0], () => this.#fail(FailedStep.CLOCK, p.negated(this.#get("n"))));
    this.#send(AgentFrame.EXITED, 0);
    this.#exit();
  }

  #poll(index: number, descriptor: Value, events: Value): void {
    const at = this.#polled + index * POLL_ENTRY;
    this.#p.setInt(at, descriptor);
    this.#p.setInt(at + 4, events);
  }

  #ifPolled(index: number, then: () => void): void {
    const p = this.#p;
    const revents = p.halfAt(this.#polled + index * POLL_ENTRY + 6);
    p.when([revents, "!=", 0], then);
  }

  /** The bytes' way, until the program has ended and its pipes are empty. */
  #carry(): void {
    const p = this.#p;
    p.loop(() => {
      this.#poll(0, this.#get("connection"), POLLIN);
      this.#poll(1, NONE, 0);
      p.when([this.#get("pending"), ">", 0], () => this.#poll(1, this.#get("inWrite"), POLLOUT));
      this.#poll(2, this.#get("outRead"), POLLIN);
      this.#poll(3, this.#get("errRead"), POLLIN);
      this.#poll(4, this.#get("process"), POLLIN);
      this.#set("timeout", NONE);
      p.when([this.#get("hasExited"), "!=", 0], () => {
        this.#set("timeout", 0);
        this.#set("turns", p.add(this.#get("turns"), 1));
      });
      this.#set("ready", p.call("poll", this.#polled, 5, this.#get("timeout")));
      p.when([this.#get("hasExited"), "!=", 0], () => {
        p.when([this.#get("ready"), "<=", 0], () => this.#finish());
        p.when([this.#get("turns"), ">", LAST_TURNS], () => this.#finish());
        p.when([this.#get("outRead"), "<", 0], () =>
          p.when([this.#get("errRead"), "<", 0], () => this.#finish()),
        );
      });
      // Not ready but interrupted: the entries say what they said before.
      p.when([this.#get("ready"), ">", 0], () => {
        this.#ifPolled(2, () => this.#output1(AgentFrame.STDOUT, "outRead"));
        this.#ifPolled(3, () => this.#output1(AgentFrame.STDERR, "errRead"));
        this.#ifPolled(1, () => p.run("feed"));
        this.#ifPolled(4, () => {
          const wait = p.call("wait4", this.#get("pid"), this.#scratch, WNOHANG, 0);
          p.when([wait, "=", this.#get("pid")], () => {
            this.#set("status", p.intAt(this.#scratch));
            this.#set("hasExited", 1);
            this.#set("process", NONE);
          });
        });
        this.#ifPolled(0, () => p.run("obey"));
      });
    });
  }

  #finish(): void {
    this.#send(AgentFrame.EXITED, this.#get("status"));
    this.#exit();
  }

  #output1(type: number, source: string): void {
    const p = this.#p;
    this.#set("source", this.#get(source));
    this.#set("type", type);
    p.run("forward");
    p.when([this.#get("length"), "<=", 0], () => {
      p.when([this.#get("length"), "!=", -Errno.EAGAIN], () => {
        // A terminal is one descriptor for both directions.
        p.when([this.#get("master"), "<", 0], () => p.do(p.call("close", this.#get(source))));
        this.#set(source, NONE);
      });
    });
  }

  /** One read of `source`, sent on as a frame of `type`; `length` is what the read said. */
  #forward(): void {
    const p = this.#p;
    const at = this.#output + FRAME_HEADER;
    this.#set("length", p.call("read", this.#get("source"), at, MAX_PAYLOAD));
    p.when([this.#get("length"), ">", 0], () => p.run("send"));
  }

  /** Takes a frame of the host's. */
  #obey(): void {
    const p = this.#p;
    this.#read(this.#frame, FRAME_HEADER);
    p.when([this.#get("ok"), "=", 0], () => p.run("hangUp"));
    this.#set("kind", p.intAt(this.#frame));
    this.#set("bytes", p.intAt(this.#frame + 4));
    for (const comparison of [
      [this.#get("bytes"), "<", 0],
      [this.#get("bytes"), ">", MAX_PAYLOAD],
    ] as const)
      p.when(comparison, () => p.run("hangUp"));
    this.#read(this.#payload, this.#get("bytes"));
    p.when([this.#get("ok"), "=", 0], () => p.run("hangUp"));
    p.when([this.#get("kind"), "=", HostFrame.RESIZE], () => {
      this.#resize(p.halfAt(this.#payload), p.halfAt(this.#payload + 2));
    });
    p.when([this.#get("kind"), "=", HostFrame.SIGNAL], () => {
      p.do(p.call("kill", p.negated(this.#get("pid")), p.intAt(this.#payload)));
    });
    p.when([this.#get("kind"), "=", HostFrame.STDIN], () => this.#keep());
  }

  /** Standard input from the host, until the program has room. */
  #keep(): void {
    const p = this.#p;
    p.when([this.#get("bytes"), "=", 0], () => this.#set("isEnd", 1));
    this.#set("sum", p.add(this.#get("pending"), this.#get("bytes")));
    // More than the window: a host that does not keep to the protocol.
    p.when([this.#get("sum"), ">", STDIN_WINDOW], () => p.run("hangUp"));
    const limit = p.sub(2 * STDIN_WINDOW, this.#get("sum"));
    p.when([this.#get("head"), ">", limit], () => {
      p.move(this.#input, p.add(this.#get("head"), this.#input), this.#get("pending"));
      this.#set("head", 0);
    });
    const tail = p.add(p.add(this.#get("head"), this.#get("pending")), this.#input);
    p.move(tail, this.#payload, this.#get("bytes"));
    this.#set("pending", this.#get("sum"));
    p.run("feed");
  }

  /** Gives the program what it has room for, and tells the host. */
  #feed(): void {
    const p = this.#p;
    p.when([this.#get("pending"), ">", 0], () => {
      const from = p.add(this.#get("head"), this.#input);
      this.#set("n", p.call("write", this.#get("inWrite"), from, this.#get("pending")));
      p.when([this.#get("n"), "=", -Errno.EAGAIN], () => p.return());
      // Nobody reads it any more: it is as if it had been read.
      p.when([this.#get("n"), "<", 0], () => this.#set("n", this.#get("pending")));
      this.#set("head", p.add(this.#get("head"), this.#get("n")));
      this.#set("pending", p.sub(this.#get("pending"), this.#get("n")));
      p.when([this.#get("pending"), "=", 0], () => this.#set("head", 0));
      this.#set("fed", this.#get("n"));
      this.#send(AgentFrame.TAKEN, this.#get("fed"));
    });
    p.when([this.#get("isEnd"), "!=", 0], () =>
      p.when([this.#get("pending"), "=", 0], () =>
        p.when([this.#get("master"), "<", 0], () => {
          p.when([this.#get("inWrite"), ">=", 0], () =>
            p.do(p.call("close", this.#get("inWrite"))),
          );
          this.#set("inWrite", NONE);
        }),
      ),
    );
  }

  #child(): void {
    const p = this.#p;
    p.do(p.call("setsid"));
    p.when([this.#get("master"), ">=", 0], () =>
      p.do(p.call("ioctl", this.#get("slave"), TIOCSCTTY, 0)),
    );
    for (const [i, name] of ["childIn", "childOut", "childErr"].entries())
      p.do(p.call("dup2", this.#get(name), i));
    p.do(p.call("umask", 0o022));
    const step = (number: number, name: string, value: Value): void => {
      this.#set(name, value);
      p.when([this.#get(name), "<", 0], () => {
        this.#set("step", number);
        this.#set("errno", p.negated(this.#get(name)));
        p.run("report");
      });
    };
    const groups = this.#request + RequestAt.LIST;
    step(FailedStep.USER, "result", p.call("setgroups", this.#get("groups"), groups));
    step(FailedStep.USER, "result", p.call("setgid", this.#field(RequestAt.GID)));
    step(FailedStep.USER, "result", p.call("setuid", this.#field(RequestAt.UID)));
    step(FailedStep.FOLDER, "result", p.call("chdir", this.#wordAt(this.#get("folder"))));
    // Whoever started us may have left some of them ignored.
    for (const signal of [SIGHUP, SIGINT, SIGQUIT, SIGPIPE]) this.#signalAction(signal, SIG_DFL);
    this.#set("step", FailedStep.PROGRAM);
    this.#set("errno", Errno.ENOENT);
    this.#ifFlag(RequestFlag.BUSYBOX, () => {
      const args = [this.#get("argv"), this.#get("environment"), AT_EMPTY_PATH];
      this.#set("n", p.call("execveat", this.#get("busybox"), p.text(""), ...args));
      this.#set("errno", p.negated(this.#get("n")));
      p.run("report");
    });
    p.loop(() => {
      this.#set("place", this.#wordAt(this.#get("places")));
      p.when([this.#get("place"), "=", 0], () => p.run("report"));
      const args = [this.#get("argv"), this.#get("environment")];
      this.#set("n", p.negated(p.call("execve", this.#get("place"), ...args)));
      // As execvp: what cannot be executed in one place may be in another, but is worth telling of.
      p.when([this.#get("n"), "!=", Errno.ENOENT], () =>
        p.when([this.#get("n"), "!=", Errno.ENOTDIR], () => {
          this.#set("errno", this.#get("n"));
          p.when([this.#get("n"), "!=", Errno.EACCES], () => p.run("report"));
        }),
      );
      this.#set("places", p.add(this.#get("places"), p.wordBytes));
    });
  }

  #wordAt(address: Value): Value {
    return this.#p.wordAt(address);
  }
}
