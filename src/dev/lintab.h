/* lintab.h: tables of how a GPU computes its matrix products (OP_LINEAR): for each shape and number of rows the algorithm that was fastest when
 * `minisgl tune` tried them. A table is a text file of parts, one a GPU and version of cuBLASLt:
 *
 *     gpu 132 90 130100 NVIDIA H200
 *     4096 1024 bf16 bf16 0 64 lt 66 20 36 1 0 0 0 0 5 3.10 7.00
 *     4096 1024 bf16 bf16 0 16 own 128 4 2 2.40 6.90
 *
 * A gpu line: multiprocessors, compute capability, cublasLtGetVersion(), name. A row: n, k, dtype of x and w, dtype of y, bias or none (1, 0), rows;
 * then the way: `lt` cuBLASLt's configuration (id, tile, stages, split of k, reduction scheme, swizzle, custom option, inner shape, cluster
 * shape, as cublasLtMatmulAlgoConfigGetAttribute has them), `own` our kernel for few rows (tile of n, split of k, blocks a multiprocessor), `gemv` our matrix-vector
 * kernel; and last microseconds, its own and those of the library's first choice (0: it has none). Lines with # are comments. Rows are tuned at
 * some numbers of rows; others take the way of the next larger one.
 *
 * Plain data, no device: the program reads and merges tables with it, the CUDA backend looks ways up. */
#ifndef MINISGL_DEV_LINTAB_H
#define MINISGL_DEV_LINTAB_H
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum lintab_type { LINTAB_F32, LINTAB_BF16, LINTAB_F16 }; /* in the order of enum dtype */

struct lintab_shape {
    int32_t n, k;
    enum lintab_type x, y;
    bool bias;
};

enum lintab_kind { LINTAB_LT, LINTAB_OWN, LINTAB_GEMV };
enum { LT_ID, LT_TILE, LT_STAGES, LT_SPLIT_K, LT_REDUCTION, LT_SWIZZLE, LT_CUSTOM, LT_INNER, LT_CLUSTER, LT_COUNT };
enum { OWN_TILE, OWN_SPLIT, OWN_BLOCKS, OWN_COUNT };

struct lintab_way {
    enum lintab_kind kind;
    int32_t v[LT_COUNT]; /* LT_..., OWN_... */
};

struct lintab_row {
    int32_t part;
    struct lintab_shape shape;
    int32_t rows;
    struct lintab_way way;
    float us, first_us;
    float library_us, own_us, gemv_us; /* of the best of each kind, at first sight, 0: none; not in files */
};

struct lintab_gpu {
    int32_t sms, capability, version;
    char name[64];
};

struct lintab {
    struct lintab_gpu *parts;
    struct lintab_row *rows; /* sorted once it was read or merged */
    int32_t n_parts, n_rows, cap_rows;
};

enum { LINTAB_BYTES_MAX = 16 << 20 };

/* Read a text of n bytes; an error names the line. *t is to be released in any case. */
int lintab_read(struct lintab *t, const char *text, size_t n, struct err *e);
void lintab_release(struct lintab *t);
/* Put a row into the part of this GPU (made where there is none), in place of one for the same shape and number of rows. */
void lintab_put(struct lintab *t, const struct lintab_gpu *gpu, const struct lintab_row *row);
void lintab_write(const struct lintab *t, FILE *to);

/* The part for a GPU: the same capability, multiprocessors and minor version of cuBLASLt; of several the one with its name (H100 and H200 have the
 * same processors: what is best for one is good for the other). -1: none. */
int32_t lintab_part(const struct lintab *t, const struct lintab_gpu *gpu);
/* The row of a part for a shape: tuned at `rows`, else at the next larger number, at most twice as many; NULL: none. */
const struct lintab_row *lintab_find(const struct lintab *t, int32_t part, const struct lintab_shape *shape, int32_t rows);

#endif
