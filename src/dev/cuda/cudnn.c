/* cudnn.c: see cudnn.h. The computation is described to the library as it wants it: a graph of paged loads, two products, masks and a
 * softmax spelled out in single operations, which it recognizes as flash attention. Source: NVIDIA's documentation of the graph
 * API and of paged attention; the numbers below are those of its header cudnn_graph.h, which do not change. Owned by the rank
 * thread. It refuses versions before 9.10.2: 9.10.0 computes wrong in places, older ones lack cases. */
#include "dev/cuda/cudnn.h"

#include "base/mem.h"

#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum descriptor {
    POINTWISE = 0, ENGINE_CONFIG = 3, HEURISTIC = 4, PLAN = 5, OP_POINTWISE = 13, GRAPH = 15, VARIANT_PACK = 16, TENSOR = 17,
    MATMUL = 18, OP_MATMUL = 19, REDUCTION = 21, OP_REDUCTION = 22, OP_PAGED_LOAD = 35
};

enum attribute_type { HANDLE = 0, DATA_TYPE = 1, BOOLEAN = 2, INT64 = 3, FLOAT = 4, POINTER = 6, HEUR_MODE = 8, POINTWISE_MODE = 14, DESCRIPTOR = 15, REDUCE_MODE = 18 };

enum attribute {
    POINTWISE_MODE_IS = 0, POINTWISE_MATH, POINTWISE_AXIS = 9,
    HEURISTIC_MODE = 200, HEURISTIC_GRAPH, HEURISTIC_RESULTS,
    PLAN_HANDLE = 400, PLAN_CONFIG, PLAN_WORKSPACE,
    OP_POINTWISE_WHAT = 750, OP_POINTWISE_X, OP_POINTWISE_B, OP_POINTWISE_Y, OP_POINTWISE_T = 758,
    GRAPH_HANDLE = 800, GRAPH_OPS,
    TENSOR_ALIGNMENT = 900, TENSOR_TYPE, TENSOR_DIMS, TENSOR_STRIDES, TENSOR_ID = 906, TENSOR_VIRTUAL, TENSOR_BY_VALUE, TENSOR_RAGGED = 913,
    PACK_IDS = 1000, PACK_POINTERS, PACK_WORKSPACE = 1003,
    MATMUL_MATH = 1500, OP_MATMUL_A = 1520, OP_MATMUL_B, OP_MATMUL_C, OP_MATMUL_WHAT, OP_MATMUL_M = 1525, OP_MATMUL_N, OP_MATMUL_K,
    REDUCTION_MODE = 1600, REDUCTION_MATH, OP_REDUCTION_X = 1610, OP_REDUCTION_Y, OP_REDUCTION_WHAT,
    LOAD_CONTAINER = 1950, LOAD_Y, LOAD_LENGTH, LOAD_TABLE
};

enum number { F32 = 0, F16 = 2, I32 = 4, BF16 = 9, I64 = 10, BOOL = 11 };
enum pointwise { ADD = 0, MUL = 1, DIV = 6, SUB = 9, EXP = 13, LOG = 15, GREATER = 302, GREATER_EQUAL = 303, LESS = 304, AND = 400, INDEX = 501, SELECT = 601 };
enum { REDUCE_ADD = 0, REDUCE_MAX = 3, HEUR_BEST = 3 };

/* Tensors that the caller gives; others are numbered on from there. The library wants a tensor of its own for each use of the table
 * and of the lowest value. */
enum id {
    ID_Q = 1, ID_K, ID_V, ID_OUT, ID_LEN_Q, ID_LEN_KV, ID_TABLE_K, ID_TABLE_V, ID_AT_Q, ID_AT_OUT, ID_SCALE, ID_LOWEST_ENDS, ID_LOWEST_FUTURE,
    ID_LOWEST_PAST, ID_WINDOW, ID_FREE
};
enum { N_GIVEN = ID_FREE - 1 };

typedef void *thing; /* cudnnBackendDescriptor_t */

