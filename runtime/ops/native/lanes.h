/* Vectors of float32 as wide as this CPU's registers, and how ELEMENTs are loaded into them.
   ELEMENT_BF16 chooses the type that activations and the KV cache are stored in: bf16, else fp32.
   All arithmetic is in fp32. GCC and Clang vector extensions only: no intrinsics of one CPU. */
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#define LANES 16
#define TILE_ROWS 12 /* 24 accumulators, 2 weights, 1 broadcast of 32 registers */
#else
#define LANES 8
#define TILE_ROWS 6 /* 12 accumulators, 2 weights, 1 broadcast of 16 registers */
#endif
#define TILE_COLUMNS (2 * LANES)

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint32_t uvec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint16_t hvec __attribute__((vector_size(2 * LANES), aligned(2), may_alias));
typedef int16_t shvec __attribute__((vector_size(2 * LANES), aligned(2), may_alias));
typedef int8_t bvec __attribute__((vector_size(LANES), aligned(1), may_alias));
typedef uint8_t ubvec __attribute__((vector_size(LANES), aligned(1), may_alias));

#define INLINE static inline __attribute__((always_inline))

INLINE vec splat(float x) { return x - (vec){0}; }
INLINE vec load_f32(const float *p) { return *(const vec *)p; }
INLINE void store_f32(float *p, vec x) { *(vec *)p = x; }
/* Doubling the width step by step: GCC takes wider strides apart, number by number. */
INLINE ivec widen_u8(const uint8_t *p) {
    return __builtin_convertvector(__builtin_convertvector(*(const ubvec *)p, hvec), ivec);
}
INLINE vec load_u8(const uint8_t *p) { return __builtin_convertvector(widen_u8(p), vec); }
INLINE vec load_i8(const int8_t *p) {
    ivec wide = __builtin_convertvector(__builtin_convertvector(*(const bvec *)p, shvec), ivec);
    return __builtin_convertvector(wide, vec);
}
INLINE vec load_bf16(const uint16_t *p) {
    return (vec)(__builtin_convertvector(*(const hvec *)p, uvec) << 16);
}
INLINE vec select_vec(ivec mask, vec a, vec b) { return (vec)((mask & (ivec)a) | (~mask & (ivec)b)); }
INLINE vec max_vec(vec a, vec b) { return select_vec(a > b, a, b); }
#if LANES == 16
#define SWAP_HALVES(x) __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7)
#define SWAP_QUARTERS(x) __builtin_shufflevector(x, x, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11)
#define SWAP_PAIRS(x) __builtin_shufflevector(x, x, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13)
#define SWAP_ONES(x) __builtin_shufflevector(x, x, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14)
#else
#define SWAP_QUARTERS(x) __builtin_shufflevector(x, x, 4, 5, 6, 7, 0, 1, 2, 3)
#define SWAP_PAIRS(x) __builtin_shufflevector(x, x, 2, 3, 0, 1, 6, 7, 4, 5)
#define SWAP_ONES(x) __builtin_shufflevector(x, x, 1, 0, 3, 2, 5, 4, 7, 6)
#endif
INLINE float sum_lanes(vec x) {
#if LANES == 16
    x += SWAP_HALVES(x);
#endif
    x += SWAP_QUARTERS(x);
    x += SWAP_PAIRS(x);
    return (x + SWAP_ONES(x))[0];
}
INLINE float max_lanes(vec x) {
#if LANES == 16
    x = max_vec(x, SWAP_HALVES(x));
#endif
    x = max_vec(x, SWAP_QUARTERS(x));
    x = max_vec(x, SWAP_PAIRS(x));
    return max_vec(x, SWAP_ONES(x))[0];
}

#ifdef ELEMENT_BF16
typedef uint16_t element;
INLINE vec load(const element *p) { return load_bf16(p); }
INLINE float widen(element x) {
    uint32_t bits = (uint32_t)x << 16;
    float wide;
    memcpy(&wide, &bits, 4);
    return wide;
}
INLINE element narrow(float x) { /* to nearest, ties to even; NaN stays NaN */
    uint32_t bits;
    memcpy(&bits, &x, 4);
    if (x != x) return (element)((bits >> 16) | 0x40);
    return (element)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}
INLINE void store(element *p, vec x) {
    uvec bits = (uvec)x;
    uvec rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    uvec quiet = (bits >> 16) | 0x40;
    ivec is_nan = x != x;
    *(hvec *)p = __builtin_convertvector((is_nan & (ivec)quiet) | (~is_nan & (ivec)rounded), hvec);
}
#else
typedef float element;
INLINE vec load(const element *p) { return load_f32(p); }
INLINE float widen(element x) { return x; }
INLINE element narrow(float x) { return x; }
INLINE void store(element *p, vec x) { store_f32(p, x); }
#endif

/* exp(x) within 2 units in the last place: 2^n * p(r), r = x - n ln 2, Cephes' polynomial. Below -87
   the result is that of -87, which is as good as zero beside the 1 of a softmax's largest. */
INLINE vec exp_vec(vec x) {
    x = max_vec(x, splat(-87.0f));
    x = select_vec(x < 88.0f, x, splat(88.0f));
    vec shifted = x * 1.44269504088896341f + 12582912.0f; /* 1.5 * 2^23: rounds to an integer */
    vec n = shifted - 12582912.0f;
    vec r = x - n * 0.693359375f + n * 2.12194440e-4f;
    vec p = splat(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    ivec power = (((ivec)shifted) << 23) + (127 << 23);
    return p * (vec)power;
}
INLINE vec tanh_vec(vec x) {
    /* 1 - 2 / (e^2x + 1) loses digits near zero, where the series is exact enough. */
    vec square = x * x;
    vec series = x * (1.0f + square * (-0.333333333f + square * (0.133333333f + square * -0.0539682540f)));
    vec closed = 1.0f - 2.0f / (exp_vec(2.0f * x) + 1.0f);
    ivec is_small = square < 0.01f;
    return select_vec(is_small, series, closed);
}
