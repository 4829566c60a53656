/* CRC-32 by a table: one dependent byte load for each byte of data. */
#include "bench.h"

static uint32_t table[256];
static uint8_t data[65536];

static uint64_t work(long rounds)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++)
            c = c & 1 ? 0xedb88320u ^ (c >> 1) : c >> 1;
        table[i] = c;
    }
    for (unsigned i = 0; i < sizeof data; i++)
        data[i] = i ^ (i >> 8);
    uint32_t crc = ~0u;
    for (long r = 0; r < rounds; r++)
        for (unsigned i = 0; i < sizeof data; i++)
            crc = table[(crc ^ data[i]) & 0xff] ^ (crc >> 8);
    return crc;
}
