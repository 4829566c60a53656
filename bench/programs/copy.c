/* Copying memory: blocks from 64 bytes to 256 KiB by 64-bit words, as compiled code without vectors does it, and by REP MOVSB. */
#include "bench.h"

#define SIZE (1 << 18)
static uint64_t from[SIZE / 8 + 8], to[SIZE / 8 + 8];

__attribute__((noinline, optimize("no-tree-vectorize", "no-tree-loop-distribute-patterns"))) static void copy_words(uint64_t *d, const uint64_t *s,
                                                                                                                     size_t words)
{
    for (size_t i = 0; i < words; i++)
        d[i] = s[i];
}

static void copy_string(void *d, const void *s, size_t bytes)
{
    __asm__ volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(bytes) : : "memory");
}

static uint64_t work(long rounds)
{
    uint64_t sum = 0, seed = 1234567;
    for (unsigned i = 0; i < SIZE / 8; i++)
        from[i] = next_random(&seed);
    for (long r = 0; r < rounds; r++) {
        for (size_t size = 64; size <= SIZE; size *= 4) {
            for (size_t done = 0; done < SIZE; done += size) {
                copy_words(to + done / 8, from + (SIZE - size - done) / 8, size / 8);
                copy_string((char *)from + done, (char *)to + (SIZE - size - done), size);
            }
            sum = mix(sum, to[(r * 97 + size) % (SIZE / 8)] + from[r % (SIZE / 8)]);
        }
        from[r % (SIZE / 8)] = next_random(&seed);
    }
    return sum;
}
