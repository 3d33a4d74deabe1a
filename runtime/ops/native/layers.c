/* What lies between products: norms, with the residual added, and rotation with the cache write. */
#include "codes.h"

#define WORTH_SHARING 32768 /* elements: below, waking threads costs more than it saves */

/* out = norm(x) * weight over `size` elements, with x[outer, inner, size] at `stride` elements per
   outer index. With a residual, [outer * inner, size], x + residual is normed and written to `total`.
   `wide_weight` (float32) or `weight` (element) is given; the product is taken in its type. */
void rms_norm(const element *x, const element *residual, const element *weight,
              const float *wide_weight, element *out, element *total, int64_t outer, int64_t inner,
              int64_t size, int64_t stride, float eps, int32_t threads) {
    int64_t rows = outer * inner;
    int is_shared = threads > 1 && rows * size > WORTH_SHARING;
#pragma omp parallel for num_threads(threads) if (is_shared)
    for (int64_t row = 0; row < rows; row++) {
        const element *from = x + row / inner * stride + row % inner * size;
        element *to = out + row * size;
        vec squares = splat(0);
        float rest = 0;
        int64_t i = 0;
        for (; i + LANES <= size; i += LANES) {
            vec value = load(from + i);
            if (residual) {
                store(total + row * size + i, value + load(residual + row * size + i));
                value = load(total + row * size + i);
            }
            squares += value * value;
        }
        for (; i < size; i++) {
            element value = from[i];
            if (residual) {
                value = narrow(widen(value) + widen(residual[row * size + i]));
                total[row * size + i] = value;
            }
            rest += widen(value) * widen(value);
        }
        if (residual) from = total + row * size;
        float scale = 1.0f / sqrtf((sum_lanes(squares) + rest) / size + eps);
        for (i = 0; i + LANES <= size; i += LANES) {
            vec normed = load(from + i) * scale;
            if (wide_weight) {
                store(to + i, normed * load_f32(wide_weight + i));
            } else {
                store(to + i, normed);
                store(to + i, load(to + i) * load(weight + i));
            }
        }
        for (; i < size; i++) {
            float normed = widen(from[i]) * scale;
            to[i] = narrow(wide_weight ? normed * wide_weight[i]
                                       : widen(narrow(normed)) * widen(weight[i]));
        }
    }
}

/* Rotate pairs (i, i + half) of each head by cosines[half], sines[half]. */
INLINE void rotate(const element *from, const element *angles, element *to, int64_t half,
                   int64_t head_dim) {
    for (int64_t i = 0; i < half; i++) {
        float a = widen(from[i]), b = widen(from[half + i]);
        float cos = widen(angles[i]), sin = widen(angles[half + i]);
        to[i] = narrow(a * cos - b * sin);
        to[half + i] = narrow(b * cos + a * sin);
    }
    if (to != from) memcpy(to + 2 * half, from + 2 * half, sizeof(element) * (head_dim - 2 * half));
}

/* Codes and scales of the KV heads of one token at `slot`. */
static void write_codes(int kind, const element *heads, int64_t num_kv_heads, int64_t head_dim,
                        int64_t slot, uint8_t *codes, float *scales) {
    float wide[MOST_DIM + LANES];
    for (int64_t h = 0; h < num_kv_heads; h++) {
        int64_t row = slot * num_kv_heads + h, d = 0;
        for (; d < head_dim; d++) wide[d] = widen(heads[h * head_dim + d]);
        for (; d % LANES; d++) wide[d] = 0;
        scales[row] = encode(kind, wide, head_dim, codes + row * head_dim);
    }
}

/* Rotate queries in place; rotate keys into their slots, copy values into theirs, both as codes if
   `codes` is not PLAIN. Heads are contiguous; tokens lie at their own strides. table[positions] is
   [2, half]: cosines, sines. head_dim of codes is at most MOST_DIM. */
void rotate_and_write(element *query, const element *key, const element *value, void *keys,
                      void *values, float *key_scales, float *value_scales, const element *table,
                      const int64_t *positions, const int64_t *slots, int64_t tokens,
                      int64_t num_heads, int64_t num_kv_heads, int64_t head_dim, int64_t half,
                      int64_t query_stride, int64_t key_stride, int64_t value_stride,
                      int32_t codes, int32_t threads) {
    int64_t width = num_kv_heads * head_dim;
    int is_shared = threads > 1 && tokens * (num_heads + 2 * num_kv_heads) * head_dim > WORTH_SHARING;
#pragma omp parallel for num_threads(threads) if (is_shared)
    for (int64_t t = 0; t < tokens; t++) {
        const element *angles = table + positions[t] * 2 * half;
        element turned[MOST_DIM];
        for (int64_t h = 0; h < num_heads; h++) {
            element *head = query + t * query_stride + h * head_dim;
            rotate(head, angles, head, half, head_dim);
        }
        for (int64_t h = 0; h < num_kv_heads; h++) {
            const element *head = key + t * key_stride + h * head_dim;
            if (codes == PLAIN) {
                rotate(head, angles, (element *)keys + slots[t] * width + h * head_dim, half, head_dim);
                continue;
            }
            rotate(head, angles, turned, half, head_dim);
            write_codes(codes, turned, 1, head_dim, slots[t] * num_kv_heads + h, keys, key_scales);
        }
        const element *from = value + t * value_stride;
        if (codes == PLAIN) memcpy((element *)values + slots[t] * width, from, sizeof(element) * width);
        else write_codes(codes, from, num_kv_heads, head_dim, slots[t], values, value_scales);
    }
}
