/**
 * System calls of Linux on x86-64 by number, with what their arguments are. Linux, arch/x86/entry/syscalls/syscall_64.tbl.
 *
 * A row is a name and a letter for each argument (ArgumentKind). A call that is not here is printed by its number with all six registers.
 */
export type ArgumentKind =
  /** Signed 32-bit, unsigned 64-bit, signed 64-bit, hexadecimal. */
  | "i"
  | "u"
  | "l"
  | "x"
  /** Pointer; path or other text; file descriptor; folder of an *at call. */
  | "p"
  | "s"
  | "f"
  | "d"
  /** Buffer that the call reads, whose length is the next argument; buffer that it fills, with as many bytes as it returns. */
  | "b"
  | "B"
  /** Array of texts; environment; socket address whose length is the next argument; time. */
  | "A"
  | "E"
  | "a"
  | "T"
  /** Octal mode; sets of flags and single choices (syscall-values.ts). */
  | "m"
  | "o"
  | "P"
  | "M"
  | "w"
  | "S"
  | "c"
  | "q"
  | "t"
  | "W"
  | "F"
  | "e"
  | "k"
  | "n"
  | "R"
  | "y"
  | "z";

export interface SyscallRow {
  readonly name: string;
  readonly kinds: readonly ArgumentKind[];
}

