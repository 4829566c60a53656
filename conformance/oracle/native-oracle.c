/*
 * native-oracle: executes short ring-3 programs on the processor of this machine and reports the whole user state after each.
 *
 *   native-oracle FILE BATCH SLOTS
 *
 * FILE is shared with the caller: a page of facts about this machine, then per slot BATCH tests and BATCH results (layout below, and in
 * records.ts). Each line "SLOT COUNT" on stdin runs the tests of a slot; the answer is a line "SLOT DEATHS".
 *
 * FILE may be a block device too: then tests and results are read and written around each batch, past the page cache. So the program can
 * run in a guest, on a processor model that is the reference, with a disk image as the file.
 *
 * How: a forked child sits in a signal handler. For each test the handler puts the memory and segment registers in place, writes the test's
 * registers into its own signal frame and returns: the kernel's sigreturn loads the state, the test runs, and its trap or fault is the next
 * signal, with the state after it in the new frame. So a test costs one signal and one sigreturn, and no ptrace round trip.
 *   STEP tests run under RFLAGS.TF and stop after so many single-step traps.
 *   RUN tests run free and stop at the INT3 after their last byte.
 * Either stops at its first fault. System calls of a test become SIGSYS (seccomp); a test that runs for ever is ended by a timer; a child
 * that dies is started again at the next test.
 *
 * What is the oracle's own lies at addresses that no test comes to by chance.
 * All of the test's world lies below 2 GiB where nothing else is mapped, so that 32-bit and 16-bit code sees the same. The code pages are
 * read-only to tests and written through an alias.
 */
#define _GNU_SOURCE
#include <asm/ldt.h>
#include <asm/prctl.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

typedef uint64_t u64;
typedef uint32_t u32;
typedef uint16_t u16;
typedef uint8_t u8;

/* The test's world; the same numbers are in world.ts. */
enum {
  PAGE = 0x1000,
  DATA = 0x20000000,       /* two writable pages, then a read-only one, then nothing */
  DATA_BYTES = 2 * PAGE,
  READ_ONLY = DATA + DATA_BYTES,
  WINDOW_BYTES = 1024,     /* around the boundary of the writable pages: part of each test's state */
  WINDOW = DATA + PAGE - WINDOW_BYTES / 2,
  CODE = 0x40000000,       /* two pages, then nothing */
  CODE_BYTES = 2 * PAGE,
  CODE_MAX = 64,
  FX_BYTES = 416,          /* FXSAVE image up to the end of XMM15 */
  FS_BASE = DATA + 0x1234, /* with null selectors, so in 64-bit code only */
  GS_BASE = 0x12345678,
};

enum { SELECTOR_CODE32 = 0x23, SELECTOR_LOCAL_DATA = 0x17, SELECTOR_LOCAL_CODE16 = 0x07, SELECTOR_LOCAL_CODE32 = 0x0f };

enum { KIND_STEP = 0, KIND_RUN = 1 };
enum { OPTION_FS_GS = 2 }; /* the test may change FS or GS */

struct test {
  u8 code[CODE_MAX];
  u8 length, mode, kind, steps;
  u16 offset;              /* of the code in its area */
  u16 options;
  u64 rflags;
  u64 gpr[16];             /* in encoding order */
  u16 selector[6];         /* ES CS SS DS FS GS */
  u32 unused2;
  u8 fx[FX_BYTES];
  u8 window[WINDOW_BYTES];
};

/* `status` of a result: the vector of the fault that ended the test, or one of these. */
enum { DONE = 0x100, SYSCALL = 0x101, TIMEOUT = 0x102, DIED = 0x103 };

struct result {
  u32 status, error;
  u64 cr2, rip, rflags;
  u64 gpr[16];
  u16 selector[6];
  u32 outside;             /* digest of changes to the writable pages outside the window, 0 = none */
  u32 steps, detail;
  u64 unused;
  u8 fx[FX_BYTES];
  u8 window[WINDOW_BYTES];
  u8 unused2[32];
};

_Static_assert(sizeof(struct test) == 1664 && sizeof(struct result) == 1664, "records.ts knows these sizes");

/* First page of the file. */
struct facts {
  u64 ldtr, tr, msw;
  u32 mxcsr_mask;
  u32 has_code32;          /* the global table has the 32-bit user code segment */
  u32 has_local_table;     /* modify_ldt works */
  u32 has_fsgsbase;
  u32 keeps_nt;            /* RFLAGS.NT survives traps (not under every hypervisor) */
};

