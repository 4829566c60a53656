/* Processes that are made and run another program: this one again, static and small, as a child that ends at once. */
#include "bench.h"

#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char path[64];

/* The child is told by its argument; its start-up is part of the work. */
__attribute__((constructor)) static void child_or_parent(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "child") == 0)
        _exit(atoi(argv[2]) & 0x7f);
    strncpy(path, argv[0], sizeof path - 1);
}

static uint64_t work(long rounds)
{
    uint64_t sum = 0;
    for (long r = 0; r < rounds; r++) {
        pid_t child = fork();
        if (child < 0)
            abort();
        if (child == 0) {
            char number[24];
            snprintf(number, sizeof number, "%ld", r);
            execv(path, (char *[]){ path, "child", number, NULL });
            _exit(0xff);
        }
        int status;
        if (waitpid(child, &status, 0) != child || !WIFEXITED(status) || WEXITSTATUS(status) == 0xff)
            abort();
        sum = mix(sum, WEXITSTATUS(status));
    }
    return sum;
}
