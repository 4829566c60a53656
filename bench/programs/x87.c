/* The x87 unit: long double, 64 bits of precision. Chaotic maps make every rounding visible in the checksum. */
#include "bench.h"

#include <string.h>

#define STEPS 1000

static inline long double root(long double x)
{
    long double result;
    __asm__("fsqrt" : "=t"(result) : "0"(x));
    return result;
}

static uint64_t bits(long double value)
{
    uint64_t mantissa;
    memcpy(&mantissa, &value, sizeof mantissa);
    return mantissa;
}

/* The logistic map loses a bit a step: after 64 steps nothing but rounding is left. */
static long double logistic(long double x)
{
    for (int i = 0; i < STEPS; i++)
        x = 3.99L * x * (1 - x);
    return x;
}

/* Simpson's rule over 4 / (1 + x * x): pi. */
static long double integrate(int intervals)
{
    long double width = 1.0L / intervals, sum = 0;
    for (int i = 0; i <= intervals; i++) {
        long double x = i * width, weight = i == 0 || i == intervals ? 1 : i & 1 ? 4 : 2;
        sum += weight * 4 / (1 + x * x);
    }
    return sum * width / 3;
}

/* The arithmetic-geometric mean, and a trip through integers. */
static long double means(long double a, long double b)
{
    for (int i = 0; i < STEPS / 8; i++) {
        long double mean = (a + b) / 2;
        b = root(a * b);
        a = mean + (long double)(int64_t)(mean * 1000) / 1e6L;
    }
    return a > b ? a : b;
}

static uint64_t work(long rounds)
{
    uint64_t sum = 0;
    long double x = 0.37L;
    for (long r = 0; r < rounds; r++) {
        x = logistic(x);
        sum = mix(sum, bits(x));
        sum = mix(sum, bits(integrate(STEPS / 2)));
        sum = mix(sum, bits(means(1 + x, 2)));
    }
    return sum;
}
