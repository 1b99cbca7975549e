/* linear.c: OP_LINEAR: y = x . w^T + bias, f32 sums. For every (n, k, rows, bias) one way is chosen once and kept: the one that a table of
 * measured products names (lintab.h: the user's, then the one that comes with the program), where the library agrees that it can be run; else
 * our matrix-vector kernel for few rows, else the first choice of cuBLASLt's heuristic, else our plain kernel. Rows come in steps (linear_rows), so
 * that a server chooses a bounded number of times. cuBLASLt sees column-major matrices, so a weight is its A, transposed. Runs on the
 * rank thread. */
#include "base/mem.h"
#include "dev/cuda/cuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static cudaDataType_t lt_type(enum dtype t) { return t == DT_F32 ? CUDA_R_32F : t == DT_BF16 ? CUDA_R_16BF : CUDA_R_16F; }

static int lt_ok(struct dev *d, cublasStatus_t rc, const char *what, struct err *e) {
    if (rc == CUBLAS_STATUS_SUCCESS) return 0;
    return err_machine(e, "rank %d, step %llu, operator %d: cuBLASLt refused %s: status %d", d->args.rank,
                       (unsigned long long)d->step, d->op_at, what, (int)rc);
}

int32_t linear_rows(int32_t n) {
    int32_t unit = n <= 4 ? 1 : n <= 64 ? 8 : n <= 256 ? 16 : n <= 1024 ? 64 : 256;
    return (n + unit - 1) / unit * unit;
}

/* ---- descriptors, made at load ---- */

static enum dtype output_of(const struct dev *d, const struct dop *o) {
    return o->o->kind == OP_MOE ? DT_F32 : buf_dtype(d, o->o->out);
}

static bool multiplies(const struct dop *o) { return o->o->kind == OP_LINEAR || o->o->kind == OP_MOE; }

int linear_describe(struct dev *d, struct dop *o, enum dtype output, struct err *e) {
    cublasOperation_t t = CUBLAS_OP_T;
    cublasLtEpilogue_t bias = CUBLASLT_EPILOGUE_BIAS;
    cudaDataType_t type = lt_type(output);
    if (lt_ok(d, cublasLtMatmulDescCreate(&o->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F), "a descriptor", e)) return -1;
    cublasLtMatmulDescSetAttribute(o->desc, CUBLASLT_MATMUL_DESC_TRANSA, &t, sizeof t);
    if (o->bias) {
        cublasLtMatmulDescSetAttribute(o->desc, CUBLASLT_MATMUL_DESC_EPILOGUE, &bias, sizeof bias);
        cublasLtMatmulDescSetAttribute(o->desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &o->bias, sizeof o->bias);
        cublasLtMatmulDescSetAttribute(o->desc, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &type, sizeof type);
    }
    cublasStatus_t rc = cublasLtMatrixLayoutCreate(&o->layout, lt_type(d->act), (uint64_t)o->w.k, (uint64_t)o->w.n, o->w.ld);
    return lt_ok(d, rc, "a layout", e);
}

void linear_forget(struct dop *o) {
    if (o->desc) cublasLtMatmulDescDestroy(o->desc);
    if (o->layout) cublasLtMatrixLayoutDestroy(o->layout);
    o->desc = NULL, o->layout = NULL;
}

/* ---- the tables ---- */

struct lintab_gpu linear_gpu(const struct dev *d) {
    struct lintab_gpu g = {.sms = d->n_sms, .capability = d->capability, .version = (int32_t)cublasLtGetVersion()};
    memcpy(g.name, d->name, sizeof g.name);
    return g;
}

int linear_tables(struct dev *d, struct err *e) {
    struct lintab_gpu gpu = linear_gpu(d);
    if (table_shipped(&d->shipped, e)) return -1;
    d->shipped_part = lintab_part(&d->shipped, &gpu);
    d->user_part = d->args.products ? lintab_part(d->args.products, &gpu) : -1;
    return 0;
}

