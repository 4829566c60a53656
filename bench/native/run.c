/*
 * The native side of the benchmarks: `run ROOT COMMAND` runs `/bin/sh -c COMMAND` in the folder ROOT as its root, and writes what that
 * cost to file descriptor 3: one line, CPU seconds of the command and all it waited for, user and system, and seconds by the clock.
 *
 * Without privileges it makes itself a user namespace to change the root in.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void need(int ok, const char *what)
{
    if (ok)
        return;
    perror(what);
    exit(125);
}

static double seconds(struct timeval t)
{
    return t.tv_sec + t.tv_usec / 1e6;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: run ROOT COMMAND\n");
        return 125;
    }
    if (geteuid() != 0)
        need(unshare(CLONE_NEWUSER) == 0, "a user namespace");
    need(chroot(argv[1]) == 0 && chdir("/root") == 0, argv[1]);
    double start = now();
    pid_t child = fork();
    need(child >= 0, "fork");
    if (child == 0) {
        close(3);
        execl("/bin/sh", "sh", "-c", argv[2], NULL);
        perror("/bin/sh");
        _exit(127);
    }
    int status;
    struct rusage usage;
    need(wait4(child, &status, 0, &usage) == child, "wait");
    dprintf(3, "%.6f %.6f %.6f\n", seconds(usage.ru_utime), seconds(usage.ru_stime), now() - start);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