struct control {
  u32 index, count, steps;
  u32 is_fresh;            /* the child has not begun its first test yet */
};

static struct test *tests;
static struct result *results;
static volatile struct control *control;
static u64 *data, *pristine, *window;
static u8 *code_alias;
static volatile u32 is_in_handler, ticked;

static void quit(const char *what) {
  perror(what);
  exit(2);
}

static const int frame_order[16] = {
    REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
    REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15,
};

/* Nothing from libc in the handler: FS is the test's. */
static inline __attribute__((always_inline)) void copy(void *to, const void *from, size_t bytes) {
  asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes)::"memory");
}

static inline __attribute__((always_inline)) void fill(void *to, u8 value, size_t bytes) {
  asm volatile("rep stosb" : "+D"(to), "+c"(bytes) : "a"(value) : "memory");
}

static inline __attribute__((always_inline)) void leave_child(long status) {
  asm volatile("syscall" ::"a"(SYS_exit_group), "D"(status) : "rcx", "r11", "memory");
  __builtin_unreachable();
}

enum { HAS_ERROR_CODE = 1 << 8 | 1 << 10 | 1 << 11 | 1 << 12 | 1 << 13 | 1 << 14 | 1 << 17, FLAG_TF = 0x100, FLAGS_NT_ID = 0x204000 };

/* Digest of what a test changed outside the window; puts it back. */
static u32 restore_outside(void) {
  u32 hash = 0;
  const u32 from = (WINDOW - DATA) / 8, to = from + WINDOW_BYTES / 8;
  for (u32 i = 0; i < DATA_BYTES / 8; i++) {
    if (i == from) i = to;
    u64 v = data[i];
    if (__builtin_expect(v == pristine[i], 1)) continue;
    if (hash == 0) hash = 0x811c9dc5;
    hash = (hash ^ i) * 0x01000193;
    hash = (hash ^ (u32)v) * 0x01000193;
    hash = (hash ^ (u32)(v >> 32)) * 0x01000193;
    data[i] = pristine[i];
  }
  return hash;
}

static u64 area_base(const struct test *t) {
  return t->selector[1] == SELECTOR_LOCAL_CODE16 || t->selector[1] == SELECTOR_LOCAL_CODE32 ? 0 : CODE;
}

static inline __attribute__((always_inline)) void read_selectors(u16 *s) {
  asm volatile("mov %%es, %0" : "=m"(s[0]));
  asm volatile("mov %%ds, %0" : "=m"(s[3]));
  asm volatile("mov %%fs, %0" : "=m"(s[4]));
  asm volatile("mov %%gs, %0" : "=m"(s[5]));
}

static inline __attribute__((always_inline)) void set_base(long code, u64 base) {
  asm volatile("syscall" : "+a"((long){SYS_arch_prctl}) : "D"(code), "S"(base) : "rcx", "r11", "memory");
}

/* DS and ES of the test; FS and GS if the last test or this one wants others than what is there. */
static void load_selectors(const struct test *t, const struct test *last) {
  const u16 *s = t->selector;
  asm volatile("mov %0, %%es" ::"m"(s[0]));
  asm volatile("mov %0, %%ds" ::"m"(s[3]));
  if (last && !(last->options & OPTION_FS_GS) && last->selector[4] == s[4] && last->selector[5] == s[5]) return;
  asm volatile("mov %0, %%fs" ::"m"(s[4]));
  asm volatile("mov %0, %%gs" ::"m"(s[5]));
  if (s[4] == 0) set_base(ARCH_SET_FS, FS_BASE);
  if (s[5] == 0) set_base(ARCH_SET_GS, GS_BASE);
}

