/* Wakes up every millisecond, as cyclictest does, and says how late it ever was: "max NANOSECONDS". Argument: wake-ups. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

int main(int argc, char **argv) {
  long count = argc > 1 ? atol(argv[1]) : 1000;
  long long worst = 0;
  struct timespec next;
  clock_gettime(CLOCK_MONOTONIC, &next);
  for (long i = 0; i < count; i++) {
    struct timespec now;
    next.tv_nsec += 1000000;
    if (next.tv_nsec >= 1000000000) {
      next.tv_nsec -= 1000000000;
      next.tv_sec++;
    }
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
    clock_gettime(CLOCK_MONOTONIC, &now);
    long long late = (now.tv_sec - next.tv_sec) * 1000000000LL + now.tv_nsec - next.tv_nsec;
    if (late > worst) worst = late;
    /* Who is late once is not late ever after. */
    if (late > 1000000) next = now;
  }
  printf("max %lld\n", worst);
  return 0;
}
