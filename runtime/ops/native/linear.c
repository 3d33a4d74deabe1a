/* y = x W^T + b for packed weights, the gated product act(x G^T) * (x U^T), and their packing.

   Blocking is that of Goto and van de Geijn (2008): a chunk of DEPTH weights by TILE_COLUMNS columns
   stays in the first-level cache while all rows of x pass by in tiles held in registers. Weights may
   be stored as fp32, bf16, or levels of 8 or 4 bits; narrow ones are widened to fp32 once per chunk.
   A level q stands for (q - zero) * scale, which fp32 holds exactly where the scale was fp16 or bf16:
   what is multiplied is then the dequantised weight itself. */
#include "tile.h"

#ifdef __linux__
#include <sys/mman.h>
#endif

#define DEPTH 256
#define CACHE_FLOATS 65536 /* of x at a time: a quarter of a MiB stays in the second-level cache */
#define MOST_ROWS 96
#define AHEAD 1024 /* bytes of one row's weights to fetch before their turn */

/* INT8 has one scale per column, which multiplies the sum; the others have one per group of k. */
enum format { FP32 = 0, BF16 = 1, INT8 = 2, UINT4 = 3, UINT8 = 4 };
enum activation { NONE = 0, SILU = 1, GELU_TANH = 2 };

typedef struct {
    const void *weights;  /* [panels, k, TILE_COLUMNS]; 4 bits: two columns a byte, halves apart */
    const float *scales;  /* int8: [panels, TILE_COLUMNS]; levels: [panels, groups, TILE_COLUMNS] */
    const uint8_t *zeros; /* as scales; null for the middle level */
    const float *bias;    /* [n] or null */
    int64_t k, n, group;  /* the last group may be short */
    int32_t format, activation; /* with an activation, panels alternate: gate, up; n counts pairs */
} packed_linear;

int32_t tile_columns(void) { return TILE_COLUMNS; }

/* Ask for large pages under memory that is about to be written: panels are read in one sweep. */
void advise(void *memory, int64_t bytes) {
#ifdef MADV_HUGEPAGE
    uintptr_t page = 4096, start = ((uintptr_t)memory + page - 1) / page * page;
    uintptr_t end = ((uintptr_t)memory + bytes) / page * page;
    if (end > start) madvise((void *)start, end - start, MADV_HUGEPAGE);
#else
    (void)memory;
    (void)bytes;
#endif
}

/* Rows of x at a time: as many as stay in the second-level cache. */
INLINE int64_t most_rows(int64_t k) {
    int64_t most = CACHE_FLOATS / k / TILE_ROWS * TILE_ROWS;
    return most < TILE_ROWS ? TILE_ROWS : most > MOST_ROWS ? MOST_ROWS : most;
}

/* Floats of scratch memory that `linear` needs per thread. */
int64_t scratch_floats(int64_t k) { return most_rows(k) * k; }

INLINE int64_t panel_bytes(const packed_linear *w) {
    int64_t count = w->k * TILE_COLUMNS;
    return w->format == FP32 ? 4 * count : w->format == BF16 ? 2 * count
         : w->format == UINT4 ? count / 2 : count;
}

typedef struct {
    vec scale, scale_high, zero, zero_high;
} group_scales;

/* Of the columns of a panel, by the index of the group among all panels'. */
INLINE group_scales scales_of(const packed_linear *w, int64_t group) {
    const float *scales = w->scales + group * TILE_COLUMNS;
    vec middle = splat(w->format == UINT4 ? 8 : 128);
    group_scales found = {load_f32(scales), load_f32(scales + LANES), middle, middle};
    if (w->zeros) {
        found.zero = load_u8(w->zeros + group * TILE_COLUMNS);
        found.zero_high = load_u8(w->zeros + group * TILE_COLUMNS + LANES);
    }
    return found;
}

