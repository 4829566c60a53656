/* A bytecode interpreter: one indirect jump for each operation, as language runtimes have it. It counts primes by a sieve. */
#include "bench.h"

enum { PUSH, LOAD, STORE, ADD, MUL, LESS, JUMP, JUMP_IF_ZERO, FETCH, PUT, HALT };

#define LIMIT 8192
static int32_t memory[LIMIT + 16];

/* Variables: 0 = i, 1 = j, 2 = count. A sieve over memory[16 ..]. */
static const int32_t program[] = {
    PUSH, 2, STORE, 0, PUSH, 0, STORE, 2,
    /* 8: while i < LIMIT */ LOAD, 0, PUSH, LIMIT, LESS, JUMP_IF_ZERO, 62,
    /* 15: if memory[i] == 0 */ LOAD, 0, FETCH, PUSH, 1, LESS, JUMP_IF_ZERO, 53,
    /* 23: count++, j = i * i */ LOAD, 2, PUSH, 1, ADD, STORE, 2, LOAD, 0, LOAD, 0, MUL, STORE, 1,
    /* 37: while j < LIMIT: memory[j] = 1, j += i */ LOAD, 1, PUSH, LIMIT, LESS, JUMP_IF_ZERO, 53, LOAD, 1, PUT, LOAD, 1, LOAD, 0, JUMP, 55,
    /* 53: next i */ JUMP, 60,
    /* 55 */ ADD, STORE, 1, JUMP, 37,
    /* 60 */ JUMP, 63,
    /* 62 */ HALT,
    /* 63 */ LOAD, 0, PUSH, 1, ADD, STORE, 0, JUMP, 8,
};

__attribute__((noinline)) static int32_t run(void)
{
    static const void *const operations[] = { &&push, &&load, &&store, &&add, &&mul, &&less, &&jump, &&jump_if_zero, &&fetch, &&put, &&halt };
    int32_t stack[16], *sp = stack, variables[4] = { 0 };
    const int32_t *pc = program;
#define NEXT goto *operations[*pc++]
    NEXT;
push:
    *sp++ = *pc++;
    NEXT;
load:
    *sp++ = variables[*pc++];
    NEXT;
store:
    variables[*pc++] = *--sp;
    NEXT;
add:
    sp--;
    sp[-1] += sp[0];
    NEXT;
mul:
    sp--;
    sp[-1] *= sp[0];
    NEXT;
less:
    sp--;
    sp[-1] = sp[-1] < sp[0];
    NEXT;
jump:
    pc = program + *pc;
    NEXT;
jump_if_zero:
    pc = *--sp ? pc + 1 : program + *pc;
    NEXT;
fetch:
    sp[-1] = memory[16 + sp[-1]];
    NEXT;
put:
    memory[16 + *--sp] = 1;
    NEXT;
halt:
    return variables[2];
}

static uint64_t work(long rounds)
{
    uint64_t sum = 0;
    for (long r = 0; r < rounds; r++) {
        for (int i = 0; i < LIMIT + 16; i++)
            memory[i] = 0;
        sum = mix(sum, run() + r);
    }
    return sum;
}
