/* linear.c: OP_LINEAR by cuBLASLt: y = x . w^T + bias as one product of column-major matrices, f32 sums. The library's first choice
 * for (n, k, rows, bias) is asked once and kept; rows come in steps (linear_rows), so that a server asks a bounded number of
 * times. Few rows go to our own matrix-vector kernel, which reads the weights at memory speed; what the library refuses to our plain
 * kernel. Runs on the rank thread. */
#include "base/mem.h"
#include "dev/cuda/cuda.h"

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

static int prepare(struct dev *d, struct dop *o, struct err *e) {
    cublasOperation_t t = CUBLAS_OP_T;
    cublasLtEpilogue_t bias = CUBLASLT_EPILOGUE_BIAS;
    cudaDataType_t type = lt_type(output_of(d, o));
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

int linear_prepare(struct dev *d, struct err *e) {
    for (int32_t i = 0; i < d->n_ops; i++) {
        d->op_at = i;
        if ((d->ops[i].o->kind == OP_LINEAR || d->ops[i].o->kind == OP_MOE) && prepare(d, &d->ops[i], e)) return -1;
    }
    d->cap_algos = 4096;
    d->algos = mem_zalloc((size_t)d->cap_algos, sizeof *d->algos);
    return 0;
}

void linear_release(struct dev *d) {
    for (int32_t i = 0; i < d->n_ops; i++) {
        if (d->ops[i].desc) cublasLtMatmulDescDestroy(d->ops[i].desc);
        if (d->ops[i].layout) cublasLtMatrixLayoutDestroy(d->ops[i].layout);
    }
    free(d->algos);
    d->algos = NULL;
    d->n_algos = 0;
}

/* ---- the choice ---- */

static void ask(struct dev *d, struct algo *c, const struct linear_args *a, cublasLtMatrixLayout_t x, cublasLtMatrixLayout_t y) {
    cublasLtMatmulPreference_t want;
    cublasLtMatmulHeuristicResult_t best;
    size_t workspace = WORKSPACE_BYTES;
    uint32_t align = 16;
    int n = 0;
    c->plain = true;
    if (cublasLtMatmulPreferenceCreate(&want)) return;
    cublasLtMatmulPreferenceSetAttribute(want, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace);
    const cublasLtMatmulPreferenceAttributes_t sides[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    for (int i = 0; i < 4; i++) cublasLtMatmulPreferenceSetAttribute(want, sides[i], &align, sizeof align);
    cublasStatus_t rc = cublasLtMatmulAlgoGetHeuristic(d->lt, a->op->desc, a->op->layout, x, y, y, want, 1, &best, &n);
    if (!rc && n) {
        c->algo = best.algo;
        c->plain = false;
    }
    cublasLtMatmulPreferenceDestroy(want);
}

static struct algo *choice(struct dev *d, const struct linear_args *a, int32_t rows, cublasLtMatrixLayout_t x, cublasLtMatrixLayout_t y) {
    const struct weight *w = &a->op->w;
    bool bias = a->op->bias != NULL;
    uint32_t h = ((uint32_t)w->n * 31u + (uint32_t)w->k) * 31u + (uint32_t)rows * 2654435761u + (uint32_t)a->y_dtype * 7u + bias;
    uint32_t mask = (uint32_t)d->cap_algos - 1;
    for (uint32_t i = h ^ h >> 15;; i++) {
        struct algo *c = &d->algos[i & mask];
        if (c->rows == rows && c->n == w->n && c->k == w->k && c->y == a->y_dtype && c->bias == bias) return c;
        if (c->rows && d->n_algos < d->cap_algos / 2) continue;
        if (!c->rows) d->n_algos++; /* a full table forgets a choice in its way */
        *c = (struct algo){.n = w->n, .k = w->k, .rows = rows, .y = a->y_dtype, .bias = bias};
        ask(d, c, a, x, y);
        return c;
    }
}

static struct plain_args plain(const struct dev *d, const struct linear_args *a, int32_t rows) {
    const struct weight *w = &a->op->w;
    return (struct plain_args){.x = a->x, .w = w->p, .y = a->y, .bias = a->op->vector[0], .a = d->act, .y_dtype = a->y_dtype,
                               .ldx = a->ldx, .ldw = w->ld, .ldy = a->ldy, .rows = rows, .n = w->n, .k = w->k};
}

int linear_run(struct dev *d, const struct linear_args *a, struct err *e) {
    const struct weight *w = &a->op->w;
    int32_t rows = linear_rows(a->rows);
    if (d->act != DT_F32 && rows <= GEMV_ROWS && w->k % 8 == 0) {
        k_gemv(plain(d, a, rows), d->stream);
        return 0;
    }
    cublasLtMatrixLayoutOpaque_t x, y;
    cublasLtMatrixLayoutInit(&x, lt_type(d->act), (uint64_t)w->k, (uint64_t)rows, a->ldx);
    cublasLtMatrixLayoutInit(&y, lt_type(a->y_dtype), (uint64_t)w->n, (uint64_t)rows, a->ldy);
    struct algo *c = choice(d, a, rows, &x, &y);
    if (c->plain) {
        k_linear_plain(plain(d, a, a->rows), d->stream);
        return 0;
    }
    const float one = 1, zero = 0;
    cublasStatus_t rc = cublasLtMatmul(d->lt, a->op->desc, &one, w->p, a->op->layout, a->x, &x, &zero, a->y, &y, a->y, &y, &c->algo,
                                       d->workspace, WORKSPACE_BYTES, d->stream);
    return lt_ok(d, rc, "a product", e);
}