/* Widen levels of 4 or 8 bits, group by group. */
static void widen_levels(const packed_linear *w, int64_t panel, const char *base, int64_t start,
                         int64_t depth, float *chunk) {
    int64_t groups = (w->k + w->group - 1) / w->group;
    for (int64_t row = 0, end; row < depth; row = end) {
        int64_t group = (start + row) / w->group;
        group_scales g = scales_of(w, panel * groups + group);
        end = (group + 1) * w->group - start;
        if (end > depth) end = depth;
        if (w->format == UINT4) {
            const uint8_t *from = (const uint8_t *)base + start * LANES;
            for (int64_t i = row; i < end; i++) {
                ivec pair = widen_u8(from + i * LANES);
                vec low = __builtin_convertvector(pair & 15, vec);
                vec high = __builtin_convertvector(pair >> 4, vec);
                store_f32(chunk + i * TILE_COLUMNS, (low - g.zero) * g.scale);
                store_f32(chunk + i * TILE_COLUMNS + LANES, (high - g.zero_high) * g.scale_high);
            }
        } else {
            const uint8_t *from = (const uint8_t *)base + start * TILE_COLUMNS;
            for (int64_t i = row * TILE_COLUMNS; i < end * TILE_COLUMNS; i += TILE_COLUMNS) {
                store_f32(chunk + i, (load_u8(from + i) - g.zero) * g.scale);
                vec high = load_u8(from + i + LANES);
                store_f32(chunk + i + LANES, (high - g.zero_high) * g.scale_high);
            }
        }
    }
}

/* Widen `depth` weights by TILE_COLUMNS from position `start` of a panel. */
static const float *widen_chunk(const packed_linear *w, int64_t panel, int64_t start, int64_t depth,
                                float *chunk) {
    const char *base = (const char *)w->weights + panel * panel_bytes(w);
    int64_t count = depth * TILE_COLUMNS, first = start * TILE_COLUMNS;
    if (w->format == FP32) return (const float *)base + first;
    if (w->format == BF16) {
        const uint16_t *from = (const uint16_t *)base + first;
        for (int64_t i = 0; i < count; i += TILE_COLUMNS) {
            store_f32(chunk + i, load_bf16(from + i));
            store_f32(chunk + i + LANES, load_bf16(from + i + LANES));
        }
    } else if (w->format == INT8) {
        const int8_t *from = (const int8_t *)base + first;
        for (int64_t i = 0; i < count; i += LANES)
            store_f32(chunk + i, load_i8(from + i));
    } else {
        widen_levels(w, panel, base, start, depth, chunk);
    }
    return chunk;
}

/* Lay the rows of each tile side by side: x[rows, k] -> per tile [k, tile rows]. */
static void interleave(const float *x, int64_t rows, int64_t k, float *tiles) {
    for (int64_t row = 0, count; row < rows; row += count) {
        count = tile_rows(row, rows);
        for (int64_t r = 0; r < count; r++)
            for (int64_t i = 0; i < k; i++) tiles[row * k + i * count + r] = x[(row + r) * k + i];
    }
}

/* One row times one panel of narrow weights, widened in registers: the same operations as below, in the
   same order, so that a row's sums are the same bits whatever its neighbours. */
static void multiply_row(const packed_linear *w, int64_t panel, const float *x, float *sums) {
    const uint8_t *from = (const uint8_t *)w->weights + panel * panel_bytes(w);
    int64_t groups = (w->k + w->group - 1) / w->group;
    vec low = splat(0), high = low;
    for (int64_t group = 0; group < groups; group++) {
        int64_t i = group * w->group, end = i + w->group < w->k ? i + w->group : w->k;
        group_scales g = scales_of(w, panel * groups + group);
        if (w->format == UINT4) {
            for (; i < end; i++) {
                ivec pair = widen_u8(from + i * LANES);
                vec value = splat(x[i]);
                __builtin_prefetch(from + i * LANES + AHEAD, 0, 2);
                vec a = (__builtin_convertvector(pair & 15, vec) - g.zero) * g.scale;
                vec b = (__builtin_convertvector(pair >> 4, vec) - g.zero_high) * g.scale_high;
                low += value * a;
                high += value * b;
            }
        } else {
            for (; i < end; i++) {
                vec value = splat(x[i]);
                __builtin_prefetch(from + i * TILE_COLUMNS + AHEAD, 0, 2);
                vec a = (load_u8(from + i * TILE_COLUMNS) - g.zero) * g.scale;
                vec b = load_u8(from + i * TILE_COLUMNS + LANES);
                b = (b - g.zero_high) * g.scale_high;
                low += value * a;
                high += value * b;
            }
        }
    }
    store_f32(sums, low);
    store_f32(sums + LANES, high);
}