static void record(int sig, siginfo_t *info, ucontext_t *uc, const u16 *selectors) {
  greg_t *g = uc->uc_mcontext.gregs;
  const u8 *fx = (u8 *)uc->uc_mcontext.fpregs;
  const struct test *t = &tests[control->index];
  struct result *r = &results[control->index];
  r->rip = g[REG_RIP];
  r->status = g[REG_TRAPNO];
  if (sig == SIGSYS) r->status = SYSCALL;
  else if (sig == SIGPROF) r->status = TIMEOUT;
  else if (sig == SIGTRAP && t->kind == KIND_STEP && r->status == 1 && control->steps >= t->steps) r->status = DONE;
  else if (sig == SIGTRAP && t->kind == KIND_RUN && r->status == 3 && r->rip == area_base(t) + t->offset + t->length + 1) {
    r->status = DONE;
    r->rip--;
  }
  r->error = sig == SIGSYS ? (u32)info->si_syscall : r->status < 32 && HAS_ERROR_CODE >> r->status & 1 ? g[REG_ERR] : 0;
  r->cr2 = r->status == 14 ? (u64)g[REG_CR2] : 0;
  r->rflags = g[REG_EFL];
  for (int k = 0; k < 16; k++) r->gpr[k] = g[frame_order[k]];
  for (int k = 0; k < 6; k++) r->selector[k] = selectors[k];
  r->selector[1] = g[REG_CSGSFS];
  r->selector[2] = (u64)g[REG_CSGSFS] >> 48;
  r->steps = control->steps;
  r->detail = sig;
  copy(r->fx, fx, FX_BYTES);
  const u64 in_use = *(u64 *)(fx + 512);
  if (!(in_use & 2)) fill(r->fx + 160, 0, 256);
  if (!(in_use & 1)) {
    fill(r->fx, 0, 24);
    fill(r->fx + 32, 0, 128);
    r->fx[0] = 0x7f;
    r->fx[1] = 3;
  }
  copy(r->window, window, WINDOW_BYTES);
  r->outside = restore_outside();
}

static void set_up(ucontext_t *uc) {
  greg_t *g = uc->uc_mcontext.gregs;
  u8 *fx = (u8 *)uc->uc_mcontext.fpregs;
  const struct test *t = &tests[control->index];
  control->steps = 0;
  u8 *code = code_alias + t->offset;
  for (u32 k = 0; k < t->length && t->offset + k < CODE_BYTES; k++) code[k] = t->code[k];
  copy(window, t->window, WINDOW_BYTES);
  for (int k = 0; k < 16; k++) g[frame_order[k]] = t->gpr[k];
  g[REG_RIP] = area_base(t) + t->offset;
  g[REG_EFL] = t->rflags | 0x202 | (t->kind == KIND_STEP ? 0x100 : 0);
  g[REG_CSGSFS] = (g[REG_CSGSFS] & 0x0000ffffffff0000) | t->selector[1] | (u64)t->selector[2] << 48;
  const u32 mask = *(u32 *)(fx + 28);
  copy(fx, t->fx, FX_BYTES);
  *(u32 *)(fx + 28) = mask;
  *(u32 *)(fx + 24) &= mask;
  *(u64 *)(fx + 512) = 3;
}

static void clear_code(void) {
  const struct test *t = &tests[control->index];
  for (u32 k = 0; k < CODE_MAX && t->offset + k < CODE_BYTES; k++) code_alias[t->offset + k] = 0xcc;
}

/* sigreturn takes NT and ID from the flags it is called with, the others from the frame. */
static inline __attribute__((always_inline)) void pass_flags(u64 rflags) {
  asm volatile("pushq %0; popfq" ::"r"((rflags & FLAGS_NT_ID) | 2) : "memory", "cc");
}

/* What the signal means for the test in progress: 1 if it goes on. */
static int goes_on(int sig, ucontext_t *uc) {
  greg_t *g = uc->uc_mcontext.gregs;
  if (sig == SIGPROF) {
    /* Two ticks of processor time within one test: it does not end. */
    if (ticked == control->index && !control->is_fresh) return 0;
    ticked = control->index;
    return 1;
  }
  if (control->is_fresh) return 0;
  const struct test *t = &tests[control->index];
  if (sig != SIGTRAP || t->kind != KIND_STEP || g[REG_TRAPNO] != 1) return 0;
  if (++control->steps >= t->steps) return 0;
  g[REG_EFL] |= FLAG_TF;
  return 1;
}

/*
 * The new test's code was written through another mapping: nothing of the old may be executed. IRET serializes; the way back from a signal
 * need not.
 */
static inline __attribute__((always_inline)) void serialize(void) {
  asm volatile(
      "movq %%rsp, %%rax; pushq $0x2b; pushq %%rax; pushfq; pushq $0x33; leaq 1f(%%rip), %%rax; pushq %%rax; iretq; 1:" ::: "rax", "memory", "cc");
}

