/** Numbers of Linux system calls: those that the agent needs. arch/x86/entry/syscalls/syscall_{64,32}.tbl */
const NUMBERS = {
  read: [0, 3],
  write: [1, 4],
  open: [2, 5],
  close: [3, 6],
  poll: [7, 168],
  rt_sigaction: [13, 174],
  ioctl: [16, 54],
  dup2: [33, 63],
  socket: [41, 359],
  bind: [49, 361],
  listen: [50, 363],
  fork: [57, 2],
  execve: [59, 11],
  wait4: [61, 114],
  kill: [62, 37],
  fcntl: [72, 55],
  chdir: [80, 12],
  umask: [95, 60],
  setuid: [105, 213],
  setgid: [106, 214],
  setsid: [112, 66],
  setgroups: [116, 206],
  chroot: [161, 61],
  clock_settime: [227, 264],
  exit_group: [231, 252],
  accept4: [288, 364],
  pipe2: [293, 331],
  execveat: [322, 358],
  pidfd_open: [434, 434],
} as const satisfies Record<string, readonly [amd64: number, i386: number]>;

export type SystemCall = keyof typeof NUMBERS;

export function systemCallNumber(name: SystemCall, bits: 32 | 64): number {
  return NUMBERS[name][bits === 64 ? 0 : 1];
}