/* sums[rows, TILE_COLUMNS] = the interleaved rows times one panel. */
static void multiply_panel(const packed_linear *w, int64_t panel, const float *tiles, int64_t rows,
                           float *sums, float *chunk) {
    if (rows == 1 && w->format >= UINT4) {
        multiply_row(w, panel, tiles, sums);
        return;
    }
    int64_t row_bytes = panel_bytes(w) / w->k;
    const char *next = (const char *)w->weights + panel * panel_bytes(w);
    for (int64_t start = 0; start < w->k; start += DEPTH) {
        int64_t depth = w->k - start < DEPTH ? w->k - start : DEPTH;
        const float *wide = widen_chunk(w, panel, start, depth, chunk);
        next += DEPTH * row_bytes; /* fetched while the first tile is multiplied */
        for (int64_t row = 0, count; row < rows; row += count) {
            count = tile_rows(row, rows);
            tile_any(count, tiles + row * w->k + start * count, wide, depth,
                     sums + row * TILE_COLUMNS, start == 0, row ? 0 : next, row_bytes);
        }
    }
}

INLINE vec activate(vec x, int32_t activation) {
    if (activation == SILU) return x / (1.0f + exp_vec(-x));
    vec inner = 0.7978845608028654f * (x + 0.044715f * x * x * x);
    return 0.5f * x * (1.0f + tanh_vec(inner));
}

static void finish(const packed_linear *w, int64_t panel, int64_t rows, const float *sums,
                   const float *up_sums, float *out) {
    int64_t column = panel * TILE_COLUMNS;
    int64_t width = w->n - column < TILE_COLUMNS ? w->n - column : TILE_COLUMNS;
    for (int half = 0; half < 2; half++) {
        int64_t at = half * LANES, left = width - at < LANES ? width - at : LANES;
        if (left <= 0) break;
        vec bias = splat(0), up_bias = splat(0), scale = splat(1), up_scale = splat(1);
        if (w->bias) {
            memcpy(&bias, w->bias + column + at, 4 * left);
            if (up_sums) memcpy(&up_bias, w->bias + w->n + column + at, 4 * left);
        }
        if (w->format == INT8) {
            int64_t gate = up_sums ? 2 * panel : panel;
            scale = load_f32(w->scales + gate * TILE_COLUMNS + at);
            if (up_sums) up_scale = load_f32(w->scales + (gate + 1) * TILE_COLUMNS + at);
        }
        for (int64_t row = 0; row < rows; row++) {
            vec value = load_f32(sums + row * TILE_COLUMNS + at) * scale + bias;
            if (up_sums) {
                vec up = load_f32(up_sums + row * TILE_COLUMNS + at) * up_scale + up_bias;
                value = activate(value, w->activation) * up;
            }
            memcpy(out + row * w->n + column + at, &value, 4 * left);
        }
    }
}

/* out[rows, n] of x[rows, k], both contiguous; `scratch` holds
   scratch_floats(k) floats per thread. */
void linear(const packed_linear *w, const float *x, float *out, int64_t rows, float *scratch,
            int32_t threads) {
    int64_t most = most_rows(w->k);
    int64_t panels = (w->n + TILE_COLUMNS - 1) / TILE_COLUMNS;
    int64_t blocks = (rows + most - 1) / most;
    most = (rows + blocks - 1) / blocks; /* even shares */
    int64_t run = panels / (8 * threads / blocks + 1) + 1;
    int64_t runs = (panels + run - 1) / run;
    int64_t next = 0, tasks = runs * blocks;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        float sums[2][MOST_ROWS * TILE_COLUMNS] __attribute__((aligned(LINE)));
        float chunk[DEPTH * TILE_COLUMNS] __attribute__((aligned(LINE)));
        float *tiles = scratch + omp_get_thread_num() * scratch_floats(w->k);
        int64_t laid_out = -1;
        for (;;) {
            int64_t task = __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED);
            if (task >= tasks) break;
            int64_t row = task / runs * most, panel = task % runs * run;
            int64_t count = rows - row < most ? rows - row : most;
            int64_t end = panel + run < panels ? panel + run : panels;
            if (row != laid_out) interleave(x + row * w->k, count, w->k, tiles);
            laid_out = row;
            for (; panel < end; panel++) {
                if (w->activation == NONE) {
                    multiply_panel(w, panel, tiles, count, sums[0], chunk);
                    finish(w, panel, count, sums[0], 0, out + row * w->n);
                } else {
                    multiply_panel(w, 2 * panel, tiles, count, sums[0], chunk);
                    multiply_panel(w, 2 * panel + 1, tiles, count, sums[1], chunk);
                    finish(w, panel, count, sums[0], sums[1], out + row * w->n);
                }
            }
        }
    }
}
