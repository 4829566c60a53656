/*
 * The frame of a benchmark program: `PROGRAM ROUNDS` does ROUNDS rounds of work and prints one line,
 *
 *     checksum=HEX seconds=CPU_SECONDS
 *
 * The checksum depends on every round, so that neither compiler nor machine can leave out or get wrong any of it unseen.
 * The micro programs use no library function while they work: what is measured is the code in the file, compiled here. The system
 * programs do little but system calls; the CPU time of children that they have waited for counts.
 */
#ifndef BENCH_H
#define BENCH_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

/* Does `rounds` rounds of work; answers their checksum. */
static uint64_t work(long rounds);

static inline uint64_t mix(uint64_t sum, uint64_t value)
{
    return (sum ^ value) * 0x100000001b3u + (sum >> 29);
}

/* xorshift64: reproducible data. */
static inline uint64_t next_random(uint64_t *state)
{
    uint64_t x = *state;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return *state = x;
}

/* A program that could not do its work says so and prints no checksum. */
static inline void demand(int holds, const char *what)
{
    if (holds)
        return;
    perror(what);
    exit(1);
}

static double cpu_seconds(void)
{
    struct timespec t;
    struct rusage children;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    getrusage(RUSAGE_CHILDREN, &children);
    return t.tv_sec + t.tv_nsec / 1e9 + children.ru_utime.tv_sec + children.ru_stime.tv_sec +
           (children.ru_utime.tv_usec + children.ru_stime.tv_usec) / 1e6;
}

int main(int argc, char **argv)
{
    long rounds = argc > 1 ? atol(argv[1]) : 1;
    double start = cpu_seconds();
    uint64_t checksum = work(rounds);
    printf("checksum=%016llx seconds=%.6f\n", (unsigned long long)checksum, cpu_seconds() - start);
    return 0;
}

#endif
