/* Calls and returns: Fibonacci numbers by their definition. */
#include "bench.h"

__attribute__((noinline, optimize("no-optimize-sibling-calls", "no-inline"))) static uint64_t fib(unsigned n)
{
    return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

static uint64_t work(long rounds)
{
    uint64_t sum = 0;
    for (long r = 0; r < rounds; r++)
        sum = mix(sum, fib(24 + (r & 1)));
    return sum;
}
