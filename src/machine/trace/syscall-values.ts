/**
 * Names of what Linux calls take and answer on x86-64: flags, choices, error numbers. Linux, include/uapi.
 */
type Named = readonly (readonly [string, number])[];

const named = (text: string): Named =>
  text
    .trim()
    .split(/\s+/)
    .map((word) => {
      const [name = "", value = "0"] = word.split("=");
      return [name, Number(value)] as const;
    });

/** A set of flags, the rest in hexadecimal; `zero`: what no flag at all is called. */
function flags(list: Named, value: number, zero: string): string {
  let rest = value;
  const words: string[] = [];
  for (const [name, bits] of list)
    if (bits !== 0 && (rest & bits) === bits) {
      words.push(name);
      rest &= ~bits;
    }
  if (rest !== 0) words.push(`0x${(rest >>> 0).toString(16)}`);
  return words.length === 0 ? zero : words.join("|");
}

function choice(list: Named, value: number): string {
  return list.find(([, number]) => number === value)?.[0] ?? `0x${(value >>> 0).toString(16)}`;
}

const ACCESS = ["O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE"];
const OPEN = named(`
O_CREAT=0x40 O_EXCL=0x80 O_NOCTTY=0x100 O_TRUNC=0x200 O_APPEND=0x400 O_NONBLOCK=0x800 O_SYNC=0x101000 O_DSYNC=0x1000 O_ASYNC=0x2000
O_DIRECT=0x4000 O_LARGEFILE=0x8000 O_TMPFILE=0x410000 O_DIRECTORY=0x10000 O_NOFOLLOW=0x20000 O_NOATIME=0x40000 O_CLOEXEC=0x80000 O_PATH=0x200000`);
const PROTECTION = named(
  "PROT_READ=1 PROT_WRITE=2 PROT_EXEC=4 PROT_GROWSDOWN=0x1000000 PROT_GROWSUP=0x2000000",
);
const MAPPING = named(`
MAP_SHARED_VALIDATE=3 MAP_SHARED=1 MAP_PRIVATE=2 MAP_FIXED=0x10 MAP_ANONYMOUS=0x20 MAP_GROWSDOWN=0x100 MAP_DENYWRITE=0x800 MAP_LOCKED=0x2000
MAP_NORESERVE=0x4000 MAP_POPULATE=0x8000 MAP_NONBLOCK=0x10000 MAP_STACK=0x20000 MAP_HUGETLB=0x40000 MAP_FIXED_NOREPLACE=0x100000`);
const WHENCE = named("SEEK_SET=0 SEEK_CUR=1 SEEK_END=2 SEEK_DATA=3 SEEK_HOLE=4");
const SIGNALS =
  `0 HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN TTOU URG XCPU XFSZ
VTALRM PROF WINCH IO PWR SYS`.split(/\s+/);
const CLONE = named(`
CLONE_NEWTIME=0x80 CLONE_VM=0x100 CLONE_FS=0x200 CLONE_FILES=0x400 CLONE_SIGHAND=0x800 CLONE_PIDFD=0x1000 CLONE_PTRACE=0x2000 CLONE_VFORK=0x4000
CLONE_PARENT=0x8000 CLONE_THREAD=0x10000 CLONE_NEWNS=0x20000 CLONE_SYSVSEM=0x40000 CLONE_SETTLS=0x80000 CLONE_PARENT_SETTID=0x100000
CLONE_CHILD_CLEARTID=0x200000 CLONE_DETACHED=0x400000 CLONE_UNTRACED=0x800000 CLONE_CHILD_SETTID=0x1000000 CLONE_NEWCGROUP=0x2000000
CLONE_NEWUTS=0x4000000 CLONE_NEWIPC=0x8000000 CLONE_NEWUSER=0x10000000 CLONE_NEWPID=0x20000000 CLONE_NEWNET=0x40000000`);
const FAMILY = named(
  "AF_UNSPEC=0 AF_UNIX=1 AF_INET=2 AF_INET6=10 AF_NETLINK=16 AF_PACKET=17 AF_VSOCK=40",
);
const SOCKET = named(
  "0=0 SOCK_STREAM=1 SOCK_DGRAM=2 SOCK_RAW=3 SOCK_RDM=4 SOCK_SEQPACKET=5 SOCK_PACKET=10",
);
const SOCKET_FLAGS = named("SOCK_NONBLOCK=0x800 SOCK_CLOEXEC=0x80000");
const WAIT = named(
  "WNOHANG=1 WUNTRACED=2 WEXITED=4 WCONTINUED=8 WNOWAIT=0x1000000 __WALL=0x40000000",
);
const AT = named(
  "AT_SYMLINK_NOFOLLOW=0x100 AT_REMOVEDIR=0x200 AT_SYMLINK_FOLLOW=0x400 AT_NO_AUTOMOUNT=0x800 AT_EMPTY_PATH=0x1000",
);
const EPOLL = named("EPOLL_CTL_ADD=1 EPOLL_CTL_DEL=2 EPOLL_CTL_MOD=3");
const CLOCK = named(`
CLOCK_REALTIME=0 CLOCK_MONOTONIC=1 CLOCK_PROCESS_CPUTIME_ID=2 CLOCK_THREAD_CPUTIME_ID=3 CLOCK_MONOTONIC_RAW=4 CLOCK_REALTIME_COARSE=5
CLOCK_MONOTONIC_COARSE=6 CLOCK_BOOTTIME=7`);
const FCNTL = named(`
F_DUPFD=0 F_GETFD=1 F_SETFD=2 F_GETFL=3 F_SETFL=4 F_GETLK=5 F_SETLK=6 F_SETLKW=7 F_SETOWN=8 F_GETOWN=9 F_OFD_GETLK=36 F_OFD_SETLK=37
F_OFD_SETLKW=38 F_DUPFD_CLOEXEC=1030 F_SETPIPE_SZ=1031 F_GETPIPE_SZ=1032 F_ADD_SEALS=1033 F_GET_SEALS=1034`);
const MODE = named("R_OK=4 W_OK=2 X_OK=1");
const FUTEX = named(`
FUTEX_WAIT=0 FUTEX_WAKE=1 FUTEX_REQUEUE=3 FUTEX_CMP_REQUEUE=4 FUTEX_WAKE_OP=5 FUTEX_LOCK_PI=6 FUTEX_UNLOCK_PI=7 FUTEX_WAIT_BITSET=9
FUTEX_WAKE_BITSET=10`);
const FUTEX_FLAGS = named("FUTEX_PRIVATE_FLAG=0x80 FUTEX_CLOCK_REALTIME=0x100");
const ARCH = named("ARCH_SET_GS=0x1001 ARCH_SET_FS=0x1002 ARCH_GET_FS=0x1003 ARCH_GET_GS=0x1004");

