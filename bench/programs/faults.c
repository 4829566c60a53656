/* Memory asked for, touched for the first time page by page, and given back. */
#include "bench.h"

#include <sys/mman.h>

#define PAGE 4096
#define PAGES 256

static uint64_t work(long rounds)
{
    uint64_t sum = 0;
    for (long r = 0; r < rounds; r++) {
        uint8_t *memory = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED)
            abort();
        /* Huge pages would make it 2 faults a round; a kernel without them refuses, which is as good. */
        madvise(memory, PAGES * PAGE, MADV_NOHUGEPAGE);
        for (int i = 0; i < PAGES; i++)
            memory[i * PAGE + (r & (PAGE - 1))] += (uint8_t)(i + r);
        for (int i = 0; i < PAGES; i += 16)
            sum = mix(sum, memory[i * PAGE + (r & (PAGE - 1))]);
        munmap(memory, PAGES * PAGE);
    }
    return sum;
}
