/*
 * Runs one x87 instruction on the processor of this machine for many states.
 * stdin: header { u32 count, u32 length, u8 code[24] }, then records; stdout: the records as the instruction leaves them.
 * Record (208 bytes): fcw u16, fsw u16, valid-register bits u8, signalled u8, pad u16, rflags u32, eax u32, ST0..ST7 80 bytes, memory 112 bytes.
 * The code finds its memory operand at [rsi]. Nothing between FXRSTOR and FXSAVE is a waiting instruction but the tested one.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <stdlib.h>
#include <sys/mman.h>

typedef struct {
  uint16_t fcw, fsw;
  uint8_t valid, signalled;
  uint16_t fop;
  uint32_t rflags, eax;
  uint8_t st[8][10];
  uint8_t mem[112];
} Record;

static sigjmp_buf back;
/* SA_NODEFER: the signal mask need not be restored. */
static void onSignal(int n) { siglongjmp(back, n); }

int main(void) {
  struct { uint32_t count, length; uint8_t code[24]; } head;
  if (fread(&head, sizeof head, 1, stdin) != 1) return 1;
  uint8_t *code = mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (code == MAP_FAILED) return 2;
  uint8_t *p = code;
  static const uint8_t before[] = {
    0x53, 0x48, 0x89, 0xcb,             /* push rbx; mov rbx, rcx */
    0x48, 0x0f, 0xae, 0x0f,             /* fxrstor64 [rdi] */
    0xff, 0x33, 0x9d,                   /* push [rbx]; popfq */
    0x48, 0x8b, 0x43, 0x08,             /* mov rax, [rbx+8] */
  };
  static const uint8_t after[] = {
    0x9c, 0x8f, 0x03,                   /* pushfq; pop [rbx] */
    0x48, 0x89, 0x43, 0x08,             /* mov [rbx+8], rax */
    0x48, 0x0f, 0xae, 0x02,             /* fxsave64 [rdx] */
    0xdb, 0xe3, 0x5b, 0xc3,             /* fninit; pop rbx; ret */
  };
  memcpy(p, before, sizeof before); p += sizeof before;
  memcpy(p, head.code, head.length); p += head.length;
  memcpy(p, after, sizeof after);
  void (*run)(void *, void *, void *, void *) = (void *)code;
  struct sigaction sa = {.sa_handler = onSignal, .sa_flags = SA_NODEFER};
  sigaction(SIGFPE, &sa, 0);
  sigaction(SIGILL, &sa, 0);
  sigaction(SIGSEGV, &sa, 0);
  static uint8_t in[512] __attribute__((aligned(64))), out[512] __attribute__((aligned(64)));
  static uint64_t regs[2];
  static uint8_t mem[128] __attribute__((aligned(64)));
  Record *all = malloc((size_t)head.count * sizeof(Record));
  if (fread(all, sizeof(Record), head.count, stdin) != head.count) return 3;
  for (uint32_t i = 0; i < head.count; i++) {
    Record *r = all + i;
    memset(in, 0, sizeof in);
    memcpy(in + 0, &r->fcw, 2);
    memcpy(in + 2, &r->fsw, 2);
    in[4] = r->valid;
    uint32_t mxcsr = 0x1f80;
    memcpy(in + 24, &mxcsr, 4);
    for (int k = 0; k < 8; k++) memcpy(in + 32 + 16 * k, r->st[k], 10);
    memcpy(mem, r->mem, 112);
    regs[0] = (r->rflags & 0x8d5) | 0x202;
    regs[1] = r->eax;
    int signalled = sigsetjmp(back, 0);
    if (signalled == 0) {
      run(in, mem, out, regs);
      memcpy(&r->fcw, out + 0, 2);
      memcpy(&r->fsw, out + 2, 2);
      r->valid = out[4];
      memcpy(&r->fop, out + 6, 2);
      r->rflags = (uint32_t)regs[0] & 0x8d5;
      r->eax = (uint32_t)regs[1];
      for (int k = 0; k < 8; k++) memcpy(r->st[k], out + 32 + 16 * k, 10);
      memcpy(r->mem, mem, 112);
      r->signalled = 0;
    } else r->signalled = (uint8_t)signalled;
  }
  fwrite(all, sizeof(Record), head.count, stdout);
  return 0;
}
