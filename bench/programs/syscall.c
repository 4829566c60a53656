/* System calls that do nothing: into the kernel and back. */
#include "bench.h"

#include <sys/syscall.h>
#include <unistd.h>

#define CALLS 1000

static uint64_t work(long rounds)
{
    uint64_t wrong = 0, parent = (uint64_t)getppid();
    for (long r = 0; r < rounds; r++)
        for (int i = 0; i < CALLS; i++)
            wrong += (uint64_t)syscall(SYS_getppid) != parent;
    return mix(rounds, wrong);
}
