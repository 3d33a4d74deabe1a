/* Codes of a quantised KV cache: eight bits a number, int8 or e4m3fn (Micikevicius et al. 2022), and
   a float32 scale for each token and head. A number is code * scale. */
#pragma once
#include "lanes.h"

#define MOST_DIM 256

enum { PLAIN, INT8_CODES, FP8_CODES };


/* LANES codes as numbers. Of e4m3, bits are moved to where fp32 has its own, and the exponent's bias
   from 7 to 127; subnormals would be half of what exceeds 2^-7 then. */
INLINE vec load_codes(int kind, const uint8_t *p) {
    /* By way of 16 bits: from 8 to 32 at once, GCC 12 takes the numbers one by one. */
    uvec code = __builtin_convertvector(__builtin_convertvector(*(const ubvec *)p, hvec), uvec);
    if (kind == INT8_CODES) return __builtin_convertvector((ivec)(code << 24) >> 24, vec);
    uvec magnitude = code & 0x7f;
    vec x = (vec)((magnitude << 20) + (120u << 23));
    x = select_vec((ivec)(magnitude < 8), x + x - 0.015625f, x);
    return (vec)((uvec)x | (code & 0x80) << 24);
}

/* Numbers d .. d + LANES - 1 of a head. */
INLINE vec load_number(int kind, const void *head, int64_t d, float scale) {
    if (kind == PLAIN) return load((const element *)head + d);
    return load_codes(kind, (const uint8_t *)head + d) * scale;
}

/* Number d of a head. */
INLINE float widen_number(int kind, const void *head, int64_t d, float scale) {
    if (kind == PLAIN) return widen(((const element *)head)[d]);
    uint8_t code[LANES] = {((const uint8_t *)head)[d]};
    return load_codes(kind, code)[0] * scale;
}

/* Quantise a head; returns its scale. `wide` has zeros up to a multiple of LANES. What is not finite
   gives scale NaN and codes of zero; zeros get a scale above zero. Codes are the nearest, ties to
   even: those of quantize.jinja. */
INLINE float encode(int kind, const float *wide, int64_t dim, uint8_t *codes) {
    vec most = splat(0);
    ivec is_bad = {0};
    for (int64_t d = 0; d < dim; d += LANES) {
        vec size = (vec)((uvec)load_f32(wide + d) & 0x7fffffff);
        most = max_vec(most, size);
        is_bad |= ~(size < INFINITY);
    }
    for (int i = 0; i < LANES; i++) {
        if (!is_bad[i]) continue;
        memset(codes, 0, dim);
        return NAN;
    }
    float known = max_lanes(most), largest = kind == INT8_CODES ? 127.0f : 448.0f;
    if (known < 0x1p-100f) known = 0x1p-100f;
    float inverse = largest / known;
    for (int64_t d = 0; d < dim; d += LANES) {
        vec x = load_f32(wide + d) * inverse;
        x = select_vec(x < largest, x, splat(largest));
        x = max_vec(x, splat(-largest));
        ubvec code;
        if (kind == INT8_CODES) {
            ivec whole = __builtin_convertvector((x + 12582912.0f) - 12582912.0f, ivec);
            code = (ubvec)__builtin_convertvector(whole, bvec);
        } else {
            uvec bits = (uvec)x & 0x7fffffff;
            uvec normal = ((bits + 0x7ffff + ((bits >> 20) & 1)) >> 20) - 960;
            uvec small = (uvec)((vec)bits + 16384.0f) - 0x46800000;
            ivec is_small = (vec)bits < 0.015625f;
            uvec both = ((uvec)is_small & small) | (~(uvec)is_small & normal);
            code = __builtin_convertvector(both | ((uvec)(x < splat(0)) & 0x80), ubvec);
        }
        memcpy(codes + d, &code, dim - d < LANES ? dim - d : LANES);
    }
    return known / largest;
}
