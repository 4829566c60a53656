/* 64-bit multiplication with 128-bit products: Montgomery exponentiation modulo a 256-bit number, as public-key code does it. */
#include "bench.h"

/* The widest multiplication that the processor has: 64 by 64 bits, or 32 by 32 in 32-bit mode. The results are the same. */
#ifdef __SIZEOF_INT128__
typedef uint64_t word;
typedef unsigned __int128 wide;
#else
typedef uint32_t word;
typedef uint64_t wide;
#endif
#define BITS (8 * sizeof(word))
#define QUADS 4
#define WORDS (QUADS * sizeof(uint64_t) / sizeof(word))

typedef union {
    uint64_t quads[QUADS];
    word words[WORDS];
} number;

/* The prime of secp256k1, and -1/N modulo 2^64. */
static const number N = { { 0xfffffffefffffc2fu, ~0ull, ~0ull, ~0ull } };
static const word N_INVERSE = (word)0xd838091dd2253531u;

static void multiply(word *out, const word *a, const word *b)
{
    word t[WORDS + 2] = { 0 };
    for (unsigned i = 0; i < WORDS; i++) {
        wide carry = 0;
        for (unsigned j = 0; j < WORDS; j++) {
            carry += (wide)a[j] * b[i] + t[j];
            t[j] = (word)carry;
            carry >>= BITS;
        }
        carry += t[WORDS];
        t[WORDS] = (word)carry;
        t[WORDS + 1] = (word)(carry >> BITS);
        word m = t[0] * N_INVERSE;
        carry = (wide)m * N.words[0] + t[0];
        carry >>= BITS;
        for (unsigned j = 1; j < WORDS; j++) {
            carry += (wide)m * N.words[j] + t[j];
            t[j - 1] = (word)carry;
            carry >>= BITS;
        }
        carry += t[WORDS];
        t[WORDS - 1] = (word)carry;
        t[WORDS] = t[WORDS + 1] + (word)(carry >> BITS);
    }
    word reduced[WORDS], borrow = 0;
    for (unsigned i = 0; i < WORDS; i++) {
        wide d = (wide)t[i] - N.words[i] - borrow;
        reduced[i] = (word)d;
        borrow = (word)(d >> BITS) & 1;
    }
    const word *result = t[WORDS] >= borrow ? reduced : t;
    for (unsigned i = 0; i < WORDS; i++)
        out[i] = result[i];
}

static uint64_t work(long rounds)
{
    number base = { { 0x123456789abcdefu, 0xfedcba987654321u, 0x55aa55aa55aa55aau, 0x1f1f1f1f1f1f1fu } };
    uint64_t sum = 0;
    for (long r = 0; r < rounds; r++) {
        number x = { { 3 + r, 5, 7, 11 } };
        for (int bit = 0; bit < 256; bit++) {
            multiply(x.words, x.words, x.words);
            if (base.quads[bit >> 6] >> (bit & 63) & 1)
                multiply(x.words, x.words, base.words);
        }
        sum = mix(sum, x.quads[0] ^ x.quads[3]);
    }
    return sum;
}
