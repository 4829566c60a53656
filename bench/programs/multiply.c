/* 64-bit multiplication with 128-bit products: Montgomery exponentiation modulo a 256-bit number, as public-key code does it. */
#include "bench.h"

typedef unsigned __int128 u128;
#define WORDS 4

/* The prime of secp256k1, and -1/N modulo 2^64. */
static const uint64_t N[WORDS] = { 0xfffffffefffffc2fu, ~0ull, ~0ull, ~0ull };
static const uint64_t N_INVERSE = 0xd838091dd2253531u;

static void multiply(uint64_t *out, const uint64_t *a, const uint64_t *b)
{
    uint64_t t[WORDS + 2] = { 0 };
    for (int i = 0; i < WORDS; i++) {
        u128 carry = 0;
        for (int j = 0; j < WORDS; j++) {
            carry += (u128)a[j] * b[i] + t[j];
            t[j] = (uint64_t)carry;
            carry >>= 64;
        }
        carry += t[WORDS];
        t[WORDS] = (uint64_t)carry;
        t[WORDS + 1] = (uint64_t)(carry >> 64);
        uint64_t m = t[0] * N_INVERSE;
        carry = (u128)m * N[0] + t[0];
        carry >>= 64;
        for (int j = 1; j < WORDS; j++) {
            carry += (u128)m * N[j] + t[j];
            t[j - 1] = (uint64_t)carry;
            carry >>= 64;
        }
        carry += t[WORDS];
        t[WORDS - 1] = (uint64_t)carry;
        t[WORDS] = t[WORDS + 1] + (uint64_t)(carry >> 64);
    }
    uint64_t reduced[WORDS], borrow = 0;
    for (int i = 0; i < WORDS; i++) {
        u128 d = (u128)t[i] - N[i] - borrow;
        reduced[i] = (uint64_t)d;
        borrow = (uint64_t)(d >> 64) & 1;
    }
    const uint64_t *result = t[WORDS] >= borrow ? reduced : t;
    for (int i = 0; i < WORDS; i++)
        out[i] = result[i];
}

static uint64_t work(long rounds)
{
    uint64_t base[WORDS] = { 0x123456789abcdefu, 0xfedcba987654321u, 0x55aa55aa55aa55aau, 0x1f1f1f1f1f1f1fu }, sum = 0;
    for (long r = 0; r < rounds; r++) {
        uint64_t x[WORDS] = { 3 + r, 5, 7, 11 };
        for (int bit = 0; bit < 256; bit++) {
            multiply(x, x, x);
            if (base[bit >> 6] >> (bit & 63) & 1)
                multiply(x, x, base);
        }
        sum = mix(sum, x[0] ^ x[3]);
    }
    return sum;
}
