/* Sorting: quicksort with insertion sort for short runs; branches that no predictor knows, swaps in memory. */
#include "bench.h"

#define COUNT 50000
static uint32_t values[COUNT];

static void insertion_sort(uint32_t *a, long n)
{
    for (long i = 1; i < n; i++) {
        uint32_t v = a[i];
        long j = i;
        for (; j > 0 && a[j - 1] > v; j--)
            a[j] = a[j - 1];
        a[j] = v;
    }
}

static void quick_sort(uint32_t *a, long n)
{
    while (n > 16) {
        uint32_t x = a[0], y = a[n / 2], z = a[n - 1];
        uint32_t pivot = x < y ? (y < z ? y : x < z ? z : x) : (x < z ? x : y < z ? z : y);
        long i = 0, j = n - 1;
        for (;;) {
            while (a[i] < pivot)
                i++;
            while (a[j] > pivot)
                j--;
            if (i >= j)
                break;
            uint32_t t = a[i];
            a[i++] = a[j];
            a[j--] = t;
        }
        quick_sort(a, i);
        a += i;
        n -= i;
    }
    insertion_sort(a, n);
}

static uint64_t work(long rounds)
{
    uint64_t sum = 0, seed = 4242;
    for (long r = 0; r < rounds; r++) {
        for (long i = 0; i < COUNT; i++)
            values[i] = (uint32_t)next_random(&seed);
        quick_sort(values, COUNT);
        for (long i = 0; i < COUNT; i++)
            sum = mix(sum, values[i]);
    }
    return sum;
}
