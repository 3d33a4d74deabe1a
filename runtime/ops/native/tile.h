/* A product of few rows and TILE_COLUMNS columns, with the sums in registers: the heart of linear
   layers and of attention. */
#pragma once
#include "lanes.h"

#define LINE 64
#define ALIGNED __attribute__((aligned(LINE)))

/* The row counts of a tile, each of them a constant to the compiler. */
#if TILE_ROWS == 12
#define EACH_ROW_COUNT(CASE) \
    CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12)
#else
#define EACH_ROW_COUNT(CASE) CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6)
#endif

int omp_get_thread_num(void);

/* sums[rows, TILE_COLUMNS] (+)= x[rows, depth] chunk[depth, TILE_COLUMNS]; `rows` is a constant.
   Memory `ahead` is fetched meanwhile, `ahead_step` bytes per step of the depth. */
INLINE void tile(const int rows, const float *x, const float *chunk, int64_t depth, float *sums,
                 int is_first, const char *ahead, int64_t ahead_step) {
    vec low[TILE_ROWS], high[TILE_ROWS];
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++) {
        low[r] = is_first ? splat(0) : load_f32(sums + r * TILE_COLUMNS);
        high[r] = is_first ? splat(0) : load_f32(sums + r * TILE_COLUMNS + LANES);
    }
    for (int64_t i = 0; i < depth; i++) {
        vec a = load_f32(chunk + i * TILE_COLUMNS), b = load_f32(chunk + i * TILE_COLUMNS + LANES);
        if (ahead) __builtin_prefetch(ahead + i * ahead_step, 0, 2);
#pragma GCC unroll 12
        for (int r = 0; r < rows; r++) {
            vec value = splat(x[i * rows + r]);
            low[r] += value * a;
            high[r] += value * b;
        }
    }
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++) {
        store_f32(sums + r * TILE_COLUMNS, low[r]);
        store_f32(sums + r * TILE_COLUMNS + LANES, high[r]);
    }
}

static void tile_any(int64_t rows, const float *x, const float *chunk, int64_t depth, float *sums,
                     int is_first, const char *ahead, int64_t ahead_step) {
#define CASE(count) \
    case count: tile(count, x, chunk, depth, sums, is_first, ahead, ahead_step); break;
    switch (rows) {
        EACH_ROW_COUNT(CASE)
    }
#undef CASE
}

/* Rows of the tile that starts at `row`: as even as whole numbers allow, none above TILE_ROWS. */
INLINE int64_t tile_rows(int64_t row, int64_t rows) {
    int64_t tiles = (rows - row + TILE_ROWS - 1) / TILE_ROWS;
    return (rows - row + tiles - 1) / tiles;
}
