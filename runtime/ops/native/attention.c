/* Causal attention over paged keys and values, read where they lie, in tiles with a running softmax
   (Milakov and Gimelshein, 2018; Dao et al., 2022): no memory grows with the context.

   A task is a run of a sequence's queries under one KV head: its rows are (query, head of the group)
   pairs, so each key and value is read once for the whole group. */
#include "codes.h"
#include "tile.h"

#define SPAN 64  /* keys at a time */
#define AHEAD 16 /* tokens whose keys and values are fetched before they are needed */
#define MOST_ROWS 96

typedef struct {
    const int32_t *tables;       /* [num_seqs, table_stride]: block ids */
    const int32_t *query_starts; /* [num_seqs + 1] */
    const int32_t *context_lens; /* [num_seqs] */
    int64_t table_stride, num_seqs, block_size, num_heads, num_kv_heads, head_dim;
    int64_t window;       /* 0: none */
    float scale, softcap; /* cap 0: none */
    int32_t codes;        /* PLAIN: the cache holds elements */
    const float *key_scales, *value_scales; /* [num_blocks, block_size, num_kv_heads], of codes */
    int32_t one_order;    /* sums do not depend on how many queries a task has */
} attention_step;

typedef struct {
    float queries[MOST_ROWS * MOST_DIM] ALIGNED; /* scaled; many rows: interleaved by tile */
    float keys[SPAN * MOST_DIM] ALIGNED;         /* [SPAN / TILE_COLUMNS, head_dim, TILE_COLUMNS] */
    float values[SPAN * MOST_DIM] ALIGNED;       /* [panels of head_dim, SPAN, TILE_COLUMNS] */
    float scores[MOST_ROWS * SPAN] ALIGNED;      /* [SPAN / TILE_COLUMNS, rows, TILE_COLUMNS] */
    float shares[MOST_ROWS * SPAN] ALIGNED;      /* per tile of rows: [SPAN, tile rows] */
    float sums[MOST_ROWS * MOST_DIM] ALIGNED;    /* [panels of head_dim, rows, TILE_COLUMNS] */
    float peaks[MOST_ROWS], totals[MOST_ROWS];
} workspace;

int64_t attention_most_dim(void) { return MOST_DIM; }

/* Widen keys and values of `count` tokens from `start`, of `end` that will be read; keys are laid out
   in panels of tokens if asked. */
INLINE void read_tokens(const int kind, const attention_step *step, const int32_t *table,
                        int64_t head, const char *keys, const char *values, int64_t start,
                        int64_t count, int64_t end, int lay_out_keys, workspace *w) {
    const int64_t number = kind == PLAIN ? sizeof(element) : 1; /* bytes */
    int64_t dim = step->head_dim, heads = step->num_kv_heads, size = step->block_size;
    int64_t block = start / size, place = start % size; /* counted on: divisions are slow */
    int64_t next_block = (start + AHEAD) / size, next_place = (start + AHEAD) % size;
    for (int64_t t = 0; t < count; t++) {
        int64_t row = ((int64_t)table[block] * size + place) * heads + head;
        const char *key = keys + row * dim * number, *value = values + row * dim * number;
        float key_scale = kind == PLAIN ? 1 : step->key_scales[row];
        float value_scale = kind == PLAIN ? 1 : step->value_scales[row];
        if (++place == size) place = 0, block++;
        if (start + t + AHEAD < end) { /* one head's rows lie apart: hardware fetches them late */
            int64_t next = ((int64_t)table[next_block] * size + next_place) * heads + head;
            for (int64_t at = 0; at < dim * number; at += LINE) {
                __builtin_prefetch(keys + next * dim * number + at, 0, 2);
                __builtin_prefetch(values + next * dim * number + at, 0, 2);
            }
            if (kind != PLAIN) {
                __builtin_prefetch(step->key_scales + next, 0, 2);
                __builtin_prefetch(step->value_scales + next, 0, 2);
            }
            if (++next_place == size) next_place = 0, next_block++;
        }
        if (lay_out_keys) {
            float *panel = w->keys + t / TILE_COLUMNS * TILE_COLUMNS * dim + t % TILE_COLUMNS;
            int64_t d = 0;
            for (; d + LANES <= dim && kind != PLAIN; d += LANES) {
                vec part = load_number(kind, key, d, key_scale);
                for (int i = 0; i < LANES; i++) panel[(d + i) * TILE_COLUMNS] = part[i];
            }
            for (; d < dim; d++) panel[d * TILE_COLUMNS] = widen_number(kind, key, d, key_scale);
        } else {
            float *row = w->keys + t * MOST_DIM;
            int64_t d = 0;
            for (; d + LANES <= dim; d += LANES) store_f32(row + d, load_number(kind, key, d, key_scale));
            for (; d < dim; d++) row[d] = widen_number(kind, key, d, key_scale);
        }
        for (int64_t d = 0; d < dim; d += TILE_COLUMNS) {
            float *row = w->values + d * SPAN + t * TILE_COLUMNS;
            if (d + TILE_COLUMNS <= dim) {
                store_f32(row, load_number(kind, value, d, value_scale));
                store_f32(row + LANES, load_number(kind, value, d + LANES, value_scale));
            } else {
                for (int64_t i = 0; i < TILE_COLUMNS; i++)
                    row[i] = d + i < dim ? widen_number(kind, value, d + i, value_scale) : 0;
            }
        }
    }
}

