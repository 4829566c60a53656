/* Two processes hand a byte to and fro through a pair of pipes: a write, a sleep and a context switch for each. */
#define _GNU_SOURCE
#include "bench.h"

#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#define TRIPS 100

static void check(int ok)
{
    if (!ok)
        abort();
}

/* A processor of its own for each would make it another benchmark. */
static void stay_here(void)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(sched_getcpu(), &set);
    check(sched_setaffinity(0, sizeof set, &set) == 0);
}

static void echo(int from, int to)
{
    uint8_t byte;
    while (read(from, &byte, 1) == 1) {
        byte = byte * 5 + 1;
        check(write(to, &byte, 1) == 1);
    }
    _exit(0);
}

static uint64_t work(long rounds)
{
    int there[2], back[2], status;
    uint64_t sum = 0;
    uint8_t byte = 1;
    stay_here();
    check(pipe(there) == 0 && pipe(back) == 0);
    pid_t child = fork();
    check(child >= 0);
    if (child == 0) {
        close(there[1]);
        echo(there[0], back[1]);
    }
    for (long r = 0; r < rounds; r++) {
        for (int i = 0; i < TRIPS; i++)
            check(write(there[1], &byte, 1) == 1 && read(back[0], &byte, 1) == 1);
        sum = mix(sum, byte);
    }
    close(there[1]);
    check(waitpid(child, &status, 0) == child && status == 0);
    return sum;
}