static void handler(int sig, siginfo_t *info, void *context) {
  /* The test may have left AC, NT or ID. */
  pass_flags(0);
  ucontext_t *uc = context;
  if (is_in_handler) leave_child(3);
  is_in_handler = 1;
  uc->uc_flags |= 6;       /* SS is valid, and restored as it is */
  if (goes_on(sig, uc)) {
    is_in_handler = 0;
    pass_flags(uc->uc_mcontext.gregs[REG_EFL]);
    return;
  }
  u16 selectors[6];
  read_selectors(selectors);
  const struct test *last = 0;
  if (control->is_fresh) control->is_fresh = 0;
  else {
    record(sig, info, uc, selectors);
    clear_code();
    last = &tests[control->index];
  }
  control->index++;
  if (control->index >= control->count) leave_child(0);
  set_up(uc);
  serialize();
  const struct test *t = &tests[control->index];
  load_selectors(t, last);
  is_in_handler = 0;
  pass_flags(t->rflags);
}

struct segment {
  u32 base, limit;
  u8 is32, contents, read_only, in_pages, absent;
};

/* Local descriptor table: selector 8 i + 7. The same list is in world.ts. */
static const struct segment local_table[] = {
    {CODE, 0xffff, 0, 2, 0, 0, 0},                /* 07 16-bit code */
    {CODE, 0xffff, 1, 2, 0, 0, 0},                /* 0f 32-bit code with a base */
    {DATA - 0x7000, 0xffff, 1, 0, 0, 0, 0},       /* 17 data, boundary of the pages at 0x8000 */
    {DATA + 0x1234, 0xfffff, 1, 0, 0, 1, 0},      /* 1f FS: odd base, 4 GiB */
    {0x12345678, 0xfffff, 1, 0, 0, 1, 0},         /* 27 GS: far base, 4 GiB */
    {DATA - 0x7000, 0xffff, 0, 0, 0, 0, 0},       /* 2f 16-bit stack */
    {DATA - 0x7000, 0x7fff, 1, 1, 0, 0, 0},       /* 37 expand-down, valid from 0x8000 to 4 GiB */
    {DATA - 0x7000, 0x80ff, 1, 0, 1, 0, 0},       /* 3f read-only, ends inside the window */
    {DATA, 0xffff, 1, 0, 0, 0, 1},                /* 47 not present */
    {DATA - 0x7000, 0x7f7f, 0, 1, 0, 0, 0},       /* 4f 16-bit expand-down, valid from 0x7f80 to 0xffff */
    {CODE, 0xfffff, 1, 3, 0, 1, 1},               /* 57 conforming code, not present */
    {0, 0xfffff, 1, 2, 1, 1, 0},                  /* 5f execute-only code, flat */
    {0, 0xfffff, 1, 2, 0, 1, 1},                  /* 67 code, not present */
};

/* Fails quietly where the kernel has no local tables: facts tell. */
static void make_local_table(void) {
  for (u32 i = 0; i < sizeof local_table / sizeof *local_table; i++) {
    const struct segment *s = &local_table[i];
    struct user_desc d = {
        .entry_number = i, .base_addr = s->base, .limit = s->limit, .seg_32bit = s->is32, .contents = s->contents,
        .read_exec_only = s->read_only, .limit_in_pages = s->in_pages, .seg_not_present = s->absent, .useable = 1,
    };
    syscall(SYS_modify_ldt, 0x11, &d, sizeof d);
  }
}