static void read_any(const attention_step *step, const int32_t *table, int64_t head,
                     const char *keys, const char *values, int64_t start, int64_t count,
                     int64_t end, int lay_out_keys, workspace *w) {
#define READ(constant) \
    read_tokens(constant, step, table, head, keys, values, start, count, end, lay_out_keys, w)
    if (step->codes == PLAIN) READ(PLAIN);
    else if (step->codes == INT8_CODES) READ(INT8_CODES);
    else READ(FP8_CODES);
#undef READ
}

/* Scores of few rows, one key at a time: [rows, dim] by MOST_DIM, padded with zeros. The rows'
   chains of additions run side by side; `rows` is a constant. */
INLINE void score_rows(const int rows, int64_t dim, int64_t count, workspace *w) {
    for (int64_t t = 0; t < count; t++) {
        const float *key = w->keys + t * MOST_DIM;
        float *scores = w->scores + t / TILE_COLUMNS * rows * TILE_COLUMNS + t % TILE_COLUMNS;
        vec sums[TILE_ROWS];
#pragma GCC unroll 12
        for (int r = 0; r < rows; r++) sums[r] = splat(0);
        for (int64_t d = 0; d < dim; d += LANES) {
            vec part = load_f32(key + d);
#pragma GCC unroll 12
            for (int r = 0; r < rows; r++) sums[r] += load_f32(w->queries + r * MOST_DIM + d) * part;
        }
#pragma GCC unroll 12
        for (int r = 0; r < rows; r++) scores[r * TILE_COLUMNS] = sum_lanes(sums[r]);
    }
}

static void score_few(int64_t rows, int64_t dim, int64_t count, workspace *w) {
#define CASE(constant) \
    case constant: score_rows(constant, dim, count, w); break;
    switch (rows) {
        EACH_ROW_COUNT(CASE)
    }
#undef CASE
}

static void score_many(int64_t rows, int64_t dim, int64_t count, workspace *w) {
    for (int64_t t = 0; t < count; t += TILE_COLUMNS) {
        for (int64_t row = 0, width; row < rows; row += width) {
            width = tile_rows(row, rows);
            tile_any(width, w->queries + row * dim, w->keys + t * dim, dim,
                     w->scores + t * rows + row * TILE_COLUMNS, 1, 0, 0);
        }
    }
}

/* Turn one row's scores of keys low <= t < high into shares; the others' shares are zero. */
INLINE void soften(int64_t row, int64_t rows, int64_t low, int64_t high, int64_t count, float cap,
                   int64_t dim, float *shares, int64_t stride, workspace *w) {
    int64_t panels = (count + TILE_COLUMNS - 1) / TILE_COLUMNS;
    if (low >= high) {
        for (int64_t t = 0; t < count; t++) shares[t * stride] = 0;
        return;
    }
    vec scores[SPAN / LANES], peak = splat(w->peaks[row]);
    ivec lane;
    for (int i = 0; i < LANES; i++) lane[i] = i;
    for (int64_t i = 0; i < 2 * panels; i++) {
        int64_t t = i * LANES;
        vec x = load_f32(w->scores + (i / 2 * rows + row) * TILE_COLUMNS + i % 2 * LANES);
        if (cap > 0) x = tanh_vec(x / cap) * cap;
        ivec is_seen = (lane >= (int32_t)(low - t)) & (lane < (int32_t)(high - t));
        scores[i] = select_vec(is_seen, x, splat(-INFINITY));
        peak = max_vec(peak, scores[i]);
    }
    float most = max_lanes(peak);
    vec total = splat(0);
    float flat[SPAN] ALIGNED;
    for (int64_t i = 0; i < 2 * panels; i++) {
        vec x = exp_vec(scores[i] - most);
        x = select_vec(scores[i] > -INFINITY, x, splat(0));
        total += x;
        store_f32(flat + i * LANES, x);
    }
    for (int64_t t = 0; t < count; t++) shares[t * stride] = flat[t];
    if (most > w->peaks[row]) {
        float shrink = exp_vec(splat(w->peaks[row] - most))[0];
        w->totals[row] *= shrink;
        for (int64_t d = 0; d < dim; d += LANES) {
            float *sums = w->sums + (d / TILE_COLUMNS * rows + row) * TILE_COLUMNS + d % TILE_COLUMNS;
            store_f32(sums, load_f32(sums) * shrink);
        }
        w->peaks[row] = most;
    }
    w->totals[row] += sum_lanes(total);
}

