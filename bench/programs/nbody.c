/* Bodies under gravity: double-precision additions, multiplications, divisions and square roots, few of them independent. */
#include "bench.h"

#include <string.h>

#define BODIES 5
#define STEPS 1000

struct body {
    double x[3], v[3], mass;
};

/* A sun and four planets on made-up orbits; units in which gravity's constant is 1. */
static const struct body START[BODIES] = {
    { { 0, 0, 0 }, { 0, 0, 0 }, 39.5 },
    { { 4.84, -1.16, -0.10 }, { 0.606, 2.811, -0.02 }, 0.0377 },
    { { 8.34, 4.12, -0.40 }, { -1.010, 1.825, 0.008 }, 0.0113 },
    { { 12.89, -15.11, -0.22 }, { 1.082, 0.868, -0.010 }, 0.0017 },
    { { 15.38, -25.92, 0.18 }, { 0.979, 0.594, -0.034 }, 0.0020 },
};

static void step(struct body *b, double dt)
{
    for (int i = 0; i < BODIES; i++)
        for (int j = i + 1; j < BODIES; j++) {
            double d[3], square = 0;
            for (int k = 0; k < 3; k++) {
                d[k] = b[i].x[k] - b[j].x[k];
                square += d[k] * d[k];
            }
            double pull = dt / (square * __builtin_sqrt(square));
            for (int k = 0; k < 3; k++) {
                b[i].v[k] -= d[k] * b[j].mass * pull;
                b[j].v[k] += d[k] * b[i].mass * pull;
            }
        }
    for (int i = 0; i < BODIES; i++)
        for (int k = 0; k < 3; k++)
            b[i].x[k] += dt * b[i].v[k];
}

static uint64_t work(long rounds)
{
    struct body bodies[BODIES];
    uint64_t sum = 0;
    memcpy(bodies, START, sizeof bodies);
    for (long r = 0; r < rounds; r++) {
        for (int i = 0; i < STEPS; i++)
            step(bodies, 0.001);
        for (int i = 0; i < BODIES; i++) {
            uint64_t bits;
            memcpy(&bits, &bodies[i].x[r % 3], sizeof bits);
            sum = mix(sum, bits);
        }
    }
    return sum;
}