/** What no set of flags and no choice is named by is given as a number. */
export const Names = {
  open: (v: number): string => {
    const rest = flags(OPEN, v & ~3, "");
    return rest === "" ? ACCESS[v & 3]! : `${ACCESS[v & 3]}|${rest}`;
  },
  protection: (v: number): string => flags(PROTECTION, v, "PROT_NONE"),
  mapping: (v: number): string => flags(MAPPING, v, "0"),
  whence: (v: number): string => choice(WHENCE, v),
  signal: (v: number): string => {
    const name = SIGNALS[v];
    if (name !== undefined && v > 0) return `SIG${name}`;
    return v >= 32 && v <= 64 ? `SIGRT_${v - 32}` : String(v);
  },
  clone: (v: number): string => {
    const sets = flags(CLONE, v & ~0xff, "");
    const signal = (v & 0xff) === 0 ? "" : Names.signal(v & 0xff);
    return [sets, signal].filter((word) => word !== "").join("|") || "0";
  },
  family: (v: number): string => choice(FAMILY, v),
  socket: (v: number): string => {
    const rest = flags(SOCKET_FLAGS, v & ~0xf, "");
    return rest === "" ? choice(SOCKET, v & 0xf) : `${choice(SOCKET, v & 0xf)}|${rest}`;
  },
  wait: (v: number): string => flags(WAIT, v, "0"),
  at: (v: number): string => flags(AT, v, "0"),
  epoll: (v: number): string => choice(EPOLL, v),
  clock: (v: number): string => choice(CLOCK, v),
  fcntl: (v: number): string => choice(FCNTL, v),
  access: (v: number): string => flags(MODE, v, "F_OK"),
  futex: (v: number): string => {
    const rest = flags(FUTEX_FLAGS, v & ~0x7f, "");
    return rest === "" ? choice(FUTEX, v & 0x7f) : `${choice(FUTEX, v & 0x7f)}|${rest}`;
  },
  arch: (v: number): string => choice(ARCH, v),
} as const;

const ERRORS =
  `0 EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT ENOTBLK EBUSY EEXIST EXDEV ENODEV ENOTDIR
EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG ENOSPC ESPIPE EROFS EMLINK EPIPE EDOM ERANGE EDEADLK ENAMETOOLONG ENOLCK ENOSYS ENOTEMPTY ELOOP
41 ENOMSG EIDRM ECHRNG EL2NSYNC EL3HLT EL3RST ELNRNG EUNATCH ENOCSI EL2HLT EBADE EBADR EXFULL ENOANO EBADRQC EBADSLT 58 EBFONT ENOSTR ENODATA
ETIME ENOSR ENONET ENOPKG EREMOTE ENOLINK EADV ESRMNT ECOMM EPROTO EMULTIHOP EDOTDOT EBADMSG EOVERFLOW ENOTUNIQ EBADFD EREMCHG ELIBACC ELIBBAD
ELIBSCN ELIBMAX ELIBEXEC EILSEQ ERESTART ESTRPIPE EUSERS ENOTSOCK EDESTADDRREQ EMSGSIZE EPROTOTYPE ENOPROTOOPT EPROTONOSUPPORT ESOCKTNOSUPPORT
EOPNOTSUPP EPFNOSUPPORT EAFNOSUPPORT EADDRINUSE EADDRNOTAVAIL ENETDOWN ENETUNREACH ENETRESET ECONNABORTED ECONNRESET ENOBUFS EISCONN ENOTCONN
ESHUTDOWN ETOOMANYREFS ETIMEDOUT ECONNREFUSED EHOSTDOWN EHOSTUNREACH EALREADY EINPROGRESS ESTALE EUCLEAN ENOTNAM ENAVAIL EISNAM EREMOTEIO EDQUOT
ENOMEDIUM EMEDIUMTYPE ECANCELED ENOKEY EKEYEXPIRED EKEYREVOKED EKEYREJECTED EOWNERDEAD ENOTRECOVERABLE ERFKILL EHWPOISON`.split(
    /\s+/,
  );
const LARGEST_ERROR = 4095;

/** The error that an answer is, or null. */
export function errorName(value: bigint): string | null {
  const number = -Number(BigInt.asIntN(64, value));
  if (number <= 0 || number > LARGEST_ERROR) return null;
  return ERRORS[number] ?? `E${number}`;
}
