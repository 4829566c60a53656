/* The Mandelbrot set: short loops of dependent double-precision operations, each ended by a comparison. */
#include "bench.h"

#define SIDE 64
#define LIMIT 256

static unsigned escape(double cx, double cy)
{
    double x = 0, y = 0;
    unsigned n = 0;
    while (n < LIMIT && x * x + y * y <= 4) {
        double t = x * x - y * y + cx;
        y = 2 * x * y + cy;
        x = t;
        n++;
    }
    return n;
}

static uint64_t work(long rounds)
{
    uint64_t sum = 0;
    for (long r = 0; r < rounds; r++) {
        double left = -2.0 + (r & 15) * 0.01;
        for (int py = 0; py < SIDE; py++)
            for (int px = 0; px < SIDE; px++)
                sum = mix(sum, escape(left + px * (2.5 / SIDE), -1.25 + py * (2.5 / SIDE)));
    }
    return sum;
}