static enum lintab_type tab_type(enum dtype t) { return (enum lintab_type)t; }

static const struct lintab_row *tabled(const struct dev *d, const struct weight *w, enum dtype y, bool bias, int32_t rows, bool *user) {
    struct lintab_shape s = {.n = w->n, .k = w->k, .x = tab_type(d->act), .y = tab_type(y), .bias = bias};
    const struct lintab_row *r = d->user_part < 0 ? NULL : lintab_find(d->args.products, d->user_part, &s, rows);
    *user = r != NULL;
    return r ? r : lintab_find(&d->shipped, d->shipped_part, &s, rows);
}

static bool seen_before(const struct dev *d, int32_t at) {
    const struct dop *o = &d->ops[at];
    for (int32_t i = 0; i < at; i++) {
        const struct dop *p = &d->ops[i];
        if (multiplies(p) && p->w.n == o->w.n && p->w.k == o->w.k && output_of(d, p) == output_of(d, o) && !p->bias == !o->bias) return true;
    }
    return false;
}

/* For the log: which table, and how many of the model's products it has, counted at one row. */
static void tell(struct dev *d) {
    int32_t n = 0, by_user = 0, by_us = 0;
    for (int32_t i = 0; i < d->n_ops; i++) {
        const struct dop *o = &d->ops[i];
        if (!multiplies(o) || seen_before(d, i)) continue;
        bool user, any = tabled(d, &o->w, output_of(d, o), o->bias != NULL, 1, &user) != NULL;
        n++;
        by_user += any && user;
        by_us += any && !user;
    }
    const char *from = d->shipped_part < 0 ? "" : d->shipped.parts[d->shipped_part].name;
    if (by_user + by_us)
        snprintf(d->chosen, sizeof d->chosen, "matrix products: of %d shapes %d by your own table, %d by the program's%s%s%s, the rest by cuBLASLt's first choice", n,
                 by_user, by_us, *from ? " (made on " : "", from, *from ? ")" : "");
    else
        snprintf(d->chosen, sizeof d->chosen, "matrix products: no table for this GPU with cuBLASLt %d has these %d shapes: cuBLASLt's first choices are taken; "
                 "`minisgl tune --model M` makes one, in about a minute", (int)cublasLtGetVersion(), n);
}

int linear_prepare(struct dev *d, struct err *e) {
    for (int32_t i = 0; i < d->n_ops; i++) {
        d->op_at = i;
        if (multiplies(&d->ops[i]) && linear_describe(d, &d->ops[i], output_of(d, &d->ops[i]), e)) return -1;
    }
    d->cap_algos = 4096;
    d->algos = mem_zalloc((size_t)d->cap_algos, sizeof *d->algos);
    tell(d);
    return 0;
}

void linear_release(struct dev *d) {
    for (int32_t i = 0; i < d->n_ops; i++) linear_forget(&d->ops[i]);
    free(d->algos);
    d->algos = NULL;
    d->n_algos = 0;
}

/* ---- what cuBLASLt knows ---- */

struct sides {
    cublasLtMatrixLayoutOpaque_t x, y;
};

static struct sides sides_of(const struct dev *d, const struct linear_args *a, int32_t rows) {
    struct sides s;
    cublasLtMatrixLayoutInit(&s.x, lt_type(d->act), (uint64_t)a->op->w.k, (uint64_t)rows, a->ldx);
    cublasLtMatrixLayoutInit(&s.y, lt_type(a->y_dtype), (uint64_t)a->op->w.n, (uint64_t)rows, a->ldy);
    return s;
}

enum { PROPOSALS_MAX = 64 };

