/* Random memory: loads and stores all over 16 MiB, each address depending on the load before. */
#include "bench.h"

#define WORDS (1 << 21)
static uint64_t table[WORDS];

static uint64_t work(long rounds)
{
    uint64_t x = 1, seed = 99;
    for (unsigned i = 0; i < WORDS; i++)
        table[i] = next_random(&seed);
    for (long r = 0; r < rounds; r++) {
        for (unsigned i = 0; i < 100000; i++) {
            unsigned at = (x ^ i * 40503u) & (WORDS - 1);
            x = x * 31 + table[at];
            table[(x >> 20) & (WORDS - 1)] += x;
        }
    }
    return x;
}