/** From number 0 up. */
const FIRST = `
read fBu|write fbu|open som|close f|stat sp|fstat fp|lstat sp|poll pui|lseek flw|mmap puPMfx|mprotect puP|munmap pu|brk p|rt_sigaction Sppu
rt_sigprocmask ippu|rt_sigreturn|ioctl fxp|pread64 fBul|pwrite64 fbul|readv fpu|writev fpu|access sR|pipe p|select ipppp|sched_yield|mremap puuxp
msync pux|mincore pup|madvise pui|shmget iux|shmat ipx|shmctl iip|dup f|dup2 ff|pause|nanosleep Tp|getitimer ip|alarm u|setitimer ipp|getpid
sendfile ffpu|socket qti|connect fau|accept fpp|sendto fbuxau|recvfrom fBuxpp|sendmsg fpx|recvmsg fpx|shutdown fi|bind fau|listen fi
getsockname fpp|getpeername fpp|socketpair qtip|setsockopt fiipu|getsockopt fiipp|clone cpppx|fork|vfork|execve sAE|exit i|wait4 ipWp
kill iS|uname p|semget iix|semop ipu|semctl iiix|shmdt p|msgget ix|msgsnd ipux|msgrcv ipulx|msgctl iip|fcntl fnx|flock fi|fsync f|fdatasync f
truncate sl|ftruncate fl|getdents fpu|getcwd pu|chdir s|fchdir f|rename ss|mkdir sm|rmdir s|creat sm|link ss|unlink s|symlink ss
readlink sBu|chmod sm|fchmod fm|chown sii|fchown fii|lchown sii|umask m|gettimeofday pp|getrlimit ip|getrusage ip|sysinfo p|times p
ptrace iipp|getuid|syslog ipi|getgid|setuid i|setgid i|geteuid|getegid|setpgid ii|getppid|getpgrp|setsid|setreuid ii|setregid ii|getgroups ip
setgroups ip|setresuid iii|getresuid ppp|setresgid iii|getresgid ppp|getpgid i|setfsuid i|setfsgid i|getsid i|capget pp|capset pp
rt_sigpending pu|rt_sigtimedwait ppTu|rt_sigqueueinfo iSp|rt_sigsuspend pu|sigaltstack pp|utime sp|mknod smx|uselib s|personality x|ustat ip
statfs sp|fstatfs fp|sysfs ipp|getpriority ii|setpriority iii|sched_setparam ip|sched_getparam ip|sched_setscheduler iip|sched_getscheduler i
sched_get_priority_max i|sched_get_priority_min i|sched_rr_get_interval ip|mlock pu|munlock pu|mlockall x|munlockall|vhangup|modify_ldt ipu
pivot_root ss|_sysctl p|prctl ixxxx|arch_prctl zp|adjtimex p|setrlimit ip|chroot s|sync|acct s|settimeofday pp|mount sssxp|umount2 sx
swapon sx|swapoff s|reboot xxxp|sethostname su|setdomainname su|iopl i|ioperm uui|create_module su|init_module pus|delete_module sx
get_kernel_syms p|query_module sipup|quotactl xsip|nfsservctl ipp|getpmsg|putpmsg|afs_syscall|tuxcall|security|gettid|readahead flu
setxattr sspux|lsetxattr sspux|fsetxattr fspux|getxattr sspu|lgetxattr sspu|fgetxattr fspu|listxattr spu|llistxattr spu|flistxattr fpu
removexattr ss|lremovexattr ss|fremovexattr fs|tkill iS|time p|futex pyuTpu|sched_setaffinity iup|sched_getaffinity iup|set_thread_area p
io_setup up|io_destroy x|io_getevents xllpT|io_submit xlp|io_cancel xpp|get_thread_area p|lookup_dcookie uBu|epoll_create i|epoll_ctl_old
epoll_wait_old|remap_file_pages puxux|getdents64 fpu|set_tid_address p|restart_syscall|semtimedop ipuT|fadvise64 flui|timer_create kpp
timer_settime ixpp|timer_gettime ip|timer_getoverrun i|timer_delete i|clock_settime kT|clock_gettime kp|clock_getres kp|clock_nanosleep kxTp
exit_group i|epoll_wait fpii|epoll_ctl fefp|tgkill iiS|utimes sp|vserver|mbind puxpux|set_mempolicy ipu|get_mempolicy ppupx|mq_open somp
mq_unlink s|mq_timedsend fbuuT|mq_timedreceive fBupT|mq_notify fp|mq_getsetattr fpp|kexec_load uupx|waitid iipWp|add_key sspui|request_key sssi
keyctl ixxxx|ioprio_set iii|ioprio_get ii|inotify_init|inotify_add_watch fsx|inotify_rm_watch fi|migrate_pages iupp|openat dsom|mkdirat dsm
mknodat dsmx|fchownat dsiiF|futimesat dsp|newfstatat dspF|unlinkat dsF|renameat dsds|linkat dsdsF|symlinkat sds|readlinkat dsBu|fchmodat dsm
faccessat dsR|pselect6 ipppTp|ppoll puTpu|unshare c|set_robust_list pu|get_robust_list ipp|splice fpfpux|tee ffux|sync_file_range fllx
vmsplice fpux|move_pages iupppx|utimensat dspF|epoll_pwait fpiipu|signalfd fpu|timerfd_create ko|eventfd u|fallocate fill|timerfd_settime fxpp
timerfd_gettime fp|accept4 fppt|signalfd4 fpuo|eventfd2 uo|epoll_create1 o|dup3 ffo|pipe2 po|inotify_init1 o|preadv fpull|pwritev fpull
rt_tgsigqueueinfo iiSp|perf_event_open piifx|recvmmsg fpuxT|fanotify_init xo|fanotify_mark fxxds|prlimit64 iipp|name_to_handle_at dsppF
open_by_handle_at fpo|clock_adjtime kp|syncfs f|sendmmsg fpux|setns fc|getcpu ppp|process_vm_readv ipupux|process_vm_writev ipupux|kcmp iiixx
finit_module fsx|sched_setattr ipx|sched_getattr ipux|renameat2 dsdsx|seccomp xxp|getrandom Bux|memfd_create sx|kexec_file_load ffupx|bpf ipu
execveat dsAEF|userfaultfd o|membarrier ixi|mlock2 pux|copy_file_range fpfpux|preadv2 fpullx|pwritev2 fpullx|pkey_mprotect puPi|pkey_alloc xx
pkey_free i|statx dsFxp|io_pgetevents xllpTp|rseq pixx
`;
/** From number 424 up. */
const LATER = `
pidfd_send_signal fSpx|io_uring_setup up|io_uring_enter fuuxpu|io_uring_register fupu|open_tree dsx|move_mount dsdsx|fsopen sx|fsconfig fispi
fsmount fxx|fspick dsx|pidfd_open ix|clone3 pu|close_range uux|openat2 dspu|pidfd_getfd ffx|faccessat2 dsRF|process_madvise fpuix
epoll_pwait2 fpiTpu|mount_setattr dsxpu|quotactl_fd fxip|landlock_create_ruleset pux|landlock_add_rule fipx|landlock_restrict_self fx
memfd_secret x|process_mrelease fx|futex_waitv puxTk|set_mempolicy_home_node puux|cachestat fppx|fchmodat2 dsmF|map_shadow_stack pux
futex_wake pxix|futex_wait puxxTk|futex_requeue pxii|statmount ppux|listmount ppux|lsm_get_self_attr uppx|lsm_set_self_attr uppx
lsm_list_modules ppx|mseal pux
`;
const LATER_FIRST = 424;

function parse(text: string, first: number, rows: SyscallRow[]): void {
  text
    .trim()
    .split(/[|\n]/)
    .forEach((row, i) => {
      const [name = "", kinds = ""] = row.split(" ");
      rows[first + i] = { name, kinds: [...kinds] as ArgumentKind[] };
    });
}

const ROWS: SyscallRow[] = [];
parse(FIRST, 0, ROWS);
parse(LATER, LATER_FIRST, ROWS);

export function syscallRow(number: number): SyscallRow | undefined {
  return ROWS[number];
}

export function syscallNames(): string[] {
  return ROWS.filter((row) => row !== undefined).map(({ name }) => name);
}
