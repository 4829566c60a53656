/*
 * Self-generating code: small functions written into a page that is writable and executable, called over and over, one of them
 * rewritten now and then while the others on its page stay in use. What a just-in-time compiler does that patches its code.
 *
 * A function is arithmetic on EAX, the same bytes in 32-bit and 64-bit mode.
 */
#include "bench.h"

#include <string.h>
#include <sys/mman.h>

#define FUNCTIONS 32
#define SLOT 128
#define OPERATIONS 12
#define CALLS 32

#ifdef __i386__
#define PARAMETER __attribute__((regparm(1)))
#define TAKE_PARAMETER (const uint8_t[]){ 0x89, 0xc0 } /* MOV EAX, EAX */
#else
#define PARAMETER
#define TAKE_PARAMETER (const uint8_t[]){ 0x89, 0xf8 } /* MOV EAX, EDI */
#endif

typedef uint32_t PARAMETER (*function)(uint32_t);

static uint8_t *emit(uint8_t *at, const uint8_t *bytes, unsigned count, uint32_t immediate)
{
    memcpy(at, bytes, count);
    memcpy(at + count, &immediate, 4);
    return at + count + 4;
}

static void generate(uint8_t *at, uint64_t *seed)
{
    memcpy(at, TAKE_PARAMETER, 2);
    at += 2;
    for (int i = 0; i < OPERATIONS; i++) {
        uint64_t x = next_random(seed);
        uint32_t immediate = (uint32_t)(x >> 32);
        switch (x & 3) {
        case 0: /* ADD EAX, imm32 */
            at = emit(at, (const uint8_t[]){ 0x05 }, 1, immediate);
            break;
        case 1: /* XOR EAX, imm32 */
            at = emit(at, (const uint8_t[]){ 0x35 }, 1, immediate);
            break;
        case 2: /* IMUL EAX, EAX, imm32 */
            at = emit(at, (const uint8_t[]){ 0x69, 0xc0 }, 2, immediate | 1);
            break;
        default: /* ROL EAX, imm8 */
            memcpy(at, (const uint8_t[]){ 0xc1, 0xc0, immediate & 31 }, 3);
            at += 3;
        }
    }
    *at = 0xc3; /* RET */
}

static uint64_t work(long rounds)
{
    uint64_t sum = 0, seed = 31337;
    uint8_t *code = mmap(NULL, FUNCTIONS * SLOT, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (code == MAP_FAILED)
        abort();
    for (int i = 0; i < FUNCTIONS; i++)
        generate(code + i * SLOT, &seed);
    for (long r = 0; r < rounds; r++) {
        generate(code + r % FUNCTIONS * SLOT, &seed);
        uint32_t x = (uint32_t)r;
        for (int call = 0; call < CALLS; call++)
            for (int i = 0; i < FUNCTIONS; i++)
                x = ((function)(code + i * SLOT))(x);
        sum = mix(sum, x);
    }
    return sum;
}
