/*
 * A disk whose every block says what was written to it last, and a check of that.
 *
 *   disk-verify write DEVICE BLOCKS SEED FROM     writes generations FROM, FROM + 1, ... for ever, past the page cache
 *   disk-verify check DEVICE BLOCKS SEED BEGUN [FROM TO]...
 *
 * Generation g goes to a block that follows from SEED and g. After some writes the program says "finished g", after some of those it makes all of them safe
 * and says "flushed g": what it has said has happened. `check` finds in each block the last generation out of those FROM ... TO that went there, or a
 * later one up to BEGUN, whole; or, if none did, what the image had: the block's number in every 512 bytes.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define BLOCK 4096
#define WORDS (BLOCK / 8)
#define CHUNK 256
#define MOST_AT_ONCE 24

static void demand(int holds, const char *what)
{
    if (holds)
        return;
    perror(what);
    exit(1);
}

static uint64_t hash(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* Neighbours often, so that clusters are written in parts and whole. */
static uint64_t place(uint64_t seed, uint64_t generation, uint64_t blocks)
{
    uint64_t start = hash(seed * 0x1000003u + generation / 8);
    uint64_t step = hash(generation / 8) & 1 ? generation % 8 : hash(generation) % 4096;
    return (start + step) % blocks;
}

static void fill(uint64_t *block, uint64_t number, uint64_t generation)
{
    block[0] = generation;
    block[1] = number;
    for (int i = 2; i < WORDS; i++)
        block[i] = hash(generation ^ ((uint64_t)i << 40));
}

static int is_whole(const uint64_t *block, uint64_t number)
{
    if (block[1] != number)
        return 0;
    for (int i = 2; i < WORDS; i++)
        if (block[i] != hash(block[0] ^ ((uint64_t)i << 40)))
            return 0;
    return 1;
}

static int is_untouched(const uint64_t *block, uint64_t number)
{
    for (int i = 0; i < WORDS; i++)
        if (block[i] != (i % 64 ? 0 : number + 1))
            return 0;
    return 1;
}

static void *memory(size_t bytes)
{
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    demand(at != MAP_FAILED, "mmap");
    return at;
}

static void write_for_ever(int disk, uint64_t blocks, uint64_t seed, uint64_t generation)
{
    uint64_t *block = memory(BLOCK);
    for (uint64_t round = 1;; round++) {
        for (uint64_t n = hash(seed + round) % MOST_AT_ONCE + 1; n > 0; n--, generation++) {
            uint64_t number = place(seed, generation, blocks);
            fill(block, number, generation);
            demand(pwrite(disk, block, BLOCK, number * BLOCK) == BLOCK, "write");
        }
        int flushes = hash(seed + round + 1) % 3 == 0;
        if (flushes)
            demand(fdatasync(disk) == 0, "fdatasync");
        printf("%s %llu\n", flushes ? "flushed" : "finished", (unsigned long long)generation - 1);
        fflush(stdout);
    }
}

static void check(int disk, uint64_t blocks, uint64_t seed, uint64_t begun, char **ranges)
{
    uint64_t *last = memory(blocks * 8), *chunk = memory(CHUNK * BLOCK);
    uint64_t touched = 0, later = 0, wrong = 0;
    for (; ranges[0] && ranges[1]; ranges += 2) {
        uint64_t to = strtoull(ranges[1], NULL, 0);
        for (uint64_t g = strtoull(ranges[0], NULL, 0); g <= to; g++)
            last[place(seed, g, blocks)] = g;
    }
    for (uint64_t number = 0; number < blocks; number++) {
        if (number % CHUNK == 0)
            demand(pread(disk, chunk, CHUNK * BLOCK, number * BLOCK) > 0, "read");
        const uint64_t *block = chunk + number % CHUNK * WORDS;
        uint64_t generation = block[0];
        int is_plain = is_untouched(block, number);
        touched += last[number] > 0;
        later += !is_plain && generation > last[number];
        if (is_plain ? last[number] == 0
                     : is_whole(block, number) && generation >= last[number] && generation <= begun &&
                           place(seed, generation, blocks) == number)
            continue;
        if (wrong++ < 5)
            printf("block %llu: words %llx %llx, expected generation %llu\n", (unsigned long long)number,
                   (unsigned long long)generation, (unsigned long long)block[1], (unsigned long long)last[number]);
    }
    printf("blocks=%llu touched=%llu later=%llu wrong=%llu\n", (unsigned long long)blocks, (unsigned long long)touched,
           (unsigned long long)later, (unsigned long long)wrong);
}

int main(int argc, char **argv)
{
    if (argc < 6) {
        fprintf(stderr, "usage: disk-verify write DEVICE BLOCKS SEED FROM | check DEVICE BLOCKS SEED BEGUN [FROM TO]...\n");
        return 2;
    }
    int writes = strcmp(argv[1], "write") == 0;
    int disk = open(argv[2], (writes ? O_RDWR : O_RDONLY) | O_DIRECT);
    demand(disk >= 0, argv[2]);
    uint64_t blocks = strtoull(argv[3], NULL, 0), seed = strtoull(argv[4], NULL, 0), third = strtoull(argv[5], NULL, 0);
    if (writes)
        write_for_ever(disk, blocks, seed, third);
    check(disk, blocks, seed, third, argv + 6);
    return 0;
}