static void attend_rows(const attention_step *step, int64_t seq, int64_t first, int64_t queries,
                        int64_t head, const element *query, int64_t query_stride,
                        const char *keys, const char *values, element *out, workspace *w) {
    int64_t group = step->num_heads / step->num_kv_heads, dim = step->head_dim;
    int64_t rows = queries * group, is_few = rows <= TILE_ROWS && !step->one_order;
    int64_t token = step->query_starts[seq] + first;
    int64_t query_len = step->query_starts[seq + 1] - step->query_starts[seq];
    int64_t position = step->context_lens[seq] - query_len + first; /* of the first query */
    const int32_t *table = step->tables + seq * step->table_stride;
    for (int64_t row = 0, width; row < rows; row += width) {
        width = is_few ? rows : tile_rows(row, rows);
        for (int64_t r = 0; r < width; r++) {
            int64_t at = row + r;
            const element *from = query + (token + at / group) * query_stride
                                + (head * group + at % group) * dim;
            for (int64_t d = 0; d < dim; d++)
                w->queries[is_few ? at * MOST_DIM + d : row * dim + d * width + r]
                    = widen(from[d]) * step->scale;
            for (int64_t d = dim; is_few && d % LANES; d++) {
                w->queries[at * MOST_DIM + d] = 0;
                for (int64_t t = 0; t < SPAN; t++) w->keys[t * MOST_DIM + d] = 0;
            }
            w->peaks[at] = -INFINITY;
            w->totals[at] = 0;
        }
    }
    int64_t padded = (dim + TILE_COLUMNS - 1) / TILE_COLUMNS * TILE_COLUMNS;
    memset(w->sums, 0, sizeof(float) * rows * padded);
    int64_t start = 0, end = position + queries;
    if (step->window && position - step->window + 1 > 0) start = position - step->window + 1;
    if (step->one_order) start = start / SPAN * SPAN; /* spans are the same for all queries */
    for (; start < end; start += SPAN) {
        int64_t count = end - start < SPAN ? end - start : SPAN;
        read_any(step, table, head, keys, values, start, count, end, !is_few, w);
        if (is_few) score_few(rows, dim, count, w);
        else score_many(rows, dim, count, w);
        for (int64_t row = 0, width; row < rows; row += width) {
            width = tile_rows(row, rows);
            for (int64_t r = 0; r < width; r++) {
                int64_t now = position + (row + r) / group, high = now + 1 - start;
                int64_t low = step->window ? now + 1 - step->window - start : 0;
                soften(row + r, rows, low < 0 ? 0 : low, high < count ? high : count, count,
                       step->softcap, padded, w->shares + row * SPAN + r, width, w);
            }
            for (int64_t d = 0; d < dim; d += TILE_COLUMNS)
                tile_any(width, w->shares + row * SPAN, w->values + d * SPAN, count,
                         w->sums + (d / TILE_COLUMNS * rows + row) * TILE_COLUMNS, 0, 0, 0);
        }
    }
    for (int64_t row = 0; row < rows; row++) {
        element *to = out + ((token + row / group) * step->num_heads + head * group + row % group) * dim;
        float scale = 1.0f / w->totals[row];
        for (int64_t d = 0; d < dim; d++)
            to[d] = narrow(w->sums[(d / TILE_COLUMNS * rows + row) * TILE_COLUMNS + d % TILE_COLUMNS] * scale);
    }
}

/* query[num_tokens, num_heads, head_dim] by `query_stride` elements per token; keys and values are
   [num_blocks, block_size, num_kv_heads, head_dim] of elements or codes; out[num_tokens, num_heads * head_dim]. */
void attention(const attention_step *step, const element *query, int64_t query_stride,
               const char *keys, const char *values, element *out, int32_t threads) {
    int64_t group = step->num_heads / step->num_kv_heads;
    int64_t most = group < MOST_ROWS ? MOST_ROWS / group : 1; /* queries of a task */
    int64_t next = 0;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        workspace w;
        int64_t seq = 0, before = 0; /* tasks of the sequences before `seq` */
        for (;;) {
            int64_t task = __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED);
            int64_t queries = 0, runs = 0;
            for (; seq < step->num_seqs; seq++) {
                queries = step->query_starts[seq + 1] - step->query_starts[seq];
                runs = (queries + most - 1) / most;
                if (task - before < runs * step->num_kv_heads) break;
                before += runs * step->num_kv_heads;
            }
            if (seq == step->num_seqs) break;
            int64_t first = (task - before) / step->num_kv_heads * most;
            int64_t count = queries - first < most ? queries - first : most;
            attend_rows(step, seq, first, count, (task - before) % step->num_kv_heads, query,
                        query_stride, keys, values, out, &w);
        }
    }
}