static int heuristic(struct dev *d, const struct linear_args *a, int32_t rows, cublasLtMatmulHeuristicResult_t *out, int max) {
    cublasLtMatmulPreference_t want;
    struct sides s = sides_of(d, a, rows);
    size_t workspace = WORKSPACE_BYTES;
    uint32_t align = 16;
    int n = 0;
    if (cublasLtMatmulPreferenceCreate(&want)) return 0;
    cublasLtMatmulPreferenceSetAttribute(want, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace);
    const cublasLtMatmulPreferenceAttributes_t all[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    for (int i = 0; i < 4; i++) cublasLtMatmulPreferenceSetAttribute(want, all[i], &align, sizeof align);
    cublasStatus_t rc = cublasLtMatmulAlgoGetHeuristic(d->lt, a->op->desc, a->op->layout, &s.x, &s.y, &s.y, want, max, out, &n);
    cublasLtMatmulPreferenceDestroy(want);
    return rc ? 0 : n;
}

static const struct {
    cublasLtMatmulAlgoConfigAttributes_t name;
    size_t size;
} attributes[LT_COUNT] = {
    [LT_ID] = {CUBLASLT_ALGO_CONFIG_ID, 4},           [LT_TILE] = {CUBLASLT_ALGO_CONFIG_TILE_ID, 4},
    [LT_STAGES] = {CUBLASLT_ALGO_CONFIG_STAGES_ID, 4}, [LT_SPLIT_K] = {CUBLASLT_ALGO_CONFIG_SPLITK_NUM, 4},
    [LT_REDUCTION] = {CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, 4}, [LT_SWIZZLE] = {CUBLASLT_ALGO_CONFIG_CTA_SWIZZLING, 4},
    [LT_CUSTOM] = {CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION, 4}, [LT_INNER] = {CUBLASLT_ALGO_CONFIG_INNER_SHAPE_ID, 2},
    [LT_CLUSTER] = {CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID, 2}};

int32_t linear_proposals(struct dev *d, const struct linear_args *a, struct lintab_way *out, int32_t max) {
    cublasLtMatmulHeuristicResult_t all[PROPOSALS_MAX];
    int32_t n = heuristic(d, a, a->rows, all, max < PROPOSALS_MAX ? max : PROPOSALS_MAX), good = 0;
    for (int32_t i = 0; i < n; i++) {
        struct lintab_way w = {.kind = LINTAB_LT};
        bool known = all[i].state == CUBLAS_STATUS_SUCCESS;
        for (int v = 0; v < LT_COUNT; v++) {
            size_t written; /* a smaller number fills the first bytes: this machine is little-endian */
            known &= !cublasLtMatmulAlgoConfigGetAttribute(&all[i].algo, attributes[v].name, &w.v[v], attributes[v].size, &written);
        }
        if (known) out[good++] = w;
    }
    return good;
}

static bool lt_way(struct dev *d, const struct linear_args *a, const struct lintab_way *way, cublasLtMatmulAlgo_t *out) {
    struct sides s = sides_of(d, a, a->rows);
    cudaDataType_t x = lt_type(d->act), y = lt_type(a->y_dtype);
    cublasLtMatmulHeuristicResult_t r;
    if (cublasLtMatmulAlgoInit(d->lt, CUBLAS_COMPUTE_32F, CUDA_R_32F, x, x, y, y, way->v[LT_ID], out)) return false;
    for (int v = LT_ID + 1; v < LT_COUNT; v++)
        if (cublasLtMatmulAlgoConfigSetAttribute(out, attributes[v].name, &way->v[v], attributes[v].size)) return false;
    if (cublasLtMatmulAlgoCheck(d->lt, a->op->desc, a->op->layout, &s.x, &s.y, &s.y, out, &r)) return false;
    return r.state == CUBLAS_STATUS_SUCCESS && r.workspaceSize <= WORKSPACE_BYTES;
}

/* ---- the choice ---- */

static bool gemv_takes(const struct dev *d, const struct linear_args *a) {
    return d->act != DT_F32 && a->rows <= GEMV_ROWS && a->op->w.k % 8 == 0;
}

static struct plain_args plain(const struct dev *d, const struct linear_args *a) {
    const struct weight *w = &a->op->w;
    return (struct plain_args){.x = a->x, .w = w->p, .y = a->y, .bias = a->op->vector[0], .a = d->act, .y_dtype = a->y_dtype,
                               .ldx = a->ldx, .ldw = w->ld, .ldy = a->ldy, .rows = a->rows, .n = w->n, .k = w->k};
}

bool linear_way(struct dev *d, const struct linear_args *a, const struct lintab_way *way, struct algo *out) {
    switch (way->kind) {
    case LINTAB_LT: out->way = WAY_LT; return lt_way(d, a, way, &out->algo);
    case LINTAB_GEMV: out->way = WAY_GEMV; return gemv_takes(d, a);
    case LINTAB_OWN:
        out->way = WAY_OWN, out->own = (struct own_way){way->v[OWN_TILE], way->v[OWN_SPLIT], way->v[OWN_BLOCKS]};
        return d->capability >= 90 && own_takes(plain(d, a), out->own);
    }
    return false;
}

static void choose(struct dev *d, const struct linear_args *a, struct algo *c) {
    cublasLtMatmulHeuristicResult_t first;
    bool user;
    const struct lintab_row *r = tabled(d, &a->op->w, a->y_dtype, a->op->bias != NULL, a->rows, &user);
    if (r && linear_way(d, a, &r->way, c)) return;
    c->way = WAY_PLAIN;
    if (gemv_takes(d, a)) c->way = WAY_GEMV;
    else if (heuristic(d, a, a->rows, &first, 1) == 1) c->way = WAY_LT, c->algo = first.algo;
}

static struct algo *choice(struct dev *d, const struct linear_args *a) {
    const struct weight *w = &a->op->w;
    bool bias = a->op->bias != NULL;
    uint32_t h = ((uint32_t)w->n * 31u + (uint32_t)w->k) * 31u + (uint32_t)a->rows * 2654435761u + (uint32_t)a->y_dtype * 7u + bias;
    uint32_t mask = (uint32_t)d->cap_algos - 1;
    for (uint32_t i = h ^ h >> 15;; i++) {
        struct algo *c = &d->algos[i & mask];
        if (c->rows == a->rows && c->n == w->n && c->k == w->k && c->y == a->y_dtype && c->bias == bias) return c;
        if (c->rows && d->n_algos < d->cap_algos / 2) continue;
        if (!c->rows) d->n_algos++; /* a full table forgets a choice in its way */
        *c = (struct algo){.n = w->n, .k = w->k, .rows = a->rows, .y = a->y_dtype, .bias = bias};
        choose(d, a, c);
        return c;
    }
}

int linear_with(struct dev *d, const struct linear_args *a, const struct algo *c, struct err *e) {
    const float one = 1, zero = 0;
    switch (c->way) {
    case WAY_PLAIN: k_linear_plain(plain(d, a), d->stream); return 0;
    case WAY_GEMV: k_gemv(plain(d, a), d->stream); return 0;
    case WAY_OWN: k_own(plain(d, a), c->own, d->stream); return 0;
    case WAY_LT: break;
    }
    struct sides s = sides_of(d, a, a->rows);
    cublasStatus_t rc = cublasLtMatmul(d->lt, a->op->desc, &one, a->op->w.p, a->op->layout, a->x, &s.x, &zero, a->y, &s.y, a->y, &s.y, &c->algo,
                                       d->workspace, WORKSPACE_BYTES, d->stream);
    return lt_ok(d, rc, "a product", e);
}

int linear_run(struct dev *d, const struct linear_args *args, struct err *e) {
    struct linear_args a = *args;
    a.rows = linear_rows(args->rows);
    const struct algo *c = choice(d, &a);
    if (c->way == WAY_PLAIN) a.rows = args->rows;
    return linear_with(d, &a, c, e);
}