struct cudnn {
    void *lib, *handle;
    char version[32];
    size_t (*get_version)(void);
    int (*create)(void **handle);
    int (*destroy)(void *handle);
    int (*set_stream)(void *handle, cudaStream_t stream);
    int (*make)(int type, thing *out);
    int (*drop)(thing d);
    int (*finalize)(thing d);
    int (*set)(thing d, int name, int type, int64_t n, const void *values);
    int (*get)(thing d, int name, int type, int64_t want, int64_t *n, void *values);
    int (*execute)(void *handle, thing plan, thing pack);
};

/* ---- the library ---- */

static int look_up(struct cudnn *c) {
    const struct {
        const char *name;
        void *to;
    } all[] = {{"cudnnGetVersion", &c->get_version}, {"cudnnCreate", &c->create}, {"cudnnDestroy", &c->destroy}, {"cudnnSetStream", &c->set_stream},
               {"cudnnBackendCreateDescriptor", &c->make}, {"cudnnBackendDestroyDescriptor", &c->drop}, {"cudnnBackendFinalize", &c->finalize},
               {"cudnnBackendSetAttribute", &c->set}, {"cudnnBackendGetAttribute", &c->get}, {"cudnnBackendExecute", &c->execute}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (!(*(void **)all[i].to = dlsym(c->lib, all[i].name))) return -1;
    return 0;
}

void cudnn_close(struct cudnn *c) {
    if (!c) return;
    if (c->handle) c->destroy(c->handle);
    free(c); /* the library stays: others may have it, and its threads */
}

int cudnn_open(struct cudnn **out, cudaStream_t stream, struct err *e) {
    struct cudnn *c = mem_zalloc(1, sizeof *c);
    int bad = 0;
    if (!(c->lib = dlopen("libcudnn.so.9", RTLD_NOW | RTLD_LOCAL))) bad = err_input(e, "libcudnn.so.9 is not found");
    else if (look_up(c) || c->get_version() < CUDNN_OLDEST) bad = err_input(e, "its cuDNN is older than 9.10.2");
    else if (c->create(&c->handle) || c->set_stream(c->handle, stream)) bad = err_input(e, "cuDNN does not start on this GPU");
    if (bad) {
        cudnn_close(c);
        return -1;
    }
    size_t v = c->get_version();
    snprintf(c->version, sizeof c->version, "%zu.%zu.%zu", v / 10000, v / 100 % 100, v % 100);
    *out = c;
    return 0;
}

const char *cudnn_version(const struct cudnn *c) { return c->version; }

/* ---- describing the computation ---- */

enum { THINGS_MAX = 160, OPS_MAX = 40 };

/* What is built up; status is the first error, after which all else does nothing. */
struct sketch {
    struct cudnn *c;
    const struct cudnn_shape *s;
    int64_t scores[4]; /* chunks, heads, their tokens, positions */
    thing all[THINGS_MAX], ops[OPS_MAX];
    int n_all, n_ops, status;
    int64_t next_id;
};

static thing make(struct sketch *k, enum descriptor type) {
    thing d = NULL;
    if (!k->status && k->n_all == THINGS_MAX) k->status = -1;
    if (k->status) return NULL;
    k->status = k->c->make((int)type, &d);
    if (!k->status) k->all[k->n_all++] = d;
    return d;
}

static void set(struct sketch *k, thing d, enum attribute name, enum attribute_type type, int64_t n, const void *values) {
    if (!k->status) k->status = k->c->set(d, (int)name, (int)type, n, values);
}

static void set_int(struct sketch *k, thing d, enum attribute name, enum attribute_type type, int value) { set(k, d, name, type, 1, &value); }
static void set_thing(struct sketch *k, thing d, enum attribute name, thing value) {
    if (value) set(k, d, name, DESCRIPTOR, 1, &value);
}
static void set_flag(struct sketch *k, thing d, enum attribute name) { set(k, d, name, BOOLEAN, 1, &(bool){true}); }

static void finish(struct sketch *k, thing d) {
    if (!k->status) k->status = k->c->finalize(d);
}

static void finish_op(struct sketch *k, thing op) {
    finish(k, op);
    if (!k->status && k->n_ops == OPS_MAX) k->status = -1;
    if (!k->status) k->ops[k->n_ops++] = op;
}

struct form {
    enum number type;
    int64_t id; /* 0: a value inside */
    bool by_value;
    int64_t dims[4], strides[4];
    thing ragged;
};

static thing tensor(struct sketch *k, struct form f) {
    thing t = make(k, TENSOR);
    int64_t align = 16, id = f.id ? f.id : k->next_id++;
    set_int(k, t, TENSOR_TYPE, DATA_TYPE, (int)f.type);
    set(k, t, TENSOR_DIMS, INT64, 4, f.dims);
    set(k, t, TENSOR_STRIDES, INT64, 4, f.strides);
    set(k, t, TENSOR_ID, INT64, 1, &id);
    set(k, t, TENSOR_ALIGNMENT, INT64, 1, &align);
    if (!f.id) set_flag(k, t, TENSOR_VIRTUAL);
    if (f.by_value) set_flag(k, t, TENSOR_BY_VALUE);
    set_thing(k, t, TENSOR_RAGGED, f.ragged);
    finish(k, t);
    return t;
}

static thing scalar(struct sketch *k, int64_t id, enum number type) {
    return tensor(k, (struct form){.type = type, .id = id, .by_value = true, .dims = {1, 1, 1, 1}, .strides = {1, 1, 1, 1}});
}

static thing list(struct sketch *k, int64_t id, enum number type, int64_t n) {
    return tensor(k, (struct form){.type = type, .id = id, .dims = {n, 1, 1, 1}, .strides = {1, 1, 1, 1}});
}

/* A value for every score. */
static thing inner(struct sketch *k, enum number type) {
    const int64_t *n = k->scores;
    return tensor(k, (struct form){.type = type, .dims = {n[0], n[1], n[2], n[3]}, .strides = {n[1] * n[2] * n[3], n[2] * n[3], n[3], 1}});
}

/* A value for every row of scores. */
static thing inner_row(struct sketch *k) {
    const int64_t *n = k->scores;
    return tensor(k, (struct form){.type = F32, .dims = {n[0], n[1], n[2], 1}, .strides = {n[1] * n[2], n[2], 1, 1}});
}

/* axis: of INDEX; b, t: NULL where the mode has fewer inputs. */
static thing pointwise_along(struct sketch *k, enum pointwise mode, enum number math, int64_t axis, thing x, thing b, thing t, thing y) {
    thing what = make(k, POINTWISE), op;
    set_int(k, what, POINTWISE_MODE_IS, POINTWISE_MODE, (int)mode);
    set_int(k, what, POINTWISE_MATH, DATA_TYPE, (int)math);
    if (mode == INDEX) set(k, what, POINTWISE_AXIS, INT64, 1, &axis);
    finish(k, what);
    op = make(k, OP_POINTWISE);
    set_thing(k, op, OP_POINTWISE_WHAT, what);
    set_thing(k, op, OP_POINTWISE_X, x);
    set_thing(k, op, OP_POINTWISE_B, b);
    set_thing(k, op, OP_POINTWISE_T, t);
    set_thing(k, op, OP_POINTWISE_Y, y);
    finish_op(k, op);
    return y;
}

static thing pointwise(struct sketch *k, enum pointwise mode, enum number math, thing x, thing b, thing t, thing y) {
    return pointwise_along(k, mode, math, 0, x, b, t, y);
}

/* The number of each score's row (axis 2) or column (axis 3). */
static thing index_of(struct sketch *k, thing x, int64_t axis, enum number math) {
    return pointwise_along(k, INDEX, math, axis, x, NULL, NULL, inner(k, I32));
}

static thing reduce(struct sketch *k, int mode, thing x) {
    thing what = make(k, REDUCTION), op, y = inner_row(k);
    set_int(k, what, REDUCTION_MODE, REDUCE_MODE, mode);
    set_int(k, what, REDUCTION_MATH, DATA_TYPE, F32);
    finish(k, what);
    op = make(k, OP_REDUCTION);
    set_thing(k, op, OP_REDUCTION_WHAT, what);
    set_thing(k, op, OP_REDUCTION_X, x);
    set_thing(k, op, OP_REDUCTION_Y, y);
    finish_op(k, op);
    return y;
}

struct product {
    thing a, b, c, m, n, k; /* m, n, k: real sizes on the device, or NULL */
};

static void product(struct sketch *k, struct product p) {
    thing what = make(k, MATMUL), op;
    set_int(k, what, MATMUL_MATH, DATA_TYPE, F32);
    finish(k, what);
    op = make(k, OP_MATMUL);
    set_thing(k, op, OP_MATMUL_A, p.a);
    set_thing(k, op, OP_MATMUL_B, p.b);
    set_thing(k, op, OP_MATMUL_C, p.c);
    set_thing(k, op, OP_MATMUL_WHAT, what);
    set_thing(k, op, OP_MATMUL_M, p.m);
    set_thing(k, op, OP_MATMUL_N, p.n);
    set_thing(k, op, OP_MATMUL_K, p.k);
    finish_op(k, op);
}

static enum number number_of(const struct cudnn_shape *s) { return s->a == DT_BF16 ? BF16 : F16; }

/* K (turned: positions last) or V of each chunk, out of its pages. */
static thing paged(struct sketch *k, enum id id, enum id table_id, thing len, bool turned) {
    const struct cudnn_shape *s = k->s;
    int64_t B = k->scores[0], K = s->n_kv_heads, D = s->head_dim, P = s->page_size, L = k->scores[3], T = s->table_len;
    thing table = tensor(k, (struct form){.type = I32, .id = (int64_t)table_id, .dims = {B, 1, T, 1}, .strides = {T, T, 1, 1}});
    thing pages = tensor(k, (struct form){.type = number_of(s), .id = (int64_t)id, .dims = {s->n_pages, K, P, D}, .strides = {2 * K * P * D, P * D, D, 1}});
    struct form straight = {.type = number_of(s), .dims = {B, K, L, D}, .strides = {K * L * D, L * D, D, 1}};
    struct form across = {.type = number_of(s), .dims = {B, K, D, L}, .strides = {K * L * D, L * D, 1, D}};
    thing y = tensor(k, turned ? across : straight), op = make(k, OP_PAGED_LOAD);
    set_thing(k, op, LOAD_CONTAINER, pages);
    set_thing(k, op, LOAD_Y, y);
    set_thing(k, op, LOAD_LENGTH, len);
    set_thing(k, op, LOAD_TABLE, table);
    finish_op(k, op);
    return y;
}

static thing rows_of(struct sketch *k, enum id id, thing at, int64_t ld) {
    const struct cudnn_shape *s = k->s;
    return tensor(k, (struct form){.type = number_of(s), .id = (int64_t)id, .ragged = at, .dims = {k->scores[0], s->n_heads, k->scores[2], s->head_dim},
                                   .strides = {ld * k->scores[2], s->head_dim, ld, 1}});
}

/* Nothing beyond a chunk's own tokens and positions. */
static thing mask_ends(struct sketch *k, thing x, thing len_q, thing len_kv) {
    thing row = index_of(k, x, 2, I32), col = index_of(k, x, 3, I32);
    thing in_q = pointwise(k, LESS, BOOL, row, len_q, NULL, inner(k, BOOL));
    thing in_kv = pointwise(k, LESS, BOOL, col, len_kv, NULL, inner(k, BOOL));
    thing in = pointwise(k, AND, BOOL, in_q, in_kv, NULL, inner(k, BOOL));
    return pointwise(k, SELECT, F32, x, scalar(k, ID_LOWEST_ENDS, F32), in, inner(k, F32));
}

/* Row r of a chunk is position r + len_kv - len_q, and sees no later one. */
static thing mask_future(struct sketch *k, thing x, thing len_q, thing len_kv) {
    thing row = index_of(k, x, 2, F32), col = index_of(k, x, 3, F32);
    row = pointwise(k, ADD, I32, row, len_kv, NULL, inner(k, I32));
    row = pointwise(k, SUB, I32, row, len_q, NULL, inner(k, I32));
    thing seen = pointwise(k, GREATER_EQUAL, BOOL, row, col, NULL, inner(k, BOOL));
    return pointwise(k, SELECT, F32, x, scalar(k, ID_LOWEST_FUTURE, F32), seen, inner(k, F32));
}

/* Nor one that is `window` or more before. */
static thing mask_past(struct sketch *k, thing x, thing len_q, thing len_kv) {
    thing row = index_of(k, x, 2, F32), col = index_of(k, x, 3, F32);
    col = pointwise(k, ADD, I32, col, scalar(k, ID_WINDOW, I32), NULL, inner(k, I32));
    col = pointwise(k, SUB, I32, col, len_kv, NULL, inner(k, I32));
    col = pointwise(k, ADD, I32, col, len_q, NULL, inner(k, I32));
    thing seen = pointwise(k, GREATER, BOOL, col, row, NULL, inner(k, BOOL));
    return pointwise(k, SELECT, F32, x, scalar(k, ID_LOWEST_PAST, F32), seen, inner(k, F32));
}

/* The logarithm of each row's sum is nobody's, but the library's kernel writes it somewhere when the graph does not have it. */
static thing softmax(struct sketch *k, thing x) {
    thing most = reduce(k, REDUCE_MAX, x);
    thing less = pointwise(k, SUB, F32, x, most, NULL, inner(k, F32));
    thing w = pointwise(k, EXP, F32, less, NULL, NULL, inner(k, F32));
    thing sum = reduce(k, REDUCE_ADD, w);
    thing log_sum = pointwise(k, LOG, F32, sum, NULL, NULL, inner_row(k));
    pointwise(k, ADD, F32, most, log_sum, NULL, inner_row(k));
    return pointwise(k, DIV, F32, w, sum, NULL, inner(k, number_of(k->s)));
}

static void describe(struct sketch *k) {
    const struct cudnn_shape *s = k->s;
    int64_t B = k->scores[0];
    thing len_q = list(k, ID_LEN_Q, I32, B), len_kv = list(k, ID_LEN_KV, I32, B);
    thing q = rows_of(k, ID_Q, list(k, ID_AT_Q, I64, B + 1), s->ldq), out = rows_of(k, ID_OUT, list(k, ID_AT_OUT, I64, B + 1), s->ldo);
    thing keys = paged(k, ID_K, ID_TABLE_K, len_kv, true), x = inner(k, F32);
    product(k, (struct product){.a = q, .b = keys, .c = x, .m = len_q, .n = len_kv});
    x = pointwise(k, MUL, F32, x, scalar(k, ID_SCALE, F32), NULL, inner(k, F32));
    x = mask_ends(k, x, len_q, len_kv);
    x = mask_future(k, x, len_q, len_kv);
    if (s->window > 0) x = mask_past(k, x, len_q, len_kv);
    x = softmax(k, x);
    thing values = paged(k, ID_V, ID_TABLE_V, len_kv, false);
    product(k, (struct product){.a = x, .b = values, .c = out, .m = len_q, .k = len_kv});
}

/* ---- a plan ---- */

struct cudnn_plan {
    struct cudnn *c;
    thing plan, parts[THINGS_MAX]; /* what it was made of, which it may still look at */
    int n_parts;
    int64_t workspace;
    float scale, lowest;
    int32_t window;
};

/* The first of the library's proposals that it can really build. */
static thing build(struct sketch *k, thing graph) {
    enum { PROPOSALS = 8 };
    thing heuristic = make(k, HEURISTIC), configs[PROPOSALS], plan = NULL;
    int64_t n = 0;
    set_int(k, heuristic, HEURISTIC_MODE, HEUR_MODE, HEUR_BEST);
    set_thing(k, heuristic, HEURISTIC_GRAPH, graph);
    finish(k, heuristic);
    for (int i = 0; i < PROPOSALS; i++) configs[i] = make(k, ENGINE_CONFIG);
    if (!k->status) k->status = k->c->get(heuristic, HEURISTIC_RESULTS, DESCRIPTOR, PROPOSALS, &n, configs);
    if (k->status) return NULL;
    for (int64_t i = 0; i < n; i++) {
        if ((k->status = k->c->make(PLAN, &plan))) return NULL;
        set(k, plan, PLAN_HANDLE, HANDLE, 1, &k->c->handle);
        set_thing(k, plan, PLAN_CONFIG, configs[i]);
        finish(k, plan);
        if (!k->status) return plan;
        k->c->drop(plan);
        k->status = 0;
    }
    return NULL;
}

static thing plan_of(struct sketch *k) {
    describe(k);
    thing graph = make(k, GRAPH);
    set(k, graph, GRAPH_HANDLE, HANDLE, 1, &k->c->handle);
    set(k, graph, GRAPH_OPS, DESCRIPTOR, k->n_ops, k->ops);
    finish(k, graph);
    return build(k, graph);
}

static void drop_all(const struct cudnn *c, const thing *all, int n) {
    while (n > 0) c->drop(all[--n]);
}

int cudnn_plan_new(struct cudnn_plan **out, struct cudnn *c, const struct cudnn_shape *s, struct err *e) {
    int64_t len = (int64_t)s->table_len * s->page_size, chunk = s->max_tokens < len ? s->max_tokens : len, n = 0;
    struct sketch k = {.c = c, .s = s, .scores = {CUDNN_SEQS, s->n_heads, chunk, len}, .next_id = ID_FREE};
    struct cudnn_plan *p = mem_zalloc(1, sizeof *p);
    thing plan = plan_of(&k);
    *p = (struct cudnn_plan){.c = c, .plan = plan, .scale = s->scale, .lowest = -INFINITY, .window = s->window, .n_parts = k.n_all};
    memcpy(p->parts, k.all, sizeof k.all);
    if (plan && !c->get(plan, PLAN_WORKSPACE, INT64, 1, &n, &p->workspace)) {
        *out = p;
        return 0;
    }
    cudnn_plan_free(p);
    return err_input(e, "cuDNN %s computes no attention of %d and %d heads of %d with pages of %d on this GPU (status %d)", c->version, s->n_heads,
                     s->n_kv_heads, s->head_dim, s->page_size, k.status);
}

void cudnn_plan_free(struct cudnn_plan *p) {
    if (!p) return;
    if (p->plan) p->c->drop(p->plan);
    drop_all(p->c, p->parts, p->n_parts);
    free(p);
}

size_t cudnn_plan_workspace(const struct cudnn_plan *p) { return (size_t)p->workspace; }

int cudnn_run(struct cudnn_plan *p, const struct cudnn_run *r) {
    static const int64_t ids[N_GIVEN] = {ID_Q, ID_K, ID_V, ID_OUT, ID_LEN_Q, ID_LEN_KV, ID_TABLE_K, ID_TABLE_V, ID_AT_Q, ID_AT_OUT, ID_SCALE,
                                         ID_LOWEST_ENDS, ID_LOWEST_FUTURE, ID_LOWEST_PAST, ID_WINDOW};
    const void *const at[N_GIVEN] = {r->q, r->k, r->v, r->out, r->lists.len_q, r->lists.len_kv, r->lists.table, r->lists.table, r->lists.at_q,
                                     r->lists.at_out, &p->scale, &p->lowest, &p->lowest, &p->lowest, &p->window};
    struct cudnn *c = p->c;
    int64_t n = p->window > 0 ? N_GIVEN : N_GIVEN - 2;
    thing pack = NULL;
    int rc = c->make(VARIANT_PACK, &pack);
    if (rc) return rc;
    rc = c->set(pack, PACK_IDS, INT64, n, ids);
    if (!rc) rc = c->set(pack, PACK_POINTERS, POINTER, n, at);
    if (!rc) rc = c->set(pack, PACK_WORKSPACE, POINTER, 1, &r->workspace);
    if (!rc) rc = c->finalize(pack);
    if (!rc) rc = c->execute(c->handle, p->plan, pack);
    c->drop(pack);
    return rc;
}
