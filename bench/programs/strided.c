/* Strided memory: sums over a matrix of 4 MiB by rows, columns and strides that change page at every access. */
#include "bench.h"

#define SIDE 1024
static uint32_t matrix[SIDE * SIDE];

static uint64_t work(long rounds)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < SIDE * SIDE; i++)
        matrix[i] = i * 2654435761u;
    for (long r = 0; r < rounds; r++) {
        static const unsigned strides[] = { 1, 16, SIDE, SIDE + 1, 3 * SIDE + 7 };
        for (unsigned k = 0; k < sizeof strides / sizeof *strides; k++) {
            unsigned at = r & 1023;
            uint32_t s = 0;
            for (unsigned i = 0; i < SIDE * SIDE / 8; i++) {
                s += matrix[at];
                at = (at + strides[k]) & (SIDE * SIDE - 1);
            }
            matrix[at] = s;
            sum = mix(sum, s);
        }
    }
    return sum;
}
