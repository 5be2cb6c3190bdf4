/* Eq. 17 over the keys on a CPU, forward and backward: each pair of items is visited once, and its values stay in cache.

   alpha (B, H, T L, T L), v and out (B, H, T L, C), table (K2, H C), index (B, T, T); float32, contiguous.
   The levels of a pair are summed before its factors are applied, so an item pair costs L L C products instead of a
   vector per token pair. With `causal` the pairs whose key comes after the query are left out. */

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define MAX_LEVELS 16

typedef struct {
    int64_t users, heads, items, levels, width, rows, causal, parts, threads;
} Sizes;

static int nothing(const float *alpha, int64_t tokens, int64_t levels) {
    for (int64_t l = 0; l < levels; l++)
        for (int64_t m = 0; m < levels; m++)
            if (alpha[l * tokens + m] != 0.0f) return 0;
    return 1;
}

static inline void pair_forward(const float *restrict alpha, const float *restrict v, const float *restrict f,
                                float *restrict out, int64_t tokens, int64_t levels, int64_t width) {
    for (int64_t l = 0; l < levels; l++) {
        float a[MAX_LEVELS];
        for (int64_t m = 0; m < levels; m++) a[m] = alpha[l * tokens + m];
        for (int64_t c = 0; c < width; c++) {
            float sum = 0.0f;
            for (int64_t m = 0; m < levels; m++) sum += a[m] * v[m * width + c];
            out[l * width + c] += f[c] * sum;
        }
    }
}

static inline void pair_backward(const float *restrict alpha, const float *restrict v, const float *restrict f,
                                 const float *restrict grad, float *restrict grad_alpha, float *restrict grad_v,
                                 float *restrict grad_f, int64_t tokens, int64_t levels, int64_t width) {
    for (int64_t m = 0; m < levels; m++) {
        float a[MAX_LEVELS];
        for (int64_t l = 0; l < levels; l++) a[l] = alpha[l * tokens + m];
        for (int64_t c = 0; c < width; c++) {
            float mixed = 0.0f;
            for (int64_t l = 0; l < levels; l++) mixed += a[l] * grad[l * width + c];
            grad_v[m * width + c] += mixed * f[c];
            grad_f[c] += mixed * v[m * width + c];
        }
        for (int64_t l = 0; l < levels; l++) {
            float sum = 0.0f;
            for (int64_t c = 0; c < width; c++) sum += grad[l * width + c] * f[c] * v[m * width + c];
            grad_alpha[l * tokens + m] = sum;
        }
    }
}

/* The usual number of levels as a constant, so that the loops over them are unrolled. */
#define DISPATCH(call)                                                                                                 \
    switch (s.levels) {                                                                                                \
    case 1: { const int64_t levels = 1; call; break; }                                                                 \
    case 2: { const int64_t levels = 2; call; break; }                                                                 \
    case 3: { const int64_t levels = 3; call; break; }                                                                 \
    case 4: { const int64_t levels = 4; call; break; }                                                                 \
    default: { const int64_t levels = s.levels; call; break; }                                                         \
    }

void similarity_mix_forward(Sizes s, const float *alpha, const float *v, const float *table, const int64_t *index,
                            float *out) {
    const int64_t tokens = s.items * s.levels, step = s.levels * s.width;
#pragma omp parallel for num_threads(s.threads) schedule(static)
    for (int64_t b = 0; b < s.users; b++)
        for (int64_t h = 0; h < s.heads; h++) {
            const int64_t at = b * s.heads + h;
            const float *a = alpha + at * tokens * tokens, *values = v + at * tokens * s.width;
            float *result = out + at * tokens * s.width;
            memset(result, 0, sizeof(float) * tokens * s.width);
            for (int64_t i = 0; i < s.items; i++)
                for (int64_t j = 0; j < (s.causal ? i + 1 : s.items); j++) {
                    const float *pair = a + i * s.levels * tokens + j * s.levels;
                    if (nothing(pair, tokens, s.levels)) continue;
                    const float *f = table + (index[(b * s.items + i) * s.items + j] * s.heads + h) * s.width;
                    DISPATCH(pair_forward(pair, values + j * step, f, result + i * step, tokens, levels, s.width))
                }
        }
}

/* grad_alpha and grad_v are zero on entry, as is grad_table (parts, K2, H C): a part per group of users, summed by the
   caller in order, so that results depend neither on the number of threads nor on who finishes first. */
void similarity_mix_backward(Sizes s, const float *alpha, const float *v, const float *table, const int64_t *index,
                             const float *grad, float *grad_alpha, float *grad_v, float *grad_table) {
    const int64_t tokens = s.items * s.levels, step = s.levels * s.width;
#pragma omp parallel for num_threads(s.threads) schedule(static)
    for (int64_t part = 0; part < s.parts; part++) {
        float *own = grad_table + part * s.rows * s.heads * s.width;
        for (int64_t b = s.users * part / s.parts; b < s.users * (part + 1) / s.parts; b++)
            for (int64_t h = 0; h < s.heads; h++) {
                const int64_t at = b * s.heads + h;
                const float *a = alpha + at * tokens * tokens, *values = v + at * tokens * s.width;
                const float *g = grad + at * tokens * s.width;
                float *ga = grad_alpha + at * tokens * tokens, *gv = grad_v + at * tokens * s.width;
                for (int64_t i = 0; i < s.items; i++)
                    for (int64_t j = 0; j < (s.causal ? i + 1 : s.items); j++) {
                        const int64_t place = i * s.levels * tokens + j * s.levels;
                        const int64_t row = (index[(b * s.items + i) * s.items + j] * s.heads + h) * s.width;
                        DISPATCH(pair_backward(a + place, values + j * step, table + row, g + i * step, ga + place,
                                               gv + j * step, own + row, tokens, levels, s.width))
                    }
            }
    }
}
