/*
 * Runs one instruction on the processor of this machine for many states.
 * stdin, repeatedly: header { u32 count, u32 length, u32 offset, u32 pad, u8 code[32] }, then records; stdout: the records as the instruction leaves them.
 * Memory operands are at [rsi] and [rdi]; both point `offset` bytes into the record's memory. A fault is reported by its vector and
 * leaves the state as it was when it happened.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#ifndef MEMORY
#define MEMORY 64
#endif

typedef struct {
  uint8_t fx[512];     /* FXSAVE64 image */
  uint64_t regs[5];    /* rflags rax rcx rdx rbx */
  uint32_t vector;     /* out: 0, or vector of the fault + 1 */
  uint32_t pad[5];
  uint8_t memory[MEMORY];
} Record;

static uint8_t *after;
static volatile uint32_t vector;

static void onSignal(int n, siginfo_t *info, void *context) {
  ucontext_t *uc = context;
  (void)n;
  (void)info;
  vector = (uint32_t)uc->uc_mcontext.gregs[REG_TRAPNO] + 1;
  uc->uc_mcontext.gregs[REG_RIP] = (greg_t)after;
}

static const uint8_t prologue[] = {
  0x53, 0x55, 0x41, 0x54, 0x41, 0x55, 0x41, 0x56,   /* push rbx, rbp, r12, r13, r14 */
  0x49, 0x89, 0xcc, 0x49, 0x89, 0xd5,               /* mov r12, rcx; mov r13, rdx */
  0x48, 0x0f, 0xae, 0x0f,                           /* fxrstor64 [rdi] */
  0x48, 0x89, 0xf7,                                 /* mov rdi, rsi */
  0x41, 0xff, 0x34, 0x24, 0x9d,                     /* push [r12]; popfq */
  0x49, 0x8b, 0x44, 0x24, 0x08, 0x49, 0x8b, 0x4c, 0x24, 0x10, /* mov rax, [r12+8]; mov rcx, [r12+16] */
  0x49, 0x8b, 0x54, 0x24, 0x18, 0x49, 0x8b, 0x5c, 0x24, 0x20, /* mov rdx, [r12+24]; mov rbx, [r12+32] */
};
static const uint8_t epilogue[] = {
  0x9c, 0x41, 0x8f, 0x04, 0x24,                     /* pushfq; pop [r12] */
  0x49, 0x89, 0x44, 0x24, 0x08, 0x49, 0x89, 0x4c, 0x24, 0x10,
  0x49, 0x89, 0x54, 0x24, 0x18, 0x49, 0x89, 0x5c, 0x24, 0x20,
  0x49, 0x0f, 0xae, 0x45, 0x00,                     /* fxsave64 [r13] */
  0xdb, 0xe3,                                       /* fninit */
  0x41, 0x5e, 0x41, 0x5d, 0x41, 0x5c, 0x5d, 0x5b, 0xc3,
};

static void one(uint8_t *code, uint32_t offset, Record *r) {
  static uint8_t in[512] __attribute__((aligned(64))), out[512] __attribute__((aligned(64)));
  static uint8_t memory[MEMORY + 64] __attribute__((aligned(64)));
  memcpy(in, r->fx, 512);
  memcpy(memory, r->memory, MEMORY);
  r->regs[0] = (r->regs[0] & 0x8d5) | 0x202;
  vector = 0;
  ((void (*)(void *, void *, void *, void *))code)(in, memory + offset, out, r->regs);
  memcpy(r->fx, out, 512);
  memcpy(r->memory, memory, MEMORY);
  r->vector = vector;
  r->regs[0] &= 0x8d5;
}

int main(void) {
  struct { uint32_t count, length, offset, pad; uint8_t code[32]; } head;
  uint8_t *code = mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (code == MAP_FAILED) return 2;
  struct sigaction sa = {.sa_sigaction = onSignal, .sa_flags = SA_SIGINFO | SA_NODEFER};
  sigaction(SIGFPE, &sa, 0);
  sigaction(SIGILL, &sa, 0);
  sigaction(SIGSEGV, &sa, 0);
  sigaction(SIGBUS, &sa, 0);
  while (fread(&head, sizeof head, 1, stdin) == 1) {
    uint8_t *p = code;
    memcpy(p, prologue, sizeof prologue); p += sizeof prologue;
    memcpy(p, head.code, head.length); p += head.length;
    after = p;
    memcpy(p, epilogue, sizeof epilogue);
    for (uint32_t i = 0; i < head.count; i++) {
      Record r;
      if (fread(&r, sizeof r, 1, stdin) != 1) return 3;
      one(code, head.offset, &r);
      fwrite(&r, sizeof r, 1, stdout);
    }
  }
  return 0;
}