static void child(void) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  memcpy(data, pristine, DATA_BYTES);
  memset(code_alias, 0xcc, CODE_BYTES);
  /* Shared mappings are not copied by fork; a page not touched yet would make other error codes. */
  for (u64 at = 0; at < CODE_BYTES; at += PAGE) (void)*(volatile u8 *)(CODE + at);
  (void)*(volatile u8 *)READ_ONLY;
  const size_t stack_bytes = 1 << 17;
  u8 *stack = mmap((void *)0x5a6e31c54000, stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | MAP_POPULATE, -1, 0);
  if (stack == MAP_FAILED) quit("handler stack");
  stack_t ss = {.ss_sp = stack, .ss_size = stack_bytes};
  if (sigaltstack(&ss, 0)) quit("sigaltstack");
  struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
  sigaddset(&action.sa_mask, SIGPROF);
  const int signals[] = {SIGTRAP, SIGSEGV, SIGILL, SIGFPE, SIGBUS, SIGSYS, SIGPROF};
  for (u32 k = 0; k < sizeof signals / sizeof *signals; k++) sigaction(signals[k], &action, 0);
  struct itimerval timer = {.it_interval = {.tv_usec = 100000}, .it_value = {.tv_usec = 100000}};
  setitimer(ITIMER_PROF, &timer, 0);
  struct sock_filter filter[] = {
      {BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(struct seccomp_data, arch)},
      {BPF_JMP | BPF_JEQ | BPF_K, 0, 6, AUDIT_ARCH_X86_64},
      {BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(struct seccomp_data, nr)},
      {BPF_JMP | BPF_JEQ | BPF_K, 5, 0, SYS_rt_sigreturn},
      {BPF_JMP | BPF_JEQ | BPF_K, 4, 0, SYS_exit_group},
      /* The handler sets segment bases; tests run below 4 GiB. */
      {BPF_JMP | BPF_JEQ | BPF_K, 0, 2, SYS_arch_prctl},
      {BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(struct seccomp_data, instruction_pointer) + 4},
      {BPF_JMP | BPF_JEQ | BPF_K, 0, 1, 0},
      {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_TRAP},
      {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW},
  };
  struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) quit("no_new_privs");
  if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program)) quit("seccomp");
  asm volatile("int3" ::: "memory");
  __builtin_unreachable();
}

/* Runs the tests of a slot; answers how many children died on the way. */
static u32 run_batch(u32 count) {
  u32 deaths = 0;
  for (u32 from = 0; from < count;) {
    control->index = from - 1;
    control->count = count;
    control->is_fresh = 1;
    const pid_t pid = fork();
    if (pid < 0) quit("fork");
    if (pid == 0) child();
    int status;
    waitpid(pid, &status, 0);
    const u32 at = control->index;
    if (control->is_fresh) {
      fprintf(stderr, "native-oracle: the child does not start, status %x\n", status);
      exit(2);
    }
    if (at >= count) break;
    results[at].status = DIED;
    results[at].detail = status;
    deaths++;
    from = at + 1;
  }
  return deaths;
}

static void *map_at(u64 address, size_t bytes, int protection, int fd, off_t offset) {
  const int flags = MAP_SHARED | MAP_FIXED_NOREPLACE | MAP_POPULATE;
  void *p = mmap((void *)address, bytes, protection, flags, fd, offset);
  if (p == MAP_FAILED) quit("mmap");
  return p;
}

static void make_world(void) {
  const int fd = memfd_create("oracle-world", MFD_CLOEXEC);
  const size_t bytes = CODE_BYTES + DATA_BYTES + PAGE;
  if (fd < 0 || ftruncate(fd, bytes)) quit("memfd");
  code_alias = map_at(0x5b2f96d3a000, CODE_BYTES, PROT_READ | PROT_WRITE, fd, 0);
  memset(code_alias, 0xcc, CODE_BYTES);
  map_at(CODE, CODE_BYTES, PROT_READ | PROT_EXEC, fd, 0);
  data = map_at(DATA, DATA_BYTES, PROT_READ | PROT_WRITE, fd, CODE_BYTES);
  window = (u64 *)(u64)WINDOW;
  u32 *read_only = map_at(0x5c7d13e9b000, PAGE, PROT_READ | PROT_WRITE, fd, CODE_BYTES + DATA_BYTES);
  pristine = mmap(0, DATA_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (pristine == MAP_FAILED) quit("mmap");
  for (u32 i = 0; i < DATA_BYTES / 4; i++) ((u32 *)pristine)[i] = i * 0x9e3779b1;
  for (u32 i = 0; i < PAGE / 4; i++) read_only[i] = (i + DATA_BYTES / 4) * 0x9e3779b1;
  map_at(READ_ONLY, PAGE, PROT_READ, fd, CODE_BYTES + DATA_BYTES);
}

static sigjmp_buf probe_failed;

static void on_probe_failed(int sig) {
  (void)sig;
  siglongjmp(probe_failed, 1);
}

static u32 is_loadable(u32 selector) {
  u32 rights = 0;
  u8 found = 0;
  asm volatile("lar %2, %0; setz %1" : "+r"(rights), "=r"(found) : "r"(selector) : "cc");
  return found;
}

static u32 probe_fsgsbase(void) {
  signal(SIGILL, on_probe_failed);
  u32 works = 0;
  if (!sigsetjmp(probe_failed, 1)) {
    u64 base;
    asm volatile(".byte 0xf3, 0x48, 0x0f, 0xae, 0xc0" : "=a"(base)); /* rdfsbase rax */
    works = 1;
  }
  signal(SIGILL, SIG_DFL);
  return works;
}

static void on_trap(int sig, siginfo_t *info, void *context) {
  (void)sig, (void)info, (void)context;
  pass_flags(FLAGS_NT_ID);
}

static u32 probe_nt(void) {
  struct sigaction action = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO};
  sigaction(SIGTRAP, &action, 0);
  u64 flags;
  asm volatile("int3; pushfq; popq %0; pushq $2; popfq" : "=r"(flags)::"memory", "cc");
  signal(SIGTRAP, SIG_DFL);
  return flags >> 14 & 1;
}

