/*
 * disk read|write|sync PATH BLOCK_BYTES COUNT FIRST_BLOCK BLOCKS SEED [PROCESSES]
 *
 * COUNT transfers of one block each past the page cache, among BLOCKS blocks from FIRST_BLOCK on: one after the other if SEED is 0, else at random.
 * `sync` makes each write safe before the next. What is written depends on the block's number alone; what is read goes into the
 * checksum. With PROCESSES that many do it at once, each with a seed of its own.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static void demand(int holds, const char *what)
{
    if (holds)
        return;
    perror(what);
    exit(1);
}

static uint64_t next_random(uint64_t *state)
{
    uint64_t x = *state;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return *state = x;
}

struct job {
    const char *mode, *path;
    size_t bytes;
    long count, first, blocks;
    uint64_t seed;
};

static uint64_t work(const struct job *job)
{
    int is_read = strcmp(job->mode, "read") == 0;
    int is_sync = strcmp(job->mode, "sync") == 0;
    int file = open(job->path, (is_read ? O_RDONLY : O_WRONLY) | O_DIRECT);
    demand(file >= 0, job->path);
    uint64_t *buffer = mmap(NULL, job->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    demand(buffer != MAP_FAILED, "mmap");
    uint64_t state = job->seed, sum = 0;
    for (long i = 0; i < job->count; i++) {
        uint64_t block = job->first + (job->seed ? next_random(&state) % job->blocks : (uint64_t)(i % job->blocks));
        off_t at = block * job->bytes;
        ssize_t done;
        if (is_read) {
            done = pread(file, buffer, job->bytes, at);
            sum = (sum ^ buffer[0]) * 0x100000001b3u + buffer[job->bytes / 8 - 1];
        } else {
            buffer[0] = buffer[job->bytes / 8 - 1] = block * 0x9e3779b97f4a7c15u;
            done = pwrite(file, buffer, job->bytes, at);
            sum = (sum ^ buffer[0]) * 0x100000001b3u;
        }
        demand(done == (ssize_t)job->bytes, job->mode);
        if (is_sync)
            demand(fdatasync(file) == 0, "fdatasync");
    }
    close(file);
    return sum;
}

int main(int argc, char **argv)
{
    if (argc < 8) {
        fprintf(stderr, "usage: disk read|write|sync PATH BLOCK_BYTES COUNT FIRST_BLOCK BLOCKS SEED [PROCESSES]\n");
        return 2;
    }
    struct job job = {argv[1], argv[2], atol(argv[3]), atol(argv[4]), atol(argv[5]), atol(argv[6]), strtoull(argv[7], NULL, 0)};
    int processes = argc > 8 ? atoi(argv[8]) : 1;
    uint64_t *sums = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    demand(sums != MAP_FAILED && processes <= 512, "processes");
    for (int p = 1; p < processes; p++) {
        pid_t child = fork();
        demand(child >= 0, "fork");
        if (child == 0) {
            job.seed += p;
            sums[p] = work(&job);
            _exit(0);
        }
    }
    sums[0] = work(&job);
    for (int p = 1; p < processes; p++) {
        int status;
        demand(wait(&status) > 0 && status == 0, "a process");
    }
    uint64_t sum = 0;
    for (int p = 0; p < processes; p++)
        sum += sums[p];
    printf("checksum=%016llx\n", (unsigned long long)sum);
    return 0;
}
