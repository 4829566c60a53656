/* Integer mix: shifts, adds, logic, multiplies, divisions and data-dependent branches on 32- and 64-bit values. */
#include "bench.h"

static uint64_t work(long rounds)
{
    uint64_t sum = 1, seed = 88172645463325252u;
    for (long r = 0; r < rounds; r++) {
        for (unsigned i = 1; i <= 10000; i++) {
            uint64_t x = next_random(&seed);
            uint32_t low = (uint32_t)x, high = (uint32_t)(x >> 32);
            if (low & 1)
                sum += high / (i | 1);
            else
                sum ^= (uint64_t)low * high;
            if ((int32_t)high < 0)
                sum = (sum << 7) | (sum >> 57);
            sum -= (x >> (i & 31)) & 0xff;
        }
    }
    return sum;
}