static void note_facts(struct facts *f) {
  asm volatile("sldt %0" : "=r"(f->ldtr));
  asm volatile("str %0" : "=r"(f->tr));
  asm volatile("smsw %0" : "=r"(f->msw));
  static u8 fx[512] __attribute__((aligned(16)));
  asm volatile("fxsave %0" : "=m"(fx));
  f->mxcsr_mask = *(u32 *)(fx + 28);
  f->has_code32 = is_loadable(SELECTOR_CODE32);
  f->has_local_table = is_loadable(SELECTOR_LOCAL_DATA);
  f->has_fsgsbase = probe_fsgsbase();
  f->keeps_nt = probe_nt();
}

/* Where tests and results lie, and how they come from and get to the caller. */
struct exchange {
  u8 *memory;
  int device;              /* -1: the memory is shared with the caller */
  size_t half;             /* bytes of a slot's tests, and of its results */
};

static struct exchange open_exchange(const char *path, u32 batch, u32 slots) {
  struct exchange x = {.device = -1, .half = batch * sizeof(struct test)};
  const size_t bytes = PAGE + slots * 2 * x.half;
  struct stat info;
  if (stat(path, &info)) quit(path);
  if (S_ISBLK(info.st_mode)) {
    x.device = open(path, O_RDWR | O_DIRECT);
    if (x.device < 0) quit(path);
    x.memory = mmap((void *)0x59d3a7690000, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (x.memory == MAP_FAILED) quit("mmap");
  } else {
    const int fd = open(path, O_RDWR);
    if (fd < 0) quit(path);
    x.memory = map_at(0x59d3a7690000, bytes, PROT_READ | PROT_WRITE, fd, 0);
  }
  return x;
}

static void fetch(const struct exchange *x, size_t offset, size_t bytes) {
  for (size_t done = 0; x->device >= 0 && done < bytes;) {
    const ssize_t n = pread(x->device, x->memory + offset + done, bytes - done, offset + done);
    if (n <= 0) quit("read");
    done += n;
  }
}

static void deliver(const struct exchange *x, size_t offset, size_t bytes) {
  for (size_t done = 0; x->device >= 0 && done < bytes;) {
    const ssize_t n = pwrite(x->device, x->memory + offset + done, bytes - done, offset + done);
    if (n <= 0) quit("write");
    done += n;
  }
}

int main(int argc, char **argv) {
  if (argc != 4) {
    fprintf(stderr, "usage: native-oracle FILE BATCH SLOTS\n");
    return 2;
  }
  const u32 batch = atoi(argv[2]), slots = atoi(argv[3]);
  const struct exchange x = open_exchange(argv[1], batch, slots);
  control = mmap(0, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (control == MAP_FAILED) quit("mmap");
  make_local_table();
  make_world();
  note_facts((struct facts *)x.memory);
  deliver(&x, 0, PAGE);
  printf("ready\n");
  fflush(stdout);
  u32 slot, count;
  while (scanf("%u %u", &slot, &count) == 2) {
    if (slot >= slots || count > batch) return 2;
    const size_t at = PAGE + slot * 2 * x.half;
    tests = (struct test *)(x.memory + at);
    results = (struct result *)(x.memory + at + x.half);
    fetch(&x, at, x.half);
    const u32 deaths = run_batch(count);
    deliver(&x, at + x.half, x.half);
    printf("%u %u\n", slot, deaths);
    fflush(stdout);
  }
  return 0;
}
