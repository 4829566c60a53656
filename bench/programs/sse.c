/*
 * Packed integers as hand-written kernels use them: pixels blended with saturation (SSE2), bits counted by table look-up (SSSE3 PSHUFB),
 * dot products, minima, wide multiplies and selections (SSE4.1). In 32-bit mode all by SSE2, as programs for a Pentium 4 have it; the
 * results are the same.
 */
#include "bench.h"

#ifdef __i386__
#include <emmintrin.h>
#else
#include <smmintrin.h>
#endif

#define BYTES 32768
#define VECTORS (BYTES / 16)

static __m128i source[VECTORS], target[VECTORS];

#ifdef __i386__
#define KERNEL __attribute__((noinline)) static

static inline __m128i choose(__m128i no, __m128i yes, __m128i signs)
{
    __m128i mask = _mm_cmpgt_epi8(_mm_setzero_si128(), signs);
    return _mm_or_si128(_mm_and_si128(mask, yes), _mm_andnot_si128(mask, no));
}

static inline __m128i multiply_low(__m128i a, __m128i b)
{
    __m128i even = _mm_mul_epu32(a, b), odd = _mm_mul_epu32(_mm_srli_epi64(a, 32), _mm_srli_epi64(b, 32));
    return _mm_unpacklo_epi32(_mm_shuffle_epi32(even, 0x08), _mm_shuffle_epi32(odd, 0x08));
}

static inline __m128i minimum(__m128i a, __m128i b)
{
    const __m128i top = _mm_set1_epi32(1u << 31);
    __m128i larger = _mm_cmpgt_epi32(_mm_xor_si128(a, top), _mm_xor_si128(b, top));
    return _mm_or_si128(_mm_and_si128(larger, b), _mm_andnot_si128(larger, a));
}

static inline __m128i absolute(__m128i a)
{
    __m128i sign = _mm_srai_epi32(a, 31);
    return _mm_sub_epi32(_mm_xor_si128(a, sign), sign);
}

static inline __m128i five_bytes_on(__m128i high, __m128i low)
{
    return _mm_or_si128(_mm_slli_si128(high, 11), _mm_srli_si128(low, 5));
}

static inline int is_zero(__m128i a)
{
    return _mm_movemask_epi8(_mm_cmpeq_epi8(a, _mm_setzero_si128())) == 0xffff;
}

static inline uint32_t lane(__m128i a, int number)
{
    uint32_t lanes[4];
    _mm_storeu_si128((__m128i *)lanes, a);
    return lanes[number];
}

/* Bits in each byte, by halves. */
static inline __m128i bits_of_bytes(__m128i a)
{
    const __m128i ones = _mm_set1_epi8(0x55), twos = _mm_set1_epi8(0x33), fours = _mm_set1_epi8(0x0f);
    a = _mm_sub_epi8(a, _mm_and_si128(_mm_srli_epi16(a, 1), ones));
    a = _mm_add_epi8(_mm_and_si128(a, twos), _mm_and_si128(_mm_srli_epi16(a, 2), twos));
    return _mm_and_si128(_mm_add_epi8(a, _mm_srli_epi16(a, 4)), fours);
}
#else
#define KERNEL __attribute__((noinline, target("sse4.1"))) static
#define choose _mm_blendv_epi8
#define multiply_low _mm_mullo_epi32
#define minimum _mm_min_epu32
#define absolute _mm_abs_epi32
#define five_bytes_on(high, low) _mm_alignr_epi8(high, low, 5)
#define is_zero(a) _mm_testz_si128(a, a)
#define lane(a, number) ((uint32_t)_mm_extract_epi32(a, number))

__attribute__((target("sse4.1"))) static inline __m128i bits_of_bytes(__m128i a)
{
    const __m128i table = _mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4), nibble = _mm_set1_epi8(15);
    __m128i low = _mm_shuffle_epi8(table, _mm_and_si128(a, nibble));
    return _mm_add_epi8(low, _mm_shuffle_epi8(table, _mm_and_si128(_mm_srli_epi16(a, 4), nibble)));
}
#endif

/* target = (source * alpha + target * (255 - alpha)) / 256 + bias, by 8-bit lanes. */
KERNEL void blend(unsigned alpha)
{
    const __m128i zero = _mm_setzero_si128(), bias = _mm_set1_epi8(3);
    const __m128i a = _mm_set1_epi16(alpha), b = _mm_set1_epi16(255 - alpha);
    for (int i = 0; i < VECTORS; i++) {
        __m128i s = source[i], t = target[i];
        __m128i low = _mm_add_epi16(_mm_mullo_epi16(_mm_unpacklo_epi8(s, zero), a), _mm_mullo_epi16(_mm_unpacklo_epi8(t, zero), b));
        __m128i high = _mm_add_epi16(_mm_mullo_epi16(_mm_unpackhi_epi8(s, zero), a), _mm_mullo_epi16(_mm_unpackhi_epi8(t, zero), b));
        __m128i packed = _mm_packus_epi16(_mm_srli_epi16(low, 8), _mm_srli_epi16(high, 8));
        target[i] = _mm_subs_epu8(_mm_adds_epu8(packed, bias), _mm_srli_epi16(_mm_and_si128(s, bias), 1));
    }
}

KERNEL uint64_t count_bits(void)
{
    __m128i total = _mm_setzero_si128();
    for (int i = 0; i < VECTORS; i++)
        total = _mm_add_epi64(total, _mm_sad_epu8(bits_of_bytes(target[i]), _mm_setzero_si128()));
    uint64_t halves[2];
    _mm_storeu_si128((__m128i *)halves, total);
    return halves[0] + halves[1];
}

/* Sums of 16-bit and 32-bit products; smaller lanes win, marked ones are replaced. */
KERNEL uint64_t products(unsigned key)
{
    __m128i dot = _mm_setzero_si128(), wide = _mm_set1_epi32(key | 1), least = _mm_set1_epi32(-1);
    for (int i = 0; i < VECTORS; i++) {
        __m128i s = source[i], t = target[i];
        dot = _mm_add_epi32(dot, _mm_madd_epi16(s, t));
        wide = _mm_add_epi32(multiply_low(wide, _mm_or_si128(s, _mm_set1_epi32(1))), five_bytes_on(s, t));
        least = minimum(least, choose(wide, absolute(s), _mm_cmpgt_epi32(t, s)));
        if (is_zero(least))
            least = _mm_shuffle_epi32(wide, 0x1b);
    }
    return lane(dot, 1) + ((uint64_t)lane(least, 2) << 32) + lane(wide, 0);
}

static uint64_t work(long rounds)
{
    uint64_t sum = 0, seed = 777;
    for (int i = 0; i < BYTES / 8; i++) {
        ((uint64_t *)source)[i] = next_random(&seed);
        ((uint64_t *)target)[i] = next_random(&seed);
    }
    for (long r = 0; r < rounds; r++) {
        blend(r & 255);
        sum = mix(sum, count_bits());
        sum = mix(sum, products((unsigned)sum));
    }
    return sum;
}
